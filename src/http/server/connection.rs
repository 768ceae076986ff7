//! One connection, from its first byte to its last.

use std::{convert::Infallible, net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use axum::body::Body;
use futures_util::{StreamExt, stream::FuturesUnordered};
use hyper::{Request, body::Incoming, rt::Executor, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::Service;

use super::{
    Limits,
    guarded::Guarded,
    pulse::{Pulse, Verdict},
};
use crate::http::{front::Front, limits::networks::Peer, tls::Tls};

const MAX_STREAMS: u32 = 256;
/// Streams that the peer opened and reset before we looked at them. More is an attack (CVE-2023-44487).
const MAX_PENDING_RESETS: usize = 20;
/// Streams that we reset because the peer broke the protocol in them (CVE-2025-8671).
const MAX_LOCAL_RESETS: usize = 64;

/// What all connections of a listener share.
pub struct Connections {
    front: Front,
    tls: Option<Tls>,
    builder: auto::Builder<Tracked>,
    limits: Limits,
    /// Ends connections in order: each once its requests are answered.
    stop: CancellationToken,
    /// Ends them at once.
    cut: CancellationToken,
}

/// What a connection hears of besides its peer.
enum Event {
    Stop,
    Cut,
    /// It is time to look at its pulse.
    Look,
}

/// Each is asked only when it has something to say: a connection is polled several times for every request.
type Events<'a> = FuturesUnordered<Pin<Box<dyn Future<Output = Event> + Send + 'a>>>;

impl Connections {
    pub fn new(
        front: Front,
        tls: Option<Tls>,
        limits: Limits,
        tasks: Tracked,
        stop: CancellationToken,
    ) -> Self {
        let cut = tasks.cut.clone();
        let mut builder = auto::Builder::new(tasks);
        // Headers by number: hyper's own bound of 100 stays, since any other costs an allocation per request. Answers are
        // small: one buffer is cheaper to send than two.
        builder.http1().max_buf_size(limits.max_header_bytes).writev(false);
        let max_header_bytes = u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX);
        builder
            .http2()
            .timer(TokioTimer::new())
            // A peer that is stuck in the middle of a frame answers no ping, and is cut after twice this time.
            .keep_alive_interval(limits.header_timeout)
            .keep_alive_timeout(limits.header_timeout)
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(max_header_bytes)
            .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
            .max_local_error_reset_streams(MAX_LOCAL_RESETS);
        Self { front, tls, builder, limits, stop, cut }
    }

    /// Serves one peer until either side ends it.
    pub async fn run(&self, stream: TcpStream, peer: IpAddr) {
        // Answers are small and whole: waiting for more to send only adds delay.
        if stream.set_nodelay(true).is_err() {
            return;
        }
        match &self.tls {
            None => self.serve(stream, peer).await,
            Some(tls) => {
                let handshake = timeout(self.limits.header_timeout, tls.accept(stream));
                match self.cut.run_until_cancelled(handshake).await {
                    Some(Ok(Ok(stream))) => self.serve(stream, peer).await,
                    Some(Ok(Err(error))) => tracing::debug!(%error, "TLS handshake failed"),
                    Some(Err(_)) => tracing::debug!("TLS handshake too slow"),
                    None => {}
                }
            }
        }
    }

    fn events(&self) -> Events<'_> {
        let events = Events::new();
        events.push(Box::pin(async {
            self.stop.cancelled().await;
            Event::Stop
        }));
        events.push(Box::pin(async {
            self.cut.cancelled().await;
            Event::Cut
        }));
        events
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(&self, stream: S, peer: IpAddr) {
        let pulse = Pulse::new();
        let (front, beat) = (self.front.clone(), Arc::clone(&pulse));
        let service = service_fn(move |mut request: Request<Incoming>| {
            let work = beat.begin(request.version());
            request.extensions_mut().insert(Peer(peer));
            let answer = front.router().call(request.map(Body::new));
            async move {
                let response = answer.await.unwrap_or_else(|never| match never {});
                Ok::<_, Infallible>(response.map(|body| work.answer(body)))
            }
        });
        let stream = TokioIo::new(Guarded::new(stream, Arc::clone(&pulse), &self.limits));
        let connection = self.builder.serve_connection(stream, service);
        tokio::pin!(connection);
        let look = |after: Duration| async move {
            sleep(after).await;
            Event::Look
        };
        // Often enough for an answer that is not taken to be noticed, whenever it began.
        let often = self.limits.write_timeout;
        let mut events = self.events();
        events.push(Box::pin(look(self.limits.header_timeout.min(often))));
        let mut ending = false;
        let result = loop {
            let event = tokio::select! {
                biased;
                result = &mut connection => break result,
                Some(event) = events.next() => event,
            };
            match event {
                Event::Stop if ending => {}
                Event::Stop => {
                    ending = true;
                    connection.as_mut().graceful_shutdown();
                }
                Event::Cut => return,
                Event::Look => match pulse.judge(&self.limits) {
                    Verdict::Stay(rest) => events.push(Box::pin(look(rest.min(often)))),
                    Verdict::Idle if !ending => {
                        ending = true;
                        connection.as_mut().graceful_shutdown();
                        events.push(Box::pin(look(self.limits.header_timeout)));
                    }
                    Verdict::Idle | Verdict::Stalled => return,
                },
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, "connection ended early");
        }
    }
}

/// Runs tasks that are waited for, and that end when they are cut off: connections, and the streams of HTTP/2.
#[derive(Clone)]
pub struct Tracked {
    pub tracker: TaskTracker,
    pub cut: CancellationToken,
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Tracked {
    fn execute(&self, task: F) {
        self.tracker.spawn(self.cut.clone().run_until_cancelled_owned(task));
    }
}
