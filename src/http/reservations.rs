//! Reserve, settle, release, extend, and reading reservations.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::Serialize;

use super::{
    Api,
    auth::{For, Hot, PathReservation, Read},
    code::Code,
    json::Object,
    problem::Problem,
    request::{JsonBody, NoBody, Params, caller_id},
    usage::{charge, one_model},
    views::{ReservationView, Reserved, Settled, json, replayable},
};
use crate::{
    ledger::Receipt,
    quota::{DEFAULT_TTL_SECONDS, Extend, Model, Reservation, ReservationId, Reserve, Settle, Tokens},
};

const RESERVE: [&str; 6] = ["id", "tokens", "estimate", "model", "ttl_seconds", "metadata"];
const ESTIMATE: [&str; 3] = ["model", "input_tokens", "max_output_tokens"];

/// `POST /users/{id}/reservations`
pub async fn reserve(
    State(api): State<Api>,
    caller: For<Hot>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let ask = read_reserve(&body, &headers)?;
    let id = ask.id.clone();
    let deadline = api.deadline();
    let receipt = deadline
        .ledger(api.ledger.reserve(caller.user, ask, deadline.inner))
        .await
        // Who was given an id by us needs it to ask again.
        .map_err(|refusal| Problem::from(refusal).reservation(id))?;
    Ok(reserved(&receipt, StatusCode::CREATED))
}

fn read_reserve(body: &[u8], headers: &HeaderMap) -> Result<Reserve, Problem> {
    let body = Object::parse(body, &RESERVE)?;
    let id = caller_id(body.reservation_id("id")?, headers)?;
    let (tokens, model) = wanted(&body)?;
    let ttl_seconds = body.ttl_seconds("ttl_seconds")?.unwrap_or(DEFAULT_TTL_SECONDS);
    let metadata = body.metadata("metadata")?;
    Ok(Reserve { id: id.unwrap_or_else(ReservationId::generate), tokens, model, ttl_seconds, metadata })
}

/// How many tokens to hold, and for which model: named, or from the estimate's most.
fn wanted(body: &Object<'_, 6>) -> Result<(Tokens, Option<Model>), Problem> {
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

const SETTLE: [&str; 4] = ["tokens", "usage", "model", "request_id"];

/// `POST /users/{id}/reservations/{rid}/settle`
pub async fn settle(
    State(api): State<Api>,
    caller: For<Hot>,
    PathReservation(id): PathReservation,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let body = Object::parse(&body, &SETTLE)?;
    let (charge, model) = charge(&body)?;
    let ask = Settle { id: id.clone(), charge, model, request_id: body.request_id("request_id")? };
    let deadline = api.deadline();
    let receipt = deadline
        .ledger(api.ledger.settle(caller.user, ask, deadline.inner))
        .await
        .map_err(|refusal| Problem::from(refusal).reservation(id))?;
    let answer = Settled { transaction: (&receipt.subject).into(), balance: (&receipt.balance).into() };
    Ok(replayable(receipt.replayed, StatusCode::OK, &answer))
}

/// `POST /users/{id}/reservations/{rid}/release`
pub async fn release(
    State(api): State<Api>,
    caller: For<Hot>,
    PathReservation(id): PathReservation,
    _: NoBody,
) -> Result<Response, Problem> {
    let deadline = api.deadline();
    let receipt = deadline
        .ledger(api.ledger.release(caller.user, id.clone(), deadline.inner))
        .await
        .map_err(|refusal| Problem::from(refusal).reservation(id))?;
    Ok(reserved(&receipt, StatusCode::OK))
}

const EXTEND: [&str; 3] = ["tokens", "ttl_seconds", "used_tokens"];

/// `POST /users/{id}/reservations/{rid}/extend`
pub async fn extend(
    State(api): State<Api>,
    caller: For<Hot>,
    PathReservation(id): PathReservation,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let body = Object::parse(&body, &EXTEND)?;
    let ask = Extend {
        id: id.clone(),
        tokens: body.tokens("tokens")?,
        ttl_seconds: body.ttl_seconds("ttl_seconds")?,
        used_tokens: body.tokens("used_tokens")?,
    };
    if ask.tokens.is_none() && ask.ttl_seconds.is_none() && ask.used_tokens.is_none() {
        return Err(Problem::new(Code::MissingField).field("tokens"));
    }
    let deadline = api.deadline();
    let receipt = deadline
        .ledger(api.ledger.extend(caller.user, ask, deadline.inner))
        .await
        .map_err(|refusal| Problem::from(refusal).reservation(id))?;
    Ok(reserved(&receipt, StatusCode::OK))
}

fn reserved(receipt: &Receipt<Reservation>, first: StatusCode) -> Response {
    let answer = Reserved { reservation: (&receipt.subject).into(), balance: (&receipt.balance).into() };
    replayable(receipt.replayed, first, &answer)
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
    let found = deadline.ledger(api.ledger.reservation(caller.user, id, deadline.inner)).await?;
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
    let mut found =
        deadline.ledger(api.ledger.pending(caller.user, after, limit + 1, deadline.inner)).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|last| last.id.as_str());
    Ok(json(StatusCode::OK, &Page { reservations: found.iter().map(Into::into).collect(), next }))
}
