//! Making up for what Postgres lost when it went back to an earlier state (`protocol.md` §5).
//!
//! Runs within a recovery, when the outbox has been drained and the budgets of the life before still lie in Redis. Then
//! what Redis counts as spent of an account is what the ledger has, and more only if the ledger has lost rows: that is
//! booked as one debit, which names this recovery. Booking it raises what the ledger has, so an attempt that is repeated
//! finds nothing left.
//!
//! Grants that are lost cannot be told from Redis alone (bought, given, for what?): they are named in the log, for
//! somebody to enter again under their old keys.

use redis::Value;
use tokio::time::sleep;

use super::{
    recovery::{Recovery, RecoveryError},
    wire::StoredBudget,
};
use crate::{
    metrics,
    quota::{BudgetId, Entry, Flags, Kind, Line, OutboxId, ReservationId, UserId},
    store::{Booker, Booking, Standing},
};

/// Accounts of one look at both stores.
const PAGE: u32 = 1_000;

/// How the debits' ids begin; the epoch of the recovery follows.
const NAME: &str = "cota-restored";

/// What was found of one partition.
#[derive(Clone, Copy, Debug, Default)]
struct Found {
    accounts: u64,
    tokens: u64,
    without_grants: u64,
}

/// The recovery that makes up, and the highest outbox sequence that is known.
pub struct MakeUp<'a> {
    pub recovery: &'a Recovery<'a>,
    pub epoch: u64,
    pub outbox_sequence: u64,
}

impl MakeUp<'_> {
    /// Holds every account of the partition against Redis, if the partition is marked.
    pub async fn run(&self) -> Result<(), RecoveryError> {
        let (store, partition) = (&self.recovery.keeper.store, self.recovery.shard.id);
        let Some(mark) = store.restored_mark(partition).await? else { return Ok(()) };
        let mut found = Found::default();
        let mut after = UserId(uuid::Uuid::nil());
        loop {
            let page = store.standings(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.user;
            let shards = &self.recovery.keeper.shards;
            let ours: Vec<Standing> =
                page.into_iter().filter(|standing| shards.of(standing.user).id == partition).collect();
            self.page(&ours, &mut found).await?;
        }
        let Found { accounts, tokens, without_grants } = found;
        tracing::error!(
            partition = partition.0,
            accounts,
            tokens,
            without_grants,
            "Postgres had gone back to an earlier state; what Redis still knew has been booked"
        );
        metrics::restored(tokens);
        Ok(store.clear_restored(partition, &mark).await?)
    }

    async fn page(&self, standings: &[Standing], found: &mut Found) -> Result<(), RecoveryError> {
        let budgets = self.budgets(standings).await?;
        let mut entries = Vec::new();
        for (standing, budget) in standings.iter().zip(budgets) {
            let Some(budget) = budget else { continue };
            if budget.granted > standing.granted {
                let lost = budget.granted - standing.granted;
                tracing::error!(user = %standing.user, tokens = lost, "grants that Redis knows are lost");
                found.without_grants += 1;
            }
            if budget.spent > standing.used {
                let refused =
                    self.recovery.keeper.store.refused_tokens(standing.user, budget.epoch).await?.max(0);
                let lost = (budget.spent - standing.used).saturating_sub(refused.unsigned_abs());
                entries.extend(self.entry(standing.user, lost));
                found.tokens += lost;
            }
        }
        found.accounts += entries.len() as u64;
        self.book(&entries).await
    }

    /// The accounts' budgets in Redis, whatever life they are of: none ever counted what was not spent.
    async fn budgets(&self, standings: &[Standing]) -> Result<Vec<Option<StoredBudget>>, RecoveryError> {
        if standings.is_empty() {
            return Ok(Vec::new());
        }
        let keys = &self.recovery.shard.keys;
        let keys: Vec<Vec<u8>> =
            standings.iter().map(|standing| keys.budget(BudgetId::Balance(standing.user))).collect();
        let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
        let reply = self.recovery.keeper.redis.command("MGET", &keys).await?;
        let Value::Array(budgets) = reply.value else { return Err(RecoveryError::Malformed) };
        let decode = |value: Value| match value {
            // One of an unknown format is left as it is, for a version that knows it.
            Value::BulkString(bytes) => StoredBudget::decode(&bytes).ok(),
            _ => None,
        };
        Ok(budgets.into_iter().map(decode).collect())
    }

    /// What one account has spent and the ledger has lost; `None` for nothing.
    fn entry(&self, user: UserId, lost: u64) -> Option<Entry> {
        let tokens = i64::try_from(lost).ok().filter(|tokens| *tokens > 0)?;
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Some(Entry {
            outbox_id: OutboxId { sequence: self.outbox_sequence, nonce: rand::random::<u64>() >> 2 },
            user,
            reservation: ReservationId::new(&format!("{NAME}-{}", self.epoch)).ok()?,
            kind: Kind::Debit,
            tokens,
            flags: Flags::RECOVERED,
            at_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            model: None,
            request_id: None,
            input_tokens: None,
            output_tokens: None,
            cached_input_tokens: None,
            metadata: None,
            lines: vec![Line { budget: BudgetId::Balance(user), amount: tokens }],
        })
    }

    async fn book(&self, entries: &[Entry]) -> Result<(), RecoveryError> {
        if entries.is_empty() {
            return Ok(());
        }
        let (store, partition) = (&self.recovery.keeper.store, self.recovery.shard.id);
        loop {
            match store.book(partition, self.epoch, Booker::Recovery, entries, 0).await? {
                Booking::Booked(_) => return Ok(()),
                Booking::Busy => sleep(std::time::Duration::from_millis(10)).await,
                Booking::Fenced => return Err(RecoveryError::Overtaken),
            }
        }
    }
}
