//! How users are told of what happens to their accounts (`docs/NOTIFICATIONS.md`).

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NotifyConfig {
    /// How often the queue is looked at.
    pub interval_ms: u64,
    /// Webhooks that this process sends at a time.
    pub webhooks_at_once: usize,
    /// From the look-up of the name to the head of the answer.
    pub webhook_timeout_ms: u64,
    /// Ports that may be sent to; any when empty.
    pub webhook_ports: Vec<u16>,
    /// Whether addresses without TLS are taken: for development.
    pub webhook_allow_http: bool,
    /// Networks that may be sent to although they are not of the public internet.
    pub webhook_allowed_networks: Vec<IpNet>,
    /// An endpoint that has been failing for so long is disabled at its next failure.
    pub webhook_disable_after_hours: u64,
    pub max_webhooks_per_user: u32,
    /// How long the log of what was sent goes back.
    pub retention_days: u64,
}

impl Default for NotifyConfig {
    fn default() -> Self {
        Self {
            interval_ms: 500,
            webhooks_at_once: 32,
            webhook_timeout_ms: 15_000,
            webhook_ports: vec![443, 8443],
            webhook_allow_http: false,
            webhook_allowed_networks: Vec::new(),
            webhook_disable_after_hours: 120,
            max_webhooks_per_user: 10,
            retention_days: 30,
        }
    }
}

impl NotifyConfig {
    /// The rule that is broken, if one is.
    pub(super) fn broken_rule(&self) -> Option<&'static str> {
        let rules = [
            (self.interval_ms >= 10, "notify.interval_ms must be at least 10"),
            (self.webhooks_at_once >= 1, "notify.webhooks_at_once must be at least 1"),
            (
                (100..=60_000).contains(&self.webhook_timeout_ms),
                "notify.webhook_timeout_ms must be 100 to 60000",
            ),
            (self.webhook_disable_after_hours >= 1, "notify.webhook_disable_after_hours must be at least 1"),
            (
                (1..=100).contains(&self.max_webhooks_per_user),
                "notify.max_webhooks_per_user must be 1 to 100",
            ),
            ((1..=3_650).contains(&self.retention_days), "notify.retention_days must be 1 to 3650"),
        ];
        rules.into_iter().find_map(|(holds, rule)| (!holds).then_some(rule))
    }
}
