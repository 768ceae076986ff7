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
    accounts::credits::{CreditError, CreditKind, CreditUser, Credited, DEFAULT_PROVIDER},
    ledger::Outcome,
    quota::{AmountError, MAX_OPERATION_TOKENS, Money},
    store::{Grant, Payment},
};

/// An immutable change of a user's total, and what was paid for it.
#[derive(Serialize, ToSchema)]
#[schema(as = Grant)]
pub struct GrantView<'a> {
    id: Uuid,
    #[schema(value_type = schemas::Kind)]
    kind: &'static str,
    /// Negative only in an adjustment.
    tokens: i64,
    #[schema(required)]
    reason: Option<&'a str>,
    /// The transaction that an adjustment reverses or corrects.
    #[schema(required)]
    transaction_id: Option<Uuid>,
    /// Null, as all that follows about a payment, where nothing was paid.
    #[schema(required)]
    payment_method: Option<&'a str>,
    /// In whole units of the currency.
    #[schema(required, value_type = Option<schemas::Money>)]
    amount_paid: Option<String>,
    #[schema(required, value_type = Option<schemas::Currency>)]
    currency: Option<&'a str>,
    #[schema(required)]
    provider: Option<&'a str>,
    #[schema(required)]
    provider_reference: Option<&'a str>,
    idempotency_key: &'a str,
    #[schema(value_type = schemas::Time)]
    created_at: Time,
}

impl<'a> From<&'a Grant> for GrantView<'a> {
    fn from(grant: &'a Grant) -> Self {
        let payment = grant.payment.as_ref();
        Self {
            id: grant.id,
            kind: grant.kind.as_str(),
            tokens: grant.tokens,
            reason: grant.reason.as_deref(),
            transaction_id: grant.transaction,
            payment_method: payment.map(|payment| payment.method.as_str()),
            amount_paid: payment.map(|payment| payment.amount.to_string()),
            currency: payment.map(|payment| payment.currency.as_str()),
            provider: payment.map(|payment| payment.provider.as_str()),
            provider_reference: payment.and_then(|payment| payment.reference.as_deref()),
            idempotency_key: &grant.idempotency_key,
            created_at: grant.created_at.into(),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = Credited)]
pub struct CreditedView<'a> {
    grant: GrantView<'a>,
    account: UserView<'a>,
    /// Whether the new total counts for reserves already; if not, it will within moments.
    effective: bool,
}

/// The answer to whatever makes a grant.
pub fn credited(done: &Credited) -> Response {
    let answer =
        CreditedView { grant: (&done.grant).into(), account: (&done.user).into(), effective: done.effective };
    replayable(done.replayed, StatusCode::CREATED, &answer)
}

/// The key that a grant is made under.
pub fn grant_key(headers: &HeaderMap) -> Result<String, Problem> {
    let key = idempotency_key(headers)?;
    key.map(str::to_owned).ok_or_else(|| Problem::new(Code::MissingIdempotencyKey).field("Idempotency-Key"))
}

/// The members of a body that tell of a payment.
pub const PAYMENT_MEMBERS: [&str; 5] =
    ["payment_method", "amount", "currency", "provider", "provider_reference"];

/// The payment in a body, if any of it was sent; then all that is needed of it has to be there.
pub fn payment<const N: usize>(body: &Object<'_, N>) -> Result<Option<Payment>, Problem> {
    if PAYMENT_MEMBERS.iter().all(|name| body.raw(name).is_none()) {
        return Ok(None);
    }
    let owned = |name| body.text(name).map(|text| text.map(String::from));
    let required =
        |name: &'static str| owned(name)?.ok_or_else(|| Problem::new(Code::MissingField).field(name));
    let invalid = |name| Problem::new(Code::InvalidPayment).field(name);
    let payment = Payment {
        method: required("payment_method")?,
        amount: required("amount")?.parse::<Money>().map_err(|_| invalid("amount"))?,
        currency: required("currency")?.parse().map_err(|_| invalid("currency"))?,
        provider: owned("provider")?.unwrap_or_else(|| DEFAULT_PROVIDER.to_owned()),
        reference: owned("provider_reference")?,
    };
    Ok(Some(payment))
}

/// Give a user tokens
///
/// A purchase with what was paid, or a bonus. Once per `Idempotency-Key`, and once per provider's reference: a repeat with
/// the same numbers is answered with the first facts, under whatever key it comes. Admins.
#[utoipa::path(
    post, path = "/v1/users/{id}/credits", operation_id = "credit", tag = "Credits",
    params(UserPath, CreditKey),
    request_body = bodies::Credit,
    responses(
        (status = 201, body = CreditedView, description = "Given."),
        (status = 200, body = CreditedView, description = "Given before, under the same key or for the same payment.",
         headers(("Idempotent-Replayed"))),
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
        None => None,
        Some(word) => {
            Some(CreditKind::from_name(&word).ok_or_else(|| Problem::new(Code::InvalidKind).field("kind"))?)
        }
    };
    let idempotency_key = grant_key(&headers)?;
    let tokens = body.required_tokens("tokens")?;
    let payment = payment(&body)?;
    match (kind, &payment) {
        (Some(CreditKind::Purchase), None) => {
            return Err(Problem::new(Code::MissingField).field("payment_method"));
        }
        (Some(CreditKind::Bonus), Some(_)) => {
            return Err(Problem::new(Code::ConflictingFields).field("kind"));
        }
        _ => {}
    }
    let reason = body.text("reason")?.map(String::from);
    let credit = CreditUser { tokens, payment, idempotency_key, reason };
    let call = api.accounts.credit(caller.user, credit);
    Ok(credited(&api.deadline().store(Outcome::Unknown, call).await?))
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
/// All grants, adjustments and renewals among them, with what was paid. In pages, newest first. The user and admins.
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
            CreditError::InvalidPayment(name) => Self::new(Code::InvalidPayment).field(name),
            CreditError::ReservedKey => Self::new(Code::InvalidIdempotencyKey).field("Idempotency-Key"),
            CreditError::Mismatch => Code::IdempotencyMismatch.into(),
            CreditError::PaymentUsed => Self::new(Code::PaymentUsed).field("provider_reference"),
            CreditError::TransactionNotFound => Self::new(Code::TransactionNotFound).field("transaction_id"),
            CreditError::Exceeds(limit) => Self::new(Code::AdjustmentTooLarge).field("tokens").limit(limit),
            CreditError::Store(error) => error.into(),
        }
    }
}
