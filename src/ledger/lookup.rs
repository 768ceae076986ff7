//! What Postgres says of a reservation that Redis does not know: finished records age out after their retention, and
//! a lost Redis forgets. Rows and partition are read in one snapshot; a row of another life than the one that
//! answered UNKNOWN proves nothing, so the gate closes and the call runs again.

use tokio::time::{Instant, timeout_at};

use super::{Outcome, Refusal, calls::Definite, gate::Doubt, shard::Shard};
use crate::{
    quota::{Flags, Kind, Reservation, ReservationId, State, Transaction, UserId, transaction_id},
    store::{LedgerRow, PartitionState, Store},
};

/// See the module.
#[derive(Debug)]
pub enum Found {
    /// Nothing is booked under this id.
    Nothing,
    /// Charged in full: this is the answer. `total` is the sum of its rows.
    Charged { total: u64, transaction: Transaction },
    /// Only its expiry has been charged, this much.
    Expired { charged: u64, transaction: Transaction },
    /// The answer was of a life that has ended: run the call again.
    OtherLife,
}

/// Asks for one id.
///
/// # Errors
/// `Unavailable`, with nothing done, when Postgres does not answer by the deadline.
pub async fn find(
    store: &Store,
    shard: &Shard,
    from: &Definite,
    (user, id): (UserId, &ReservationId),
    deadline: Instant,
) -> Result<Found, Refusal> {
    let unavailable = Refusal::Unavailable { outcome: Outcome::None };
    let asked = timeout_at(deadline, store.transactions_of(shard.id, user, id)).await;
    let found = asked.map_err(|_| unavailable.clone())?.map_err(|error| {
        tracing::warn!(%error, "the ledger cannot be asked");
        unavailable.clone()
    })?;
    let (rows, row) = found.ok_or(unavailable)?;
    let same_life = row.state == PartitionState::Open
        && row.epoch == from.pass.epoch
        && row.run_id.as_deref() == Some(&*from.pass.run_id);
    if !same_life {
        shard.gate.doubt(&from.pass, Doubt::Recheck);
        return Ok(Found::OtherLife);
    }
    Ok(summarize(user, id, &rows))
}

fn summarize(user: UserId, id: &ReservationId, rows: &[LedgerRow]) -> Found {
    let total = rows.iter().map(|row| row.tokens).sum::<i64>().max(0).unsigned_abs();
    let Some(last) = rows.iter().max_by_key(|row| rank(row.kind)) else { return Found::Nothing };
    let transaction = Transaction {
        id: transaction_id(user, id, last.kind),
        reservation: id.clone(),
        kind: last.kind,
        tokens: total,
        model: last.model.clone(),
        flags: last.flags,
        settled_at_ms: at_ms(last),
    };
    if last.kind == Kind::Expiry {
        Found::Expired { charged: total, transaction }
    } else {
        Found::Charged { total, transaction }
    }
}

/// The kind that has the last word about a reservation.
fn rank(kind: Kind) -> u8 {
    match kind {
        Kind::Expiry => 0,
        Kind::Debit | Kind::Settle => 1,
        Kind::Correction => 2,
    }
}

fn at_ms(row: &LedgerRow) -> u64 {
    u64::try_from(row.at.as_millisecond()).unwrap_or_default()
}

/// A finished reservation as the ledger remembers it: what was charged and when. What it held, and until when, left
/// with its record.
pub fn reservation(id: ReservationId, transaction: Transaction) -> Reservation {
    Reservation {
        id,
        state: if transaction.kind == Kind::Expiry { State::Expired } else { State::Settled },
        tokens: 0,
        used_tokens: if transaction.flags.contains(Flags::ESTIMATED) { transaction.tokens } else { 0 },
        charged_tokens: Some(transaction.tokens),
        model: transaction.model,
        metadata: None,
        reserved_at_ms: transaction.settled_at_ms,
        expires_at_ms: transaction.settled_at_ms,
    }
}
