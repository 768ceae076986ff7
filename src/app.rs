//! The composition root: what starts in which order, and drains in which.
//!
//! Start: the ports are bound and answer, so that a port that is taken shows at once and probes are served; then
//! Postgres and its schema are waited for, while every call of the API is told so; then come the ledger's tasks, the
//! flusher, and the API. Stop: the listener first, and requests that are running are answered; then the flusher empties
//! the outbox; then the ledger's tasks end; what spans are left are sent last.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    sync::oneshot,
    task::JoinHandle,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    accounts::{
        Accounts,
        anomalies::Watch,
        checkpoints::Checkpoints,
        drift::{DriftWatch, Pace},
        renewals::Renewer,
        reports::Reporter,
    },
    backup::{BackupError, Schedule},
    config::{Config, ConfigError},
    crypto::{Keyring, KeyringError},
    flusher::{Flusher, TopUsers},
    http::{
        self, Api, MetricsPage,
        front::Front,
        jwt::Verifier,
        server::{self, Drained},
        tls::{Tls, TlsError},
    },
    ledger::{CallError, Ledger},
    metrics::{self, Exporter},
    notify::{
        Live, Notifier,
        email::{MailerError, Post},
        webhook::Sender,
    },
    quota::Partitions,
    store::{Store, StoreError},
    traces::{Traces, TracesError},
};

/// Pause between tries to reach Postgres at the start.
const POSTGRES_PAUSE: Duration = Duration::from_millis(500);

/// How often histograms are tidied and gauges set.
const UPKEEP: Duration = Duration::from_secs(2);

/// How often Postgres is asked what waits for somebody.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// Where a running service can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    pub http: SocketAddr,
    pub metrics: SocketAddr,
}

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    #[error("keys: {0}")]
    Keys(#[from] KeyringError),
    #[error("tls: {0}")]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("redis: {0}")]
    Redis(#[from] CallError),
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error("e-mail: {0}")]
    Email(#[from] MailerError),
    #[error("webhooks: {0}")]
    Webhooks(#[from] reqwest::Error),
    #[error("tracing: {0}")]
    Traces(#[from] TracesError),
    #[error("metrics: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

/// Runs the service until `shutdown` is done, then drains it. `started` hears the addresses once the service listens;
/// it is ready a moment later, as `/readyz` says.
///
/// # Errors
/// When it cannot listen, a key or a certificate cannot be used, or Postgres has a schema this version does not know.
pub async fn run(
    config: Config,
    shutdown: impl Future<Output = ()>,
    started: oneshot::Sender<Addresses>,
) -> Result<(), AppError> {
    config.check()?;
    let tls = Tls::of(&config.http)?;
    let store = Store::lazy(&config.postgres, &Keyring::of(&config.keys)?)?;
    let exporter = Exporter::start()?;
    let (traces, exporting) = Traces::start(&config.tracing)?;
    let listener = listen(config.http.listen).await?;
    let metrics_listener = listen(config.http.metrics_listen).await?;
    let addresses = Addresses {
        http: address(&listener, config.http.listen)?,
        metrics: address(&metrics_listener, config.http.metrics_listen)?,
    };
    let top_users = Arc::new(TopUsers::new(&config.metrics));
    let pages = pages(&exporter, &top_users);
    let mut doors = Doors::open(&config, listener, metrics_listener, tls, pages);
    tracing::info!(http = %addresses.http, metrics = %addresses.metrics, "listening");
    // Nobody may be waiting to hear it.
    let _ = started.send(addresses);
    let served = serve(&config, &store, (exporter, top_users, traces), &mut doors, shutdown).await;
    doors.close().await;
    store.close().await;
    exporting.stop().await;
    served
}

/// From the first answer of Postgres to the end of the ledger's tasks.
async fn serve(
    config: &Config,
    store: &Store,
    (exporter, top_users, traces): (Exporter, Arc<TopUsers>, Traces),
    doors: &mut Doors,
    shutdown: impl Future<Output = ()>,
) -> Result<(), AppError> {
    tokio::pin!(shutdown);
    let partitions = tokio::select! {
        partitions = wait_for_postgres(store, config) => partitions?,
        () = &mut shutdown => return Ok(()),
    };
    let (ledger, background) = Ledger::new(config, store.clone(), partitions)?;
    let running = background.start();
    let flusher = Flusher::new(ledger.outbox().clone(), store.clone(), partitions, config.flusher.clone());
    let renewer = Renewer::new(Accounts::new(store.clone(), ledger.clone()), flusher.renewals());
    doors.tasks.spawn(renewer.run(doors.stop.clone()));
    let flusher = flusher.counting(top_users).traced(traces.clone()).start();
    metrics::outbox_limits(config.ledger.outbox_soft_limit, config.ledger.outbox_hard_limit);
    metrics::lane_capacity(config.ledger.settle_queue, config.ledger.reserve_queue);
    let watch = Watch::new(store.clone(), &config.usage);
    doors.tasks.spawn(watch.run(doors.stop.clone()));
    let drift = DriftWatch::new(store.clone(), Pace::default());
    doors.tasks.spawn(drift.run(doors.stop.clone()));
    let reporter = Reporter::new(store.clone(), &ledger, partitions, &config.usage);
    doors.tasks.spawn(reporter.run(doors.stop.clone()));
    let sender = Sender::new(&config.notify)?;
    let mut notifier = Notifier::new(store.clone(), sender, config.notify.clone());
    if let Some(post) = Post::new(store.clone(), &config.email, config.http.top_up_url.clone())? {
        notifier = notifier.with_email(post, config.email.clone());
    }
    let notifier = notifier.traced(traces.clone()).start();
    let verifier = Verifier::new(&config.auth);
    doors.tasks.spawn(verifier.keep_keys_fresh(doors.stop.clone()));
    let live = Live::new(store.clone(), ledger.clone(), config.live.clone(), doors.stop_api.clone());
    doors.tasks.spawn(live.clone().run(doors.stop.clone()));
    let http = config.http.clone();
    let api = Api::new(ledger.clone(), store.clone(), http, &config.notify, live, verifier, traces);
    doors.tasks.spawn(upkeep(exporter, ledger, store.clone(), api.clone(), doors.stop.clone()));
    doors.tasks.spawn(look_at_postgres(store.clone(), doors.stop.clone()));
    let (eraser, stop) = (api.clone(), doors.stop.clone());
    doors.tasks.spawn(async move { eraser.accounts.keep_erasing(stop).await });
    let (refusals, refusals_store, stop) = (api.clone(), store.clone(), doors.stop.clone());
    doors.tasks.spawn(async move { refusals.refusals.keep(&refusals_store, stop).await });
    keep_safe(config, store, doors)?;
    let (limits, stop) = (api.clone(), doors.stop.clone());
    doors.tasks.spawn(async move { limits.limits.upkeep(stop).await });
    doors.front.open(http::router(api));

    shutdown.await;
    tracing::info!("draining");
    let drained = doors.drain().await;
    notifier.stop().await;
    flusher.stop().await;
    running.stop().await;
    tracing::info!(?drained, "stopped");
    Ok(())
}

/// Starts what puts things out of the reach of a broken Postgres: checkpoints of the audit log, and backups.
fn keep_safe(config: &Config, store: &Store, doors: &Doors) -> Result<(), AppError> {
    if let Some(folder) = &config.audit.checkpoint_dir {
        let name = Uuid::now_v7().simple().to_string();
        let checkpoints = Checkpoints::new(store.clone(), Keyring::of(&config.keys)?, folder, name);
        let period = Duration::from_secs(config.audit.checkpoint_interval_seconds.max(1));
        doors.tasks.spawn(checkpoints.run(period, doors.stop.clone()));
    }
    if let Some(backups) = Schedule::of(&config.backup, &config.postgres, store.clone())? {
        doors.tasks.spawn(backups.run(doors.stop.clone()));
    }
    Ok(())
}

/// The two listeners, and what runs beside them.
struct Doors {
    front: Front,
    api: Option<JoinHandle<Drained>>,
    stop_api: CancellationToken,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Doors {
    fn open(
        config: &Config,
        listener: TcpListener,
        metrics_listener: TcpListener,
        tls: Option<Tls>,
        pages: [(&'static str, MetricsPage); 2],
    ) -> Self {
        let (stop_api, stop) = (CancellationToken::new(), CancellationToken::new());
        let (tasks, front) = (TaskTracker::new(), Front::waiting());
        let limits = server::Limits::of(&config.http);
        let metrics_router = http::metrics_router(pages);
        tasks.spawn(server::serve(metrics_listener, metrics_router.into(), limits, None, stop.clone()));
        if let Some(tls) = tls.clone() {
            tasks.spawn(tls.renew(stop.clone()));
        }
        let api = tokio::spawn(server::serve(listener, front.clone(), limits, tls, stop_api.clone()));
        Self { front, api: Some(api), stop_api, tasks, stop }
    }

    /// Turns new callers away, and waits for those who were let in.
    async fn drain(&mut self) -> Option<Drained> {
        self.stop_api.cancel();
        // The task ends by itself; a panic in it was already logged.
        self.api.take()?.await.ok()
    }

    async fn close(mut self) {
        self.drain().await;
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, AppError> {
    TcpListener::bind(address).await.map_err(|error| AppError::Listen(address, error))
}

fn address(listener: &TcpListener, asked: SocketAddr) -> Result<SocketAddr, AppError> {
    listener.local_addr().map_err(|error| AppError::Listen(asked, error))
}

/// A service that starts while Postgres is away waits for it: it cannot know how many partitions there are.
async fn wait_for_postgres(store: &Store, config: &Config) -> Result<Partitions, AppError> {
    let wanted = Partitions::new(config.ledger.partitions)
        .ok_or(ConfigError::Invalid("ledger.partitions must be 1 to 1024"))?;
    loop {
        match async {
            store.check_schema().await?;
            store.ensure_partitions(wanted).await
        }
        .await
        {
            Ok(partitions) => return Ok(partitions),
            Err(error) if error.is_retryable() => {
                tracing::warn!(%error, "waiting for Postgres");
                sleep(POSTGRES_PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// What the metrics listener serves.
fn pages(exporter: &Exporter, top_users: &Arc<TopUsers>) -> [(&'static str, MetricsPage); 2] {
    let (exporter, top_users) = (exporter.clone(), Arc::clone(top_users));
    [
        ("/metrics", Arc::new(move || exporter.render())),
        ("/metrics/users", Arc::new(move || top_users.render())),
    ]
}

/// What only Postgres knows; while it is away the last answer stands.
async fn look_at_postgres(store: Store, stop: CancellationToken) {
    let mut ticks = interval(LOOK_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        match store.dead_letter_count().await {
            Ok(unresolved) => metrics::dead_letters(unresolved),
            Err(error) => tracing::debug!(%error, "dead letters cannot be counted"),
        }
    }
}

async fn upkeep(exporter: Exporter, ledger: Ledger, store: Store, api: Api, stop: CancellationToken) {
    let mut ticks = interval(UPKEEP);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        exporter.upkeep();
        ledger.publish_gauges();
        let pool = store.pool_state();
        metrics::postgres_pool(pool.in_use, pool.idle, pool.limit, pool.waiting);
        metrics::calls_in_flight(api.limits.in_flight.running());
    }
}
