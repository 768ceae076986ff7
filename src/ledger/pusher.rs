//! Pushes what Postgres granted, configured or suspended to Redis, for every account whose version there is behind.
//!
//! A cold account needs no push: its load reads the present version. Whether it is cold is decided in Postgres, by
//! the epoch in which it was last handed to Redis, under the row's lock; so a load and a push cannot miss each other.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    loader::{Loader, Push},
    shard::Shards,
};
use crate::{
    quota::UserId,
    store::{BudgetState, Store, StoreError},
};

/// Accounts of one round.
const ROUND: u32 = 500;

/// See the module.
#[derive(Clone)]
pub struct Pusher {
    pub shards: Arc<Shards>,
    pub store: Store,
    pub loader: Loader,
}

impl Pusher {
    pub async fn run(self, interval: Duration, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Err(error) = self.round().await {
                tracing::warn!(%error, "grants cannot be pushed");
            }
        }
    }

    /// One account now; true once Redis has it, or will read it on first use.
    pub async fn push(&self, user: UserId) -> bool {
        let Some(state) = self.loader.state(user).await else { return false };
        self.push_all(&[state]).await.is_ok_and(|pushed| pushed == 1)
    }

    async fn round(&self) -> Result<(), StoreError> {
        let states = self.store.unsynced(ROUND).await?;
        if !states.is_empty() {
            self.push_all(&states).await?;
        }
        Ok(())
    }

    /// Says how many are settled.
    async fn push_all(&self, states: &[BudgetState]) -> Result<usize, StoreError> {
        let (mut synced, mut cold) = (Vec::new(), Vec::new());
        for state in states {
            let shard = self.shards.of(state.user);
            let Some(pass) = shard.gate.pass() else { continue };
            match self.loader.push(shard, state).await {
                Push::Done => synced.push((state.user, state.version)),
                Push::Absent => cold.push((state.user, state.version, pass.epoch)),
                Push::Failed => {}
            }
        }
        self.store.note_synced(&synced).await?;
        let noted = self.store.note_cold(&cold).await?;
        Ok(synced.len() + noted)
    }
}
