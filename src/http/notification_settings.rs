//! What a user wants to be told, and how.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    auth::{For, Own},
    bodies,
    code::Code,
    etag,
    json::Object,
    openapi::{
        parameters::{Expected, Known, UserPath},
        schemas,
    },
    problem::Problem,
    request::{JsonBody, Params},
    views::json,
    webhooks::kinds,
};
use crate::{
    ledger::Outcome, notify::settings::SettingsError, quota::EventKind, store::NotificationSettings,
};

#[derive(Serialize, ToSchema)]
#[schema(as = NotificationSettings)]
struct View {
    /// Whether the user is written e-mails, where the operator sends some.
    email_enabled: bool,
    /// Kinds of events that are told by e-mail; null for all.
    #[schema(required, value_type = Option<Vec<schemas::Event>>)]
    email_events: Option<Vec<&'static str>>,
    /// Whether anything is sent to the user's webhook endpoints.
    webhooks_enabled: bool,
}

impl From<&NotificationSettings> for View {
    fn from(settings: &NotificationSettings) -> Self {
        let names = |kinds: &Vec<EventKind>| kinds.iter().map(|kind| kind.as_str()).collect();
        Self {
            email_enabled: settings.email_enabled,
            email_events: settings.email_kinds.as_ref().map(names),
            webhooks_enabled: settings.webhooks_enabled,
        }
    }
}

fn shown(settings: &NotificationSettings) -> Response {
    let view = View::from(settings);
    etag::tagged(json(StatusCode::OK, &view), &etag::of(settings.version, &view))
}

/// Show what a user is told
///
/// Everything by every way, unless it was changed. The user and admins.
#[utoipa::path(
    get, path = "/v1/users/{id}/notification-settings", operation_id = "showNotificationSettings",
    tag = "Notifications",
    params(UserPath, Known),
    responses(
        (status = 200, body = View, description = "The settings.", headers(("ETag"))),
        (status = 304, description = "`If-None-Match` names what would be shown.", headers(("ETag"))),
    ),
)]
pub async fn show(
    State(api): State<Api>,
    caller: For<Own>,
    headers: HeaderMap,
    query: Params,
) -> Result<Response, Problem> {
    query.end()?;
    let settings = api.deadline().store(Outcome::None, api.settings.show(caller.user)).await?;
    Ok(etag::unless_known(&headers, shown(&settings)))
}

/// Replace what a user is told
///
/// With all members. Needs `If-Match` with the `ETag` of what was read. What is queued already is still sent. The user and
/// admins.
#[utoipa::path(
    put, path = "/v1/users/{id}/notification-settings", operation_id = "replaceNotificationSettings",
    tag = "Notifications",
    params(UserPath, Expected),
    request_body = bodies::ReplaceNotificationSettings,
    responses((status = 200, body = View, description = "The settings as they are now.", headers(("ETag")))),
)]
pub async fn replace(
    State(api): State<Api>,
    caller: For<Own>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let body = Object::parse(&body, &bodies::ReplaceNotificationSettings::MEMBERS)?;
    let missing = |name| Problem::new(Code::MissingField).field(name);
    let new = NotificationSettings {
        email_enabled: body.boolean("email_enabled")?.ok_or_else(|| missing("email_enabled"))?,
        email_kinds: match body.raw("email_events") {
            Some("null") => None,
            _ => {
                let names = body.texts("email_events")?.ok_or_else(|| missing("email_events"))?;
                Some(kinds(&names).map_err(|problem| problem.field("email_events"))?)
            }
        },
        webhooks_enabled: body.boolean("webhooks_enabled")?.ok_or_else(|| missing("webhooks_enabled"))?,
        version: 0,
    };
    let expected = etag::if_match(&headers)?;
    let call = api.settings.replace(caller.user, &expected, new);
    let settings = api.deadline().store(Outcome::Unknown, call).await?;
    Ok(shown(&settings))
}

impl From<SettingsError> for Problem {
    fn from(error: SettingsError) -> Self {
        match error {
            SettingsError::UserNotFound => Code::UserNotFound.into(),
            SettingsError::Stale => Self::new(Code::PreconditionFailed).field("If-Match"),
            SettingsError::NoKinds => Self::new(Code::InvalidEvents).field("email_events"),
            SettingsError::Store(error) => error.into(),
        }
    }
}
