//! How one operation on the ledger is run and answered, alone or in a batch.

use axum::{http::StatusCode, response::Response};

use super::{
    Api,
    problem::Problem,
    views::{DoneView, replayable},
};
use crate::{
    ledger::Refusal,
    quota::{Ask, ReservationId, UserId},
};

/// Runs an operation and writes its answer.
pub async fn perform(api: &Api, user: UserId, ask: Ask) -> Result<Response, Problem> {
    let (id, first) = (ask.id().clone(), first_status(&ask));
    let done = api.ledger.perform(user, ask, api.deadline().inner).await;
    let done = done.map_err(|refusal| refused(refusal, id))?;
    Ok(replayable(done.replayed(), first, &DoneView::from(&done)))
}

/// The status of an operation that was done now: a reserve and a debit make something.
pub fn first_status(ask: &Ask) -> StatusCode {
    match ask {
        Ask::Reserve(_) | Ask::Debit(_) => StatusCode::CREATED,
        Ask::Settle(_) | Ask::Release(_) | Ask::Extend(_) => StatusCode::OK,
    }
}

/// What a refusal of the ledger looks like. Who was given an id by us needs it to ask again.
pub fn refused(refusal: Refusal, id: ReservationId) -> Problem {
    Problem::from(refusal).reservation(id)
}
