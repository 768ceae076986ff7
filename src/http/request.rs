//! Reading a request: its body within bounds of size and time, its query, its idempotency key.

use axum::{
    body::Body,
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{HeaderMap, header, request::Parts},
};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as _;
use jiff::Timestamp;
use tokio::time::timeout;

use super::{Api, code::Code, problem::Problem};
use crate::{config::millis, quota::ReservationId};

/// A JSON body, whole; still to be taken apart.
pub struct JsonBody(pub Bytes);

impl FromRequest<Api> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        read_json(request, api, api.config.max_body_bytes).await.map(Self)
    }
}

/// As [`JsonBody`], with a limit of its own in bytes.
pub struct LargeJsonBody<const LIMIT: usize>(pub Bytes);

impl<const LIMIT: usize> FromRequest<Api> for LargeJsonBody<LIMIT> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        read_json(request, api, LIMIT).await.map(Self)
    }
}

async fn read_json(request: Request, api: &Api, limit: usize) -> Result<Bytes, Problem> {
    let is_json = is_json(request.headers());
    let body = request.into_body();
    // No body at all is malformed JSON; a body of another type is not even read.
    if !body.is_end_stream() && !is_json {
        return Err(Code::UnsupportedMediaType.into());
    }
    read(body, api, limit).await
}

/// A JSON body that may be absent: `None` for nothing or blanks.
pub struct OptionalJsonBody(pub Option<Bytes>);

impl FromRequest<Api> for OptionalJsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let is_json = is_json(request.headers());
        let body = read(request.into_body(), api, api.config.max_body_bytes).await?;
        if body.trim_ascii().is_empty() {
            return Ok(Self(None));
        }
        if is_json { Ok(Self(Some(body))) } else { Err(Code::UnsupportedMediaType.into()) }
    }
}

/// A JSON body that may be absent, and has no member.
pub struct NoBody;

impl FromRequest<Api> for NoBody {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        if let OptionalJsonBody(Some(body)) = OptionalJsonBody::from_request(request, api).await? {
            super::json::Object::parse(&body, &super::bodies::Empty::MEMBERS)?;
        }
        Ok(Self)
    }
}

async fn read(body: Body, api: &Api, limit: usize) -> Result<Bytes, Problem> {
    let too_large = || Problem::new(Code::BodyTooLarge).limit(limit as u64);
    // What says itself that it is too long is refused before a byte of it is read.
    if body.size_hint().lower() > limit as u64 {
        return Err(too_large());
    }
    let collected = timeout(millis(api.config.body_timeout_ms), Limited::new(body, limit).collect()).await;
    match collected {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Code::IncompleteBody.into()),
        Err(_) => Err(Code::BodyTimeout.into()),
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = value.split(';').next().unwrap_or("").trim();
    essence.eq_ignore_ascii_case("application/json")
}

const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The `Idempotency-Key` header, if it was sent; any printable ASCII, 1–255 characters.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let invalid = || Problem::new(Code::InvalidIdempotencyKey).field("Idempotency-Key");
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let key = value.to_str().map_err(|_| invalid())?;
    let printable = key.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
    let is_key = printable && (1..=255).contains(&key.len()) && values.next().is_none();
    if is_key { Ok(Some(key)) } else { Err(invalid()) }
}

/// The id of a reservation or debit as the `Idempotency-Key` header names it. What is wrong with it is told once the
/// body has been read, as the order of the checks says.
pub struct CallerId(Result<Option<ReservationId>, Problem>);

impl FromRequestParts<Api> for CallerId {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Self::Rejection> {
        let mut values = parts.headers.get_all(IDEMPOTENCY_KEY).iter();
        let Some(value) = values.next() else { return Ok(Self(Ok(None))) };
        let id = value.to_str().ok().and_then(|text| ReservationId::new(text).ok());
        let id = id.filter(|_| values.next().is_none());
        let invalid = || Problem::new(Code::InvalidReservationId).field("Idempotency-Key");
        Ok(Self(id.map(Some).ok_or_else(invalid)))
    }
}

impl CallerId {
    /// The id from the body, the header or both if they agree.
    pub fn or(self, body: Option<ReservationId>) -> Result<Option<ReservationId>, Problem> {
        match (self.0?, body) {
            (Some(id), Some(other)) if id != other => Err(Problem::new(Code::ConflictingFields).field("id")),
            (header, body) => Ok(header.or(body)),
        }
    }
}

/// Rows of a page when the caller names no limit.
pub const DEFAULT_PAGE: u32 = 100;
/// Most rows of a page.
pub const MAX_PAGE: u32 = 500;

/// The query, parameter by parameter; each stands once.
pub struct Params(Vec<(String, String)>);

impl FromRequestParts<Api> for Params {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &Api) -> Result<Self, Problem> {
        Query::try_from_uri(&parts.uri).map(|Query(pairs)| Self(pairs)).map_err(|_| Code::InvalidQuery.into())
    }
}

impl Params {
    /// Those of a path and query.
    #[cfg(test)]
    pub fn of(uri: &'static str) -> Self {
        let uri = axum::http::Uri::from_static(uri);
        Self(Query::try_from_uri(&uri).map(|Query(pairs)| pairs).unwrap_or_default())
    }

    /// Takes the parameter out.
    pub fn take(&mut self, name: &'static str) -> Option<String> {
        let index = self.0.iter().position(|(key, _)| key == name)?;
        Some(self.0.swap_remove(index).1)
    }

    /// Takes a parameter of a type that has one spelling.
    pub fn take_parsed<T: std::str::FromStr>(&mut self, name: &'static str) -> Result<Option<T>, Problem> {
        let parse = |text: String| text.parse().map_err(|_| Problem::new(Code::InvalidQuery).field(name));
        self.take(name).map(parse).transpose()
    }

    /// Takes a time, RFC 3339, of the years 1970 to 9999.
    pub fn take_time(&mut self, name: &'static str) -> Result<Option<Timestamp>, Problem> {
        let time = self.take_parsed::<Timestamp>(name)?;
        match time {
            Some(time) if time < Timestamp::UNIX_EPOCH => Err(Problem::new(Code::InvalidQuery).field(name)),
            time => Ok(time),
        }
    }

    /// Takes `limit`, the rows of a page.
    pub fn take_limit(&mut self) -> Result<u32, Problem> {
        match self.take("limit") {
            None => Ok(DEFAULT_PAGE),
            // Digits alone: `u32` would also take a sign.
            Some(text) => Some(text)
                .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|text| text.parse().ok())
                .filter(|limit| (1..=MAX_PAGE).contains(limit))
                .ok_or_else(|| Problem::new(Code::InvalidQuery).field("limit").limit(u64::from(MAX_PAGE))),
        }
    }

    /// Nothing may be left: an unknown parameter, or one that stands twice, is a mistake to be told.
    pub fn end(self) -> Result<(), Problem> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(Problem::new(Code::InvalidQuery).unknown_name(name)),
        }
    }
}
