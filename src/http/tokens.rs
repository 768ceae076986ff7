//! A user's balance.

use axum::{extract::State, http::StatusCode, response::Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api, Deadline,
    auth::{For, Read},
    code::Code,
    openapi::{parameters::UserPath, schemas},
    problem::Problem,
    request::Params,
    views::{BalanceView, Time, json},
};
use crate::{
    ledger::{Account, Outcome, Refusal},
    quota::UserId,
    store::{User, UserStatus},
};

/// What Redis knows: the balance as it is now.
#[derive(Serialize, ToSchema)]
#[schema(as = LiveTokens)]
struct Live {
    #[schema(value_type = schemas::UserId)]
    user_id: String,
    #[schema(value_type = schemas::Status)]
    status: &'static str,
    balance: BalanceView,
    /// `false`.
    stale: bool,
}

/// What Postgres knows. It does not know what is reserved, so `available` is at most what is said here.
#[derive(Serialize, ToSchema)]
#[schema(as = StaleTokens)]
struct Stale {
    #[schema(value_type = schemas::UserId)]
    user_id: String,
    #[schema(value_type = schemas::Status)]
    status: &'static str,
    balance: Booked,
    /// `true`.
    stale: bool,
    /// When the ledger last heard of this account.
    #[schema(value_type = schemas::Time)]
    as_of: Time,
}

#[derive(Serialize, ToSchema)]
#[schema(as = BookedBalance)]
struct Booked {
    total: u64,
    used: u64,
    /// `null`: only Redis knows.
    #[schema(required)]
    reserved: Option<u64>,
    /// At most this many can be reserved.
    available: i64,
}

/// One of the two.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes an answer, and is never made")]
enum TokensOf {
    Live(Live),
    Stale(Stale),
}

/// Show a user's balance
///
/// From Redis, as it is now; while Redis is away from Postgres, which then says `stale` and since when. The user,
/// gateways and admins.
#[utoipa::path(
    get, path = "/v1/users/{id}/tokens", operation_id = "showTokens", tag = "Balance",
    params(UserPath),
    responses((status = 200, body = TokensOf, description = "The balance.")),
)]
pub async fn show(State(api): State<Api>, caller: For<Read>, query: Params) -> Result<Response, Problem> {
    query.end()?;
    let known = balance_of(&api, caller.user, api.deadline()).await?;
    Ok(match known {
        Known::Live(account) => {
            let status = if account.suspended { UserStatus::Suspended } else { UserStatus::Active };
            let live = Live {
                user_id: caller.user.to_string(),
                status: status.as_str(),
                balance: (&account.balance).into(),
                stale: false,
            };
            json(StatusCode::OK, &live)
        }
        Known::Stale(user) => json(StatusCode::OK, &stale(&user)),
    })
}

/// What is known of a balance.
pub enum Known {
    /// By Redis: as it is now.
    Live(Account),
    /// By Postgres: the last the ledger heard.
    Stale(Box<User>),
}

/// From Redis, or while it is away from Postgres. When that is away too, it is the live balance that could not be had.
pub async fn balance_of(api: &Api, user: UserId, deadline: Deadline) -> Result<Known, Problem> {
    // Half the time, so that Postgres has the other half should Redis say nothing.
    let half = deadline.inner - (deadline.inner.saturating_duration_since(tokio::time::Instant::now()) / 2);
    let refusal = match api.ledger.account(user, half).await {
        Ok(account) => return Ok(Known::Live(account)),
        Err(refusal @ (Refusal::Unavailable { .. } | Refusal::Overloaded)) => refusal,
        Err(refusal) => return Err(refusal.into()),
    };
    match deadline.store(Outcome::None, api.accounts.user(user)).await {
        Ok(user) => Ok(Known::Stale(Box::new(user))),
        Err(problem) if problem.code() == Code::StoreUnavailable => Err(refusal.into()),
        Err(problem) => Err(problem),
    }
}

fn stale(user: &User) -> Stale {
    Stale {
        user_id: user.id.to_string(),
        status: user.status.as_str(),
        balance: Booked {
            total: user.total_tokens,
            used: user.used_tokens,
            reserved: None,
            // Both are below 2^53.
            available: user.total_tokens as i64 - user.used_tokens as i64,
        },
        stale: true,
        as_of: user.updated_at.into(),
    }
}
