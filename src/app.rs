//! The composition root: what starts in which order, and drains in which.
//!
//! Start: the ports are bound, so that a port that is taken shows at once; then Postgres and its schema are waited for;
//! then come the ledger's tasks, the flusher, and the answers over HTTP. Stop: the listener first, and requests that are running are answered; then the flusher empties the
//! outbox; then the ledger's tasks end.

use std::{future::Future, net::SocketAddr, time::Duration};

use tokio::{
    net::TcpListener,
    sync::oneshot,
    time::{interval, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::{Config, ConfigError},
    flusher::Flusher,
    http::{self, Api, jwt::Verifier, server},
    ledger::{CallError, Ledger},
    metrics::{self, Exporter},
    quota::Partitions,
    store::{Store, StoreError},
};

/// Pause between tries to reach Postgres at the start.
const POSTGRES_PAUSE: Duration = Duration::from_millis(500);

/// How often histograms are tidied and gauges set.
const UPKEEP: Duration = Duration::from_secs(2);

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
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("redis: {0}")]
    Redis(#[from] CallError),
    #[error("metrics: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
}

/// Runs the service until `shutdown` is done, then drains it. `started` hears the addresses once the service listens;
/// it is ready a moment later, as `/readyz` says.
///
/// # Errors
/// When it cannot listen, or Postgres has a schema this version does not know.
pub async fn run(
    config: Config,
    shutdown: impl Future<Output = ()>,
    started: oneshot::Sender<Addresses>,
) -> Result<(), AppError> {
    config.check()?;
    let listener = listen(config.http.listen).await?;
    let metrics_listener = listen(config.http.metrics_listen).await?;
    let addresses = Addresses {
        http: address(&listener, config.http.listen)?,
        metrics: address(&metrics_listener, config.http.metrics_listen)?,
    };
    let exporter = Exporter::start()?;
    let store = Store::lazy(&config.postgres)?;
    tokio::pin!(shutdown);
    let partitions = tokio::select! {
        partitions = wait_for_postgres(&store, &config) => partitions?,
        () = &mut shutdown => return Ok(()),
    };

    let (ledger, background) = Ledger::new(&config, store.clone(), partitions)?;
    let running = background.start();
    let flusher =
        Flusher::new(ledger.outbox().clone(), store.clone(), partitions, config.flusher.clone()).start();
    let (stop_http, stop_metrics, tasks) =
        (CancellationToken::new(), CancellationToken::new(), TaskTracker::new());
    let render = exporter.clone();
    let metrics_router = http::metrics_router(move || render.render());
    let limits = server::Limits::of(&config.http);
    tasks.spawn(server::serve(metrics_listener, metrics_router, limits, stop_metrics.clone()));
    tasks.spawn(upkeep(exporter, ledger.clone(), stop_metrics.clone()));
    let verifier = Verifier::new(&config.auth);
    tasks.spawn(verifier.keep_keys_fresh(stop_metrics.clone()));
    let api = Api::new(ledger, store.clone(), config.http.clone(), verifier);
    let serving = tokio::spawn(server::serve(listener, http::router(api), limits, stop_http.clone()));
    tracing::info!(http = %addresses.http, metrics = %addresses.metrics, "listening");
    // Nobody may be waiting to hear it.
    let _ = started.send(addresses);

    shutdown.await;
    tracing::info!("draining");
    stop_http.cancel();
    // The task ends by itself; a panic in it was already logged.
    let drained = serving.await;
    flusher.stop().await;
    running.stop().await;
    stop_metrics.cancel();
    tasks.close();
    tasks.wait().await;
    store.close().await;
    tracing::info!(?drained, "stopped");
    Ok(())
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

async fn upkeep(exporter: Exporter, ledger: Ledger, stop: CancellationToken) {
    let mut ticks = interval(UPKEEP);
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        exporter.upkeep();
        metrics::partitions_open(ledger.open_partitions());
        metrics::witnessed(ledger.witnessed());
    }
}
