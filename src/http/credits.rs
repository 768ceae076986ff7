//! Credits: give a user tokens, list what was given.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Api,
    auth::{AdminOnly, For, Own},
    bodies,
    code::Code,
    json::Object,
    openapi::{
        parameters::{CreditKey, CreditQuery, UserPath},
        schemas,
    },
    problem::Problem,
    request::{JsonBody, Params, idempotency_key},
    users::UserView,
    views::{Time, json, replayable},
};
use crate::{
    accounts::credits::{CreditError, CreditKind, CreditUser},
    ledger::Outcome,
    quota::{AmountError, MAX_OPERATION_TOKENS},
    store::Grant,
};

/// An immutable change of a user's total.
#[derive(Serialize, ToSchema)]
#[schema(as = Grant)]
struct GrantView<'a> {
    id: Uuid,
    #[schema(value_type = schemas::Kind)]
    kind: &'static str,
    /// Negative only in an adjustment.
    tokens: i64,
    #[schema(required)]
    reason: Option<&'a str>,
    idempotency_key: &'a str,
    #[schema(value_type = schemas::Time)]
    created_at: Time,
}

impl<'a> From<&'a Grant> for GrantView<'a> {
    fn from(grant: &'a Grant) -> Self {
        Self {
            id: grant.id,
            kind: grant.kind.as_str(),
            tokens: grant.tokens,
            reason: grant.reason.as_deref(),
            idempotency_key: &grant.idempotency_key,
            created_at: grant.created_at.into(),
        }
    }
}

#[derive(Serialize, ToSchema)]
struct Credited<'a> {
    grant: GrantView<'a>,
    account: UserView<'a>,
    /// Whether the tokens can be reserved already; if not, they can within moments.
    effective: bool,
}

/// Give a user tokens
///
/// Once per `Idempotency-Key`: a repeat with the same numbers is answered with the first facts. Admins.
#[utoipa::path(
    post, path = "/v1/users/{id}/credits", operation_id = "credit", tag = "Credits",
    params(UserPath, CreditKey),
    request_body = bodies::Credit,
    responses(
        (status = 201, body = Credited, description = "Given."),
        (status = 200, body = Credited, description = "Given before, under the same key.", headers(("Idempotent-Replayed"))),
    ),
)]
pub async fn credit(
    State(api): State<Api>,
    caller: For<AdminOnly>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let body = Object::parse(&body, &bodies::Credit::MEMBERS)?;
    let kind = match body.text("kind")? {
        None => CreditKind::Purchase,
        Some(word) => {
            CreditKind::from_name(&word).ok_or_else(|| Problem::new(Code::InvalidKind).field("kind"))?
        }
    };
    let key = idempotency_key(&headers)?
        .ok_or_else(|| Problem::new(Code::MissingIdempotencyKey).field("Idempotency-Key"))?;
    let credit = CreditUser {
        tokens: body.required_tokens("tokens")?,
        kind,
        idempotency_key: key.to_owned(),
        reason: body.text("reason")?.map(String::from),
    };
    let call = api.accounts.credit(caller.user, credit);
    let done = api.deadline().store(Outcome::Unknown, call).await?;
    let answer =
        Credited { grant: (&done.grant).into(), account: (&done.user).into(), effective: done.effective };
    Ok(replayable(done.replayed, StatusCode::CREATED, &answer))
}

#[derive(Serialize, ToSchema)]
#[schema(as = Credits)]
struct Page<'a> {
    credits: Vec<GrantView<'a>>,
    /// Send it as `before` for the next page; null on the last one.
    #[schema(required)]
    next: Option<Uuid>,
}

/// List a user's credits
///
/// In pages, newest first. The user and admins.
#[utoipa::path(
    get, path = "/v1/users/{id}/credits", operation_id = "listCredits", tag = "Credits",
    params(UserPath, CreditQuery),
    responses((status = 200, body = Page, description = "A page.")),
)]
pub async fn list(State(api): State<Api>, caller: For<Own>, mut query: Params) -> Result<Response, Problem> {
    let limit = query.take_limit()?;
    let before = query.take_parsed::<Uuid>("before")?;
    query.end()?;
    // One more than asked for tells whether there is a next page.
    let call = api.accounts.credits(caller.user, before, limit + 1);
    let mut grants = api.deadline().store(Outcome::None, call).await?;
    let more = grants.len() > limit as usize;
    grants.truncate(limit as usize);
    let next = grants.last().filter(|_| more).map(|last| last.id);
    Ok(json(StatusCode::OK, &Page { credits: grants.iter().map(Into::into).collect(), next }))
}

impl From<CreditError> for Problem {
    fn from(error: CreditError) -> Self {
        match error {
            CreditError::NotFound => Code::UserNotFound.into(),
            CreditError::Zero => Self::from(AmountError::Invalid).field("tokens"),
            CreditError::OutOfRange => {
                Self::new(Code::AmountOutOfRange).field("tokens").limit(MAX_OPERATION_TOKENS)
            }
            CreditError::InvalidReason => Self::new(Code::InvalidReason).field("reason"),
            CreditError::Mismatch => Code::IdempotencyMismatch.into(),
            CreditError::Store(error) => error.into(),
        }
    }
}
