//! The edge of the router: every answer passes here once.

use std::{
    convert::Infallible,
    task::{Context, Poll},
    time::Instant,
};

use axum::{
    extract::{MatchedPath, Request},
    http::{HeaderMap, HeaderValue, StatusCode, Version, header},
    response::Response,
};
use futures_util::future::BoxFuture;
use hyper::body::Body as _;
use tower::{Layer, Service};
use tracing::field::display;

use crate::{
    metrics,
    store::with_caller,
    traces::{self, Recording},
};

use super::{
    Api, code,
    language::Language,
    problem::{Problem, TopUp},
};

/// Puts an [`Edge`] around every route.
#[derive(Clone)]
pub struct Edges(pub Api);

impl<S> Layer<S> for Edges {
    type Service = Edge<S>;

    fn layer(&self, route: S) -> Edge<S> {
        Edge { api: self.0.clone(), route }
    }
}

/// Turns problems into text in the caller's language, counts them, and sets the headers all answers have. A service of
/// its own: axum's middleware from a function costs each request three more allocations.
#[derive(Clone)]
pub struct Edge<S> {
    api: Api,
    route: S,
}

impl<S> Service<Request> for Edge<S>
where
    S: Service<Request, Response = Response, Error = Infallible, Future: Send + 'static>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.route.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let mut passage = Passage::begin(self.api.clone(), &request);
        let answer = self.route.call(request);
        Box::pin(async move {
            let response = traces::within(passage.span.as_ref(), with_caller(answer)).await?;
            Ok(passage.end(response))
        })
    }
}

/// What is known of a request once it is gone: only a problem needs most of it, and a header that is absent costs
/// nothing.
struct Passage {
    api: Api,
    language: Language,
    request_id: Option<HeaderValue>,
    route: Option<MatchedPath>,
    ends_connection: bool,
    span: Option<Recording>,
    started: Instant,
}

impl Passage {
    fn begin(api: Api, request: &Request) -> Self {
        let route = request.extensions().get::<MatchedPath>().cloned();
        let pattern = route.as_ref().map(MatchedPath::as_str);
        Self {
            language: Language::of(request.headers()),
            request_id: request_id(request.headers()),
            ends_connection: may_stay_unread(request),
            span: api.traces.request(request.headers(), request.method(), pattern),
            started: Instant::now(),
            route,
            api,
        }
    }

    fn end(&mut self, mut response: Response) -> Response {
        let problem = response.extensions_mut().remove::<Problem>();
        let unserved = problem.as_ref().and_then(|problem| self.note(problem));
        if let Some(problem) = problem {
            response = self.render(problem, &response);
        }
        let pattern = self.route.as_ref().map_or("none", MatchedPath::as_str);
        metrics::http_request(pattern, class(response.status()), self.started.elapsed());
        if let Some(span) = &mut self.span {
            span.answered(response.status(), unserved);
        }
        let headers = response.headers_mut();
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(id) = self.request_id.take() {
            headers.insert(REQUEST_ID, id);
        }
        response
    }

    /// Counts a problem; one of ours is logged, too, and its code given.
    fn note(&self, problem: &Problem) -> Option<&'static str> {
        let code = problem.code();
        code::count(code);
        if !code.status().is_server_error() {
            return None;
        }
        let request_id = self.request_id.as_ref().and_then(|id| id.to_str().ok());
        let trace_id = self.span.as_ref().map(|span| display(span.trace_id()));
        let route = self.route.as_ref().map_or("", MatchedPath::as_str);
        tracing::warn!(code = code.as_str(), route, request_id, trace_id, "request not served");
        Some(code.as_str())
    }

    fn render(&self, problem: Problem, response: &Response) -> Response {
        let mut rendered = problem.render(self.language, TopUp::of(&self.api.config, self.language));
        // What the router itself set, such as Allow, stays.
        for (name, value) in response.headers() {
            if !rendered.headers().contains_key(name) && name != header::CONTENT_LENGTH {
                rendered.headers_mut().insert(name.clone(), value.clone());
            }
        }
        if self.ends_connection {
            rendered.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        rendered
    }
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
