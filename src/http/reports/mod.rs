//! Monthly reports: of one user, and of all.

mod all;
mod html;
mod table;
mod words;

pub use all::{__path_consolidated, __path_summary, consolidated, summary};

use std::str::FromStr;

use axum::{
    extract::{FromRequestParts, RawPathParams, State},
    http::{HeaderMap, StatusCode, request::Parts},
    response::Response,
};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    auth::{For, Own},
    code::Code,
    format::Format,
    language::Language,
    openapi::{
        parameters::{ReportPath, ReportQuery, ReportsQuery, UserPath},
        schemas,
    },
    problem::Problem,
    request::Params,
    views::{Time, json},
};
use crate::{
    accounts::reports::ReportError,
    ledger::Outcome,
    quota::period::Month,
    store::{DayUse, GrantSum, ModelUse, Report},
};

/// The month in the path.
pub struct PathMonth(Month);

impl FromRequestParts<Api> for PathMonth {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let params = RawPathParams::from_request_parts(parts, api).await.ok();
        let text = params.iter().flatten().find(|(name, _)| *name == "month").map(|(_, value)| value);
        text.and_then(|text| Month::from_str(text).ok())
            .map(Self)
            .ok_or(Problem::new(Code::InvalidMonth).field("month"))
    }
}

/// What was used of one model.
#[derive(Serialize, ToSchema)]
#[schema(as = ModelUse)]
struct ModelView<'a> {
    /// Null for what was used without the name of one.
    #[schema(required, value_type = Option<String>)]
    model: Option<&'a str>,
    tokens: i64,
    requests: i64,
    input_tokens: i64,
    output_tokens: i64,
    cached_input_tokens: i64,
    /// Requests that were charged more than was reserved.
    overages: i64,
}

impl<'a> From<&'a ModelUse> for ModelView<'a> {
    fn from(of: &'a ModelUse) -> Self {
        Self {
            model: of.model.as_deref(),
            tokens: of.tokens,
            requests: of.requests,
            input_tokens: of.input_tokens,
            output_tokens: of.output_tokens,
            cached_input_tokens: of.cached_tokens,
            overages: of.overages,
        }
    }
}

/// What was used on one day.
#[derive(Serialize, ToSchema)]
#[schema(as = DayUse)]
struct DayView {
    #[schema(value_type = schemas::Day)]
    day: String,
    tokens: i64,
    requests: i64,
}

impl From<&DayUse> for DayView {
    fn from(of: &DayUse) -> Self {
        Self { day: of.day.to_string(), tokens: of.tokens, requests: of.requests }
    }
}

/// What was granted in one way.
#[derive(Serialize, ToSchema)]
#[schema(as = GrantSum)]
struct GrantView<'a> {
    #[schema(value_type = schemas::Kind)]
    kind: &'a str,
    /// Negative only for adjustments.
    tokens: i64,
    grants: i64,
}

impl<'a> From<&'a GrantSum> for GrantView<'a> {
    fn from(of: &'a GrantSum) -> Self {
        Self { kind: &of.kind, tokens: of.tokens, grants: of.grants }
    }
}

/// A month in short.
#[derive(Serialize, ToSchema)]
#[schema(as = ReportHead)]
struct Head<'a> {
    #[schema(value_type = schemas::UserId)]
    user_id: String,
    #[schema(value_type = schemas::Month)]
    month: String,
    #[schema(value_type = schemas::TimeZone)]
    time_zone: &'a str,
    /// Where the report before ended; the beginning of the month unless the zone has changed.
    #[schema(value_type = schemas::Time)]
    period_start: Time,
    #[schema(value_type = schemas::Time)]
    period_end: Time,
    /// The month runs, or its last transactions may still arrive: numbers may change.
    provisional: bool,
    #[schema(value_type = schemas::Time)]
    produced_at: Time,
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
    /// Tokens given in the month, less those taken away.
    granted_tokens: i64,
    closing: Closing,
}

/// The balance at the end of the month.
#[derive(Serialize, ToSchema)]
#[schema(as = ClosingBalance)]
struct Closing {
    total: i64,
    used: i64,
    /// `total` − `used`.
    remaining: i64,
}

impl<'a> From<&'a Report> for Head<'a> {
    fn from(report: &'a Report) -> Self {
        let sums = &report.sums;
        Self {
            user_id: report.user.to_string(),
            month: report.month.to_string(),
            time_zone: &report.time_zone,
            period_start: report.start.into(),
            period_end: report.end.into(),
            provisional: report.is_provisional,
            produced_at: report.produced_at.into(),
            tokens: sums.tokens,
            requests: sums.requests,
            input_tokens: sums.input_tokens,
            output_tokens: sums.output_tokens,
            cached_input_tokens: sums.cached_tokens,
            overages: sums.overages,
            cost_usd: sums.cost_usd.as_deref(),
            late_tokens: report.late_tokens,
            granted_tokens: report.granted_tokens,
            closing: Closing {
                total: report.closing_total,
                used: report.closing_used,
                remaining: report.closing_total - report.closing_used,
            },
        }
    }
}

/// A month in full.
#[derive(Serialize, ToSchema)]
#[schema(as = Report)]
struct Full<'a> {
    report: Head<'a>,
    /// Most tokens first.
    models: Vec<ModelView<'a>>,
    /// Days on which something was used.
    days: Vec<DayView>,
    grants: Vec<GrantView<'a>>,
}

/// Show the report of a month
///
/// By the user's calendar. A month that is over has its report once all its transactions have arrived, and it stays as
/// it is; before, and while the month runs, the answer is `provisional`. As JSON, as CSV, or as a page to print in the
/// user's language (`format`, or `Accept`). The user and admins.
#[utoipa::path(
    get, path = "/v1/users/{id}/reports/{month}", operation_id = "showReport", tag = "Reports",
    params(ReportPath, ReportQuery),
    responses((
        status = 200, description = "The report.",
        content(
            (Full = "application/json"), (String = "text/csv; charset=utf-8"), (String = "text/html; charset=utf-8"),
        ),
    )),
)]
pub async fn show(
    State(api): State<Api>,
    caller: For<Own>,
    month: PathMonth,
    headers: HeaderMap,
    mut query: Params,
) -> Result<Response, Problem> {
    let format = Format::wanted(&headers, &mut query, &[Format::Json, Format::Csv, Format::Html])?;
    query.end()?;
    let deadline = api.deadline();
    let call = api.accounts.report(caller.user, month.0, Timestamp::now());
    let report = deadline.store(Outcome::None, call).await?;
    Ok(match format {
        Format::Json => json(
            StatusCode::OK,
            &Full {
                report: (&report).into(),
                models: report.models.iter().map(Into::into).collect(),
                days: report.days.iter().map(Into::into).collect(),
                grants: report.grants.iter().map(Into::into).collect(),
            },
        ),
        Format::Csv => table::of_report(&report),
        Format::Html => {
            let user = deadline.store(Outcome::None, api.accounts.user(caller.user)).await?;
            let language =
                user.locale.as_deref().and_then(Language::of_locale).unwrap_or(Language::of(&headers));
            html::of_report(&report, user.external_id.as_deref(), language)
        }
    })
}

#[derive(Serialize, ToSchema)]
#[schema(as = Reports)]
struct Page<'a> {
    reports: Vec<Head<'a>>,
    /// Send it as `before` for the next page; null on the last one.
    #[schema(required, value_type = Option<schemas::Month>)]
    next: Option<String>,
}

/// List a user's reports
///
/// Months that are over and told, in pages, newest first. The user and admins.
#[utoipa::path(
    get, path = "/v1/users/{id}/reports", operation_id = "listReports", tag = "Reports",
    params(UserPath, ReportsQuery),
    responses((status = 200, body = Page, description = "A page.")),
)]
pub async fn list(State(api): State<Api>, caller: For<Own>, mut query: Params) -> Result<Response, Problem> {
    let limit = query.take_limit()?;
    let before = query.take_parsed::<Month>("before")?;
    query.end()?;
    // One more than asked for tells whether there is a next page.
    let call = api.accounts.reports(caller.user, before, limit + 1);
    let mut reports = api.deadline().store(Outcome::None, call).await?;
    let more = reports.len() > limit as usize;
    reports.truncate(limit as usize);
    let next = reports.last().filter(|_| more).map(|last| last.month.to_string());
    Ok(json(StatusCode::OK, &Page { reports: reports.iter().map(Into::into).collect(), next }))
}

impl From<ReportError> for Problem {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::UserNotFound => Code::UserNotFound.into(),
            ReportError::NotFound => Code::ReportNotFound.into(),
            ReportError::Store(error) => error.into(),
        }
    }
}
