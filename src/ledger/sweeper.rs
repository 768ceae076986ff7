//! Expires what is due: in the background, and before a balance or a denial is answered.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use redis::Value;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    calls::Calls,
    keys::parse_member,
    scripts,
    shard::Shard,
    wire::{Operation, Verb},
};
use crate::metrics;

/// Members of one reading of the expiry index.
const PAGE: usize = 64;

/// Bound of one expiry.
const DEADLINE: Duration = Duration::from_secs(2);

/// Expires everything in a partition that is due now. Ends early when nothing of a page could be expired; the next
/// sweep meets it again.
pub async fn sweep(calls: &Calls, shard: &Shard) {
    let _one_at_a_time = shard.sweep.lock().await;
    let mut until = None;
    loop {
        let Some((now_ms, oldest_ms, members)) = read_due(calls, shard).await else { return };
        if until.is_none() {
            let due_ms = if members.is_empty() { now_ms } else { oldest_ms };
            shard.note_sweep(Duration::from_millis(now_ms.saturating_sub(due_ms)));
        }
        let until_ms = *until.get_or_insert(now_ms);
        if members.is_empty() || oldest_ms > until_ms {
            return;
        }
        let expiries = members.iter().map(|member| expire(calls, member));
        let done = join_all(expiries).await.into_iter().filter(|done| *done).count();
        metrics::expired(done as u64);
        if done == 0 {
            return;
        }
    }
}

/// Sweeps every partition at an interval.
pub struct Sweeper {
    pub calls: Calls,
    pub interval: Duration,
}

impl Sweeper {
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            for shard in self.calls.shards().iter().filter(|shard| shard.gate.is_open()) {
                sweep(&self.calls, shard).await;
            }
        }
    }
}

async fn read_due(calls: &Calls, shard: &Shard) -> Option<(u64, u64, Vec<Vec<u8>>)> {
    let args = [PAGE.to_string().into_bytes()];
    let reply = calls.redis().call(&scripts::DUE, &[shard.keys.expiry()], &args).await.ok()?;
    let Value::Array(fields) = reply.value else { return None };
    let mut fields = fields.into_iter();
    let (Some(Value::Int(now)), Some(Value::Int(oldest))) = (fields.next(), fields.next()) else {
        return None;
    };
    let members = fields.filter_map(|field| match field {
        Value::BulkString(member) => Some(member),
        _ => None,
    });
    Some((now.unsigned_abs(), oldest.unsigned_abs(), members.collect()))
}

async fn expire(calls: &Calls, member: &[u8]) -> bool {
    let Some((user, id)) = parse_member(member) else {
        tracing::error!("a member of the expiry index cannot be read");
        return false;
    };
    let operation = Operation::new(Verb::Expire, user, id, calls.policies().lines(user, 0));
    calls.run(Arc::new(operation), Instant::now() + DEADLINE).await.is_ok()
}
