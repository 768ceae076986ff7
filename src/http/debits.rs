//! Settling without a reservation.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};

use super::{
    Api,
    auth::{For, Hot},
    code::Code,
    json::Object,
    problem::Problem,
    request::{JsonBody, caller_id},
    usage::charge,
    views::{Settled, replayable},
};
use crate::quota::{Charge, Debit};

const DEBIT: [&str; 5] = ["id", "tokens", "usage", "model", "request_id"];

/// `POST /users/{id}/debits`
pub async fn debit(
    State(api): State<Api>,
    caller: For<Hot>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let ask = read_debit(&body, &headers)?;
    let id = ask.id.clone();
    let deadline = api.deadline();
    let receipt = deadline
        .ledger(api.ledger.debit(caller.user, ask, deadline.inner))
        .await
        .map_err(|refusal| Problem::from(refusal).reservation(id))?;
    let answer = Settled { transaction: (&receipt.subject).into(), balance: (&receipt.balance).into() };
    Ok(replayable(receipt.replayed, StatusCode::CREATED, &answer))
}

fn read_debit(body: &[u8], headers: &HeaderMap) -> Result<Debit, Problem> {
    let body = Object::parse(body, &DEBIT)?;
    // The server makes no id here: a debit that cannot be repeated safely is worse than none.
    let id = caller_id(body.reservation_id("id")?, headers)?
        .ok_or_else(|| Problem::new(Code::MissingField).field("id"))?;
    let (charge, model) = charge(&body)?;
    if charge == Charge::Unknown {
        // There is no reservation whose amount could stand in.
        return Err(Problem::new(Code::InvalidBody).field("usage"));
    }
    Ok(Debit { id, charge, model, request_id: body.request_id("request_id")? })
}
