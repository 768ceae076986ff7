//! Alerts: what a user was told about its usage, and the thresholds from which on.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Api,
    auth::{For, Own},
    bodies,
    code::Code,
    etag,
    json::Object,
    openapi::{
        parameters::{AlertQuery, Expected, Known, UserPath},
        schemas,
    },
    problem::Problem,
    request::{JsonBody, Params},
    views::{Time, json},
};
use crate::{
    accounts::alerts::AlertError,
    ledger::Outcome,
    quota::{AlertThreshold, Level, Thresholds},
    store::{Alert, AlertConfig},
};

/// That usage had come to a level.
#[derive(Serialize, ToSchema)]
#[schema(as = Alert)]
struct AlertView<'a> {
    id: Uuid,
    #[schema(value_type = schemas::AlertLevel)]
    level: &'static str,
    /// The share of the total at which the level began.
    threshold: f64,
    /// What had been used and granted then.
    used_tokens: u64,
    total_tokens: u64,
    #[schema(value_type = schemas::Time)]
    fired_at: Time,
    /// When usage was below the level again; null while the alert is open.
    #[schema(required, value_type = Option<schemas::Time>)]
    resolved_at: Option<Time>,
    /// What led there: a kind of grant, a `correction` of usage, or a change of the `thresholds`.
    #[schema(required)]
    resolved_by: Option<&'a str>,
}

impl<'a> From<&'a Alert> for AlertView<'a> {
    fn from(alert: &'a Alert) -> Self {
        let resolved = alert.resolved.as_ref();
        Self {
            id: alert.id,
            level: alert.level.as_str(),
            threshold: alert.threshold.as_f64(),
            used_tokens: alert.used_tokens,
            total_tokens: alert.total_tokens,
            fired_at: alert.fired_at.into(),
            resolved_at: resolved.map(|(at, _)| (*at).into()),
            resolved_by: resolved.map(|(_, by)| by.as_str()),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = Alerts)]
struct Page<'a> {
    alerts: Vec<AlertView<'a>>,
    /// Send it as `before` for the next page; null on the last one.
    #[schema(required)]
    next: Option<Uuid>,
}

/// List a user's alerts
///
/// In pages, newest first. Each level is told of once, until a grant leads below it again. The user and admins.
#[utoipa::path(
    get, path = "/v1/users/{id}/alerts", operation_id = "listAlerts", tag = "Alerts",
    params(UserPath, AlertQuery),
    responses((status = 200, body = Page, description = "A page.")),
)]
pub async fn list(State(api): State<Api>, caller: For<Own>, mut query: Params) -> Result<Response, Problem> {
    let limit = query.take_limit()?;
    let before = query.take_parsed::<Uuid>("before")?;
    let open = query.take_parsed::<bool>("open")?;
    query.end()?;
    // One more than asked for tells whether there is a next page.
    let call = api.accounts.alerts(caller.user, open, before, limit + 1);
    let mut alerts = api.deadline().store(Outcome::None, call).await?;
    let more = alerts.len() > limit as usize;
    alerts.truncate(limit as usize);
    let next = alerts.last().filter(|_| more).map(|last| last.id);
    Ok(json(StatusCode::OK, &Page { alerts: alerts.iter().map(Into::into).collect(), next }))
}

/// The shares of the total at which a user is told.
#[derive(Serialize, ToSchema)]
#[schema(as = AlertThresholds)]
struct ConfigView {
    /// Above 0, and no later than `critical`.
    warning: f64,
    /// At most 1.
    critical: f64,
    /// Always 1: when everything is used, reserves are refused.
    blocked: f64,
}

impl From<Thresholds> for ConfigView {
    fn from(thresholds: Thresholds) -> Self {
        let share = |level| thresholds.of(level).as_f64();
        Self {
            warning: share(Level::Warning),
            critical: share(Level::Critical),
            blocked: share(Level::Blocked),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = OneAlertConfig)]
struct OneConfig {
    alert_config: ConfigView,
}

fn one(config: AlertConfig) -> Response {
    let view = OneConfig { alert_config: config.thresholds.into() };
    etag::tagged(json(StatusCode::OK, &view), &etag::of(config.version, &view))
}

/// Show a user's alert thresholds
///
/// The user and admins.
#[utoipa::path(
    get, path = "/v1/users/{id}/alert-config", operation_id = "showAlertConfig", tag = "Alerts",
    params(UserPath, Known),
    responses(
        (status = 200, body = OneConfig, description = "The thresholds.", headers(("ETag"))),
        (status = 304, description = "`If-None-Match` names what would be shown.", headers(("ETag"))),
    ),
)]
pub async fn show_config(
    State(api): State<Api>,
    caller: For<Own>,
    headers: HeaderMap,
    query: Params,
) -> Result<Response, Problem> {
    query.end()?;
    let config = api.deadline().store(Outcome::None, api.accounts.alert_config(caller.user)).await?;
    Ok(etag::unless_known(&headers, one(config)))
}

/// Set a user's alert thresholds
///
/// Usage is judged anew at once: a level that is reached by the new thresholds is told of now, one that no longer is has
/// recovered; what was told of and still holds is not told again. Needs `If-Match` with the `ETag` of what was read; a
/// grant or any other change of the user since is a change, too. The user and admins.
#[utoipa::path(
    put, path = "/v1/users/{id}/alert-config", operation_id = "setAlertConfig", tag = "Alerts",
    params(UserPath, Expected),
    request_body = bodies::AlertConfig,
    responses((status = 200, body = OneConfig, description = "The thresholds as they are now.", headers(("ETag")))),
)]
pub async fn set_config(
    State(api): State<Api>,
    caller: For<Own>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let body = Object::parse(&body, &bodies::AlertConfig::MEMBERS)?;
    let required = |name: &'static str| {
        body.threshold(name)?.ok_or_else(|| Problem::new(Code::MissingField).field(name))
    };
    let (warning, critical) = (required("warning")?, required("critical")?);
    let invalid = |name| Problem::new(Code::InvalidAlertThreshold).field(name);
    if body.threshold("blocked")?.is_some_and(|blocked| blocked != AlertThreshold::WHOLE) {
        return Err(invalid("blocked"));
    }
    let thresholds = Thresholds::new(warning, critical).map_err(|_| invalid("warning"))?;
    let expected = etag::if_match(&headers)?;
    let call = api.accounts.set_alert_config(caller.user, &expected, thresholds);
    Ok(one(api.deadline().store(Outcome::Unknown, call).await?))
}

impl From<AlertError> for Problem {
    fn from(error: AlertError) -> Self {
        match error {
            AlertError::NotFound => Code::UserNotFound.into(),
            AlertError::Stale => Self::new(Code::PreconditionFailed).field("If-Match"),
            AlertError::Store(error) => error.into(),
        }
    }
}
