//! Where spans are sent, and how many are made.

use reqwest::Url;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct TracingConfig {
    /// Where a collector takes OTLP over HTTP, without the `/v1/traces` that is added to it. Nothing is traced when absent.
    pub endpoint: Option<String>,
    /// Share of what begins here that is traced, 0 to 1. Of a request that comes with a trace its caller has decided.
    pub sampling_ratio: f64,
    /// What one delivery may take.
    pub timeout_ms: u64,
}

impl Default for TracingConfig {
    fn default() -> Self {
        Self { endpoint: None, sampling_ratio: 0.01, timeout_ms: 5_000 }
    }
}

impl TracingConfig {
    /// Where spans go, if the endpoint is set and one.
    pub fn traces_url(&self) -> Option<Url> {
        let mut url = Url::parse(self.endpoint.as_ref()?).ok()?;
        let is_plain = url.username().is_empty() && url.password().is_none();
        let is_base = url.query().is_none() && url.fragment().is_none();
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() || !is_plain || !is_base {
            return None;
        }
        let path = format!("{}/v1/traces", url.path().trim_end_matches('/'));
        url.set_path(&path);
        Some(url)
    }

    /// The rule that is broken, if one is.
    pub(super) fn broken_rule(&self) -> Option<&'static str> {
        let rules = [
            (
                self.endpoint.is_none() || self.traces_url().is_some(),
                "tracing.endpoint must be an http:// or https:// URL, without a user, a password or a query",
            ),
            ((0.0..=1.0).contains(&self.sampling_ratio), "tracing.sampling_ratio must be 0 to 1"),
            ((100..=60_000).contains(&self.timeout_ms), "tracing.timeout_ms must be 100 to 60000"),
        ];
        rules.into_iter().find_map(|(holds, rule)| (!holds).then_some(rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_plain_base_of_http() {
        let url = |endpoint: &str| {
            let config = TracingConfig { endpoint: Some(endpoint.into()), ..TracingConfig::default() };
            assert_eq!(config.broken_rule().is_none(), config.traces_url().is_some(), "{endpoint}");
            config.traces_url().map(String::from)
        };
        for (endpoint, traces) in [
            ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
            ("https://otel.example/", "https://otel.example/v1/traces"),
            ("https://otel.example/tenant/a/", "https://otel.example/tenant/a/v1/traces"),
        ] {
            assert_eq!(url(endpoint).as_deref(), Some(traces));
        }
        for wrong in [
            "",
            "otel.example:4318",
            "grpc://otel.example",
            "http://",
            "http://user@otel.example",
            "http://:hush@otel.example",
            "http://otel.example/?key=hush",
            "http://otel.example/#a",
        ] {
            assert_eq!(url(wrong), None, "{wrong}");
        }
        for ratio in [-0.1, 1.1, f64::NAN] {
            let config = TracingConfig { sampling_ratio: ratio, ..TracingConfig::default() };
            assert!(config.broken_rule().is_some(), "{ratio}");
        }
    }
}
