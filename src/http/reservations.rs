//! Reserve, settle, release, extend, and reading reservations.

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    auth::{For, Hot, PathReservation, Read, Report},
    bodies,
    code::Code,
    json::Object,
    openapi::{
        parameters::{CallerIdHeader, ReservationPath, ReservationQuery, UserPath},
        schemas,
    },
    operations::perform,
    problem::Problem,
    request::{CallerId, JsonBody, NoBody, Params},
    usage::{charge, one_model},
    views::{self, ReservationView, json},
};
use crate::quota::{Ask, DEFAULT_TTL_SECONDS, Extend, Model, ReservationId, Reserve, Settle, Tokens};

/// Reserve tokens before a model call
///
/// Holds the tokens, all or nothing. `402` means that the call may not be made. A repeat with the same id and numbers is
/// answered with the first facts. Gateways and admins.
#[utoipa::path(
    post, path = "/v1/users/{id}/reservations", operation_id = "reserve", tag = "Reservations",
    params(UserPath, CallerIdHeader),
    request_body = bodies::Reserve,
    responses(
        (status = 201, body = views::Reserved, description = "Held: the call may be made."),
        (status = 200, body = views::Reserved, description = "Held before, under the same id.", headers(("Idempotent-Replayed"))),
    ),
)]
pub async fn reserve(
    State(api): State<Api>,
    caller: For<Hot>,
    key: CallerId,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let body = Object::parse(&body, &bodies::Reserve::MEMBERS)?;
    let id = key.or(body.reservation_id("id")?)?;
    perform(&api, caller.user, Ask::Reserve(read_reserve(&body, id)?)).await
}

/// A reserve from its members; under an id of ours when the caller has none.
pub fn read_reserve<const N: usize>(
    body: &Object<'_, N>,
    id: Option<ReservationId>,
) -> Result<Reserve, Problem> {
    let (tokens, model) = wanted(body)?;
    let ttl_seconds = body.ttl_seconds("ttl_seconds")?.unwrap_or(DEFAULT_TTL_SECONDS);
    let metadata = body.metadata("metadata")?;
    Ok(Reserve { id: id.unwrap_or_else(ReservationId::generate), tokens, model, ttl_seconds, metadata })
}

/// How many tokens to hold, and for which model: named, or from the estimate's most.
fn wanted<const N: usize>(body: &Object<'_, N>) -> Result<(Tokens, Option<Model>), Problem> {
    let model = body.model("model")?;
    match (body.tokens("tokens")?, body.object("estimate", &bodies::Estimate::MEMBERS)?) {
        (Some(tokens), None) => Ok((tokens, model)),
        (None, Some(estimate)) => {
            let named = estimate.model("model")?;
            if named.is_none() {
                return Err(Problem::new(Code::MissingField).field("model"));
            }
            let input = estimate.required_tokens("input_tokens")?;
            let output = estimate.required_tokens("max_output_tokens")?;
            let tokens = input.checked_add(output).map_err(|error| Problem::from(error).field("estimate"))?;
            Ok((tokens, one_model(model, named)?))
        }
        (Some(_), Some(_)) => Err(Problem::new(Code::ConflictingFields).field("estimate")),
        (None, None) => Err(Problem::new(Code::MissingField).field("tokens")),
    }
}

/// Settle what a call has used
///
/// Charges what was used and gives the rest of the reservation back, in one step. More than was reserved is charged in
/// full, flagged `overage`; after the expiry it is still charged, once, flagged `late`. A repeat with the same numbers is
/// answered with the first facts. Gateways and admins.
#[utoipa::path(
    post, path = "/v1/users/{id}/reservations/{rid}/settle", operation_id = "settle", tag = "Reservations",
    params(ReservationPath),
    request_body = bodies::Settle,
    responses((status = 200, body = views::Settled, description = "Charged, now or before.", headers(("Idempotent-Replayed")))),
)]
pub async fn settle(
    State(api): State<Api>,
    caller: For<Report>,
    PathReservation(id): PathReservation,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let body = Object::parse(&body, &bodies::Settle::MEMBERS)?;
    perform(&api, caller.user, Ask::Settle(read_settle(&body, id)?)).await
}

/// A settle from its members.
pub fn read_settle<const N: usize>(body: &Object<'_, N>, id: ReservationId) -> Result<Settle, Problem> {
    let (charge, model) = charge(body)?;
    Ok(Settle { id, charge, model, request_id: body.request_id("request_id")? })
}

/// Release a reservation whose call was not made
///
/// Gives everything back. A release of an id that is not known yet is remembered: a reserve that comes late is refused.
/// Gateways and admins.
#[utoipa::path(
    post, path = "/v1/users/{id}/reservations/{rid}/release", operation_id = "release", tag = "Reservations",
    params(ReservationPath),
    request_body = bodies::Empty,
    responses((status = 200, body = views::Reserved, description = "Released, now or before.", headers(("Idempotent-Replayed")))),
)]
pub async fn release(
    State(api): State<Api>,
    caller: For<Report>,
    PathReservation(id): PathReservation,
    _: NoBody,
) -> Result<Response, Problem> {
    perform(&api, caller.user, Ask::Release(id)).await
}

/// Raise a pending reservation
///
/// Holds more, holds longer, or reports what the running call has used so far. Nothing is ever lowered, so that it may
/// be repeated. Gateways and admins.
#[utoipa::path(
    post, path = "/v1/users/{id}/reservations/{rid}/extend", operation_id = "extend", tag = "Reservations",
    params(ReservationPath),
    request_body = bodies::Extend,
    responses((status = 200, body = views::Reserved, description = "Raised, or as it was where nothing was to raise.", headers(("Idempotent-Replayed")))),
)]
pub async fn extend(
    State(api): State<Api>,
    caller: For<Hot>,
    PathReservation(id): PathReservation,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let body = Object::parse(&body, &bodies::Extend::MEMBERS)?;
    perform(&api, caller.user, Ask::Extend(read_extend(&body, id)?)).await
}

/// An extend from its members, at least one of them.
pub fn read_extend<const N: usize>(body: &Object<'_, N>, id: ReservationId) -> Result<Extend, Problem> {
    let ask = Extend {
        id,
        tokens: body.tokens("tokens")?,
        ttl_seconds: body.ttl_seconds("ttl_seconds")?,
        used_tokens: body.tokens("used_tokens")?,
    };
    if ask.tokens.is_none() && ask.ttl_seconds.is_none() && ask.used_tokens.is_none() {
        return Err(Problem::new(Code::MissingField).field("tokens"));
    }
    Ok(ask)
}

#[derive(Serialize, ToSchema)]
#[schema(as = OneReservation)]
struct One<'a> {
    reservation: ReservationView<'a>,
}

/// Show a reservation
///
/// Pending ones and what has become of others: while Redis has them, else from the ledger. The user, gateways and
/// admins.
#[utoipa::path(
    get, path = "/v1/users/{id}/reservations/{rid}", operation_id = "showReservation", tag = "Reservations",
    params(ReservationPath),
    responses((status = 200, body = One, description = "The reservation.")),
)]
pub async fn show(
    State(api): State<Api>,
    caller: For<Read>,
    PathReservation(id): PathReservation,
    query: Params,
) -> Result<Response, Problem> {
    query.end()?;
    let deadline = api.deadline();
    let found = api.ledger.reservation(caller.user, id, deadline.inner).await?;
    Ok(json(StatusCode::OK, &One { reservation: (&found).into() }))
}

#[derive(Serialize, ToSchema)]
#[schema(as = Reservations)]
struct Page<'a> {
    reservations: Vec<ReservationView<'a>>,
    /// Send it as `after` for the next page; null on the last one.
    #[schema(required, value_type = Option<schemas::ReservationId>)]
    next: Option<&'a str>,
}

/// List pending reservations
///
/// In pages, ordered by id. The user, gateways and admins.
#[utoipa::path(
    get, path = "/v1/users/{id}/reservations", operation_id = "listReservations", tag = "Reservations",
    params(UserPath, ReservationQuery),
    responses((status = 200, body = Page, description = "A page.")),
)]
pub async fn list(State(api): State<Api>, caller: For<Read>, mut query: Params) -> Result<Response, Problem> {
    let limit = query.take_limit()? as usize;
    let after = match query.take("after") {
        Some(text) => {
            Some(ReservationId::new(&text).map_err(|_| Problem::new(Code::InvalidQuery).field("after"))?)
        }
        None => None,
    };
    // Only what is pending can be listed; finished reservations are transactions.
    if query.take("state").is_some_and(|state| state != "pending") {
        return Err(Problem::new(Code::InvalidQuery).field("state"));
    }
    query.end()?;
    let deadline = api.deadline();
    // One more than asked for tells whether there is a next page.
    let mut found = api.ledger.pending(caller.user, after, limit + 1, deadline.inner).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|last| last.id.as_str());
    Ok(json(StatusCode::OK, &Page { reservations: found.iter().map(Into::into).collect(), next }))
}
