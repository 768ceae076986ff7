//! What is made of the use of tokens: anomalies and reports.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct UsageConfig {
    /// How often is looked for hours out of a user's ordinary.
    pub anomaly_interval_ms: u64,
    /// An hour of fewer tokens is never one.
    pub anomaly_min_tokens: u64,
    /// How often is looked for months that have ended.
    pub report_interval_ms: u64,
}

impl Default for UsageConfig {
    fn default() -> Self {
        Self { anomaly_interval_ms: 30_000, anomaly_min_tokens: 10_000, report_interval_ms: 60_000 }
    }
}

impl UsageConfig {
    /// Whether there is time between one look and the next.
    pub(super) fn has_intervals(&self) -> bool {
        self.anomaly_interval_ms >= 10 && self.report_interval_ms >= 10
    }
}
