//! A user's own numbers and history.

use jiff::{Timestamp, tz::TimeZone};

use super::{Accounts, users::UserError};
use crate::{
    quota::{
        UserId,
        projection::{Progress, Projection, Window},
    },
    store::{HistoryFilter, HistoryKey, HistoryRow},
};

/// The zone of users who name none.
pub const DEFAULT_ZONE: &str = "UTC";

/// What a user used lately, and what follows from it.
#[derive(Clone, Debug)]
pub struct RecentUse {
    /// IANA name.
    pub time_zone: String,
    /// The running month.
    pub progress: Progress,
    /// Tokens of the running month.
    pub month_tokens: i64,
    /// The days that a projection rests on.
    pub window: Window,
    /// Tokens of those days.
    pub window_tokens: i64,
    /// Time of the newest transaction that has arrived in the ledger.
    pub last_activity: Option<Timestamp>,
}

impl RecentUse {
    /// The projection for a user who has so many tokens left; `None` while too little is known.
    pub fn project(&self, remaining: i64) -> Option<Projection> {
        Projection::of(&self.window, self.window_tokens, &self.progress, self.month_tokens, remaining)
    }
}

impl Accounts {
    /// What a user used in the running month and in the last complete days, by its own calendar.
    pub async fn recent_use(&self, user: UserId, now: Timestamp) -> Result<RecentUse, UserError> {
        let marks = self.store.usage_marks(user).await?.ok_or(UserError::NotFound)?;
        let (time_zone, zone) = zone(marks.time_zone);
        let progress = Progress::of(now, &zone);
        let window = Window::of(now, &zone, marks.first_use);
        let spans = [(progress.start, progress.end), (window.start, window.end)];
        let sums = self.store.tokens_used(user, &spans).await?;
        let sum = |place: usize| sums.get(place).copied().unwrap_or(0);
        Ok(RecentUse {
            time_zone,
            progress,
            month_tokens: sum(0),
            window,
            window_tokens: sum(1),
            last_activity: marks.last_activity,
        })
    }

    /// Transactions newest first, after `after`, at most `limit`.
    pub async fn history(
        &self,
        user: UserId,
        filter: &HistoryFilter,
        after: Option<HistoryKey>,
        limit: u32,
    ) -> Result<Vec<HistoryRow>, UserError> {
        let rows = self.store.history(user, filter, after, limit).await?;
        if rows.is_empty() && after.is_none() && self.store.user(user).await?.is_none() {
            return Err(UserError::NotFound);
        }
        Ok(rows)
    }
}

/// A user's zone with its name. Names are checked when they are set; one that this machine does not know counts as
/// none.
pub(super) fn zone(name: Option<String>) -> (String, TimeZone) {
    let known = name.and_then(|name| TimeZone::get(&name).ok().map(|zone| (name, zone)));
    known.unwrap_or_else(|| (DEFAULT_ZONE.to_owned(), TimeZone::UTC))
}
