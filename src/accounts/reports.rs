//! Monthly reports: written by themselves when a month has ended, and on demand before.
//!
//! A month ends by the calendar of each user. Its report is written once the outbox of the user's partition has been
//! booked beyond that instant; from then on it stays as it is, and what arrives later of the month is `late` in the next.

use std::{collections::HashMap, time::Duration};

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use tokio_util::sync::CancellationToken;

use super::{Accounts, usage, users::UserError};
use crate::{
    config::{UsageConfig, millis},
    ledger::{Ledger, Outbox},
    metrics,
    quota::{PartitionId, Partitions, UserId, period::Month},
    store::{
        Consolidated, ConsolidatedUser, DueUser, Report, ReportPeriod, Reported, Store, StoreError, Summary,
        Task,
    },
};

#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("there is no such user")]
    UserNotFound,
    /// The month is to come, or ended before there was the account.
    #[error("there is no report of this month")]
    NotFound,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Accounts {
    /// The report of a month: as it was written, or as it would be now.
    pub async fn report(&self, user: UserId, month: Month, now: Timestamp) -> Result<Report, ReportError> {
        if let Some(report) = self.store.monthly_report(user, month).await? {
            return Ok(report);
        }
        let found = self.store.user(user).await?.ok_or(ReportError::UserNotFound)?;
        let zone = usage::zone(found.time_zone);
        if month > Month::at(now, &zone.1) {
            return Err(ReportError::NotFound);
        }
        let period = ReportPeriod::new(month, zone);
        match self.store.provisional_report(user, &period).await? {
            Some(report) => Ok(report),
            // It may have been written meanwhile.
            None => self.store.monthly_report(user, month).await?.ok_or(ReportError::NotFound),
        }
    }

    /// Written reports newest first, of months before `before`, at most `limit`.
    pub async fn reports(
        &self,
        user: UserId,
        before: Option<Month>,
        limit: u32,
    ) -> Result<Vec<Report>, UserError> {
        let reports = self.store.monthly_reports(user, before, limit).await?;
        if reports.is_empty() && before.is_none() && self.store.user(user).await?.is_none() {
            return Err(UserError::NotFound);
        }
        Ok(reports)
    }

    /// A month over all users, with the `top` of them.
    pub async fn consolidated(&self, month: Month, top: u32) -> Result<Consolidated, StoreError> {
        self.store.consolidated(month, &self.spans(month).await?, top).await
    }

    /// What each user used in a month: by id, after `after`, at most `limit`.
    pub async fn consolidated_users(
        &self,
        month: Month,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<ConsolidatedUser>, StoreError> {
        self.store.consolidated_users(month, &self.spans(month).await?, after, limit).await
    }

    /// Where all users stand.
    pub async fn summary(&self, now: Timestamp) -> Result<Summary, StoreError> {
        self.store.summary(now).await
    }

    /// A month in every zone that users are in.
    async fn spans(&self, month: Month) -> Result<Vec<(String, Timestamp, Timestamp)>, StoreError> {
        let names = self.store.time_zones().await?.into_iter();
        // Under the name that users have, also where this machine does not know it.
        let span = |name: String| {
            let (_, zone) = usage::zone(Some(name.clone()));
            (name, month.start(&zone), month.end(&zone))
        };
        Ok(names.map(span).collect())
    }
}

/// Users of one round.
const ROUND: u32 = 200;

/// Time that the clocks of Redis and of this machine may be apart: an outbox that is empty now is taken for booked up to
/// so long ago.
const CLOCKS_APART: SignedDuration = SignedDuration::from_secs(30);

/// Writes the reports of months that have ended.
pub struct Reporter {
    store: Store,
    outbox: Outbox,
    partitions: Partitions,
    interval: Duration,
}

impl Reporter {
    pub fn new(store: Store, ledger: &Ledger, partitions: Partitions, config: &UsageConfig) -> Self {
        let interval = millis(config.report_interval_ms);
        Self { store, outbox: ledger.outbox().clone(), partitions, interval }
    }

    /// Looks again and again until it is stopped.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            match stop.run_until_cancelled(self.turn(Timestamp::now())).await {
                None | Some(Ok(0)) => {}
                Some(Ok(written)) => tracing::info!(written, "monthly reports written"),
                Some(Err(error)) => tracing::warn!(%error, "monthly reports cannot be written"),
            }
        }
    }

    /// Looks once, unless another replica does; says how many months were told.
    async fn turn(&self, now: Timestamp) -> Result<usize, StoreError> {
        let Some(lock) = self.store.try_lock_task(Task::Reports).await? else { return Ok(0) };
        let written = self.look(now).await;
        lock.release().await;
        written
    }

    /// Tells all months that have ended as of `now`, zone by zone; says how many.
    ///
    /// # Errors
    /// When Postgres does not answer; what was written by then stays.
    pub async fn look(&self, now: Timestamp) -> Result<usize, StoreError> {
        let mut booked = BookedUpTo { reporter: self, now, known: HashMap::new() };
        let mut written = 0;
        for name in self.store.time_zones().await? {
            let (_, zone) = usage::zone(Some(name.clone()));
            let last = Month::at(now, &zone).previous();
            let mut after = None;
            loop {
                let due = self.store.due_reports(&name, last, after, ROUND).await?;
                let Some(farthest) = due.last() else { break };
                after = Some(*farthest);
                for user in due {
                    written += self.tell(user, (&name, &zone), &mut booked).await?;
                }
            }
        }
        Ok(written)
    }

    /// The next month of a user, if all of it is booked.
    async fn tell(
        &self,
        due: DueUser,
        (name, zone): (&str, &TimeZone),
        booked: &mut BookedUpTo<'_>,
    ) -> Result<usize, StoreError> {
        let period = ReportPeriod::new(due.reported.next(), (name.to_owned(), zone.clone()));
        if !booked.through(self.partitions.of(due.user), period.end).await {
            return Ok(0);
        }
        match self.store.write_report(due.user, &period).await? {
            Reported::Written => {
                metrics::month_told();
                Ok(1)
            }
            Reported::NotNext => Ok(0),
        }
    }
}

/// Up to which instant the outbox of each partition is booked, read once for all its users.
struct BookedUpTo<'a> {
    reporter: &'a Reporter,
    now: Timestamp,
    known: HashMap<PartitionId, Option<Timestamp>>,
}

impl BookedUpTo<'_> {
    /// Whether all that was settled before this instant is in the ledger.
    async fn through(&mut self, partition: PartitionId, instant: Timestamp) -> bool {
        let up_to = match self.known.get(&partition) {
            Some(up_to) => *up_to,
            None => {
                let up_to = self.read(partition).await;
                self.known.insert(partition, up_to);
                up_to
            }
        };
        up_to.is_some_and(|up_to| instant <= up_to)
    }

    /// `None` while it cannot be known: the partition is not open, or Redis does not answer.
    async fn read(&self, partition: PartitionId) -> Option<Timestamp> {
        let page = self.reporter.outbox.read(partition, 1, None).await.ok().filter(|page| page.open)?;
        let until_now = self.now.checked_sub(CLOCKS_APART).ok()?;
        match page.entries.first() {
            Some(oldest) => {
                let written = Timestamp::from_millisecond(i64::try_from(oldest.at_ms).ok()?).ok()?;
                Some(written.min(until_now))
            }
            None => (page.depth == 0).then_some(until_now),
        }
    }
}
