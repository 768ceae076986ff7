//! From Postgres to Redis: cold accounts are loaded, changed ones are synced.
//!
//! Grants, policy versions and suspensions go as versioned *state*, never as increments: any number of replicas may
//! push the same version, and it counts once. What is spent goes the other way only (see the flusher); a load takes
//! it from the ledger, where a cold account's spend is complete: an account is cold only when its partition was
//! opened after a drained outbox and nothing has touched it since.

use std::{sync::Arc, time::Duration};

use redis::Value;
use tokio::time::Instant;

use super::{
    gate::{Doubt, Pass},
    scripts,
    session::SharedSession,
    shard::Shard,
};
use crate::{
    metrics,
    quota::{BudgetId, UserId},
    store::{self, BudgetState, Store},
};

/// How long an account may stay cold after Redis was given it: another replica may be between note and load.
const LOSS_AFTER: Duration = Duration::from_secs(1);

/// What came of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loading {
    /// Redis has it; run the operation again.
    Loaded,
    /// Not now; try again.
    Busy,
    UnknownUser,
}

/// What came of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Push {
    /// Redis has this version, or a newer one.
    Done,
    /// The account is not in Redis.
    Absent,
    /// The partition is closed or Redis did not answer.
    Failed,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Loader {
    redis: Arc<SharedSession>,
    store: Store,
}

fn number(n: u64) -> Vec<u8> {
    n.to_string().into_bytes()
}

/// Epoch, high water and run id, as the heads of `sync`, `load` and `peek` take them.
pub fn head_args(pass: &Pass) -> Vec<Vec<u8>> {
    vec![number(pass.epoch), number(pass.high_water), pass.run_id.as_bytes().to_vec()]
}

fn state_args(state: &BudgetState) -> [Vec<u8>; 4] {
    [
        number(state.granted),
        number(state.version),
        number(state.policy_version),
        number(u64::from(state.suspended)),
    ]
}

impl Loader {
    pub fn new(redis: Arc<SharedSession>, store: Store) -> Self {
        Self { redis, store }
    }

    /// The account's state in Postgres; `None` when it has none or cannot be asked.
    pub async fn state(&self, user: UserId) -> Option<BudgetState> {
        self.store.budget_state(user).await.ok().flatten()
    }

    /// Gives Redis an account it does not have. `cold_since` is when this operation first found it cold: an account
    /// that stays cold for a second although Redis was given it in this epoch has been lost, and its partition must
    /// recover.
    pub async fn load(&self, shard: &Shard, pass: &Pass, user: UserId, cold_since: Instant) -> Loading {
        let loaded = match self.store.load_snapshot(shard.id, pass.epoch, user).await {
            Ok(store::Loading::Loaded(loaded)) => loaded,
            Ok(store::Loading::Busy) => return Loading::Busy,
            Ok(store::Loading::UnknownUser) => return Loading::UnknownUser,
            Err(error) => {
                tracing::warn!(%error, "a cold account cannot be loaded");
                return Loading::Busy;
            }
        };
        if loaded.already_loaded {
            return self.loaded_before(shard, pass, cold_since);
        }
        let mut args = head_args(pass);
        args.extend(state_args(&loaded.state));
        args.push(number(loaded.spent));
        let keys = [shard.keys.meta(), shard.keys.budget(BudgetId::Balance(user))];
        let reply = self.redis.call_on(Some(&pass.run_id), &scripts::LOAD, &keys, &args).await;
        if self.admitted(shard, pass, reply.map(|reply| reply.value)).is_none() {
            return Loading::Busy;
        }
        metrics::cold_load("loaded");
        self.sync_if_moved(shard, &loaded.state).await;
        Loading::Loaded
    }

    fn loaded_before(&self, shard: &Shard, pass: &Pass, cold_since: Instant) -> Loading {
        if cold_since.elapsed() >= LOSS_AFTER {
            metrics::cold_load("lost");
            tracing::error!(partition = shard.id.0, "Redis has lost an account it was given");
            shard.gate.doubt(pass, Doubt::Lost);
        }
        Loading::Busy
    }

    /// A grant between snapshot and load is pushed here, since the pusher may have found the account absent.
    async fn sync_if_moved(&self, shard: &Shard, loaded: &BudgetState) {
        if let Some(state) = self.state(loaded.user).await
            && state.version != loaded.version
        {
            self.push(shard, &state).await;
        }
    }

    /// Pushes one account's state.
    pub async fn push(&self, shard: &Shard, state: &BudgetState) -> Push {
        let Some(pass) = shard.gate.pass() else { return Push::Failed };
        let mut args = head_args(&pass);
        args.extend(state_args(state));
        let keys = [shard.keys.meta(), shard.keys.budget(BudgetId::Balance(state.user))];
        let reply = self.redis.call_on(Some(&pass.run_id), &scripts::SYNC, &keys, &args).await;
        match self.admitted(shard, &pass, reply.map(|reply| reply.value)) {
            Some(1 | 2) => {
                metrics::grant_push("done");
                Push::Done
            }
            Some(_) => {
                metrics::grant_push("absent");
                Push::Absent
            }
            None => {
                metrics::grant_push("failed");
                Push::Failed
            }
        }
    }

    /// The third field of a reply `{0, sq, n}` that still counts under the gate.
    fn admitted(
        &self,
        shard: &Shard,
        pass: &Pass,
        reply: Result<Value, super::session::CallError>,
    ) -> Option<i64> {
        let Ok(Value::Array(fields)) = reply else { return None };
        match fields.as_slice() {
            [Value::Int(0), Value::Int(sequence), Value::Int(n)] => {
                shard.gate.admit(pass, sequence.unsigned_abs(), Vec::new()).then_some(*n)
            }
            [Value::Int(code), ..] => {
                doubt(shard, pass, *code);
                None
            }
            _ => None,
        }
    }
}

/// What the head's refusal of a call says about the gate.
pub fn doubt(shard: &Shard, pass: &Pass, code: i64) {
    shard.gate.doubt(pass, if matches!(code, 1 | 4) { Doubt::Lost } else { Doubt::Recheck });
}
