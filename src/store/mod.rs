//! Postgres: one file per aggregate, and the only place with SQL.
//!
//! Postgres owns what was granted and configured, and keeps the ledger of what was spent. Three protocols live
//! here, each told at the head of its file: how a batch of outbox entries becomes ledger rows exactly once
//! ([`booking`]), how an account gets to Redis ([`budgets`]), and how a partition changes hands ([`partitions`]).
//!
//! Every call ends within a bound and may be repeated. Locks are taken in one order by all: a row of `partitions`,
//! then rows of `user_accounts` by id, then the rest.

mod alerts;
mod anomalies;
mod audit;
mod backup;
mod booking;
mod budgets;
mod dead_letters;
mod deliveries;
mod drift;
mod error;
mod event_tickets;
mod events;
mod grants;
mod health;
mod history;
mod lease;
mod notification_settings;
mod notifications;
mod partitions;
mod personal;
mod profiles;
mod renewals;
mod replicas;
mod reports;
mod restored;
mod schema;
mod sealed;
mod secrets;
mod session_lock;
mod transactions;
mod usage;
mod users;
mod webhooks;

use std::{sync::Arc, time::Duration};

use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions, PgSslMode},
};

pub use alerts::{Alert, AlertConfig, AlertConfigUpdate};
pub use anomalies::{Anomaly, BusyUser, NewAnomaly};
pub use audit::{
    ACTS, Actor, AuditRow, ChainHead, Extent, Finding, Flaw, Refused, Verification, caller_known, with_caller,
};
pub use booking::{Booked, Booker, Booking};
pub use budgets::{BudgetState, Loaded};
pub use dead_letters::{DeadLetter, DeadReason};
pub use deliveries::{Delivery, DeliveryState, Resend};
pub use drift::DriftPage;
pub use error::{SchemaError, StoreError};
pub use events::{Event, NewEvent};
pub use grants::{Credit, CreditOutcome, Grant, GrantKind, Payment};
pub use health::AccountHealth;
pub use history::{HistoryFilter, HistoryKey, HistoryRow};
pub use notification_settings::{NotificationSettings, SettingsUpdate};
pub use notifications::{Attempt, Backlog, Backlogs, EmailClaim, EmailVerdict, Verdict, WebhookClaim};
pub use partitions::{PartitionRow, PartitionState};
pub use personal::Deletion;
pub use profiles::{Expected, ProfileChange, Update};
pub use renewals::{AutoRenewal, AutoRenewalUpdate, Confirmation, Renewal, RenewalState, Renewed};
pub use replicas::ReplicaId;
pub use reports::{
    Consolidated, ConsolidatedUser, DayUse, DueUser, GrantSum, ModelUse, Report, ReportPeriod, Reported,
    Summary,
};
pub use restored::Standing;
pub use sealed::{Resealed, SealedColumn, SealedCount};
pub use secrets::EmailsSealed;
pub use session_lock::{SessionLock, Task};
pub use transactions::{Drift, LedgerRow};
pub use usage::{UsageMarks, UsageSums};
pub use users::{Creation, NewUser, User, UserFilter, UserStatus};
pub use webhooks::{
    DisabledReason, EndpointChange, EndpointCreation, EndpointUpdate, NewEndpoint, WebhookEndpoint,
};

use crate::{
    config::{PostgresConfig, millis},
    crypto::Keyring,
    quota::UserId,
};

/// Handle on Postgres; cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    pool: PgPool,
    options: Arc<PgConnectOptions>,
    /// For migrations: the login that owns the tables.
    owner: Arc<PgConnectOptions>,
    keyring: Keyring,
    waiting: lease::Waiting,
    /// Bound of one call, from the moment it has a connection.
    call_timeout: Duration,
}

/// What the pool of connections does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolState {
    pub in_use: usize,
    pub idle: usize,
    /// Connections there may be.
    pub limit: u32,
    /// Calls that wait for a connection.
    pub waiting: usize,
}

/// How often a call runs again after a deadlock or a serialization failure before the caller hears of it.
const MAX_ATTEMPTS: usize = 5;

impl Store {
    /// Sets up the pool and makes sure that Postgres answers.
    ///
    /// # Errors
    /// When the URL is malformed or Postgres cannot be reached.
    pub async fn connect(config: &PostgresConfig, keyring: &Keyring) -> Result<Self, StoreError> {
        let store = Self::lazy(config, keyring)?;
        store.ping().await?;
        Ok(store)
    }

    /// Sets up the pool without a connection: for a service that has to start while Postgres is away. `keyring` opens
    /// and seals what is secret in the rows.
    ///
    /// # Errors
    /// When the URL is malformed, or `ca_file` cannot be read.
    pub fn lazy(config: &PostgresConfig, keyring: &Keyring) -> Result<Self, StoreError> {
        let options = encrypted(config, config.url.expose().parse().map_err(StoreError::from_acquire)?)?;
        let statement_ms = config.statement_timeout_ms;
        let options = tuned(options, statement_ms);
        let owner = match config.owner_url.expose() {
            "" => options.clone(),
            url => tuned(encrypted(config, url.parse().map_err(StoreError::from_acquire)?)?, statement_ms),
        };
        let options = match &*config.role {
            "" => options,
            role => options.options([("role", role)]),
        };
        let pool = PgPoolOptions::new()
            .max_connections(config.max_connections)
            .acquire_timeout(millis(config.acquire_timeout_ms))
            .connect_lazy_with(options.clone());
        // Time for the server's own time-outs to speak first: theirs is the definite answer.
        let call_timeout = millis(statement_ms) + Duration::from_millis(500);
        let waiting = lease::Waiting::default();
        Ok(Self {
            pool,
            options: Arc::new(options),
            owner: Arc::new(owner),
            keyring: keyring.clone(),
            waiting,
            call_timeout,
        })
    }

    /// What the pool of connections does now.
    pub fn pool_state(&self) -> PoolState {
        let (size, idle) = (self.pool.size() as usize, self.pool.num_idle());
        PoolState {
            in_use: size.saturating_sub(idle),
            idle,
            limit: self.pool.options().get_max_connections(),
            waiting: self.waiting.count(),
        }
    }

    /// Whether Postgres answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.run(async |mut connection| sqlx::query!("SELECT 1 AS one").fetch_one(&mut *connection).await)
            .await?;
        Ok(())
    }

    /// Closes the pool; calls under way end first.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// Runs work of the service itself, or for an admin: it sees all rows.
    async fn run<T, E: Into<StoreError>>(
        &self,
        work: impl AsyncFnOnce(lease::Lease) -> Result<T, E>,
    ) -> Result<T, StoreError> {
        lease::run(&self.pool, &self.waiting, self.call_timeout, work).await
    }

    /// Runs reads about one user: in the tables of users there are no rows for them but that user's, whatever the SQL
    /// says (`migrations/0060_isolation.sql`). Whoever reads on behalf of a user goes this way.
    async fn run_as<T, E: Into<StoreError>>(
        &self,
        user: UserId,
        work: impl AsyncFnOnce(lease::Lease) -> Result<T, E>,
    ) -> Result<T, StoreError> {
        let begin = format!(
            "BEGIN READ ONLY; SET LOCAL cota.scope = 'user'; SET LOCAL cota.user_id = '{}'",
            user.0.hyphenated()
        );
        lease::run_within(&self.pool, &self.waiting, self.call_timeout, begin, work).await
    }
}

/// What every session of ours is told.
fn tuned(options: PgConnectOptions, statement_ms: u64) -> PgConnectOptions {
    options.application_name("cota").options([
        // Said once per session; what is done for a user narrows it down.
        ("cota.scope", "service".to_owned()),
        ("statement_timeout", statement_ms.to_string()),
        // Shorter, so that a wait for a lock is told apart from a slow statement.
        ("lock_timeout", (statement_ms / 2).max(1).to_string()),
        ("idle_in_transaction_session_timeout", statement_ms.to_string()),
        // The server's side of a dead link: it drops the session, and the locks with it.
        ("tcp_user_timeout", statement_ms.to_string()),
        ("tcp_keepalives_idle", "5".to_owned()),
        ("tcp_keepalives_interval", "2".to_owned()),
        ("tcp_keepalives_count", "3".to_owned()),
    ])
}

/// With an authority of its own the server has to show a certificate; without, the URL's `sslmode` says what is done.
fn encrypted(config: &PostgresConfig, options: PgConnectOptions) -> Result<PgConnectOptions, StoreError> {
    let Some(ca_file) = &config.ca_file else { return Ok(options) };
    let pem = std::fs::read(ca_file).map_err(|error| {
        StoreError::from_acquire(sqlx::Error::Configuration(
            format!("cannot read postgres.ca_file {}: {error}", ca_file.display()).into(),
        ))
    })?;
    // The weaker modes would take any server, or do without encryption.
    let mode = match options.get_ssl_mode() {
        PgSslMode::VerifyCa => PgSslMode::VerifyCa,
        _ => PgSslMode::VerifyFull,
    };
    Ok(options.ssl_root_cert_from_pem(pem).ssl_mode(mode))
}

/// `BIGINT` that a constraint keeps at 0 or above.
fn unsigned(value: i64) -> Result<u64, StoreError> {
    u64::try_from(value).map_err(|_| StoreError::corrupt(format_args!("{value} where no negative may be")))
}

/// For `BIGINT`; a value above its range is the largest, which the constraints refuse.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Ids as Postgres takes them.
fn raw_ids(users: &[UserId]) -> Vec<uuid::Uuid> {
    users.iter().map(|user| user.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Servers run every call in a task of its own, so its future must be able to move between threads.
    #[test]
    fn calls_can_be_spawned() {
        fn spawnable<T>(_: impl Future<Output = T> + Send + 'static) {}
        let config = PostgresConfig::default();
        let keyring = Keyring::of(&Keyring::generate("test").unwrap()).unwrap();
        spawnable(async move {
            let store = Store::connect(&config, &keyring).await?;
            let user = UserId::generate();
            let partition = crate::quota::PartitionId(0);
            store.book(partition, 1, Booker::Flusher { run_id: "run", acked_up_to: 0 }, &[], 0).await?;
            store.load_cold(partition, 1, &[user]).await?;
            store.users(None, 1, UserFilter::default()).await?;
            store.booked(partition, &[]).await?;
            store.try_lock_recovery(partition).await?;
            store.migrate().await?;
            store.check_schema().await
        });
    }
}
