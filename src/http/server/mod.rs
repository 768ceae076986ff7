//! The listener: connections within bounds, and a shutdown that lets running requests finish.
//!
//! What one caller can hold is bounded everywhere: connections by a semaphore (past it they wait in the backlog of
//! the kernel) and, if configured, by the network they come from; heads by size, number and time; answers by the time
//! in which they are taken; HTTP/2 streams by number. Every task is tracked: [`serve`] returns only when none is left.

mod connection;
mod guarded;
mod per_network;
mod pulse;

use std::{
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{events::KEEP_ALIVE, front::Front, limits::networks::Network, tls::Tls};
use crate::{
    config::{HttpConfig, millis},
    metrics,
};
use connection::{Connections, Tracked};
use per_network::PerNetwork;

/// Bounds of a listener.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub max_connections: usize,
    /// 0: no limit.
    pub max_connections_per_network: usize,
    pub max_header_bytes: usize,
    /// From the first byte of a head, or from the accept, to its end; also for a TLS handshake.
    pub header_timeout: Duration,
    /// How long a connection without a request stays.
    pub idle_timeout: Duration,
    /// How long a peer may take nothing of an answer.
    pub write_timeout: Duration,
    /// How long nothing more may be asked for of an answer that goes on and on, such as a stream of events.
    pub flow_timeout: Duration,
    /// How long a shutdown waits for running requests.
    pub drain_timeout: Duration,
}

impl Limits {
    pub fn of(config: &HttpConfig) -> Self {
        Self {
            max_connections: config.max_connections.min(Semaphore::MAX_PERMITS),
            max_connections_per_network: config.max_connections_per_network,
            max_header_bytes: config.max_header_bytes,
            header_timeout: millis(config.header_timeout_ms),
            idle_timeout: millis(config.idle_timeout_ms),
            write_timeout: millis(config.write_timeout_ms),
            // It says something this often; once it was not asked for, and once it may have come just before.
            flow_timeout: 2 * KEEP_ALIVE + millis(config.write_timeout_ms),
            drain_timeout: millis(config.drain_timeout_ms),
        }
    }
}

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

/// Serves what is behind `front` until `stop` is cancelled, then drains.
pub async fn serve(
    listener: TcpListener,
    front: Front,
    limits: Limits,
    tls: Option<Tls>,
    stop: CancellationToken,
) -> Drained {
    let tasks = Tracked { tracker: TaskTracker::new(), cut: CancellationToken::new() };
    let connections = Arc::new(Connections::new(front, tls, limits, tasks.clone(), stop.clone()));
    let slots = Arc::new(Semaphore::new(limits.max_connections));
    let networks = PerNetwork::new(limits.max_connections_per_network);
    loop {
        let (stream, peer, slot) = tokio::select! {
            accepted = accept(&listener, &slots) => accepted,
            () = stop.cancelled() => break,
        };
        let Some(share) = networks.enter(Network::from(peer)) else {
            metrics::limited("connections");
            continue;
        };
        let connections = Arc::clone(&connections);
        tasks.tracker.spawn(async move {
            connections.run(stream, peer).await;
            drop((slot, share));
        });
    }
    // New callers are turned away at once, and can go to another replica.
    drop(listener);
    tasks.tracker.close();
    let clean = timeout(limits.drain_timeout, tasks.tracker.wait()).await.is_ok();
    tasks.cut.cancel();
    tasks.tracker.wait().await;
    if clean { Drained::Clean } else { Drained::Cut }
}

/// The next connection, once there is room for it.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> (TcpStream, IpAddr, OwnedSemaphorePermit) {
    loop {
        let Ok(slot) = Arc::clone(slots).acquire_owned().await else {
            // Nobody closes the semaphore; if somebody did, no connection could ever be let in.
            return std::future::pending().await;
        };
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, SocketAddr::ip(&peer), slot),
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

#[cfg(test)]
mod tests;
