//! The listeners and the bounds of a request.

use std::{net::SocketAddr, path::PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    pub listen: SocketAddr,
    /// `/metrics` has its own port, never exposed to users.
    pub metrics_listen: SocketAddr,
    /// Every answer comes within this.
    pub request_deadline_ms: u64,
    pub max_body_bytes: usize,
    /// Of a request's head.
    pub max_header_bytes: usize,
    /// From the first byte of a head, or from the accept, to its end; a TLS handshake has as long.
    pub header_timeout_ms: u64,
    pub body_timeout_ms: u64,
    /// How long a connection without a request stays.
    pub idle_timeout_ms: u64,
    /// How long a peer may take nothing of an answer.
    pub write_timeout_ms: u64,
    /// How long a shutdown waits for running requests.
    pub drain_timeout_ms: u64,
    /// Connections at once; more wait in the backlog of the kernel.
    pub max_connections: usize,
    /// Connections of one network at once; more are closed. 0: no limit.
    pub max_connections_per_network: usize,
    /// Calls at once; a quarter is for settles, debits and releases alone.
    pub max_in_flight: usize,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Failed authentications a network may make before it has to wait. 0: no limit.
    pub auth_failures_per_minute: u32,
    /// Calls per second of one caller, by its role, and how many at once. 0: no limit.
    pub gateway_calls_per_second: u32,
    pub gateway_burst: u32,
    pub admin_calls_per_second: u32,
    pub admin_burst: u32,
    pub user_calls_per_second: u32,
    pub user_burst: u32,
    /// TLS is on when both are set.
    pub tls_cert_file: Option<PathBuf>,
    pub tls_key_file: Option<PathBuf>,
    /// How often the two files are looked at.
    pub tls_reload_interval_ms: u64,
    /// Where a user can buy tokens; named in refusals for want of tokens.
    pub top_up_url: Option<String>,
    /// How to get going again, named there too, in English and in Portuguese; empty for none.
    pub top_up_text: String,
    pub top_up_text_pt: String,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            metrics_listen: SocketAddr::from(([127, 0, 0, 1], 9464)),
            request_deadline_ms: 2_000,
            max_body_bytes: 65_536,
            max_header_bytes: 16_384,
            header_timeout_ms: 5_000,
            body_timeout_ms: 5_000,
            idle_timeout_ms: 75_000,
            write_timeout_ms: 10_000,
            drain_timeout_ms: 10_000,
            max_connections: 16_384,
            max_connections_per_network: 0,
            max_in_flight: 8_192,
            trusted_proxies: Vec::new(),
            auth_failures_per_minute: 600,
            gateway_calls_per_second: 0,
            gateway_burst: 0,
            admin_calls_per_second: 500,
            admin_burst: 1_000,
            user_calls_per_second: 50,
            user_burst: 100,
            tls_cert_file: None,
            tls_key_file: None,
            tls_reload_interval_ms: 10_000,
            top_up_url: None,
            top_up_text: "Buy tokens, or ask your operator for a credit; then send the call again.".into(),
            top_up_text_pt:
                "Compre tokens ou peça um crédito ao seu operador; depois envie a chamada de novo.".into(),
        }
    }
}
