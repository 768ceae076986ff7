//! Configuration: a TOML file, then the environment (`COTA_HTTP__LISTEN=…`), unknown keys refused.
//!
//! Every key stands with its default and its unit in `config.example.toml`; a test keeps the two in step.

mod audit;
mod backup;
mod email;
mod flusher;
mod http;
mod issuers;
mod keys;
mod live;
mod log;
mod metrics;
mod notify;
mod secret;
mod stores;
mod tracing;
mod usage;

use std::{path::Path, time::Duration};

use figment::{
    Figment,
    providers::{Env, Format, Serialized, Toml},
};
use serde::{Deserialize, Serialize};

pub use audit::AuditConfig;
pub use backup::BackupConfig;
pub use email::{EmailConfig, MailTls};
pub use flusher::FlusherConfig;
pub use http::HttpConfig;
pub use issuers::{IssuerConfig, JwksUrl, NotAJwksUrl, PublicKeyAlgorithm, Role};
pub use keys::{KeyConfig, KeysConfig, MAX_KEY_ID_LENGTH};
pub use live::LiveConfig;
pub use log::LogConfig;
pub use metrics::MetricsConfig;
pub use notify::NotifyConfig;
pub use secret::Secret;
pub use stores::{PostgresConfig, RedisConfig};
pub use tracing::TracingConfig;
pub use usage::UsageConfig;

/// Everything the service can be told.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    pub http: HttpConfig,
    pub auth: AuthConfig,
    pub keys: KeysConfig,
    pub redis: RedisConfig,
    pub postgres: PostgresConfig,
    pub ledger: LedgerConfig,
    pub flusher: FlusherConfig,
    pub audit: AuditConfig,
    pub backup: BackupConfig,
    pub usage: UsageConfig,
    pub notify: NotifyConfig,
    pub email: EmailConfig,
    pub live: LiveConfig,
    pub metrics: MetricsConfig,
    pub log: LogConfig,
    pub tracing: TracingConfig,
}

/// Who may call.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// Shared secret of HS256, at least 32 bytes; with `issuer` and `audience` it makes the first issuer. Empty for
    /// none.
    pub hs256_secret: Secret,
    pub issuer: String,
    pub audience: String,
    pub leeway_seconds: u64,
    /// A JWT that lives longer is refused.
    pub max_lifetime_seconds: u64,
    /// Identity providers whose JWTs are taken too.
    pub issuers: Vec<IssuerConfig>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct LedgerConfig {
    /// Number of partitions of a new deployment; Postgres keeps it from then on.
    pub partitions: u16,
    /// Each lane owns one Redis connection; operations of one account stay in one lane.
    pub lanes: usize,
    pub max_batch: usize,
    /// Bound of each lane's queue of reserves and extends, the first to be shed.
    pub reserve_queue: usize,
    /// Bound of each lane's queue of settles, debits and releases.
    pub settle_queue: usize,
    /// Waiting reserves one user may have in a lane.
    pub reserves_per_user: usize,
    /// Above this many unflushed entries in a partition, reserves are refused.
    pub outbox_soft_limit: u64,
    /// Above this many, settles are refused too. At most `witness_capacity`.
    pub outbox_hard_limit: u64,
    /// Acked settles a replica remembers per partition until Postgres has them.
    pub witness_capacity: usize,
    /// Finished reservations stay in Redis this long; after that Postgres answers.
    pub retention_seconds: u64,
    /// Expired ones stay longer, for settles that come late.
    pub expired_retention_seconds: u64,
    pub sweep_interval_ms: u64,
    pub sync_interval_ms: u64,
    /// How often a replica looks at the partitions' state in Postgres.
    pub poll_interval_ms: u64,
    /// How long a recovery waits for the witnesses of live replicas.
    pub witness_wait_ms: u64,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            hs256_secret: Secret::default(),
            issuer: "cota".into(),
            audience: "cota".into(),
            leeway_seconds: 5,
            max_lifetime_seconds: 86_400 * 31,
            issuers: Vec::new(),
        }
    }
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self {
            partitions: 1,
            lanes: 1,
            max_batch: 64,
            reserve_queue: 8_192,
            settle_queue: 16_384,
            reserves_per_user: 1_024,
            outbox_soft_limit: 100_000,
            outbox_hard_limit: 200_000,
            witness_capacity: 200_000,
            retention_seconds: 1_800,
            expired_retention_seconds: 86_400,
            sweep_interval_ms: 200,
            sync_interval_ms: 200,
            poll_interval_ms: 100,
            witness_wait_ms: 3_000,
        }
    }
}

impl Config {
    /// Reads `file` if one is given, then the environment, and checks the whole.
    ///
    /// # Errors
    /// When the file cannot be read, a key is unknown or a value out of range; the text names the key.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        let config = Self::read(file)?;
        config.check()?;
        Ok(config)
    }

    /// As [`Self::load`], unchecked: for a caller that fills in what is missing.
    ///
    /// # Errors
    /// When the file cannot be read or a key is unknown; the text names the key.
    pub fn read(file: Option<&Path>) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(path) = file {
            if !path.is_file() {
                return Err(ConfigError::Missing(path.display().to_string()));
            }
            figment = figment.merge(Toml::file_exact(path));
        }
        // `COTA_CONFIG` names the file; `COTA_TEST_…` steers the test suite, which runs this program too.
        let is_key = |key: &figment::value::UncasedStr| key != "config" && !key.starts_with("test_");
        let environment = Env::prefixed("COTA_").filter(is_key).split("__");
        figment.merge(environment).extract().map_err(|e| ConfigError::Parse(Box::new(e)))
    }

    /// Checks what the types cannot say.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with the key and the rule.
    pub fn check(&self) -> Result<(), ConfigError> {
        let auth = &self.auth;
        let rules = [
            (
                auth.hs256_secret.expose().len() >= 32 || (!auth.has_secret() && !auth.issuers.is_empty()),
                "auth.hs256_secret must have at least 32 bytes; it may be empty when auth.issuers are set",
            ),
            (!auth.has_secret() || !auth.issuer.is_empty(), "auth.issuer must not be empty"),
            (!auth.has_secret() || !auth.audience.is_empty(), "auth.audience must not be empty"),
            (auth.leeway_seconds <= 60, "auth.leeway_seconds must be at most 60"),
            ((1..=1024).contains(&self.ledger.partitions), "ledger.partitions must be 1 to 1024"),
            ((1..=64).contains(&self.ledger.max_batch), "ledger.max_batch must be 1 to 64"),
            ((1..=64).contains(&self.ledger.lanes), "ledger.lanes must be 1 to 64"),
            (
                self.ledger.outbox_soft_limit < self.ledger.outbox_hard_limit,
                "ledger.outbox_soft_limit must be below ledger.outbox_hard_limit",
            ),
            (
                self.ledger.witness_capacity as u64 >= self.ledger.outbox_hard_limit,
                "ledger.witness_capacity must be at least ledger.outbox_hard_limit",
            ),
            ((1..=10_000).contains(&self.flusher.batch_rows), "flusher.batch_rows must be 1 to 10000"),
            (self.metrics.top_users <= 10_000, "metrics.top_users must be at most 10000"),
            (self.http.request_deadline_ms >= 100, "http.request_deadline_ms must be at least 100"),
            (self.http.max_header_bytes >= 8_192, "http.max_header_bytes must be at least 8192"),
            (self.http.max_connections >= 1, "http.max_connections must be at least 1"),
            (self.http.max_in_flight >= 4, "http.max_in_flight must be at least 4"),
            (
                self.http.tls_cert_file.is_some() == self.http.tls_key_file.is_some(),
                "http.tls_cert_file and http.tls_key_file go together",
            ),
            (
                self.redis.client_cert_file.is_some() == self.redis.client_key_file.is_some(),
                "redis.client_cert_file and redis.client_key_file go together",
            ),
            (
                self.usage.has_intervals(),
                "usage.anomaly_interval_ms and usage.report_interval_ms must be at least 10",
            ),
            (self.postgres.max_connections >= 4, "postgres.max_connections must be at least 4"),
        ];
        let broken = rules.into_iter().find(|(holds, _)| !holds).map(|(_, rule)| rule);
        match broken
            .or_else(|| self.notify.broken_rule())
            .or_else(|| self.email.broken_rule())
            .or_else(|| self.live.broken_rule())
            .or_else(|| self.tracing.broken_rule())
            .or_else(|| self.backup.broken_rule())
        {
            Some(rule) => Err(ConfigError::Invalid(rule)),
            None => auth.check_issuers(),
        }
    }
}

/// Milliseconds of the configuration as a duration.
pub fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("there is no configuration file {0}")]
    Missing(String),
    #[error("{0}")]
    Parse(Box<figment::Error>),
    #[error("{0}")]
    Invalid(&'static str),
    #[error("auth.issuers, {0:?}: {1}")]
    Issuer(String, &'static str),
}
