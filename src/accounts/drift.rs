//! Whether what accounts have used is what was booked: measured while the service runs.
//!
//! Both change in one SQL transaction, so they never differ, or something is broken: a bug, a restore of a part, or a
//! hand in the database. One replica goes through all accounts, a page after the other with a rest between them, and
//! begins anew when it is through. It holds the task's lock as long as it lives, so that what it found on the last
//! round stands until it has looked again; a replica that looks at nothing reports none.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::{
    metrics,
    quota::UserId,
    store::{SessionLock, Store, StoreError, Task},
};

/// Accounts that a round names in the log.
const LOGGED: u64 = 100;

/// How much of Postgres it takes.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Accounts of a page. One that does not answer in time is halved.
    pub page: u32,
    /// Between two pages.
    pub pause: Duration,
    /// Between two rounds, and between two looks whether the task is free.
    pub rest: Duration,
}

impl Default for Pace {
    /// Five million accounts in about twenty minutes, and one alone once a minute.
    fn default() -> Self {
        Self { page: 500, pause: Duration::from_millis(100), rest: Duration::from_secs(60) }
    }
}

/// See the module.
pub struct DriftWatch {
    store: Store,
    pace: Pace,
    lock: Option<SessionLock>,
    /// Accounts of the next page.
    page: u32,
    /// The last account of this round that was looked at.
    after: Option<UserId>,
    /// Found in this round.
    found: u64,
    /// Found in the last whole round.
    known: u64,
}

impl DriftWatch {
    pub fn new(store: Store, pace: Pace) -> Self {
        Self { store, pace, lock: None, page: pace.page, after: None, found: 0, known: 0 }
    }

    /// Looks again and again until it is stopped.
    pub async fn run(mut self, stop: CancellationToken) {
        while let Some(wait) = stop.run_until_cancelled(self.turn()).await {
            if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                break;
            }
        }
        if let Some(lock) = self.lock {
            lock.release().await;
        }
    }

    /// Looks at a page, if this replica is the one to; says how long to wait for the next.
    async fn turn(&mut self) -> Duration {
        let looked = match self.has_the_task().await {
            Ok(true) => self.look().await,
            Ok(false) => return self.pace.rest,
            Err(error) => Err(error),
        };
        match looked {
            Ok(true) => self.pace.rest,
            Ok(false) => self.pace.pause,
            Err(error) => {
                self.page = (self.page / 2).max(1);
                tracing::warn!(%error, "drift cannot be looked for");
                self.pace.rest
            }
        }
    }

    /// Whether the task is this replica's; a round that it has not begun itself begins at the first account.
    async fn has_the_task(&mut self) -> Result<bool, StoreError> {
        if let Some(lock) = &mut self.lock {
            if lock.is_held().await {
                return Ok(true);
            }
            self.lock = None;
            metrics::drift(0);
        }
        (self.after, self.found, self.known) = (None, 0, 0);
        self.lock = self.store.try_lock_task(Task::Drift).await?;
        Ok(self.lock.is_some())
    }

    /// Looks at the next page; whether the round is done. What is found shows at once; what was found before shows
    /// until the end of a round without it.
    ///
    /// # Errors
    /// When Postgres does not answer; the page is then looked at again.
    pub async fn look(&mut self) -> Result<bool, StoreError> {
        let page = self.store.drift_page(self.after, self.page).await?;
        let is_done = page.accounts < self.page as usize;
        let named = LOGGED.saturating_sub(self.found) as usize;
        for drift in page.found.iter().take(named) {
            tracing::error!(
                user = %drift.user, used = drift.used_tokens, booked = drift.booked_tokens,
                "an account's used tokens are not the sum of what was booked"
            );
        }
        metrics::drift_checked(page.accounts);
        self.found += page.found.len() as u64;
        self.known = if is_done { self.found } else { self.known.max(self.found) };
        metrics::drift(self.known);
        (self.after, self.found) = if is_done { (None, 0) } else { (page.last, self.found) };
        self.page = (self.page * 2).min(self.pace.page);
        Ok(is_done)
    }

    /// Accounts that drift, as far as is known.
    pub fn known(&self) -> u64 {
        self.known
    }
}
