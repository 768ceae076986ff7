//! A user's numbers: what is used, how fast, and how long the rest will do.

use axum::{extract::State, http::StatusCode, response::Response};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    auth::{For, Own},
    openapi::{parameters::UserPath, schemas},
    problem::Problem,
    request::Params,
    tokens::{Known, balance_of},
    views::{Time, json},
};
use crate::{
    accounts::usage::RecentUse,
    ledger::Outcome,
    quota::{
        UserId,
        projection::{MIN_DAYS, usage_hundredths},
    },
};

/// The numbers of one user. A number that is `null` stands in `unknown` with the reason.
#[derive(Serialize, ToSchema)]
#[schema(as = UserMetrics)]
struct Metrics<'a> {
    #[schema(value_type = schemas::UserId)]
    user_id: String,
    /// All that was granted.
    total: u64,
    /// All that was charged.
    used: u64,
    /// `total` − `used`; below zero after an overage. Pending reservations hold a part of it.
    remaining: i64,
    /// Hundredths are cut off, so that a threshold is shown from where its alert is due.
    #[schema(required)]
    usage_percentage: Option<f64>,
    /// Tokens of a mean complete day, rounded up.
    #[schema(required)]
    daily_average: Option<u64>,
    /// Tokens of the running month by its end: those used so far, and `daily_average`, before it is rounded, for each
    /// day that is left; rounded up.
    #[schema(required)]
    monthly_projection: Option<i64>,
    /// Days for which `remaining` will do at `daily_average`, in tenths, rounded down.
    #[schema(required)]
    days_left: Option<f64>,
    /// Time of the newest transaction in the ledger.
    #[schema(required, value_type = Option<schemas::Time>)]
    last_activity: Option<Time>,
    unknown: Vec<Unknown>,
    /// The running month by the user's calendar.
    month: RunningMonth,
    basis: Basis<'a>,
    /// Whether `total` and `used` are the last that the ledger heard, because Redis is away.
    stale: bool,
    /// When `stale`: since when.
    #[schema(required, value_type = Option<schemas::Time>)]
    as_of: Option<Time>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = UnknownMetric)]
struct Unknown {
    #[schema(value_type = schemas::MetricName)]
    name: &'static str,
    #[schema(value_type = schemas::UnknownReason)]
    reason: &'static str,
}

#[derive(Serialize, ToSchema)]
struct RunningMonth {
    #[schema(value_type = schemas::Month)]
    month: String,
    #[schema(value_type = schemas::Time)]
    start: Time,
    #[schema(value_type = schemas::Time)]
    end: Time,
    /// Used in it so far.
    tokens: i64,
}

/// What `daily_average` and all that follows from it rest on.
#[derive(Serialize, ToSchema)]
#[schema(as = ProjectionBasis)]
struct Basis<'a> {
    #[schema(value_type = schemas::ProjectionMethod)]
    method: &'static str,
    /// In whose days and months is counted; UTC for a user who names none.
    #[schema(value_type = schemas::TimeZone)]
    time_zone: &'a str,
    /// Complete days that were looked at: up to 28, without today and without the day of the first use.
    days: u16,
    /// The fewest days that say something.
    min_days: u16,
    #[schema(value_type = schemas::Time)]
    start: Time,
    #[schema(value_type = schemas::Time)]
    end: Time,
    /// Used in these days.
    tokens: i64,
}

/// The one way in which is projected.
pub const METHOD: &str = "mean_of_complete_days";

/// Why a number is `null`.
#[derive(Clone, Copy)]
pub enum Reason {
    NotEnoughData,
    NoUsage,
    NothingGranted,
}

impl Reason {
    pub const ALL: [Self; 3] = [Self::NotEnoughData, Self::NoUsage, Self::NothingGranted];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotEnoughData => "not_enough_data",
            Self::NoUsage => "no_usage",
            Self::NothingGranted => "nothing_granted",
        }
    }
}

/// Numbers that may be `null`.
pub const MAY_BE_UNKNOWN: [&str; 5] =
    ["usage_percentage", "daily_average", "monthly_projection", "days_left", "last_activity"];

/// Show a user's numbers
///
/// What is used in all, by the day, and by the end of the month if it goes on like this. What too few days say nothing
/// about is `null`, and `unknown` says why. The user and admins.
#[utoipa::path(
    get, path = "/v1/users/{id}/metrics", operation_id = "showMetrics", tag = "Usage",
    params(UserPath),
    responses((status = 200, body = Metrics, description = "The numbers.")),
)]
pub async fn show(State(api): State<Api>, caller: For<Own>, query: Params) -> Result<Response, Problem> {
    query.end()?;
    let deadline = api.deadline();
    let known = balance_of(&api, caller.user, deadline).await?;
    let call = api.accounts.recent_use(caller.user, Timestamp::now());
    let recent = deadline.store(Outcome::None, call).await?;
    Ok(json(StatusCode::OK, &metrics(caller.user, &known, &recent)))
}

fn metrics<'a>(user: UserId, known: &Known, recent: &'a RecentUse) -> Metrics<'a> {
    let (total, used, as_of) = match known {
        Known::Live(account) => (account.balance.total, account.balance.used, None),
        Known::Stale(user) => (user.total_tokens, user.used_tokens, Some(user.updated_at.into())),
    };
    // Both are below 2^53.
    let remaining = total as i64 - used as i64;
    let percentage = usage_hundredths(used, total);
    let projection = recent.project(remaining);
    let days_left = projection.as_ref().map(|projection| projection.days_left_tenths);
    let mut unknown = Vec::new();
    let mut note = |name, reason: Reason| unknown.push(Unknown { name, reason: reason.as_str() });
    if percentage.is_none() {
        note("usage_percentage", Reason::NothingGranted);
    }
    match days_left {
        None => ["daily_average", "monthly_projection", "days_left"]
            .into_iter()
            .for_each(|name| note(name, Reason::NotEnoughData)),
        Some(None) => note("days_left", Reason::NoUsage),
        Some(Some(_)) => {}
    }
    if recent.last_activity.is_none() {
        note("last_activity", Reason::NoUsage);
    }
    Metrics {
        user_id: user.to_string(),
        total,
        used,
        remaining,
        usage_percentage: percentage.map(|hundredths| hundredths as f64 / 100.0),
        daily_average: projection.as_ref().map(|projection| projection.daily_average),
        monthly_projection: projection.as_ref().map(|projection| projection.monthly_projection),
        days_left: days_left.flatten().map(|tenths| tenths as f64 / 10.0),
        last_activity: recent.last_activity.map(Time::from),
        unknown,
        month: RunningMonth {
            month: recent.progress.month.to_string(),
            start: recent.progress.start.into(),
            end: recent.progress.end.into(),
            tokens: recent.month_tokens,
        },
        basis: basis(recent),
        stale: as_of.is_some(),
        as_of,
    }
}

fn basis(recent: &RecentUse) -> Basis<'_> {
    Basis {
        method: METHOD,
        time_zone: &recent.time_zone,
        days: recent.window.days,
        min_days: MIN_DAYS,
        start: recent.window.start.into(),
        end: recent.window.end.into(),
        tokens: recent.window_tokens,
    }
}
