//! Backups by the service itself: of all replicas one at a time, when the newest in its folder is old enough.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{BackupError, Backups, Keep};
use crate::{
    config::{BackupConfig, PostgresConfig},
    metrics,
    store::Store,
};

/// Longest pause between two looks at the folder.
const LOOK: Duration = Duration::from_secs(60);

/// Pause after a failure, so that a large dump that fails at its end does not run all the time.
const AFTER_FAILURE: Duration = Duration::from_secs(600);

/// Makes backups when they are due.
pub struct Schedule {
    backups: Backups,
    interval: Duration,
    started: Timestamp,
}

impl Schedule {
    /// `None` when there is no folder to write to.
    ///
    /// # Errors
    /// When the URL of Postgres is none.
    pub fn of(
        config: &BackupConfig,
        postgres: &PostgresConfig,
        store: Store,
    ) -> Result<Option<Self>, BackupError> {
        let Some(directory) = &config.directory else { return Ok(None) };
        let keep = Keep { newest: config.keep, days: config.keep_days };
        let backups = Backups::new(store, postgres, directory, keep)?;
        let interval = Duration::from_secs(config.interval_seconds);
        Ok(Some(Self { backups, interval, started: Timestamp::now() }))
    }

    /// Looks again and again until it is stopped; a dump that is under way then is given up.
    pub async fn run(self, stop: CancellationToken) {
        let mut ticks = interval(LOOK.min(self.interval / 10).max(Duration::from_millis(100)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut not_before = Instant::now();
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.tell_age();
            if Instant::now() < not_before {
                continue;
            }
            if let Some(Err(error)) = stop.run_until_cancelled(self.turn()).await {
                metrics::backup(false);
                tracing::error!(%error, "no backup was made");
                not_before = Instant::now() + AFTER_FAILURE.min(self.interval);
            }
        }
    }

    async fn turn(&self) -> Result<(), BackupError> {
        let due = SignedDuration::try_from(self.interval).unwrap_or(SignedDuration::MAX);
        let newest = self.backups.newest()?;
        if newest.is_some_and(|newest| Timestamp::now().duration_since(newest) < due) {
            return Ok(());
        }
        if let Some(made) = self.backups.make_if_older(due).await? {
            metrics::backup(true);
            self.tell_age();
            let (path, removed) = (made.path.display(), made.removed.len());
            tracing::info!(%path, bytes = made.bytes, tables = made.tables, removed, "a backup was made");
        }
        Ok(())
    }

    fn tell_age(&self) {
        // A folder that cannot be read is told by the turn; meanwhile the age grows.
        let newest = self.backups.newest().ok().flatten().unwrap_or(self.started);
        let age = Timestamp::now().duration_since(newest);
        metrics::backup_age(Duration::try_from(age).unwrap_or_default(), self.interval);
    }
}
