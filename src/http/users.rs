//! Users: create, show, list, change, suspend, resume.

use axum::{
    extract::State,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    auth::{Admin, AdminOnly, For, Own},
    bodies,
    code::Code,
    etag,
    json::Object,
    openapi::{
        parameters::{Expected, Known, UserPath, UserQuery},
        schemas,
    },
    problem::Problem,
    request::{JsonBody, NoBody, Params},
    views::{Time, json},
};
use crate::{
    accounts::users::{CreateError, CreateUser, UpdateError, UpdateUser, UserError},
    ledger::Outcome,
    quota::UserId,
    store::{StoreError, User, UserFilter, UserStatus},
};

#[derive(Serialize, ToSchema)]
#[schema(as = User)]
pub struct UserView<'a> {
    #[schema(value_type = schemas::UserId)]
    id: String,
    email: &'a str,
    #[schema(required)]
    external_id: Option<&'a str>,
    #[schema(value_type = schemas::Status)]
    status: &'static str,
    #[schema(required)]
    locale: Option<&'a str>,
    #[schema(required)]
    time_zone: Option<&'a str>,
    /// The share of the total at which the user is warned: above 0, at most 1.
    alert_threshold: f64,
    /// All that was granted.
    total_tokens: u64,
    /// What has arrived in the ledger; the live balance is at `/tokens`.
    used_tokens: u64,
    #[schema(value_type = schemas::Time)]
    created_at: Time,
    #[schema(value_type = schemas::Time)]
    updated_at: Time,
}

impl<'a> From<&'a User> for UserView<'a> {
    fn from(user: &'a User) -> Self {
        Self {
            id: user.id.to_string(),
            email: &user.email,
            external_id: user.external_id.as_deref(),
            status: user.status.as_str(),
            locale: user.locale.as_deref(),
            time_zone: user.time_zone.as_deref(),
            alert_threshold: user.alert_threshold.as_f64(),
            total_tokens: user.total_tokens,
            used_tokens: user.used_tokens,
            created_at: user.created_at.into(),
            updated_at: user.updated_at.into(),
        }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = OneUser)]
struct One<'a> {
    user: UserView<'a>,
    /// After a change: whether Redis has it already; if not, it will within moments.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    effective: Option<bool>,
}

/// A user with the tag of its resource, whichever call answers with it.
fn one(status: StatusCode, user: &User, effective: Option<bool>) -> Response {
    etag::tagged(json(status, &One { user: user.into(), effective }), &tag(user))
}

fn tag(user: &User) -> String {
    etag::of(user.version, &One { user: user.into(), effective: None })
}

/// Create a user
///
/// Nothing is granted yet. With an `id` of the caller's own a repeat cannot create a second user. Admins.
#[utoipa::path(
    post, path = "/v1/users", operation_id = "createUser", tag = "Users",
    request_body = bodies::CreateUser,
    responses((status = 201, body = One, description = "Created.", headers(("ETag")))),
)]
pub async fn create(State(api): State<Api>, _: Admin, JsonBody(body): JsonBody) -> Result<Response, Problem> {
    let body = Object::parse(&body, &bodies::CreateUser::MEMBERS)?;
    let owned = |name| body.text(name).map(|text| text.map(String::from));
    let id = match body.text("id")? {
        Some(text) => Some(text.parse::<UserId>().map_err(|error| Problem::from(error).field("id"))?),
        None => None,
    };
    let new = CreateUser {
        id,
        email: owned("email")?.ok_or_else(|| Problem::new(Code::MissingField).field("email"))?,
        external_id: owned("external_id")?,
        locale: owned("locale")?,
        time_zone: owned("time_zone")?,
    };
    let user = api.deadline().store(Outcome::Unknown, api.accounts.create_user(new)).await?;
    Ok(one(StatusCode::CREATED, &user, None))
}

/// Show a user
///
/// The user and admins.
#[utoipa::path(
    get, path = "/v1/users/{id}", operation_id = "showUser", tag = "Users",
    params(UserPath, Known),
    responses(
        (status = 200, body = One, description = "The user.", headers(("ETag"))),
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
    let user = api.deadline().store(Outcome::None, api.accounts.user(caller.user)).await?;
    Ok(etag::unless_known(&headers, one(StatusCode::OK, &user, None)))
}

/// Change a user
///
/// Changes the members that are sent; `null` clears `external_id`, `locale` and `time_zone`. Needs `If-Match` with the
/// `ETag` of what was read: when the user has changed since, nothing is changed. Usage that was settled since is no
/// change. Admins.
#[utoipa::path(
    patch, path = "/v1/users/{id}", operation_id = "updateUser", tag = "Users",
    params(UserPath, Expected),
    request_body = bodies::UpdateUser,
    responses((status = 200, body = One, description = "The user as it is now.", headers(("ETag")))),
)]
pub async fn update(
    State(api): State<Api>,
    caller: For<AdminOnly>,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Result<Response, Problem> {
    let body = Object::parse(&body, &bodies::UpdateUser::MEMBERS)?;
    if bodies::UpdateUser::MEMBERS.iter().all(|name| body.raw(name).is_none()) {
        return Err(Code::MissingField.into());
    }
    let update = UpdateUser {
        email: body.text("email")?.map(String::from),
        external_id: nullable(&body, "external_id")?,
        locale: nullable(&body, "locale")?,
        time_zone: nullable(&body, "time_zone")?,
        alert_threshold: body.threshold("alert_threshold")?,
    };
    let expected = etag::if_match(&headers)?;
    let call = api.accounts.update_user(caller.user, &expected, update);
    let user = api.deadline().store(Outcome::Unknown, call).await?;
    Ok(one(StatusCode::OK, &user, None))
}

/// A text, or `null` to clear it.
fn nullable<const N: usize>(
    body: &Object<'_, N>,
    name: &'static str,
) -> Result<Option<Option<String>>, Problem> {
    match body.raw(name) {
        Some("null") => Ok(Some(None)),
        _ => Ok(body.text(name)?.map(|text| Some(text.into_owned()))),
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = Users)]
struct Page<'a> {
    users: Vec<UserView<'a>>,
    /// Send it as `after` for the next page; null on the last one.
    #[schema(required, value_type = Option<schemas::UserId>)]
    next: Option<String>,
}

/// List or find users
///
/// In pages, ordered by id. Admins.
#[utoipa::path(
    get, path = "/v1/users", operation_id = "listUsers", tag = "Users",
    params(UserQuery),
    responses((status = 200, body = Page, description = "A page.")),
)]
pub async fn list(State(api): State<Api>, _: Admin, mut query: Params) -> Result<Response, Problem> {
    let limit = query.take_limit()?;
    let after = query.take_parsed::<UserId>("after")?;
    let (email, external_id) = (query.take("email"), query.take("external_id"));
    let status = match query.take("status") {
        None => None,
        Some(word) => Some(
            [UserStatus::Active, UserStatus::Suspended]
                .into_iter()
                .find(|status| status.as_str() == word)
                .ok_or_else(|| Problem::new(Code::InvalidQuery).field("status"))?,
        ),
    };
    query.end()?;
    for (name, text) in [("email", &email), ("external_id", &external_id)] {
        // Postgres cannot even be asked for a text with a NUL.
        if text.as_ref().is_some_and(|text| text.contains('\0')) {
            return Err(Problem::new(Code::InvalidQuery).field(name));
        }
    }
    let filter = UserFilter { email: email.as_deref(), external_id: external_id.as_deref(), status };
    // One more than asked for tells whether there is a next page.
    let call = api.accounts.users(after, limit + 1, filter);
    let mut users = api.deadline().store(Outcome::None, call).await?;
    let more = users.len() > limit as usize;
    users.truncate(limit as usize);
    let next = users.last().filter(|_| more).map(|last| last.id.to_string());
    Ok(json(StatusCode::OK, &Page { users: users.iter().map(Into::into).collect(), next }))
}

/// Suspend a user
///
/// Reserves are refused from now on; what is under way may still settle. May be repeated. Admins.
#[utoipa::path(
    post, path = "/v1/users/{id}/suspend", operation_id = "suspendUser", tag = "Users",
    params(UserPath),
    request_body = bodies::Empty,
    responses((status = 200, body = One, description = "The user as it is now.", headers(("ETag")))),
)]
pub async fn suspend(State(api): State<Api>, caller: For<AdminOnly>, _: NoBody) -> Result<Response, Problem> {
    set_status(&api, caller.user, UserStatus::Suspended).await
}

/// Resume a user
///
/// Takes a suspension back. May be repeated. Admins.
#[utoipa::path(
    post, path = "/v1/users/{id}/resume", operation_id = "resumeUser", tag = "Users",
    params(UserPath),
    request_body = bodies::Empty,
    responses((status = 200, body = One, description = "The user as it is now.", headers(("ETag")))),
)]
pub async fn resume(State(api): State<Api>, caller: For<AdminOnly>, _: NoBody) -> Result<Response, Problem> {
    set_status(&api, caller.user, UserStatus::Active).await
}

async fn set_status(api: &Api, user: UserId, status: UserStatus) -> Result<Response, Problem> {
    let call = api.accounts.set_status(user, status);
    let change = api.deadline().store(Outcome::Unknown, call).await?;
    Ok(one(StatusCode::OK, &change.user, Some(change.effective)))
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) | StoreError::Contended(_) => {
                tracing::warn!(%error, "Postgres could not serve a request");
                Self::unavailable(Code::StoreUnavailable, Outcome::None)
            }
            StoreError::Unknown(_) => {
                tracing::warn!(%error, "the answer of Postgres was lost");
                Self::unavailable(Code::StoreUnavailable, Outcome::Unknown)
            }
            StoreError::Schema(_)
            | StoreError::Corrupt(_)
            | StoreError::Sealed(_)
            | StoreError::Sealing(_)
            | StoreError::Failed(_) => {
                tracing::error!(%error, "a request met what should not be");
                Code::Internal.into()
            }
        }
    }
}

impl From<UserError> for Problem {
    fn from(error: UserError) -> Self {
        match error {
            UserError::NotFound => Code::UserNotFound.into(),
            UserError::Store(error) => error.into(),
        }
    }
}

impl From<UpdateError> for Problem {
    fn from(error: UpdateError) -> Self {
        match error {
            UpdateError::NotFound => Code::UserNotFound.into(),
            UpdateError::Stale => Self::new(Code::PreconditionFailed).field("If-Match"),
            UpdateError::Refused(error) => error.into(),
            UpdateError::Store(error) => error.into(),
        }
    }
}

impl From<CreateError> for Problem {
    fn from(error: CreateError) -> Self {
        let (code, field) = match error {
            CreateError::InvalidEmail => (Code::InvalidEmail, "email"),
            CreateError::InvalidExternalId => (Code::InvalidExternalId, "external_id"),
            CreateError::InvalidLocale => (Code::InvalidLocale, "locale"),
            CreateError::InvalidTimeZone => (Code::InvalidTimeZone, "time_zone"),
            CreateError::EmailTaken => (Code::EmailTaken, "email"),
            CreateError::ExternalIdTaken => (Code::ExternalIdTaken, "external_id"),
            CreateError::IdTaken => (Code::UserIdTaken, "id"),
            CreateError::Store(error) => return error.into(),
        };
        Self::new(code).field(field)
    }
}
