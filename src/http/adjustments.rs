//! Adjustments: correct what was given or charged, by hand.

use axum::{extract::State, http::HeaderMap, response::Response};

use super::{
    Api,
    auth::{AdminOnly, For, one_spelling},
    bodies,
    code::Code,
    credits::{CreditedView, credited, grant_key},
    json::Object,
    openapi::parameters::{CreditKey, UserPath},
    problem::Problem,
    request::JsonBody,
};
use crate::{
    accounts::credits::{AdjustUser, Direction},
    ledger::Outcome,
};

/// Correct a user's total
///
/// Gives (`up`) or takes (`down`) tokens, once per `Idempotency-Key`. With a `transaction_id` it reverses or corrects what
/// was charged: no more is given back in all than the transaction's reservation was charged. Never takes more than was
/// granted; it may leave less than was used, and then `available` is below zero and reserves wait for credit, as after
/// an overage. Transactions and grants stay as they are: the history shows both. Admins.
#[utoipa::path(
    post, path = "/v1/users/{id}/adjustments", operation_id = "adjust", tag = "Credits",
    params(UserPath, CreditKey),
    request_body = bodies::Adjustment,
    responses(
        (status = 201, body = CreditedView, description = "Adjusted."),
        (status = 200, body = CreditedView, description = "Adjusted before, under the same key.",
         headers(("Idempotent-Replayed"))),
    ),
)]
pub async fn adjust(
    State(api): State<Api>,
    caller: For<AdminOnly>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let body = Object::parse(&body, &bodies::Adjustment::MEMBERS)?;
    let missing = |name| Problem::new(Code::MissingField).field(name);
    let direction = body.text("direction")?.ok_or_else(|| missing("direction"))?;
    let direction = Direction::from_name(&direction)
        .ok_or_else(|| Problem::new(Code::InvalidDirection).field("direction"))?;
    let transaction = match body.text("transaction_id")? {
        None => None,
        Some(text) => Some(
            one_spelling(&text)
                .ok_or_else(|| Problem::new(Code::InvalidTransactionId).field("transaction_id"))?,
        ),
    };
    let adjustment = AdjustUser {
        direction,
        tokens: body.required_tokens("tokens")?,
        reason: body.text("reason")?.map(String::from).ok_or_else(|| missing("reason"))?,
        transaction,
        idempotency_key: grant_key(&headers)?,
    };
    let call = api.accounts.adjust(caller.user, adjustment);
    Ok(credited(&api.deadline().store(Outcome::Unknown, call).await?))
}
