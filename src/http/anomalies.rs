//! Hours in which users used more than is ordinary for them.

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Api,
    auth::{Admin, For, Own},
    openapi::{
        parameters::{AnomalyQuery, UserPath},
        schemas,
    },
    problem::Problem,
    request::Params,
    views::{Time, json},
};
use crate::{ledger::Outcome, store::Anomaly};

/// An hour that used more than `threshold_tokens`, which is `median_tokens` and six spreads; a spread is 1.4826 ×
/// `mad_tokens`, or a quarter of `typical_tokens` where that is more.
#[derive(Serialize, ToSchema)]
#[schema(as = Anomaly)]
struct AnomalyView<'a> {
    id: Uuid,
    #[schema(value_type = schemas::UserId)]
    user_id: String,
    /// First instant of the hour of the user's clock.
    #[schema(value_type = schemas::Time)]
    hour: Time,
    #[schema(value_type = schemas::TimeZone)]
    time_zone: &'a str,
    /// Used in that hour when it was found, which is while the hour runs.
    tokens: i64,
    threshold_tokens: i64,
    /// Median of the hours alike: of this time of day, the one before and the one after, on the last 28 days.
    median_tokens: i64,
    /// Median of their distances from it.
    mad_tokens: i64,
    /// Median of all hours of these days in which anything was used.
    typical_tokens: i64,
    /// Hours alike.
    samples: i32,
    #[schema(value_type = schemas::Time)]
    detected_at: Time,
}

impl<'a> From<&'a Anomaly> for AnomalyView<'a> {
    fn from(anomaly: &'a Anomaly) -> Self {
        Self {
            id: anomaly.id,
            user_id: anomaly.user.to_string(),
            hour: anomaly.hour.into(),
            time_zone: &anomaly.time_zone,
            tokens: anomaly.tokens,
            threshold_tokens: anomaly.threshold,
            median_tokens: anomaly.median,
            mad_tokens: anomaly.mad,
            typical_tokens: anomaly.typical,
            samples: anomaly.samples,
            detected_at: anomaly.detected_at.into(),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = Anomalies)]
struct Page<'a> {
    anomalies: Vec<AnomalyView<'a>>,
    /// Send it as `before` for the next page; null on the last one.
    #[schema(required)]
    next: Option<Uuid>,
}

/// A page of at most `limit` of what was found, which is one more where there is a next page.
fn page(mut found: Vec<Anomaly>, limit: u32) -> Response {
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = found.last().filter(|_| more).map(|last| last.id);
    json(StatusCode::OK, &Page { anomalies: found.iter().map(Into::into).collect(), next })
}

fn place(query: &mut Params) -> Result<(u32, Option<Uuid>), Problem> {
    Ok((query.take_limit()?, query.take_parsed::<Uuid>("before")?))
}

/// List a user's anomalies
///
/// Hours in which it used more than is ordinary for it, with the numbers that say so. In pages, newest first. The user
/// and admins.
#[utoipa::path(
    get, path = "/v1/users/{id}/anomalies", operation_id = "listUserAnomalies", tag = "Usage",
    params(UserPath, AnomalyQuery),
    responses((status = 200, body = Page, description = "A page.")),
)]
pub async fn of_user(
    State(api): State<Api>,
    caller: For<Own>,
    mut query: Params,
) -> Result<Response, Problem> {
    let (limit, before) = place(&mut query)?;
    query.end()?;
    let call = api.accounts.anomalies_of(caller.user, before, limit + 1);
    Ok(page(api.deadline().store(Outcome::None, call).await?, limit))
}

/// List the anomalies of all users
///
/// In pages, newest first. Admins.
#[utoipa::path(
    get, path = "/v1/anomalies", operation_id = "listAnomalies", tag = "Overview",
    params(AnomalyQuery),
    responses((status = 200, body = Page, description = "A page.")),
)]
pub async fn of_all(State(api): State<Api>, _: Admin, mut query: Params) -> Result<Response, Problem> {
    let (limit, before) = place(&mut query)?;
    query.end()?;
    let call = api.accounts.anomalies(before, limit + 1);
    Ok(page(api.deadline().store(Outcome::None, call).await?, limit))
}
