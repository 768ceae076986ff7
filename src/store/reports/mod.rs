//! Monthly reports: what is told of a user's month, and when it is told for good.
//!
//! A report is written in one SQL transaction that holds the account's row, so that no booking or grant of the user
//! comes between its sums. It covers the time from the end of the report before to the end of its month. Its
//! `closing_used` is all that was booked for the time up to its end, whenever it arrived; so what exceeds the closing of
//! the report before and its own tokens is what came late, and the reports of a user add up to the ledger.

mod all;
mod due;
mod figures;

use jiff::{Timestamp, tz::TimeZone};
use jiff_sqlx::ToSqlx;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

pub use all::{Consolidated, ConsolidatedUser, Summary};
pub use due::DueUser;
pub use figures::{DayUse, GrantSum, ModelUse};

use super::{NewEvent, Store, StoreError, UsageSums, events};
use crate::quota::{EventKind, UserId, period::Month};

/// The time a report is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportPeriod {
    pub month: Month,
    /// IANA name of the zone by whose calendar it is one.
    pub time_zone: String,
    zone: TimeZone,
    /// First instant of the month.
    pub start: Timestamp,
    /// First instant after it.
    pub end: Timestamp,
}

impl ReportPeriod {
    /// A month by the calendar of a zone and its name.
    pub fn new(month: Month, (time_zone, zone): (String, TimeZone)) -> Self {
        let (start, end) = (month.start(&zone), month.end(&zone));
        Self { month, time_zone, zone, start, end }
    }
}

/// What is told of a user's month.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub user: UserId,
    pub month: Month,
    pub time_zone: String,
    /// The end of the report before.
    pub start: Timestamp,
    pub end: Timestamp,
    /// Not written yet: of a month that runs, or whose last use may still arrive.
    pub is_provisional: bool,
    pub sums: UsageSums,
    /// What has arrived of earlier periods since their reports were written.
    pub late_tokens: i64,
    /// Signed sum of the period's grants.
    pub granted_tokens: i64,
    /// All that was granted up to the end of the period.
    pub closing_total: i64,
    /// All that was used up to then.
    pub closing_used: i64,
    /// Most tokens first.
    pub models: Vec<ModelUse>,
    /// Days on which something was used.
    pub days: Vec<DayUse>,
    pub grants: Vec<GrantSum>,
    pub produced_at: Timestamp,
}

/// What became of a report that was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reported {
    Written,
    /// The month before it is not told yet, or this one is already, or there is no such account.
    NotNext,
}

/// The account as a report needs it.
struct AccountRow {
    total_tokens: i64,
    used_tokens: i64,
    reported_month: jiff_sqlx::Date,
    created_at: jiff_sqlx::Timestamp,
}

/// The report before.
struct Previous {
    end: Timestamp,
    closing_used: i64,
}

impl Store {
    /// Writes the report of a month that is over, once, and tells the user. It has to be the month after the last one
    /// that was told.
    pub async fn write_report(&self, user: UserId, period: &ReportPeriod) -> Result<Reported, StoreError> {
        self.run(async |mut connection| {
            let mut transaction = connection.begin().await?;
            let account = sqlx::query_as!(
                AccountRow,
                r#"SELECT total_tokens, used_tokens, reported_month AS "reported_month: jiff_sqlx::Date", created_at
                   FROM user_accounts WHERE id = $1 FOR NO KEY UPDATE"#,
                user.0,
            )
            .fetch_optional(&mut *transaction)
            .await?;
            let Some(account) = account.filter(|account| {
                Month::containing(account.reported_month.to_jiff()).next() == period.month
            }) else {
                return Ok(Reported::NotNext);
            };
            // The account was made after the month: there is nothing to tell of it.
            if account.created_at.to_jiff() < period.end {
                let report = compute(&mut transaction, user, &account, period).await?;
                insert(&mut transaction, &report).await?;
                let data = json!({"month": period.month.to_string(), "tokens": report.sums.tokens});
                let event = NewEvent { user, kind: EventKind::ReportReady, data };
                events::append(&mut transaction, &[event]).await?;
            }
            sqlx::query!(
                "UPDATE user_accounts SET reported_month = $2 WHERE id = $1",
                user.0,
                period.month.first_day().to_sqlx() as jiff_sqlx::Date,
            )
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await.map_err(StoreError::from_commit)?;
            Ok::<_, StoreError>(Reported::Written)
        })
        .await
    }

    /// What the report of this month would be now; `None` if there is no such account, or nothing more to tell of the
    /// month: it is told, or the account was made after it.
    pub async fn provisional_report(
        &self,
        user: UserId,
        period: &ReportPeriod,
    ) -> Result<Option<Report>, StoreError> {
        self.run_as(user, async |mut connection| {
            // One snapshot for all sums.
            sqlx::query!("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                .execute(&mut *connection)
                .await?;
            let account = sqlx::query_as!(
                AccountRow,
                r#"SELECT total_tokens, used_tokens, reported_month AS "reported_month: jiff_sqlx::Date", created_at
                   FROM user_accounts WHERE id = $1"#,
                user.0,
            )
            .fetch_optional(&mut *connection)
            .await?;
            let is_to_come = |account: &AccountRow| {
                let told = Month::containing(account.reported_month.to_jiff());
                told < period.month && account.created_at.to_jiff() < period.end
            };
            let report = match account.filter(is_to_come) {
                Some(account) => Some(compute(&mut connection, user, &account, period).await?),
                None => None,
            };
            Ok::<_, StoreError>(report)
        })
        .await
    }

    /// The report of a month, once it is written.
    pub async fn monthly_report(&self, user: UserId, month: Month) -> Result<Option<Report>, StoreError> {
        Ok(self.reports_where(user, Some(month), None, 1).await?.pop())
    }

    /// Written reports newest first, of months before `before`, at most `limit`.
    pub async fn monthly_reports(
        &self,
        user: UserId,
        before: Option<Month>,
        limit: u32,
    ) -> Result<Vec<Report>, StoreError> {
        self.reports_where(user, None, before, limit).await
    }

    async fn reports_where(
        &self,
        user: UserId,
        month: Option<Month>,
        before: Option<Month>,
        limit: u32,
    ) -> Result<Vec<Report>, StoreError> {
        let day = |month: Month| month.first_day().to_sqlx();
        let rows = self
            .run_as(user, async |mut connection| {
                sqlx::query_as!(
                    ReportRow,
                    r#"SELECT user_id, month AS "month: jiff_sqlx::Date", time_zone, period_start, period_end, tokens,
                              requests, input_tokens, output_tokens, cached_tokens, overages, cost_usd::text,
                              late_tokens, granted_tokens, closing_total, closing_used, models, days, grants,
                              produced_at
                       FROM monthly_reports
                       WHERE user_id = $1 AND ($2::date IS NULL OR month = $2) AND ($3::date IS NULL OR month < $3)
                       ORDER BY month DESC
                       LIMIT $4"#,
                    user.0,
                    month.map(day) as Option<jiff_sqlx::Date>,
                    before.map(day) as Option<jiff_sqlx::Date>,
                    i64::from(limit),
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        rows.into_iter().map(Report::try_from).collect()
    }
}

/// The report as of this SQL transaction.
async fn compute(
    connection: &mut PgConnection,
    user: UserId,
    account: &AccountRow,
    period: &ReportPeriod,
) -> Result<Report, StoreError> {
    let is_next = Month::containing(account.reported_month.to_jiff()).next() == period.month;
    let previous = match is_next {
        true => previous(connection, user, period.month).await?,
        // The report before will end where this begins, and have all that came late.
        false => Some(Previous {
            end: period.start,
            closing_used: account.used_tokens - figures::used_since(connection, user, period.start).await?,
        }),
    };
    // The first report begins with the account, also where that was made in the month before by another calendar.
    let created_at = account.created_at.to_jiff();
    let start = previous.as_ref().map_or(period.start.min(figures::quarter(created_at)), |before| before.end);
    let (sums, models, days) = figures::usage(connection, user, start, period).await?;
    let (grants, granted_after) = figures::grants(connection, user, start, period.end).await?;
    let used_after = figures::used_since(connection, user, period.end).await?;
    let closing_used = account.used_tokens - used_after;
    let before = previous.map_or(0, |previous| previous.closing_used);
    Ok(Report {
        user,
        month: period.month,
        time_zone: period.time_zone.clone(),
        start,
        end: period.end,
        is_provisional: true,
        late_tokens: closing_used - before - sums.tokens,
        granted_tokens: grants.iter().map(|grant| grant.tokens).sum(),
        closing_total: account.total_tokens - granted_after,
        closing_used,
        sums,
        models,
        days,
        grants,
        produced_at: Timestamp::now(),
    })
}

/// The newest report before this month.
async fn previous(
    connection: &mut PgConnection,
    user: UserId,
    month: Month,
) -> Result<Option<Previous>, sqlx::Error> {
    let row = sqlx::query!(
        "SELECT period_end, closing_used FROM monthly_reports
         WHERE user_id = $1 AND month < $2 ORDER BY month DESC LIMIT 1",
        user.0,
        month.first_day().to_sqlx() as jiff_sqlx::Date,
    )
    .fetch_optional(connection)
    .await?;
    Ok(row.map(|row| Previous { end: row.period_end.to_jiff(), closing_used: row.closing_used }))
}

async fn insert(connection: &mut PgConnection, report: &Report) -> Result<(), StoreError> {
    let list = |values: Result<Value, serde_json::Error>| values.map_err(StoreError::corrupt);
    let changed = sqlx::query!(
        "INSERT INTO monthly_reports (
             user_id, month, time_zone, period_start, period_end, tokens, requests, input_tokens, output_tokens,
             cached_tokens, overages, cost_usd, late_tokens, granted_tokens, closing_total, closing_used, models, days,
             grants
         )
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12::text::numeric, $13, $14, $15, $16, $17, $18, $19)",
        report.user.0,
        report.month.first_day().to_sqlx() as jiff_sqlx::Date,
        report.time_zone,
        report.start.to_sqlx() as jiff_sqlx::Timestamp,
        report.end.to_sqlx() as jiff_sqlx::Timestamp,
        report.sums.tokens,
        report.sums.requests,
        report.sums.input_tokens,
        report.sums.output_tokens,
        report.sums.cached_tokens,
        report.sums.overages,
        report.sums.cost_usd,
        report.late_tokens,
        report.granted_tokens,
        report.closing_total,
        report.closing_used,
        list(serde_json::to_value(&report.models))?,
        list(serde_json::to_value(&report.days))?,
        list(serde_json::to_value(&report.grants))?,
    )
    .execute(connection)
    .await?
    .rows_affected();
    if changed == 1 { Ok(()) } else { Err(StoreError::corrupt("a report was not kept")) }
}

struct ReportRow {
    user_id: Uuid,
    month: jiff_sqlx::Date,
    time_zone: String,
    period_start: jiff_sqlx::Timestamp,
    period_end: jiff_sqlx::Timestamp,
    tokens: i64,
    requests: i64,
    input_tokens: i64,
    output_tokens: i64,
    cached_tokens: i64,
    overages: i64,
    cost_usd: Option<String>,
    late_tokens: i64,
    granted_tokens: i64,
    closing_total: i64,
    closing_used: i64,
    models: Value,
    days: Value,
    grants: Value,
    produced_at: jiff_sqlx::Timestamp,
}

impl TryFrom<ReportRow> for Report {
    type Error = StoreError;

    fn try_from(row: ReportRow) -> Result<Self, StoreError> {
        let corrupt = |error: serde_json::Error| StoreError::corrupt(format_args!("a report: {error}"));
        Ok(Self {
            user: UserId(row.user_id),
            month: Month::containing(row.month.to_jiff()),
            time_zone: row.time_zone,
            start: row.period_start.to_jiff(),
            end: row.period_end.to_jiff(),
            is_provisional: false,
            sums: UsageSums {
                tokens: row.tokens,
                requests: row.requests,
                input_tokens: row.input_tokens,
                output_tokens: row.output_tokens,
                cached_tokens: row.cached_tokens,
                overages: row.overages,
                cost_usd: row.cost_usd,
            },
            late_tokens: row.late_tokens,
            granted_tokens: row.granted_tokens,
            closing_total: row.closing_total,
            closing_used: row.closing_used,
            models: serde_json::from_value(row.models).map_err(corrupt)?,
            days: serde_json::from_value(row.days).map_err(corrupt)?,
            grants: serde_json::from_value(row.grants).map_err(corrupt)?,
            produced_at: row.produced_at.to_jiff(),
        })
    }
}
