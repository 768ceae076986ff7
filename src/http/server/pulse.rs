//! What a connection is doing, as its parts note it, and whether it may go on.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::body::Body;
use bytes::Bytes;
use hyper::{
    Version,
    body::{Frame, SizeHint},
};

use super::Limits;

/// The life of one connection. Written by its requests and its socket, read by whoever watches it; no other memory is
/// ordered by these numbers.
#[derive(Debug)]
pub struct Pulse {
    born: Instant,
    /// Requests whose head has arrived, since the accept.
    begun: AtomicU64,
    /// Of these, how many are not answered whole.
    running: AtomicU32,
    /// Of these, how many have an answer of known length that the peer has to take.
    owed: AtomicU32,
    /// Of these, how many have an answer that goes on and on.
    flowing: AtomicU32,
    /// Milliseconds from `born` to the last end of an answer, or to the last time some of one was taken.
    last_progress_ms: AtomicU64,
    /// Milliseconds from `born` to the last time the next piece of a flowing answer was asked for, and was there.
    last_flow_ms: AtomicU64,
    http2: AtomicBool,
}

/// Whether a connection may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes; look again after this.
    Stay(Duration),
    /// It has nothing to do: to be ended in order.
    Idle,
    /// It keeps us waiting: to be cut.
    Stalled,
}

impl Pulse {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            born: Instant::now(),
            begun: AtomicU64::new(0),
            running: AtomicU32::new(0),
            owed: AtomicU32::new(0),
            flowing: AtomicU32::new(0),
            last_flow_ms: AtomicU64::new(0),
            last_progress_ms: AtomicU64::new(0),
            http2: AtomicBool::new(false),
        })
    }

    /// A request whose head has arrived.
    pub fn begin(self: &Arc<Self>, version: Version) -> Work {
        if version == Version::HTTP_2 {
            self.http2.store(true, Ordering::Relaxed);
        }
        self.begun.fetch_add(1, Ordering::Relaxed);
        self.running.fetch_add(1, Ordering::Relaxed);
        Work { pulse: Arc::clone(self), owed: false, flows: false }
    }

    /// Requests so far.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Whether a byte that arrives now belongs to the head of a request. Frames of HTTP/2 may be anything; there,
    /// pings tell who is stuck in the middle of one.
    pub fn awaits_head(&self) -> bool {
        self.running.load(Ordering::Relaxed) == 0 && !self.http2.load(Ordering::Relaxed)
    }

    /// Notes that the peer took bytes. Between requests nobody asks, so nobody looks at the clock.
    pub fn taken(&self) {
        if self.running.load(Ordering::Relaxed) > 0 {
            self.progress();
        }
    }

    fn progress(&self) {
        self.last_progress_ms.store(self.age_ms(), Ordering::Relaxed);
    }

    fn flowed(&self) {
        self.last_flow_ms.store(self.age_ms(), Ordering::Relaxed);
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// What is to become of the connection.
    pub fn judge(&self, limits: &Limits) -> Verdict {
        let age = self.born.elapsed();
        let last_progress = Duration::from_millis(self.last_progress_ms.load(Ordering::Relaxed));
        let silent = age.saturating_sub(last_progress);
        let stay = |limit: Duration, since: Duration| match limit.saturating_sub(since) {
            Duration::ZERO => None,
            rest => Some(Verdict::Stay(rest)),
        };
        if self.begun() == 0 {
            return stay(limits.header_timeout, age).unwrap_or(Verdict::Stalled);
        }
        if self.running.load(Ordering::Relaxed) == 0 {
            return stay(limits.idle_timeout, silent).unwrap_or(Verdict::Idle);
        }
        if self.owed.load(Ordering::Relaxed) == 0 {
            if self.flowing.load(Ordering::Relaxed) == 0 {
                return Verdict::Stay(limits.write_timeout);
            }
            let last_flow = Duration::from_millis(self.last_flow_ms.load(Ordering::Relaxed));
            return stay(limits.flow_timeout, age.saturating_sub(last_flow)).unwrap_or(Verdict::Stalled);
        }
        stay(limits.write_timeout, silent).unwrap_or(Verdict::Stalled)
    }
}

/// A request that runs, until it is dropped.
pub struct Work {
    pulse: Arc<Pulse>,
    owed: bool,
    flows: bool,
}

impl Work {
    /// The answer is there, and the peer's to take.
    pub fn answer(mut self, body: Body) -> Answer {
        // A stream of events has no length. It says something now and then, if only that it is there; so one of which
        // nothing more is asked for has a peer that does not take what is there.
        self.owed = hyper::body::Body::size_hint(&body).exact().is_some();
        self.flows = !self.owed;
        if self.owed {
            self.pulse.progress();
            self.pulse.owed.fetch_add(1, Ordering::Relaxed);
        } else {
            self.pulse.flowed();
            self.pulse.flowing.fetch_add(1, Ordering::Relaxed);
        }
        Answer { body, work: self }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if self.owed {
            self.pulse.owed.fetch_sub(1, Ordering::Relaxed);
        }
        if self.flows {
            self.pulse.flowing.fetch_sub(1, Ordering::Relaxed);
        }
        self.pulse.progress();
        self.pulse.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of an answer; its request runs until it has gone.
pub struct Answer {
    body: Body,
    work: Work,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        if self.work.flows && frame.is_ready() {
            self.work.pulse.flowed();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        hyper::body::Body::is_end_stream(&self.body)
    }

    fn size_hint(&self) -> SizeHint {
        hyper::body::Body::size_hint(&self.body)
    }
}
