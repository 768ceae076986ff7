//! The live stream of balances and events (`GET …/events`).

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LiveConfig {
    /// How often what is new is asked for.
    pub interval_ms: u64,
    /// Streams of this process.
    pub max_streams: usize,
    /// Streams of one user, of this process.
    pub max_streams_per_user: usize,
    /// How long a stream lasts.
    pub max_seconds: u64,
}

impl Default for LiveConfig {
    fn default() -> Self {
        Self { interval_ms: 400, max_streams: 1_000, max_streams_per_user: 5, max_seconds: 3_600 }
    }
}

impl LiveConfig {
    /// The rule that is broken, if one is.
    pub(super) fn broken_rule(&self) -> Option<&'static str> {
        let rules = [
            ((50..=60_000).contains(&self.interval_ms), "live.interval_ms must be 50 to 60000"),
            (self.max_streams >= 1, "live.max_streams must be at least 1"),
            (self.max_streams_per_user >= 1, "live.max_streams_per_user must be at least 1"),
            ((1..=86_400).contains(&self.max_seconds), "live.max_seconds must be 1 to 86400"),
        ];
        rules.into_iter().find_map(|(holds, rule)| (!holds).then_some(rule))
    }
}
