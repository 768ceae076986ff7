//! Which budgets an operation must fit in, and under which version of the account's policy.
//!
//! Today every account has one line, its balance. The version is named with every reserve all the same: a replica
//! that has not heard of a change gets STALE, looks again, and can never admit by an old policy. New kinds of budgets
//! add their lines in [`Policies::lines`] and their code in `keys.rs`.

use moka::sync::Cache;

use super::{loader::Loader, shard::Shard};
use crate::quota::{BudgetId, Line, UserId};

/// Accounts whose policy version a replica remembers; a forgotten one costs one STALE.
const REMEMBERED: u64 = 100_000;

/// Version of a policy nobody has changed.
const FIRST_VERSION: u64 = 1;

/// The policy cache; cheap to clone. Only what differs from a new account's policy is kept.
#[derive(Clone)]
pub struct Policies {
    versions: Cache<UserId, u64>,
}

impl Policies {
    pub fn new() -> Self {
        Self { versions: Cache::new(REMEMBERED) }
    }

    /// The lines of an operation of so many tokens; the first is always the balance.
    pub fn lines(&self, user: UserId, tokens: u64) -> Vec<Line> {
        // At most 10^12, by the type it came from.
        vec![Line { budget: BudgetId::Balance(user), amount: tokens as i64 }]
    }

    pub fn version(&self, user: UserId) -> u64 {
        self.versions.get(&user).unwrap_or(FIRST_VERSION)
    }

    /// After STALE: reads the policy from Postgres, and if Redis is behind it, pushes it there. `None` when Postgres
    /// could not be asked.
    pub async fn reload(&self, shard: &Shard, loader: &Loader, user: UserId, in_redis: u64) -> Option<u64> {
        let state = loader.state(user).await?;
        if state.policy_version != in_redis {
            loader.push(shard, &state).await;
        }
        self.versions.insert(user, state.policy_version);
        Some(state.policy_version)
    }
}
