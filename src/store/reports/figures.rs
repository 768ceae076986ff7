//! The figures of a report.

use jiff::{Timestamp, civil::Date};
use jiff_sqlx::ToSqlx;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::ReportPeriod;
use crate::{
    quota::{UserId, period},
    store::{StoreError, UsageSums},
};

/// What was used of one model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelUse {
    /// `None` for what was used without the name of one.
    pub model: Option<String>,
    pub tokens: i64,
    pub requests: i64,
    pub input_tokens: i64,
    pub output_tokens: i64,
    pub cached_tokens: i64,
    pub overages: i64,
}

/// What was used on one day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DayUse {
    pub day: Date,
    pub tokens: i64,
    pub requests: i64,
}

/// What was granted in one way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantSum {
    /// As in SQL and API answers.
    pub kind: String,
    pub tokens: i64,
    pub grants: i64,
}

const QUARTER_SECONDS: i64 = 15 * 60;

/// The first instant of its quarter hour.
pub(super) fn quarter(at: Timestamp) -> Timestamp {
    let second = at.as_second();
    Timestamp::from_second(second - second.rem_euclid(QUARTER_SECONDS)).unwrap_or(at)
}

/// The days of the period, from that of `start` on, with their first instants.
fn days(start: Timestamp, period: &ReportPeriod) -> Vec<(Date, Timestamp)> {
    let last = period.month.first_day().last_of_month();
    let mut days = Vec::with_capacity(33);
    let mut day = period::day_at(start, &period.zone);
    // A period is a month, give or take a change of the zone.
    while day <= last && days.len() < 64 {
        days.push((day, period::day_start(day, &period.zone)));
        let Ok(next) = day.tomorrow() else { break };
        day = next;
    }
    days
}

/// What was used from `start` to the end of the period: in all, by model and by day.
pub(super) async fn usage(
    connection: &mut PgConnection,
    user: UserId,
    start: Timestamp,
    period: &ReportPeriod,
) -> Result<(UsageSums, Vec<ModelUse>, Vec<DayUse>), StoreError> {
    let days = days(start, period);
    let day_starts: Vec<_> = days.iter().map(|(_, start)| start.to_sqlx()).collect();
    let rows = sqlx::query!(
        r#"SELECT model AS "model?", day AS "day?", grouping(model, day) AS "level!",
                  coalesce(sum(tokens), 0)::bigint AS "tokens!", coalesce(sum(requests), 0)::bigint AS "requests!",
                  coalesce(sum(input_tokens), 0)::bigint AS "input_tokens!",
                  coalesce(sum(output_tokens), 0)::bigint AS "output_tokens!",
                  coalesce(sum(cached_tokens), 0)::bigint AS "cached_tokens!",
                  coalesce(sum(overages), 0)::bigint AS "overages!", sum(cost_usd)::text AS cost_usd
           FROM (
               SELECT *, width_bucket(quarter, $4::timestamptz[]) AS day FROM usage_quarters
               WHERE user_id = $1 AND quarter >= $2 AND quarter < $3
           ) q
           GROUP BY GROUPING SETS ((), (model), (day))
           ORDER BY "tokens!" DESC, model, day"#,
        user.0,
        start.to_sqlx() as jiff_sqlx::Timestamp,
        period.end.to_sqlx() as jiff_sqlx::Timestamp,
        &day_starts as &[jiff_sqlx::Timestamp],
    )
    .fetch_all(connection)
    .await?;
    let (mut sums, mut models, mut by_day) = (UsageSums::default(), Vec::new(), Vec::new());
    for row in rows {
        match row.level {
            // Of neither.
            3 => {
                sums = UsageSums {
                    tokens: row.tokens,
                    requests: row.requests,
                    input_tokens: row.input_tokens,
                    output_tokens: row.output_tokens,
                    cached_tokens: row.cached_tokens,
                    overages: row.overages,
                    cost_usd: row.cost_usd,
                }
            }
            1 => models.push(ModelUse {
                model: row.model.filter(|model| !model.is_empty()),
                tokens: row.tokens,
                requests: row.requests,
                input_tokens: row.input_tokens,
                output_tokens: row.output_tokens,
                cached_tokens: row.cached_tokens,
                overages: row.overages,
            }),
            _ => {
                // Buckets count from 1; one before the first day there is not.
                let place = row.day.and_then(|bucket| usize::try_from(bucket).ok()?.checked_sub(1));
                let day = place.and_then(|place| days.get(place)).map(|(day, _)| *day);
                let day = day.ok_or_else(|| StoreError::corrupt("usage on no day of its month"))?;
                by_day.push(DayUse { day, tokens: row.tokens, requests: row.requests });
            }
        }
    }
    by_day.sort_unstable_by_key(|use_of_day| use_of_day.day);
    Ok((sums, models, by_day))
}

/// What was granted from `start` and before `end`, by kind; and the sum of what was granted after that.
pub(super) async fn grants(
    connection: &mut PgConnection,
    user: UserId,
    start: Timestamp,
    end: Timestamp,
) -> Result<(Vec<GrantSum>, i64), StoreError> {
    let rows = sqlx::query!(
        r#"SELECT kind, coalesce(sum(tokens) FILTER (WHERE created_at >= $2 AND created_at < $3), 0)::bigint AS "within!",
                  count(*) FILTER (WHERE created_at >= $2 AND created_at < $3) AS "count!",
                  coalesce(sum(tokens) FILTER (WHERE created_at >= $3), 0)::bigint AS "after!"
           FROM grants WHERE user_id = $1 GROUP BY kind ORDER BY kind"#,
        user.0,
        start.to_sqlx() as jiff_sqlx::Timestamp,
        end.to_sqlx() as jiff_sqlx::Timestamp,
    )
    .fetch_all(connection)
    .await?;
    let after = rows.iter().map(|row| row.after).sum();
    let sums = rows.into_iter().filter(|row| row.count > 0);
    let sums = sums.map(|row| GrantSum { kind: row.kind, tokens: row.within, grants: row.count }).collect();
    Ok((sums, after))
}

/// What was used at or after this instant.
pub(super) async fn used_since(
    connection: &mut PgConnection,
    user: UserId,
    instant: Timestamp,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT coalesce(sum(tokens), 0)::bigint AS "tokens!" FROM usage_quarters
           WHERE user_id = $1 AND quarter >= $2"#,
        user.0,
        instant.to_sqlx() as jiff_sqlx::Timestamp,
    )
    .fetch_one(connection)
    .await
}
