//! A user's webhook endpoints.

use std::{borrow::Cow, time::Duration};

use axum::{
    extract::{FromRequestParts, RawPathParams, State},
    http::{HeaderMap, StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Api,
    auth::{For, Own},
    bodies,
    code::Code,
    etag,
    json::Object,
    openapi::{
        parameters::{Expected, Known, UserPath, WebhookPath},
        schemas,
    },
    problem::Problem,
    request::{JsonBody, Params},
    views::{Time, json},
};
use crate::{
    ledger::Outcome,
    notify::endpoints::{DEFAULT_OVERLAP_SECONDS, EndpointError, MAX_OVERLAP_SECONDS, Shown},
    quota::EventKind,
    store::{EndpointChange, WebhookEndpoint},
};

/// The endpoint in the path. One of the wrong form is nobody's.
pub struct PathWebhook(pub Uuid);

impl FromRequestParts<Api> for PathWebhook {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let id = path_part(parts, api, "wid").await.and_then(|id| id.parse().ok());
        id.map(Self).ok_or_else(|| Code::WebhookNotFound.into())
    }
}

/// A parameter of the path, if it is UTF-8.
pub async fn path_part(parts: &mut Parts, api: &Api, name: &str) -> Option<String> {
    let params = RawPathParams::from_request_parts(parts, api).await.ok()?;
    params.iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
}

#[derive(Serialize, ToSchema)]
#[schema(as = Webhook)]
struct WebhookView<'a> {
    id: Uuid,
    url: &'a str,
    /// Kinds of events that are sent; null for all.
    #[schema(required, value_type = Option<Vec<schemas::Event>>)]
    events: Option<Vec<&'static str>>,
    enabled: bool,
    /// Why it is not: somebody asked for it, it answered 410 (`gone`), or it failed for days (`failing`).
    #[schema(required, value_type = Option<schemas::DisabledReason>)]
    disabled_reason: Option<&'static str>,
    #[schema(required, value_type = Option<schemas::Time>)]
    disabled_at: Option<Time>,
    /// The first failure since the last success.
    #[schema(required, value_type = Option<schemas::Time>)]
    failing_since: Option<Time>,
    /// Until when the secret before goes on signing.
    #[schema(required, value_type = Option<schemas::Time>)]
    previous_secret_until: Option<Time>,
    #[schema(value_type = schemas::Time)]
    created_at: Time,
    #[schema(value_type = schemas::Time)]
    updated_at: Time,
}

impl<'a> From<&'a WebhookEndpoint> for WebhookView<'a> {
    fn from(webhook: &'a WebhookEndpoint) -> Self {
        let names = |kinds: &Vec<EventKind>| kinds.iter().map(|kind| kind.as_str()).collect();
        let previous = webhook.previous_until.filter(|until| *until > Timestamp::now());
        Self {
            id: webhook.id,
            url: &webhook.url,
            events: webhook.kinds.as_ref().map(names),
            enabled: webhook.disabled.is_none(),
            disabled_reason: webhook.disabled.map(|(_, reason)| reason.as_str()),
            disabled_at: webhook.disabled.map(|(at, _)| at.into()),
            failing_since: webhook.failing_since.map(Into::into),
            previous_secret_until: previous.map(Into::into),
            created_at: webhook.created_at.into(),
            updated_at: webhook.updated_at.into(),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = OneWebhook)]
struct One<'a> {
    webhook: WebhookView<'a>,
}

/// The secret is shown this once.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookAndSecret)]
struct WithSecret<'a> {
    webhook: WebhookView<'a>,
    /// What signatures are checked with, as the libraries of Standard Webhooks take it.
    #[schema(value_type = schemas::WebhookSecret)]
    secret: &'a str,
}

fn one(webhook: &WebhookEndpoint) -> Response {
    etag::tagged(json(StatusCode::OK, &One { webhook: webhook.into() }), &tag(webhook))
}

fn shown(status: StatusCode, shown: &Shown) -> Response {
    let body = WithSecret { webhook: (&shown.endpoint).into(), secret: shown.secret.expose() };
    etag::tagged(json(status, &body), &tag(&shown.endpoint))
}

fn tag(webhook: &WebhookEndpoint) -> String {
    etag::of(webhook.version, &One { webhook: webhook.into() })
}

/// Create a webhook endpoint
///
/// Events of the user are sent to its `url` from now on, by the Standard Webhooks specification. The answer shows the
/// secret that signs them, this once. The user and admins.
#[utoipa::path(
    post, path = "/v1/users/{id}/webhooks", operation_id = "createWebhook", tag = "Webhooks",
    params(UserPath),
    request_body = bodies::CreateWebhook,
    responses((status = 201, body = WithSecret, description = "Created.", headers(("ETag")))),
)]
pub async fn create(
    State(api): State<Api>,
    caller: For<Own>,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let body = Object::parse(&body, &bodies::CreateWebhook::MEMBERS)?;
    let url = body.text("url")?.ok_or_else(|| Problem::new(Code::MissingField).field("url"))?;
    let kinds = body.texts("events")?.map(|names| kinds(&names)).transpose()?;
    let call = api.endpoints.create(caller.user, &url, kinds);
    let made = api.deadline().store(Outcome::Unknown, call).await?;
    Ok(shown(StatusCode::CREATED, &made))
}

/// Kinds of events by their names.
pub fn kinds(names: &[Cow<'_, str>]) -> Result<Vec<EventKind>, Problem> {
    let known = names.iter().map(|name| EventKind::from_name(name)).collect::<Option<Vec<_>>>();
    known.ok_or_else(|| Problem::new(Code::InvalidEvents).field("events"))
}

#[derive(Serialize, ToSchema)]
#[schema(as = Webhooks)]
struct All<'a> {
    webhooks: Vec<WebhookView<'a>>,
}

/// List a user's webhook endpoints
///
/// All of them, oldest first: there are few. The user and admins.
#[utoipa::path(
    get, path = "/v1/users/{id}/webhooks", operation_id = "listWebhooks", tag = "Webhooks",
    params(UserPath),
    responses((status = 200, body = All, description = "All of them.")),
)]
pub async fn list(State(api): State<Api>, caller: For<Own>, query: Params) -> Result<Response, Problem> {
    query.end()?;
    let webhooks = api.deadline().store(Outcome::None, api.endpoints.list(caller.user)).await?;
    Ok(json(StatusCode::OK, &All { webhooks: webhooks.iter().map(Into::into).collect() }))
}

/// Show a webhook endpoint
///
/// Without its secret, which is shown only when it is made. The user and admins.
#[utoipa::path(
    get, path = "/v1/users/{id}/webhooks/{wid}", operation_id = "showWebhook", tag = "Webhooks",
    params(WebhookPath, Known),
    responses(
        (status = 200, body = One, description = "The endpoint.", headers(("ETag"))),
        (status = 304, description = "`If-None-Match` names what would be shown.", headers(("ETag"))),
    ),
)]
pub async fn show(
    State(api): State<Api>,
    caller: For<Own>,
    PathWebhook(id): PathWebhook,
    headers: HeaderMap,
    query: Params,
) -> Result<Response, Problem> {
    query.end()?;
    let webhook = api.deadline().store(Outcome::None, api.endpoints.show(caller.user, id)).await?;
    Ok(etag::unless_known(&headers, one(&webhook)))
}

/// Change a webhook endpoint
///
/// Changes the members that are sent. `enabled: false` stops the sending; `true` starts it again, also after failures.
/// Needs `If-Match` with the `ETag` of what was read. The user and admins.
#[utoipa::path(
    patch, path = "/v1/users/{id}/webhooks/{wid}", operation_id = "updateWebhook", tag = "Webhooks",
    params(WebhookPath, Expected),
    request_body = bodies::UpdateWebhook,
    responses((status = 200, body = One, description = "The endpoint as it is now.", headers(("ETag")))),
)]
pub async fn update(
    State(api): State<Api>,
    caller: For<Own>,
    PathWebhook(id): PathWebhook,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let body = Object::parse(&body, &bodies::UpdateWebhook::MEMBERS)?;
    if bodies::UpdateWebhook::MEMBERS.iter().all(|name| body.raw(name).is_none()) {
        return Err(Code::MissingField.into());
    }
    let change = EndpointChange {
        url: body.text("url")?.map(String::from),
        kinds: match body.raw("events") {
            Some("null") => Some(None),
            _ => body.texts("events")?.map(|names| kinds(&names)).transpose()?.map(Some),
        },
        enabled: body.boolean("enabled")?,
    };
    let expected = etag::if_match(&headers)?;
    let call = api.endpoints.update(caller.user, id, &expected, change);
    let webhook = api.deadline().store(Outcome::Unknown, call).await?;
    Ok(one(&webhook))
}

/// Give a webhook endpoint a new secret
///
/// The answer shows it, this once. Until `overlap_seconds` have passed the old secret signs too, beside it: the time to
/// change over without losing a webhook. The user and admins.
#[utoipa::path(
    post, path = "/v1/users/{id}/webhooks/{wid}/rotate-secret", operation_id = "rotateWebhookSecret", tag = "Webhooks",
    params(WebhookPath),
    request_body = bodies::RotateSecret,
    responses((status = 200, body = WithSecret, description = "The new secret.", headers(("ETag")))),
)]
pub async fn rotate(
    State(api): State<Api>,
    caller: For<Own>,
    PathWebhook(id): PathWebhook,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let body = Object::parse(&body, &bodies::RotateSecret::MEMBERS)?;
    let overlap = body.whole("overlap_seconds", MAX_OVERLAP_SECONDS, Code::InvalidOverlap)?;
    let overlap = Duration::from_secs(overlap.unwrap_or(DEFAULT_OVERLAP_SECONDS).into());
    let call = api.endpoints.rotate(caller.user, id, overlap);
    let made = api.deadline().store(Outcome::Unknown, call).await?;
    Ok(shown(StatusCode::OK, &made))
}

/// Delete a webhook endpoint
///
/// With the log of its deliveries. The user and admins.
#[utoipa::path(
    delete, path = "/v1/users/{id}/webhooks/{wid}", operation_id = "deleteWebhook", tag = "Webhooks",
    params(WebhookPath),
    responses((status = 204, description = "Deleted.")),
)]
pub async fn delete(
    State(api): State<Api>,
    caller: For<Own>,
    PathWebhook(id): PathWebhook,
    query: Params,
) -> Result<Response, Problem> {
    query.end()?;
    api.deadline().store(Outcome::Unknown, api.endpoints.delete(caller.user, id)).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

impl From<EndpointError> for Problem {
    fn from(error: EndpointError) -> Self {
        match error {
            EndpointError::UserNotFound => Code::UserNotFound.into(),
            EndpointError::NotFound => Code::WebhookNotFound.into(),
            EndpointError::Target(_) => Self::new(Code::InvalidWebhookUrl).field("url"),
            EndpointError::NoKinds => Self::new(Code::InvalidEvents).field("events"),
            EndpointError::UrlTaken => Self::new(Code::WebhookUrlTaken).field("url"),
            EndpointError::TooMany(most) => Self::new(Code::TooManyWebhooks).limit(u64::from(most)),
            EndpointError::Stale => Self::new(Code::PreconditionFailed).field("If-Match"),
            EndpointError::DeliveryNotFound => Code::DeliveryNotFound.into(),
            EndpointError::Disabled => Code::WebhookDisabled.into(),
            EndpointError::Random => {
                tracing::error!("the system gives no random bytes");
                Code::Internal.into()
            }
            EndpointError::Store(error) => error.into(),
        }
    }
}
