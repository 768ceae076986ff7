//! The listener: connections within bounds, and a shutdown that lets running requests finish.
//!
//! What one caller can hold is bounded everywhere: connections by a semaphore (past it they wait in the backlog of
//! the kernel), heads by size, number and time, HTTP/2 streams by number. Every task is tracked: [`serve`] returns
//! only when none is left.

use std::{
    convert::Infallible,
    io::ErrorKind,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::Router;
use hyper::{Request, body::Incoming, rt::Executor, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::{
        conn::auto,
        graceful::{GracefulShutdown, Watcher},
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use crate::config::{HttpConfig, millis};

/// Bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_connections: usize,
    /// From the accept, or from the end of the last answer, to the end of a head: also how long an idle HTTP/1
    /// connection stays.
    pub header_timeout: Duration,
    /// How long a shutdown waits for running requests.
    pub drain_timeout: Duration,
}

impl Limits {
    pub fn of(config: &HttpConfig) -> Self {
        Self {
            max_connections: 16_384,
            header_timeout: millis(config.header_timeout_ms),
            drain_timeout: millis(config.drain_timeout_ms),
        }
    }
}

const MAX_HEADERS: usize = 64;
/// All of an HTTP/1 head, and what is read ahead of the handler.
const MAX_BUFFER_BYTES: usize = 64 * 1024;
const MAX_HEADER_LIST_BYTES: u32 = 16 * 1024;
const MAX_STREAMS: u32 = 256;
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after an accept that failed for want of files or memory: others must end first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How a listener ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every running request was answered.
    Clean,
    /// Some were cut off after the drain timeout.
    Cut,
}

/// Serves `router` until `stop` is cancelled, then drains.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
) -> Drained {
    let connections = Connections::new(router, limits);
    let graceful = GracefulShutdown::new();
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    loop {
        let (stream, slot) = tokio::select! {
            accepted = accept(&listener, &slots) => accepted,
            () = stop.cancelled() => break,
        };
        connections.spawn(stream, slot, graceful.watcher());
    }
    // New callers are turned away at once, and can go to another replica.
    drop(listener);
    let clean = timeout(limits.drain_timeout, graceful.shutdown()).await.is_ok();
    connections.end().await;
    if clean { Drained::Clean } else { Drained::Cut }
}

/// The next connection, once there is room for it.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        let Ok(slot) = Arc::clone(slots).acquire_owned().await else {
            // Nobody closes the semaphore; if somebody did, no connection could ever be let in.
            return std::future::pending().await;
        };
        match listener.accept().await {
            Ok((stream, _)) => return (stream, slot),
            Err(error) if is_of_the_peer(error.kind()) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept connections");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// The peer was gone before we looked.
fn is_of_the_peer(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused)
}

/// All tasks of a listener.
struct Connections {
    router: Router,
    builder: Arc<auto::Builder<Tracked>>,
    tasks: Tracked,
    header_timeout: Duration,
}

impl Connections {
    fn new(router: Router, limits: Limits) -> Self {
        let tasks = Tracked { tracker: TaskTracker::new(), cut: CancellationToken::new() };
        let mut builder = auto::Builder::new(tasks.clone());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.header_timeout)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_BUFFER_BYTES);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEADER_LIST_BYTES);
        Self { router, builder: Arc::new(builder), tasks, header_timeout: limits.header_timeout }
    }

    fn spawn(&self, stream: TcpStream, slot: OwnedSemaphorePermit, watcher: Watcher) {
        let (router, builder, limit) = (self.router.clone(), Arc::clone(&self.builder), self.header_timeout);
        self.tasks.execute(async move {
            connection(stream, router, &builder, watcher, limit).await;
            drop(slot);
        });
    }

    /// Cuts off what still runs, and waits until it is gone.
    async fn end(self) {
        self.tasks.cut.cancel();
        self.tasks.tracker.close();
        self.tasks.tracker.wait().await;
    }
}

async fn connection(
    stream: TcpStream,
    router: Router,
    builder: &auto::Builder<Tracked>,
    watcher: Watcher,
    limit: Duration,
) {
    // Answers are small and whole: waiting for more to send only adds delay.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let spoke = Arc::new(AtomicBool::new(false));
    let heard = Arc::clone(&spoke);
    let service = service_fn(move |request: Request<Incoming>| {
        heard.store(true, Ordering::Relaxed);
        let answer = router.clone().oneshot(request.map(axum::body::Body::new));
        async move { Ok::<_, Infallible>(answer.await.unwrap_or_else(|never| match never {})) }
    });
    let serving = watcher.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned());
    tokio::pin!(serving);
    // hyper's own timeout starts once it knows the protocol; a peer that sends nothing never gets that far.
    let ended = tokio::select! {
        result = &mut serving => Some(result),
        () = sleep(limit) => None,
    };
    let result = match ended {
        Some(result) => result,
        None if spoke.load(Ordering::Relaxed) => serving.await,
        None => return,
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended early");
    }
}

/// Runs tasks that are waited for, and that end when they are cut off: connections, and the streams of HTTP/2.
#[derive(Clone)]
struct Tracked {
    tracker: TaskTracker,
    cut: CancellationToken,
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tracked {
    fn execute(&self, task: F) {
        self.tracker.spawn(self.cut.clone().run_until_cancelled_owned(task));
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
