//! How one user's account is doing: for the user, and for whoever is asked why it does not do what it should.

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use tokio::time::Instant;
use utoipa::ToSchema;

use super::{
    Api, Deadline,
    auth::{For, Own},
    openapi::{parameters::UserPath, schemas},
    problem::Problem,
    request::Params,
    views::{BalanceView, Time, json},
};
use crate::{
    ledger::{Outcome, Warmth},
    quota::{Reservation, UserId},
    store::AccountHealth,
};

/// Tries to find both stores at rest.
const ATTEMPTS: usize = 3;

/// Pending reservations that are looked at for the oldest.
const MAX_PENDING: usize = 1_000;

#[derive(Serialize, ToSchema)]
#[schema(as = UserHealth)]
struct HealthView {
    #[schema(value_type = schemas::UserId)]
    user_id: String,
    #[schema(value_type = schemas::Status)]
    status: &'static str,
    /// `hot`: in Redis. `cold`: in Postgres alone, until its next use. `unknown`: Redis does not answer.
    #[schema(pattern = "^(hot|cold|unknown)$")]
    state: &'static str,
    /// As Redis has it; null unless `hot`.
    #[schema(required)]
    balance: Option<BalanceView>,
    /// Settled tokens that have arrived in the ledger.
    booked_tokens: u64,
    /// Tokens that Redis counts as used and the ledger does not, with nothing on its way between them: not 0 is a fault.
    /// Null while something is on its way, or the account is not `hot`.
    #[schema(required)]
    drift_tokens: Option<i64>,
    /// Whether Redis has the newest grants and state of the account, or needs none.
    synced: bool,
    /// Transactions of the account's partition that are on their way to the ledger; null unless `hot`.
    #[schema(required)]
    waiting_transactions: Option<u64>,
    /// When transactions of its partition last arrived in the ledger.
    #[schema(required, value_type = Option<schemas::Time>)]
    last_flush_at: Option<Time>,
    /// The newest transaction of the user that has arrived.
    #[schema(required, value_type = Option<schemas::Time>)]
    last_transaction_at: Option<Time>,
    /// How many reservations are pending; counted up to 1,000.
    #[schema(required)]
    pending_reservations: Option<u64>,
    /// When the oldest of them was made.
    #[schema(required, value_type = Option<schemas::Time>)]
    oldest_reservation_at: Option<Time>,
    /// Levels of the alerts that are open, in the order in which they were reached.
    #[schema(value_type = Vec<schemas::AlertLevel>)]
    open_alerts: Vec<&'static str>,
}

/// Show how a user's account is doing
///
/// Whether Redis has it, whether Redis and the ledger agree, what is on its way, and which alerts are open. A cold account stays cold. The user
/// and admins.
#[utoipa::path(
    get, path = "/v1/users/{id}/health", operation_id = "showHealth", tag = "Balance",
    params(UserPath),
    responses((status = 200, body = HealthView, description = "How it is doing.")),
)]
pub async fn show(State(api): State<Api>, caller: For<Own>, query: Params) -> Result<Response, Problem> {
    query.end()?;
    let deadline = api.deadline();
    let Found { account, warmth, drift } = look(&api, caller.user, deadline).await?;
    let pending = match warmth {
        Some(Some(_)) => api.ledger.pending(caller.user, None, MAX_PENDING, half(deadline)).await.ok(),
        _ => None,
    };
    let hot = warmth.flatten();
    let oldest = pending.iter().flatten().map(|reservation: &Reservation| reservation.reserved_at_ms).min();
    Ok(json(
        StatusCode::OK,
        &HealthView {
            user_id: caller.user.to_string(),
            status: account.status.as_str(),
            state: match warmth {
                Some(Some(_)) => "hot",
                Some(None) => "cold",
                None => "unknown",
            },
            balance: hot.as_ref().map(|warmth| (&warmth.account.balance).into()),
            booked_tokens: account.used_tokens,
            drift_tokens: drift,
            synced: account.synced,
            waiting_transactions: hot.as_ref().map(|warmth| warmth.outbox_entries),
            last_flush_at: account.last_flush_at.map(Into::into),
            last_transaction_at: account.last_transaction_at.map(Into::into),
            pending_reservations: pending.as_ref().map(|pending| pending.len() as u64),
            oldest_reservation_at: oldest.and_then(Time::from_ms),
            open_alerts: account.open_alerts.iter().map(|level| level.as_str()).collect(),
        },
    ))
}

struct Found {
    account: AccountHealth,
    /// `None`: Redis does not answer; inside, `None`: the account is cold.
    warmth: Option<Option<Warmth>>,
    drift: Option<i64>,
}

/// Looks at Redis, at Postgres, and at Redis again: when nothing was on its way and nothing was spent between, the two
/// numbers are of one moment.
async fn look(api: &Api, user: UserId, deadline: Deadline) -> Result<Found, Problem> {
    let mut before = api.ledger.warmth(user, half(deadline)).await.ok();
    let mut attempt = 1;
    loop {
        let account = deadline.store(Outcome::None, api.accounts.health(user)).await?;
        let Some(Some(first)) = before else { return Ok(Found { account, warmth: before, drift: None }) };
        let after = api.ledger.warmth(user, half(deadline)).await.ok();
        if let Some(Some(second)) = after
            && first.outbox_entries == 0
            && first.account.balance.used == second.account.balance.used
        {
            // Both are below 2^53.
            let drift = second.account.balance.used as i64 - account.used_tokens as i64;
            return Ok(Found { account, warmth: after, drift: Some(drift) });
        }
        if attempt == ATTEMPTS || after.is_none() {
            return Ok(Found { account, warmth: after, drift: None });
        }
        attempt += 1;
        before = after;
    }
}

/// Half of the time that is left.
fn half(deadline: Deadline) -> Instant {
    deadline.inner - deadline.inner.saturating_duration_since(Instant::now()) / 2
}
