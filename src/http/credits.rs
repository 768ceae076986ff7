//! Credits: give a user tokens, list what was given.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::Serialize;
use uuid::Uuid;

use super::{
    Api,
    auth::{AdminOnly, For, Own},
    code::Code,
    json::Object,
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

#[derive(Serialize)]
struct GrantView<'a> {
    id: Uuid,
    kind: &'static str,
    tokens: i64,
    reason: Option<&'a str>,
    idempotency_key: &'a str,
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

#[derive(Serialize)]
struct Credited<'a> {
    grant: GrantView<'a>,
    account: UserView<'a>,
    /// Whether the tokens can be reserved already; if not, they can within moments.
    effective: bool,
}

const CREDIT: [&str; 3] = ["tokens", "kind", "reason"];

/// `POST /users/{id}/credits`
pub async fn credit(
    State(api): State<Api>,
    caller: For<AdminOnly>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let body = Object::parse(&body, &CREDIT)?;
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

#[derive(Serialize)]
struct Page<'a> {
    credits: Vec<GrantView<'a>>,
    /// Send it as `before` for the next page; null on the last one.
    next: Option<Uuid>,
}

/// `GET /users/{id}/credits?before=&limit=`: newest first.
pub async fn list(State(api): State<Api>, caller: For<Own>, mut query: Params) -> Result<Response, Problem> {
    let limit = query.take_limit(100, 500)?;
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
