//! Where Redis and Postgres are.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Secret;

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RedisConfig {
    /// `rediss://` for TLS.
    pub url: Secret,
    /// Who may sign the server's certificate; the system's authorities when absent.
    pub ca_file: Option<PathBuf>,
    /// What this service shows the server, when both are set.
    pub client_cert_file: Option<PathBuf>,
    pub client_key_file: Option<PathBuf>,
    pub connect_timeout_ms: u64,
    /// A call without an answer after this may or may not have run.
    pub response_timeout_ms: u64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct PostgresConfig {
    pub url: Secret,
    /// Login that owns the tables, for migrations; `url` when empty.
    pub owner_url: Secret,
    /// What a session acts as; empty for its login itself.
    pub role: String,
    /// Who may sign the server's certificate. With it, a connection is always encrypted and the server checked.
    pub ca_file: Option<PathBuf>,
    pub max_connections: u32,
    pub acquire_timeout_ms: u64,
    pub statement_timeout_ms: u64,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            url: Secret::new("redis://127.0.0.1:6379"),
            ca_file: None,
            client_cert_file: None,
            client_key_file: None,
            connect_timeout_ms: 1_000,
            response_timeout_ms: 1_000,
        }
    }
}

impl Default for PostgresConfig {
    fn default() -> Self {
        Self {
            url: Secret::new("postgres://cota@127.0.0.1:5432/cota"),
            owner_url: Secret::default(),
            role: "cota_api".into(),
            ca_file: None,
            max_connections: 16,
            acquire_timeout_ms: 500,
            statement_timeout_ms: 5_000,
        }
    }
}
