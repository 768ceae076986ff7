//! Entries as columns, so that a whole batch is one statement.

use std::collections::{BTreeMap, HashSet};

use serde_json::json;
use uuid::Uuid;

use crate::quota::{Entry, Kind, MAX_OPERATION_TOKENS, OutboxId, PartitionId, UserId};
use crate::store::DeadReason;

/// Latest time that both ends can tell, in the last days of the year 9999: beyond it is a broken clock, not a time.
const MAX_AT_MS: u64 = 253_402_207_200_000;

/// Why no row can be made of an entry, by the same rules as the constraints of `token_transactions`. Checked here so
/// that a whole batch of such entries does not have to be bisected one by one.
pub(super) fn flaw(entry: &Entry) -> Option<&'static str> {
    let fits = |part: Option<u64>| part.is_none_or(|tokens| i64::try_from(tokens).is_ok());
    if entry.tokens.unsigned_abs() > MAX_OPERATION_TOKENS {
        Some("the amount is out of range")
    } else if entry.tokens < 0 && entry.kind != Kind::Correction {
        Some("only a correction gives back")
    } else if ![entry.input_tokens, entry.output_tokens, entry.cached_input_tokens].into_iter().all(fits) {
        Some("a part of the usage is out of range")
    } else if entry.at_ms > MAX_AT_MS {
        Some("the time is out of range")
    } else if i64::try_from(entry.outbox_id.sequence).is_err()
        || i64::try_from(entry.outbox_id.nonce).is_err()
    {
        Some("the outbox id is out of range")
    } else {
        None
    }
}

/// Columns of `token_transactions`, all of one length.
#[derive(Default)]
pub(super) struct RowColumns<'a> {
    pub ids: Vec<Uuid>,
    pub users: Vec<Uuid>,
    pub reservations: Vec<&'a str>,
    pub kinds: Vec<&'static str>,
    pub tokens: Vec<i64>,
    pub models: Vec<Option<&'a str>>,
    pub request_ids: Vec<Option<&'a str>>,
    pub input_tokens: Vec<Option<i64>>,
    pub output_tokens: Vec<Option<i64>>,
    pub cached_tokens: Vec<Option<i64>>,
    pub flags: Vec<i16>,
    pub metadata: Vec<Option<&'a str>>,
    pub at_ms: Vec<i64>,
    pub outbox_sequences: Vec<i64>,
    pub outbox_nonces: Vec<i64>,
}

impl<'a> RowColumns<'a> {
    /// Entries have no [`flaw`], so that no cast here changes a value.
    pub fn new(entries: &[&'a Entry]) -> Self {
        let mut columns = Self::default();
        for entry in entries {
            columns.ids.push(entry.transaction_id());
            columns.users.push(entry.user.0);
            columns.reservations.push(entry.reservation.as_str());
            columns.kinds.push(entry.kind.as_str());
            columns.tokens.push(entry.tokens);
            columns.models.push(entry.model.as_ref().map(|model| model.as_str()));
            columns.request_ids.push(entry.request_id.as_ref().map(|id| id.as_str()));
            columns.input_tokens.push(entry.input_tokens.map(u64::cast_signed));
            columns.output_tokens.push(entry.output_tokens.map(u64::cast_signed));
            columns.cached_tokens.push(entry.cached_input_tokens.map(u64::cast_signed));
            columns.flags.push(i16::from(entry.flags.0));
            columns.metadata.push(entry.metadata.as_ref().map(|metadata| metadata.as_str()));
            columns.at_ms.push(entry.at_ms.cast_signed());
            columns.outbox_sequences.push(entry.outbox_id.sequence.cast_signed());
            columns.outbox_nonces.push(entry.outbox_id.nonce.cast_signed());
        }
        columns
    }
}

/// What each account spends in these rows, by account id.
pub(super) fn spend_by_account(entries: &[&Entry]) -> (Vec<Uuid>, Vec<i64>) {
    let mut sums = BTreeMap::<Uuid, i64>::new();
    for entry in entries {
        let sum = sums.entry(entry.user.0).or_default();
        // Ten thousand entries of 10^12 are far from the end of an i64.
        *sum = sum.saturating_add(entry.tokens);
    }
    sums.into_iter().unzip()
}

/// Accounts of these entries, each once, in the order in which they are locked.
pub(super) fn accounts(entries: &[&Entry]) -> Vec<Uuid> {
    let mut ids: Vec<Uuid> = entries.iter().map(|entry| entry.user.0).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// Reservations of these entries, each once, as two columns.
pub(in crate::store) fn reservations<'a>(
    pairs: impl Iterator<Item = (UserId, &'a str)>,
) -> (Vec<Uuid>, Vec<&'a str>) {
    let distinct: HashSet<(UserId, &str)> = pairs.collect();
    distinct.into_iter().map(|(user, reservation)| (user.0, reservation)).unzip()
}

/// Outbox ids as two columns. Bit casts: Postgres has no unsigned type, and an id that is out of range must still be
/// found among the dead letters.
pub(in crate::store) fn outbox_ids(ids: impl Iterator<Item = OutboxId>) -> (Vec<i64>, Vec<i64>) {
    ids.map(|id| (id.sequence.cast_signed(), id.nonce.cast_signed())).unzip()
}

/// Columns of `dead_letters`, all of one length.
#[derive(Default)]
pub(in crate::store) struct DeadColumns<'a> {
    pub outbox_sequences: Vec<i64>,
    pub outbox_nonces: Vec<i64>,
    pub users: Vec<Uuid>,
    pub reservations: Vec<&'a str>,
    pub kinds: Vec<&'static str>,
    pub tokens: Vec<i64>,
    pub entries: Vec<String>,
    pub reasons: Vec<&'static str>,
    pub details: Vec<Option<String>>,
}

impl<'a> DeadColumns<'a> {
    /// Adds an entry of which the ledger leaves out `tokens`.
    pub fn push(
        &mut self,
        partition: PartitionId,
        entry: &'a Entry,
        tokens: i64,
        reason: DeadReason,
        detail: Option<String>,
    ) {
        self.outbox_sequences.push(entry.outbox_id.sequence.cast_signed());
        self.outbox_nonces.push(entry.outbox_id.nonce.cast_signed());
        self.users.push(entry.user.0);
        self.reservations.push(entry.reservation.as_str());
        self.kinds.push(entry.kind.as_str());
        self.tokens.push(tokens);
        self.entries.push(as_json(partition, entry));
        self.reasons.push(reason.as_str());
        self.details.push(detail);
    }

    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }
}

/// The whole entry for an operator. Metadata goes in as a text, since `jsonb` refuses some valid JSON.
fn as_json(partition: PartitionId, entry: &Entry) -> String {
    let lines: Vec<_> = entry
        .lines
        .iter()
        .map(|line| json!({"budget": line.budget.kind(), "owner": line.budget.owner().to_string(), "amount": line.amount}))
        .collect();
    json!({
        "partition": partition.0,
        "outbox_id": entry.outbox_id.to_string(),
        "user_id": entry.user.to_string(),
        "reservation_id": entry.reservation.as_str(),
        "kind": entry.kind.as_str(),
        "tokens": entry.tokens,
        "flags": entry.flags.names(),
        "at_ms": entry.at_ms,
        "model": entry.model.as_ref().map(|model| model.as_str()),
        "request_id": entry.request_id.as_ref().map(|id| id.as_str()),
        "input_tokens": entry.input_tokens,
        "output_tokens": entry.output_tokens,
        "cached_input_tokens": entry.cached_input_tokens,
        "metadata": entry.metadata.as_ref().map(|metadata| metadata.as_str()),
        "lines": lines,
    })
    .to_string()
}
