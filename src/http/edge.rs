//! The edge of the router: every answer passes here once.

use std::time::Instant;

use axum::{
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, Version, header},
    middleware::Next,
    response::Response,
};

use hyper::body::Body as _;
use tracing::field::display;

use crate::{metrics, store::with_caller, traces};

use super::{
    Api, code,
    language::Language,
    problem::{Problem, TopUp},
};

/// Turns problems into text in the caller's language, counts them, and sets the headers all answers have.
pub async fn edge(State(api): State<Api>, request: Request, next: Next) -> Response {
    // Only a problem needs these, but by then the request is gone; a header that is absent costs nothing.
    let language = Language::of(request.headers());
    let request_id = request_id(request.headers());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let ends_connection = may_stay_unread(&request);
    let pattern = route.as_ref().map(MatchedPath::as_str);
    let mut span = api.traces.request(request.headers(), request.method(), pattern);
    let mut unserved = None;
    let started = Instant::now();
    let mut response = traces::within(span.as_ref(), with_caller(next.run(request))).await;
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let code = problem.code();
        code::count(code);
        if code.status().is_server_error() {
            let request_id = request_id.as_ref().and_then(|id| id.to_str().ok());
            let trace_id = span.as_ref().map(|span| display(span.trace_id()));
            let route = pattern.unwrap_or_default();
            tracing::warn!(code = code.as_str(), route, request_id, trace_id, "request not served");
            unserved = Some(code.as_str());
        }
        let mut rendered = problem.render(language, TopUp::of(&api.config, language));
        // What the router itself set, such as Allow, stays.
        for (name, value) in response.headers() {
            if !rendered.headers().contains_key(name) && name != header::CONTENT_LENGTH {
                rendered.headers_mut().insert(name.clone(), value.clone());
            }
        }
        if ends_connection {
            rendered.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response = rendered;
    }
    metrics::http_request(pattern.unwrap_or("none"), class(response.status()), started.elapsed());
    if let Some(span) = &mut span {
        span.answered(response.status(), unserved);
    }
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(id) = request_id {
        headers.insert(REQUEST_ID, id);
    }
    response
}

/// Bodies up to this arrive with their head, and are read by the time the connection is used again.
const SMALL_BODY_BYTES: u64 = 4_096;

/// Whether a refusal may leave so much of the body unread that hyper ends the connection. A client has to be told, or
/// it sends its next request into a connection that is just being closed. HTTP/2 resets the stream alone.
fn may_stay_unread(request: &Request) -> bool {
    let body = request.body();
    let is_small =
        body.is_end_stream() || body.size_hint().upper().is_some_and(|most| most <= SMALL_BODY_BYTES);
    request.version() < Version::HTTP_2 && !is_small
}

/// The first digit of a status: enough for a label, and bounded.
fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

const REQUEST_ID: &str = "x-request-id";

/// The caller's own id of the request, for our log and back to it; one of the wrong form is ignored.
fn request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(REQUEST_ID)?;
    let is_id = (1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic);
    is_id.then(|| id.clone())
}
