//! What is measured of users.

use serde::{Deserialize, Serialize};

/// The page `/metrics/users`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Users it shows at most, beside all others together.
    pub top_users: usize,
    /// Who has not settled for so long is not shown.
    pub top_users_idle_seconds: u64,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self { top_users: 200, top_users_idle_seconds: 3_600 }
    }
}
