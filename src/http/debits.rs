//! Settling without a reservation.

use axum::{extract::State, response::Response};

use super::{
    Api,
    auth::{For, Report},
    bodies,
    code::Code,
    json::Object,
    openapi::parameters::{CallerIdHeader, UserPath},
    operations::perform,
    problem::Problem,
    request::{CallerId, JsonBody},
    usage::charge,
    views,
};
use crate::quota::{Ask, Charge, Debit, ReservationId};

/// Charge usage without a reservation
///
/// For what was used without asking first: exactly once by id, also below zero. Gateways and admins.
#[utoipa::path(
    post, path = "/v1/users/{id}/debits", operation_id = "debit", tag = "Debits",
    params(UserPath, CallerIdHeader),
    request_body = bodies::Debit,
    responses(
        (status = 201, body = views::Settled, description = "Charged."),
        (status = 200, body = views::Settled, description = "Charged before, under the same id.", headers(("Idempotent-Replayed"))),
    ),
)]
pub async fn debit(
    State(api): State<Api>,
    caller: For<Report>,
    key: CallerId,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let body = Object::parse(&body, &bodies::Debit::MEMBERS)?;
    let id = key.or(body.reservation_id("id")?)?;
    perform(&api, caller.user, Ask::Debit(read_debit(&body, id)?)).await
}

/// A debit from its members. The server makes no id here: a debit that cannot be repeated safely is worse than none.
pub fn read_debit<const N: usize>(body: &Object<'_, N>, id: Option<ReservationId>) -> Result<Debit, Problem> {
    let id = id.ok_or_else(|| Problem::new(Code::MissingField).field("id"))?;
    let (charge, model) = charge(body)?;
    if charge == Charge::Unknown {
        // There is no reservation whose amount could stand in.
        return Err(Problem::new(Code::InvalidBody).field("usage"));
    }
    Ok(Debit { id, charge, model, request_id: body.request_id("request_id")? })
}
