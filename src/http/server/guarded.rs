//! A socket that fails when its peer is too slow.
//!
//! hyper has one timeout for a head, and counts it from the end of the answer before: it cannot tell a connection that
//! rests from one whose peer sends a byte a second. It has none for answers that are not taken. Both are known here.

use std::{
    io::{self, ErrorKind, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

use super::{Limits, pulse::Pulse};

/// The two timeouts over a stream.
pub struct Guarded<S> {
    stream: S,
    pulse: Arc<Pulse>,
    header_timeout: Duration,
    write_timeout: Duration,
    head: Option<Head>,
    /// When bytes that wait to be taken are late.
    stall_ends: Option<Instant>,
    read_alarm: Alarm,
    write_alarm: Alarm,
}

/// A head of which something has arrived.
#[derive(Clone, Copy)]
struct Head {
    /// Requests before it: once there is another, the head was whole.
    before: u64,
    due: Instant,
}

impl<S> Guarded<S> {
    pub fn new(stream: S, pulse: Arc<Pulse>, limits: &Limits) -> Self {
        Self {
            stream,
            pulse,
            header_timeout: limits.header_timeout,
            write_timeout: limits.write_timeout,
            head: None,
            stall_ends: None,
            read_alarm: Alarm::default(),
            write_alarm: Alarm::default(),
        }
    }

    fn heard(&mut self) {
        let before = self.pulse.begun();
        if self.pulse.awaits_head() && self.head.is_none_or(|head| head.before != before) {
            self.head = Some(Head { before, due: Instant::now() + self.header_timeout });
        }
    }

    fn head_is_late(&mut self, context: &mut Context<'_>) -> bool {
        match self.head {
            Some(head) if head.before == self.pulse.begun() && self.pulse.awaits_head() => {
                self.read_alarm.rings(context, head.due)
            }
            _ => false,
        }
    }

    /// Passes on how a write went, unless it has been waiting for too long.
    fn watch<T>(&mut self, context: &mut Context<'_>, write: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if write.is_ready() {
            self.stall_ends = None;
            self.pulse.taken();
            return write;
        }
        let end = *self.stall_ends.get_or_insert_with(|| Instant::now() + self.write_timeout);
        if self.write_alarm.rings(context, end) { late("the answer was not taken in time") } else { write }
    }
}

fn late<T>(what: &'static str) -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::Error::new(ErrorKind::TimedOut, what)))
}

/// A timer that exists once it is needed.
#[derive(Default)]
struct Alarm(Option<Pin<Box<Sleep>>>);

impl Alarm {
    fn rings(&mut self, context: &mut Context<'_>, at: Instant) -> bool {
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if sleep.deadline() != at {
            sleep.as_mut().reset(at);
        }
        sleep.as_mut().poll(context).is_ready()
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.heard();
        } else if read.is_pending() && self.head_is_late(context) {
            return late("the head did not arrive in time");
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, write)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let write = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(context, write)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flush = Pin::new(&mut self.stream).poll_flush(context);
        // A flush that is done says nothing of bytes that a socket took or did not take.
        if flush.is_pending() { self.watch(context, flush) } else { flush }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shutdown = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(context, shutdown)
    }
}
