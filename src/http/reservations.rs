//! Reserve, settle, release, extend, and reading reservations.

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Serialize;

use super::{
    Api,
    auth::{For, Hot, PathReservation, Read, Report},
    code::Code,
    json::Object,
    operations::perform,
    problem::Problem,
    request::{CallerId, JsonBody, NoBody, Params},
    usage::{charge, one_model},
    views::{ReservationView, json},
};
use crate::quota::{Ask, DEFAULT_TTL_SECONDS, Extend, Model, ReservationId, Reserve, Settle, Tokens};

/// The members of a reserve.
pub const RESERVE: [&str; 6] = ["id", "tokens", "estimate", "model", "ttl_seconds", "metadata"];
const ESTIMATE: [&str; 3] = ["model", "input_tokens", "max_output_tokens"];

/// `POST /users/{id}/reservations`
pub async fn reserve(
    State(api): State<Api>,
    caller: For<Hot>,
    key: CallerId,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let body = Object::parse(&body, &RESERVE)?;
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
    match (body.tokens("tokens")?, body.object("estimate", &ESTIMATE)?) {
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

/// The members of a settle, beside the id.
pub const SETTLE: [&str; 4] = ["tokens", "usage", "model", "request_id"];

/// `POST /users/{id}/reservations/{rid}/settle`
pub async fn settle(
    State(api): State<Api>,
    caller: For<Report>,
    PathReservation(id): PathReservation,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let body = Object::parse(&body, &SETTLE)?;
    perform(&api, caller.user, Ask::Settle(read_settle(&body, id)?)).await
}

/// A settle from its members.
pub fn read_settle<const N: usize>(body: &Object<'_, N>, id: ReservationId) -> Result<Settle, Problem> {
    let (charge, model) = charge(body)?;
    Ok(Settle { id, charge, model, request_id: body.request_id("request_id")? })
}

/// `POST /users/{id}/reservations/{rid}/release`
pub async fn release(
    State(api): State<Api>,
    caller: For<Report>,
    PathReservation(id): PathReservation,
    _: NoBody,
) -> Result<Response, Problem> {
    perform(&api, caller.user, Ask::Release(id)).await
}

/// The members of an extend, beside the id.
pub const EXTEND: [&str; 3] = ["tokens", "ttl_seconds", "used_tokens"];

/// `POST /users/{id}/reservations/{rid}/extend`
pub async fn extend(
    State(api): State<Api>,
    caller: For<Hot>,
    PathReservation(id): PathReservation,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let body = Object::parse(&body, &EXTEND)?;
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

#[derive(Serialize)]
struct One<'a> {
    reservation: ReservationView<'a>,
}

/// `GET /users/{id}/reservations/{rid}`
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

#[derive(Serialize)]
struct Page<'a> {
    reservations: Vec<ReservationView<'a>>,
    /// Send it as `after` for the next page; null on the last one.
    next: Option<&'a str>,
}

/// `GET /users/{id}/reservations?state=pending&after=&limit=`
pub async fn list(State(api): State<Api>, caller: For<Read>, mut query: Params) -> Result<Response, Problem> {
    let limit = query.take_limit(100, 500)? as usize;
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
