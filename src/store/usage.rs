//! Reading what users used, from the sums by quarter hour and the ledger's last rows.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx;

use super::{Store, StoreError};
use crate::quota::UserId;

/// What is known of a user's use besides its amount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageMarks {
    /// IANA name.
    pub time_zone: Option<String>,
    /// Start of the first quarter hour with a row in the ledger.
    pub first_use: Option<Timestamp>,
    /// Time of the newest row in the ledger.
    pub last_activity: Option<Timestamp>,
}

/// Sums of the ledger's rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageSums {
    /// Negative where corrections gave back more than was used.
    pub tokens: i64,
    /// Rows but corrections.
    pub requests: i64,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub cached_tokens: i64,
    /// Rows charged more than was reserved.
    pub overages: i64,
    /// USD with up to nine decimals; `None` while no row has a cost.
    pub cost_usd: Option<String>,
}

impl Store {
    /// `None` if there is no such account.
    pub async fn usage_marks(&self, user: UserId) -> Result<Option<UsageMarks>, StoreError> {
        let row = self
            .run_as(user, async |mut connection| {
                sqlx::query!(
                    r#"SELECT a.time_zone,
                              (SELECT min(quarter) FROM usage_quarters WHERE user_id = a.id) AS first_use,
                              (SELECT max("timestamp") FROM token_transactions WHERE user_id = a.id) AS last_activity
                       FROM user_accounts a WHERE a.id = $1"#,
                    user.0,
                )
                .fetch_optional(&mut *connection)
                .await
            })
            .await?;
        Ok(row.map(|row| UsageMarks {
            time_zone: row.time_zone,
            first_use: row.first_use.map(|at| at.to_jiff()),
            last_activity: row.last_activity.map(|at| at.to_jiff()),
        }))
    }

    /// Tokens a user used in each of these spans, from the first instant up to the second; in their order. Exact for
    /// spans that begin and end on a quarter hour of UTC.
    pub async fn tokens_used(
        &self,
        user: UserId,
        spans: &[(Timestamp, Timestamp)],
    ) -> Result<Vec<i64>, StoreError> {
        let starts: Vec<_> = spans.iter().map(|(start, _)| start.to_sqlx()).collect();
        let ends: Vec<_> = spans.iter().map(|(_, end)| end.to_sqlx()).collect();
        self.run_as(user, async |mut connection| {
            sqlx::query_scalar!(
                r#"SELECT (
                       SELECT coalesce(sum(tokens), 0)::bigint FROM usage_quarters
                       WHERE user_id = $1 AND quarter >= s.starts AND quarter < s.ends
                   ) AS "tokens!"
                   FROM UNNEST($2::timestamptz[], $3::timestamptz[]) WITH ORDINALITY AS s (starts, ends, place)
                   ORDER BY s.place"#,
                user.0,
                &starts as &[jiff_sqlx::Timestamp],
                &ends as &[jiff_sqlx::Timestamp],
            )
            .fetch_all(&mut *connection)
            .await
        })
        .await
    }
}
