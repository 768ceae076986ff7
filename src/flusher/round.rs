//! One round of the flusher: some pages of the outbox, from its head on.
//!
//! Redis and Postgres work at the same time: while a page is booked, the one before it is acked and the one after it is
//! read. Pages are booked one after the other and acked only when they are booked, so exactly once does not depend on
//! it: whatever goes wrong ends the round, and the next one begins at the head, where it meets as replays what was
//! booked and not acked.

use tokio::{join, time::Instant};

use super::{FlushError, Flusher, Round};
use crate::{
    ledger::OutboxPage,
    metrics,
    quota::{OutboxId, PartitionId},
    store::{Booked, Booker, Booking},
    traces::{self, Recording},
};

/// Most pages of one round: a flusher that is told to stop looks up between rounds.
const ROUND_PAGES: usize = 16;

/// A page on its way from its reading to its ack.
struct Passage {
    page: OutboxPage,
    started: Instant,
    span: Option<Recording>,
    /// The outbox may have had more at the reading.
    is_full: bool,
}

impl Flusher {
    /// One round: read from the head on, book, ack exactly what was booked.
    ///
    /// # Errors
    /// When a store does not answer. Nothing is lost: the next round meets the same entries.
    pub async fn flush(&self, partition: PartitionId) -> Result<Round, FlushError> {
        let mut current = self.read(partition, None).await?;
        let OutboxPage { open, depth, entries, unreadable, .. } = &current.page;
        metrics::outbox(partition.0, *depth, current.page.age());
        match (open, entries.is_empty(), *unreadable) {
            (false, ..) => return Ok(Round::Closed),
            (true, true, 0) => return Ok(Round::Empty),
            (true, true, unreadable) => return Err(FlushError::Unreadable(unreadable)),
            (true, false, _) => {}
        }
        let (mut entries, mut pages, mut behind) = (0, 1, None);
        loop {
            let goes_on = current.is_full && pages < ROUND_PAGES;
            let last = current.page.entries.last().map(|entry| entry.outbox_id);
            let (booking, acked, ahead) = join!(
                self.book(partition, &mut current),
                self.ack(partition, behind.take()),
                self.read_ahead(partition, last.filter(|_| goes_on)),
            );
            let booked = match booking? {
                Booking::Booked(booked) => booked,
                Booking::Fenced => return Ok(Round::Closed),
                Booking::Busy => return Ok(Round::Busy),
            };
            acked?;
            entries += current.page.entries.len();
            let Some(next) = ahead else {
                let more = current.is_full;
                self.ack(partition, Some((current, booked))).await?;
                return Ok(Round::Flushed { entries, more });
            };
            // What is booked now is the oldest that Postgres may not have.
            metrics::outbox(partition.0, next.page.depth, next.page.age());
            behind = Some((std::mem::replace(&mut current, next), booked));
            pages += 1;
        }
    }

    async fn read(&self, partition: PartitionId, after: Option<OutboxId>) -> Result<Passage, FlushError> {
        let started = Instant::now();
        let limit = self.config.batch_rows;
        let page = self.outbox.read(partition, limit, after).await?;
        let rows = page.entries.len();
        let span = if rows > 0 { self.traces.flush(started.elapsed(), partition.0, rows) } else { None };
        let is_full = page.met() >= limit;
        Ok(Passage { page, started, span, is_full })
    }

    /// The page after an entry. None when it has nothing to book, or cannot be read: the next round will say why.
    async fn read_ahead(&self, partition: PartitionId, after: Option<OutboxId>) -> Option<Passage> {
        let next = self.read(partition, Some(after?)).await.ok()?;
        (next.page.open && !next.page.entries.is_empty()).then_some(next)
    }

    async fn book(&self, partition: PartitionId, passage: &mut Passage) -> Result<Booking, FlushError> {
        let Passage { page, span, .. } = passage;
        let by = Booker::Flusher { run_id: &page.run_id, acked_up_to: page.acked_up_to };
        let work = self.store.book(partition, page.epoch, by, &page.entries, page.sequence);
        let booking = failing(span, traces::within(span.as_ref(), work).await)?;
        if let Booking::Booked(booked) = booking {
            if booked.to_renew > 0 {
                self.renewals.notify_one();
            }
            if booked.dead > 0 {
                tracing::error!(
                    partition = partition.0,
                    dead = booked.dead,
                    "entries went to the dead letters"
                );
            }
            self.top_users.count(partition, page.epoch, &page.entries, Instant::now().into_std());
        }
        Ok(booking)
    }

    /// Takes a booked page out of the outbox, if there is one.
    async fn ack(&self, partition: PartitionId, booked: Option<(Passage, Booked)>) -> Result<(), FlushError> {
        let Some((Passage { page, started, mut span, .. }, booked)) = booked else { return Ok(()) };
        let work = self.outbox.ack(partition, &page.entries);
        let acked = traces::within(span.as_ref(), work).await;
        failing(&mut span, acked)?;
        metrics::flushed(booked.inserted, booked.replayed, booked.dead, started.elapsed());
        Ok(())
    }
}

/// Notes in a span what went wrong.
fn failing<T>(
    span: &mut Option<Recording>,
    result: Result<T, impl Into<FlushError>>,
) -> Result<T, FlushError> {
    result.map_err(|error| {
        let error = error.into();
        if let Some(span) = span {
            span.fail(error.as_str());
        }
        error
    })
}
