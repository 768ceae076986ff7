//! Users: create, show, list, suspend, resume.

use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde::Serialize;

use super::{
    Api,
    auth::{Admin, AdminOnly, For, Own},
    code::Code,
    json::Object,
    problem::Problem,
    request::{JsonBody, NoBody, Params},
    views::{Time, json},
};
use crate::{
    accounts::users::{CreateError, CreateUser, UserError},
    ledger::Outcome,
    quota::UserId,
    store::{StoreError, User, UserFilter, UserStatus},
};

#[derive(Serialize)]
pub struct UserView<'a> {
    id: String,
    email: &'a str,
    external_id: Option<&'a str>,
    status: &'static str,
    locale: Option<&'a str>,
    time_zone: Option<&'a str>,
    total_tokens: u64,
    /// What has arrived in the ledger; the live balance is at `/tokens`.
    used_tokens: u64,
    created_at: Time,
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
            total_tokens: user.total_tokens,
            used_tokens: user.used_tokens,
            created_at: user.created_at.into(),
            updated_at: user.updated_at.into(),
        }
    }
}

#[derive(Serialize)]
struct One<'a> {
    user: UserView<'a>,
    /// Whether Redis has it already; if not, it will within moments.
    #[serde(skip_serializing_if = "Option::is_none")]
    effective: Option<bool>,
}

fn one(status: StatusCode, user: &User, effective: Option<bool>) -> Response {
    let mut response = json(status, &One { user: user.into(), effective });
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", user.version)) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

const CREATE: [&str; 5] = ["email", "id", "external_id", "locale", "time_zone"];

/// `POST /users`
pub async fn create(State(api): State<Api>, _: Admin, JsonBody(body): JsonBody) -> Result<Response, Problem> {
    let body = Object::parse(&body, &CREATE)?;
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

/// `GET /users/{id}`
pub async fn show(State(api): State<Api>, caller: For<Own>, query: Params) -> Result<Response, Problem> {
    query.end()?;
    let user = api.deadline().store(Outcome::None, api.accounts.user(caller.user)).await?;
    Ok(one(StatusCode::OK, &user, None))
}

#[derive(Serialize)]
struct Page<'a> {
    users: Vec<UserView<'a>>,
    /// Send it as `after` for the next page; null on the last one.
    next: Option<String>,
}

/// `GET /users?after=&limit=&email=&external_id=`
pub async fn list(State(api): State<Api>, _: Admin, mut query: Params) -> Result<Response, Problem> {
    let limit = query.take_limit(100, 500)?;
    let after = query.take_parsed::<UserId>("after")?;
    let (email, external_id) = (query.take("email"), query.take("external_id"));
    query.end()?;
    for (name, text) in [("email", &email), ("external_id", &external_id)] {
        // Postgres cannot even be asked for a text with a NUL.
        if text.as_ref().is_some_and(|text| text.contains('\0')) {
            return Err(Problem::new(Code::InvalidQuery).field(name));
        }
    }
    let filter = UserFilter { email: email.as_deref(), external_id: external_id.as_deref() };
    // One more than asked for tells whether there is a next page.
    let call = api.accounts.users(after, limit + 1, filter);
    let mut users = api.deadline().store(Outcome::None, call).await?;
    let more = users.len() > limit as usize;
    users.truncate(limit as usize);
    let next = users.last().filter(|_| more).map(|last| last.id.to_string());
    Ok(json(StatusCode::OK, &Page { users: users.iter().map(Into::into).collect(), next }))
}

/// `POST /users/{id}/suspend`
pub async fn suspend(State(api): State<Api>, caller: For<AdminOnly>, _: NoBody) -> Result<Response, Problem> {
    set_status(&api, caller.user, UserStatus::Suspended).await
}

/// `POST /users/{id}/resume`
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
            StoreError::Schema(_) | StoreError::Corrupt(_) | StoreError::Failed(_) => {
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
