//! Auto-renewal: how a user's tokens are renewed, what became of it, and the confirmation of a payment.

use axum::{
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Api,
    auth::{AdminOnly, For, Own, PathRenewal},
    bodies,
    code::Code,
    credits::{GrantView, payment},
    etag,
    json::Object,
    openapi::{
        parameters::{Expected, Known, RenewalPath, RenewalQuery, UserPath},
        schemas,
    },
    problem::Problem,
    request::{JsonBody, OptionalJsonBody, Params},
    users::UserView,
    views::{Time, json, replayable},
};
use crate::{
    accounts::renewals::RenewalError,
    ledger::Outcome,
    quota::{AmountError, InvalidRule, MAX_RENEWALS_PER_MONTH, RenewalMode, RenewalRule},
    store::{AutoRenewal, Renewal, RenewalState},
};

/// When and how a user's tokens are renewed.
#[derive(Serialize, ToSchema)]
#[schema(as = RenewalSettings)]
struct ConfigView {
    enabled: bool,
    /// Due when what is left is at or below this share of the total.
    threshold: f64,
    /// What a renewal adds.
    tokens: u64,
    /// At most so many in a calendar month in the user's time zone.
    max_renewals: u32,
    #[schema(value_type = schemas::RenewalMode)]
    mode: &'static str,
}

#[derive(Serialize, ToSchema)]
#[schema(as = OneAutoRenewal)]
struct OneConfig {
    auto_renewal: ConfigView,
}

fn one(config: &AutoRenewal) -> Response {
    let view = OneConfig {
        auto_renewal: ConfigView {
            enabled: config.enabled,
            threshold: config.rule.threshold().as_f64(),
            tokens: config.rule.tokens().get(),
            max_renewals: config.rule.max_renewals(),
            mode: config.mode.as_str(),
        },
    };
    etag::tagged(json(StatusCode::OK, &view), &etag::of(config.version, &view))
}

/// Show how a user's tokens are renewed
///
/// Off, until an admin sets it. The user and admins.
#[utoipa::path(
    get, path = "/v1/users/{id}/auto-renewal", operation_id = "showAutoRenewal", tag = "Renewals",
    params(UserPath, Known),
    responses(
        (status = 200, body = OneConfig, description = "The settings.", headers(("ETag"))),
        (status = 304, description = "`If-None-Match` names what would be shown.", headers(("ETag"))),
    ),
)]
pub async fn show_config(
    State(api): State<Api>,
    caller: For<Own>,
    headers: HeaderMap,
    query: Params,
) -> Result<Response, Problem> {
    query.end()?;
    let config = api.deadline().store(Outcome::None, api.accounts.auto_renewal(caller.user)).await?;
    Ok(etag::unless_known(&headers, one(&config)))
}

/// Set how a user's tokens are renewed
///
/// When what is left is at or below `threshold` of the total, `tokens` are added: at once (`immediate`), or once the payment
/// is confirmed (`on_payment`); at most `max_renewals` times a calendar month in the user's time zone. A change adds nothing
/// by itself: only what is due by the new settings is renewed now. Needs `If-Match` with the `ETag` of what was read.
/// Admins.
#[utoipa::path(
    put, path = "/v1/users/{id}/auto-renewal", operation_id = "setAutoRenewal", tag = "Renewals",
    params(UserPath, Expected),
    request_body = bodies::AutoRenewal,
    responses((status = 200, body = OneConfig, description = "The settings as they are now.", headers(("ETag")))),
)]
pub async fn set_config(
    State(api): State<Api>,
    caller: For<AdminOnly>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let body = Object::parse(&body, &bodies::AutoRenewal::MEMBERS)?;
    let missing = |name| Problem::new(Code::MissingField).field(name);
    let invalid = |name| Problem::new(Code::InvalidRenewal).field(name);
    let enabled = body.boolean("enabled")?.ok_or_else(|| missing("enabled"))?;
    let threshold = body.threshold("threshold")?.ok_or_else(|| missing("threshold"))?;
    let tokens = body.required_tokens("tokens")?;
    let max_renewals = body
        .whole("max_renewals", MAX_RENEWALS_PER_MONTH, Code::InvalidRenewal)?
        .ok_or_else(|| missing("max_renewals"))?;
    let mode = body.text("mode")?.ok_or_else(|| missing("mode"))?;
    let mode = RenewalMode::from_name(&mode).ok_or_else(|| invalid("mode"))?;
    let rule = RenewalRule::new(threshold, tokens, max_renewals).map_err(|fault| match fault {
        InvalidRule::Threshold => invalid("threshold"),
        InvalidRule::Tokens => Problem::from(AmountError::Invalid).field("tokens"),
        InvalidRule::MaxRenewals => invalid("max_renewals").limit(u64::from(MAX_RENEWALS_PER_MONTH)),
    })?;
    let expected = etag::if_match(&headers)?;
    let call = api.accounts.set_auto_renewal(caller.user, &expected, enabled, rule, mode);
    Ok(one(&api.deadline().store(Outcome::Unknown, call).await?))
}

/// Tokens that were added by themselves, or are to be once they are paid.
#[derive(Serialize, ToSchema)]
#[schema(as = Renewal)]
struct RenewalView<'a> {
    id: Uuid,
    #[schema(value_type = schemas::RenewalState)]
    state: &'static str,
    #[schema(value_type = schemas::RenewalMode)]
    mode: &'static str,
    tokens: u64,
    /// What had been used and granted when it became due.
    used_tokens: u64,
    total_tokens: u64,
    /// The calendar month it counts in, in the user's time zone.
    #[schema(value_type = schemas::Month)]
    month: &'a str,
    #[schema(value_type = schemas::Time)]
    requested_at: Time,
    /// When a request that is not paid is over; null for what was granted at once.
    #[schema(required, value_type = Option<schemas::Time>)]
    expires_at: Option<Time>,
    /// Null while it is pending.
    #[schema(required, value_type = Option<schemas::Time>)]
    finished_at: Option<Time>,
    /// What it made.
    #[schema(required)]
    grant_id: Option<Uuid>,
}

impl<'a> From<&'a Renewal> for RenewalView<'a> {
    fn from(renewal: &'a Renewal) -> Self {
        Self {
            id: renewal.id,
            state: renewal.state.as_str(),
            mode: renewal.mode.as_str(),
            tokens: renewal.tokens,
            used_tokens: renewal.used_tokens,
            total_tokens: renewal.total_tokens,
            month: &renewal.month,
            requested_at: renewal.requested_at.into(),
            expires_at: renewal.expires_at.map(Time::from),
            finished_at: renewal.finished_at.map(Time::from),
            grant_id: renewal.grant,
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = Renewals)]
struct Page<'a> {
    renewals: Vec<RenewalView<'a>>,
    /// Send it as `before` for the next page; null on the last one.
    #[schema(required)]
    next: Option<Uuid>,
}

/// List a user's renewals
///
/// In pages, newest first. The user and admins.
#[utoipa::path(
    get, path = "/v1/users/{id}/renewals", operation_id = "listRenewals", tag = "Renewals",
    params(UserPath, RenewalQuery),
    responses((status = 200, body = Page, description = "A page.")),
)]
pub async fn list(State(api): State<Api>, caller: For<Own>, mut query: Params) -> Result<Response, Problem> {
    let limit = query.take_limit()?;
    let before = query.take_parsed::<Uuid>("before")?;
    let state = match query.take("state") {
        None => None,
        Some(word) => Some(
            RenewalState::from_name(&word).ok_or_else(|| Problem::new(Code::InvalidQuery).field("state"))?,
        ),
    };
    query.end()?;
    // One more than asked for tells whether there is a next page.
    let call = api.accounts.renewals(caller.user, state, before, limit + 1);
    let mut renewals = api.deadline().store(Outcome::None, call).await?;
    let more = renewals.len() > limit as usize;
    renewals.truncate(limit as usize);
    let next = renewals.last().filter(|_| more).map(|last| last.id);
    Ok(json(StatusCode::OK, &Page { renewals: renewals.iter().map(Into::into).collect(), next }))
}

#[derive(Serialize, ToSchema)]
struct Confirmed<'a> {
    renewal: RenewalView<'a>,
    grant: GrantView<'a>,
    account: UserView<'a>,
    /// Whether the new total counts for reserves already; if not, it will within moments.
    effective: bool,
}

/// Confirm that a renewal is paid
///
/// Grants its tokens, once: a repeat is answered with the first facts. The body may tell of the payment, which is then
/// recorded as with a purchase, and credited once. Admins.
#[utoipa::path(
    post, path = "/v1/users/{id}/renewals/{renewal}/confirm", operation_id = "confirmRenewal", tag = "Renewals",
    params(RenewalPath),
    request_body = bodies::RenewalPayment,
    responses(
        (status = 200, body = Confirmed, description = "Granted, now or before.", headers(("Idempotent-Replayed"))),
    ),
)]
pub async fn confirm(
    State(api): State<Api>,
    caller: For<AdminOnly>,
    PathRenewal(renewal): PathRenewal,
    OptionalJsonBody(body): OptionalJsonBody,
) -> Result<Response, Problem> {
    let body: Bytes = body.unwrap_or_else(|| Bytes::from_static(b"{}"));
    let payment = payment(&Object::parse(&body, &bodies::RenewalPayment::MEMBERS)?)?;
    let call = api.accounts.confirm_renewal(caller.user, renewal, payment);
    let done = api.deadline().store(Outcome::Unknown, call).await?;
    let answer = Confirmed {
        renewal: (&done.renewal).into(),
        grant: (&done.grant).into(),
        account: (&done.user).into(),
        effective: done.effective,
    };
    Ok(replayable(done.replayed, StatusCode::OK, &answer))
}

impl From<RenewalError> for Problem {
    fn from(error: RenewalError) -> Self {
        match error {
            RenewalError::NotFound => Code::UserNotFound.into(),
            RenewalError::RenewalNotFound => Code::RenewalNotFound.into(),
            RenewalError::Stale => Self::new(Code::PreconditionFailed).field("If-Match"),
            RenewalError::Finished(_) => Code::RenewalFinished.into(),
            RenewalError::Payment(error) => error.into(),
            RenewalError::Store(error) => error.into(),
        }
    }
}
