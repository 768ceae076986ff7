//! How the outbox is moved to Postgres.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlusherConfig {
    /// Rows of one SQL transaction.
    pub batch_rows: usize,
    pub interval_ms: u64,
    /// How long a shutdown waits for the outbox to empty.
    pub drain_timeout_ms: u64,
}

impl Default for FlusherConfig {
    fn default() -> Self {
        Self { batch_rows: 5_000, interval_ms: 25, drain_timeout_ms: 10_000 }
    }
}
