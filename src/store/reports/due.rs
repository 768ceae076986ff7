//! Whose months have ended.

use jiff_sqlx::ToSqlx;
use uuid::Uuid;

use crate::{
    quota::{UserId, period::Month},
    store::{Store, StoreError},
};

/// A user with a month to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueUser {
    pub user: UserId,
    /// The last month that is told; the one after it is next.
    pub reported: Month,
}

impl Store {
    /// The time zones of all users, by name; users who name none are in UTC.
    pub async fn time_zones(&self) -> Result<Vec<String>, StoreError> {
        self.run(async |mut connection| {
            // From name to name through the index: there are few, whatever the number of users.
            sqlx::query_scalar!(
                r#"WITH RECURSIVE zones (zone) AS (
                       (SELECT coalesce(time_zone, 'UTC') FROM user_accounts ORDER BY coalesce(time_zone, 'UTC') LIMIT 1)
                       UNION ALL
                       SELECT (
                           SELECT coalesce(time_zone, 'UTC') FROM user_accounts
                           WHERE coalesce(time_zone, 'UTC') > zones.zone ORDER BY coalesce(time_zone, 'UTC') LIMIT 1
                       )
                       FROM zones WHERE zones.zone IS NOT NULL
                   )
                   SELECT zone AS "zone!" FROM zones WHERE zone IS NOT NULL"#
            )
            .fetch_all(&mut *connection)
            .await
        })
        .await
    }

    /// Users of a zone with a month to be told up to `last`, the longest overdue first; after `after`, at most `limit`.
    pub async fn due_reports(
        &self,
        time_zone: &str,
        last: Month,
        after: Option<DueUser>,
        limit: u32,
    ) -> Result<Vec<DueUser>, StoreError> {
        let day = |month: Month| month.first_day().to_sqlx();
        let first = jiff::civil::Date::constant(1, 1, 1).to_sqlx();
        let rows = self
            .run(async |mut connection| {
                sqlx::query!(
                    r#"SELECT id, reported_month AS "reported_month: jiff_sqlx::Date" FROM user_accounts
                       WHERE coalesce(time_zone, 'UTC') = $1 AND reported_month < $2
                         AND (reported_month, id) > ($3, $4)
                       ORDER BY reported_month, id
                       LIMIT $5"#,
                    time_zone,
                    day(last) as jiff_sqlx::Date,
                    after.map_or(first, |user| day(user.reported)) as jiff_sqlx::Date,
                    after.map_or(Uuid::nil(), |user| user.user.0),
                    i64::from(limit),
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        let due = |id, reported: jiff_sqlx::Date| DueUser {
            user: UserId(id),
            reported: Month::containing(reported.to_jiff()),
        };
        Ok(rows.into_iter().map(|row| due(row.id, row.reported_month)).collect())
    }
}
