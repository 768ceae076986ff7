//! The witnesses: what a replica remembers of settles it acked, until Postgres has them.
//!
//! A settle or debit enters the ring with its ack (also with the ack of a replay: the first one may have been given
//! by a replica that is gone) and leaves when the ledger or the dead letters have all its outbox ids. One that missed
//! a recovery's window is run again as *witnessed*: charged whatever Redis remembers.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    calls::Calls,
    ring::Witnessed,
    shard::Shard,
    wire::{Operation, Verb},
};
use crate::{quota::Kind, store::Store};

/// How often Postgres is asked what it has.
const INTERVAL: Duration = Duration::from_millis(200);

/// Entries of one look-up.
const LOOKUP: usize = 2_000;

/// Empties the rings as Postgres catches up.
pub struct WitnessTask {
    pub calls: Calls,
    pub store: Store,
}

impl WitnessTask {
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            for shard in self.calls.shards().iter() {
                // As long as whole pages leave the ring, there may be more.
                while self.look_up(shard).await >= LOOKUP {}
            }
        }
    }

    /// Says how many entries left the ring.
    async fn look_up(&self, shard: &Shard) -> usize {
        let waiting = shard.gate.witnessed(LOOKUP);
        if waiting.is_empty() {
            return 0;
        }
        let queries: Vec<_> = waiting
            .iter()
            .flat_map(|witnessed| &witnessed.entries)
            .map(|e| (e.user, e.reservation.clone(), e.kind, e.outbox_id))
            .collect();
        let booked: HashSet<_> = match self.store.booked(shard.id, &queries).await {
            Ok(booked) => booked.into_iter().collect(),
            Err(error) => {
                tracing::warn!(%error, "witnesses cannot be looked up");
                return 0;
            }
        };
        let confirmed = shard.gate.confirm(&booked);
        let Some(pass) = shard.gate.pass() else { return 0 };
        let missed =
            |w: &Witnessed| w.epoch < pass.epoch && !w.entries.iter().all(|e| booked.contains(&e.outbox_id));
        for witnessed in waiting.into_iter().filter(missed) {
            self.run_again(shard, witnessed).await;
        }
        confirmed
    }

    /// Its ack, if it comes, puts it into the ring of the present life in place of the old entry.
    async fn run_again(&self, shard: &Shard, witnessed: Witnessed) {
        let verb =
            if witnessed.entries.iter().any(|e| e.kind == Kind::Debit) { Verb::Debit } else { Verb::Settle };
        let operation = Operation { verb, ..witnessed.operation };
        tracing::warn!(partition = shard.id.0, id = %operation.id, "a settle missed a recovery; running it again");
        let deadline = Instant::now() + Duration::from_secs(2);
        if let Err(error) = self.calls.run(Arc::new(operation), deadline).await {
            tracing::error!(?error, "a witnessed settle was refused");
        }
    }
}
