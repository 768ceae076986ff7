//! Use cases on users, grants and alerts: check, tell Postgres, then let Redis know.

pub mod alerts;
pub mod anomalies;
pub mod audit;
pub mod checkpoints;
pub mod credits;
pub mod drift;
pub mod erasure;
pub mod renewals;
pub mod reports;
pub mod usage;
pub mod users;

use std::time::Duration;

use tokio::time::Instant;

use crate::{ledger::Ledger, quota::UserId, store::Store};

/// How long a change waits for Redis to have it. It stands without: the sync worker brings it there.
const SYNC_PATIENCE: Duration = Duration::from_millis(250);

/// Longest external id, idempotency key, in bytes.
pub const MAX_NAME_LENGTH: usize = 255;

/// The use cases; cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    store: Store,
    ledger: Ledger,
}

impl Accounts {
    pub fn new(store: Store, ledger: Ledger) -> Self {
        Self { store, ledger }
    }

    /// Whether Redis has the account as it is now.
    async fn effective(&self, user: UserId) -> bool {
        self.ledger.sync_now(user, Instant::now() + SYNC_PATIENCE).await
    }
}

/// Any UTF-8 of 1 to `longest` bytes, except NUL, which Postgres cannot hold.
fn is_text(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len()) && !text.contains('\0')
}
