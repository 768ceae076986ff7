//! From Postgres to Redis: the states of accounts.
//!
//! Grants, policy versions and suspensions go as versioned *state*, never as increments: any number of replicas may
//! push the same version, and it counts once. What is spent goes the other way only (see the flusher); a load (`cold`)
//! takes it from the ledger, where a cold account's spend is complete: an account is cold only when its partition was
//! opened after a drained outbox and nothing has touched it since.

use std::sync::Arc;

use redis::Value;

use super::{
    gate::{Doubt, Pass},
    scripts,
    session::SharedSession,
    shard::Shard,
};
use crate::{
    metrics,
    quota::{BudgetId, UserId},
    store::{BudgetState, Loaded, Store},
};

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

/// The arguments of `load` under a gate.
pub fn load_args(pass: &Pass, account: &Loaded) -> Vec<Vec<u8>> {
    let mut args = head_args(pass);
    args.extend(state_args(&account.state));
    args.push(number(account.spent));
    args
}

impl Loader {
    pub fn new(redis: Arc<SharedSession>, store: Store) -> Self {
        Self { redis, store }
    }

    /// The account's state in Postgres; `None` when it has none or cannot be asked.
    pub async fn state(&self, user: UserId) -> Option<BudgetState> {
        self.store.budget_state(user).await.ok().flatten()
    }

    /// The connection that loads and pushes share.
    pub fn redis(&self) -> &SharedSession {
        &self.redis
    }

    /// Pushes one account's state.
    pub async fn push(&self, shard: &Shard, state: &BudgetState) -> Push {
        let Some(pass) = shard.gate.pass() else { return Push::Failed };
        let mut args = head_args(&pass);
        args.extend(state_args(state));
        let keys = [shard.keys.meta(), shard.keys.budget(BudgetId::Balance(state.user))];
        let reply = self.redis.call_on(Some(&pass.run_id), &scripts::SYNC, &keys, &args).await;
        match reply.ok().and_then(|reply| self.admitted(shard, &pass, reply.value)) {
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
    pub fn admitted(&self, shard: &Shard, pass: &Pass, reply: Value) -> Option<i64> {
        let Value::Array(fields) = reply else { return None };
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
