//! A month, and the present, over all users.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;
use utoipa::ToSchema;

use super::{ModelView, html, table};
use crate::{
    http::{
        Api,
        auth::Admin,
        csv::Csv,
        export::{self, Rows},
        format::Format,
        language::Language,
        openapi::{parameters::ConsolidatedQuery, schemas},
        problem::Problem,
        request::Params,
        views::{Time, json},
    },
    ledger::Outcome,
    quota::period::Month,
    store::{Consolidated, ConsolidatedUser, Summary},
};

/// What one user used in the month.
#[derive(Serialize, ToSchema)]
#[schema(as = ConsolidatedUser)]
struct UserUse<'a> {
    #[schema(value_type = schemas::UserId)]
    user_id: String,
    #[schema(required, value_type = Option<String>)]
    external_id: Option<&'a str>,
    tokens: i64,
    requests: i64,
    input_tokens: i64,
    output_tokens: i64,
    cached_input_tokens: i64,
    overages: i64,
    /// Its report is not written yet.
    provisional: bool,
}

impl<'a> From<&'a ConsolidatedUser> for UserUse<'a> {
    fn from(of: &'a ConsolidatedUser) -> Self {
        Self {
            user_id: of.user.to_string(),
            external_id: of.external_id.as_deref(),
            tokens: of.tokens,
            requests: of.requests,
            input_tokens: of.input_tokens,
            output_tokens: of.output_tokens,
            cached_input_tokens: of.cached_tokens,
            overages: of.overages,
            provisional: of.is_provisional,
        }
    }
}

/// A month over all users, each by its own calendar.
#[derive(Serialize, ToSchema)]
#[schema(as = Consolidated)]
struct View<'a> {
    #[schema(value_type = schemas::Month)]
    month: String,
    /// Some user's report is not written yet: numbers may change.
    provisional: bool,
    #[schema(value_type = schemas::Time)]
    produced_at: Time,
    /// Users who used something.
    users: u64,
    /// Users whose report is not written yet.
    provisional_users: u64,
    tokens: i64,
    requests: i64,
    input_tokens: i64,
    output_tokens: i64,
    cached_input_tokens: i64,
    /// Requests that were charged more than was reserved.
    overages: i64,
    /// Known once there are prices.
    #[schema(required, value_type = Option<String>)]
    cost_usd: Option<&'a str>,
    /// Tokens of earlier months that had not arrived when their reports were written.
    late_tokens: i64,
    /// Most tokens first.
    models: Vec<ModelView<'a>>,
    /// The `limit` users with the most tokens, in that order. CSV has all users.
    top_users: Vec<UserUse<'a>>,
}

/// Show the report of a month over all users
///
/// The running month of UTC when no `month` is named. As JSON, as CSV with a row for each user, or as a page to print.
/// Admins.
#[utoipa::path(
    get, path = "/v1/reports/consolidated", operation_id = "showConsolidated", tag = "Overview",
    params(ConsolidatedQuery),
    responses((
        status = 200, description = "The report.",
        content(
            (View = "application/json"), (String = "text/csv; charset=utf-8"), (String = "text/html; charset=utf-8"),
        ),
    )),
)]
pub async fn consolidated(
    State(api): State<Api>,
    caller: Admin,
    headers: HeaderMap,
    mut query: Params,
) -> Result<Response, Problem> {
    let format = Format::wanted(&headers, &mut query, &[Format::Json, Format::Csv, Format::Html])?;
    let now = Timestamp::now();
    let month = query.take_parsed::<Month>("month")?.unwrap_or(Month::at(now, &TimeZone::UTC));
    if format == Format::Csv {
        query.end()?;
        let name = format!("consolidated-{month}");
        return export::csv(&name, EachUser { api, month, _caller: caller }).await;
    }
    let limit = query.take_limit()?;
    query.end()?;
    let report = api.deadline().store(Outcome::None, api.accounts.consolidated(month, limit)).await?;
    Ok(match format {
        Format::Html => html::of_all(month, &report, now, Language::of(&headers)),
        _ => json(StatusCode::OK, &view(month, &report, now)),
    })
}

fn view(month: Month, report: &Consolidated, now: Timestamp) -> View<'_> {
    let sums = &report.sums;
    View {
        month: month.to_string(),
        provisional: report.provisional_users > 0,
        produced_at: now.into(),
        users: report.users,
        provisional_users: report.provisional_users,
        tokens: sums.tokens,
        requests: sums.requests,
        input_tokens: sums.input_tokens,
        output_tokens: sums.output_tokens,
        cached_input_tokens: sums.cached_tokens,
        overages: sums.overages,
        cost_usd: sums.cost_usd.as_deref(),
        late_tokens: report.late_tokens,
        models: report.models.iter().map(Into::into).collect(),
        top_users: report.top.iter().map(Into::into).collect(),
    }
}

/// A row for each user.
struct EachUser {
    api: Api,
    month: Month,
    /// The call runs as long as its answer is read.
    _caller: Admin,
}

impl Rows for EachUser {
    type Row = ConsolidatedUser;

    const COLUMNS: &'static [&'static str] = &table::USER_COLUMNS;
    const CHUNK: usize = 500;

    async fn read(&self, after: Option<&ConsolidatedUser>) -> Result<Vec<ConsolidatedUser>, Problem> {
        let after = after.map(|last| last.user);
        let call = self.api.accounts.consolidated_users(self.month, after, Self::CHUNK as u32);
        self.api.deadline().store(Outcome::None, call).await
    }

    fn write(csv: &mut Csv, user: &ConsolidatedUser) {
        table::of_user(csv, user);
    }
}

/// Where all users stand.
#[derive(Serialize, ToSchema)]
#[schema(as = Summary)]
struct SummaryView {
    #[schema(value_type = schemas::Time)]
    as_of: Time,
    users: SummaryUsers,
    tokens: SummaryTokens,
    last_24_hours: SummaryDay,
    /// Outbox entries that the ledger did not take and that wait for an operator.
    dead_letters: u64,
}

#[derive(Serialize, ToSchema)]
struct SummaryUsers {
    active: u64,
    suspended: u64,
    /// Were given tokens, and have used them up.
    exhausted: u64,
}

/// Over all users.
#[derive(Serialize, ToSchema)]
struct SummaryTokens {
    total: u64,
    /// What has arrived in the ledger.
    used: u64,
    /// `total` − `used`.
    remaining: i64,
}

/// In whole quarter hours.
#[derive(Serialize, ToSchema)]
struct SummaryDay {
    /// Users who used something.
    users: u64,
    tokens: i64,
    requests: i64,
    anomalies: u64,
}

impl SummaryView {
    fn new(summary: &Summary, now: Timestamp) -> Self {
        let (total, used) = (summary.total_tokens, summary.used_tokens);
        Self {
            as_of: now.into(),
            users: SummaryUsers {
                active: summary.active_users,
                suspended: summary.suspended_users,
                exhausted: summary.exhausted_users,
            },
            // Sums of what is below 2^53 each.
            tokens: SummaryTokens { total, used, remaining: total.cast_signed() - used.cast_signed() },
            last_24_hours: SummaryDay {
                users: summary.day_users,
                tokens: summary.day_tokens,
                requests: summary.day_requests,
                anomalies: summary.day_anomalies,
            },
            dead_letters: summary.dead_letters,
        }
    }
}

/// Show where all users stand
///
/// Admins.
#[utoipa::path(
    get, path = "/v1/summary", operation_id = "showSummary", tag = "Overview",
    responses((status = 200, body = SummaryView, description = "The numbers.")),
)]
pub async fn summary(State(api): State<Api>, _: Admin, query: Params) -> Result<Response, Problem> {
    query.end()?;
    let now = Timestamp::now();
    let summary = api.deadline().store(Outcome::None, api.accounts.summary(now)).await?;
    Ok(json(StatusCode::OK, &SummaryView::new(&summary, now)))
}
