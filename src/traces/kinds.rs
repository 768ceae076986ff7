//! The spans there are, and what they say: the one place where attributes are named. Words of ours, numbers, routes as the
//! router has them; never what a caller sent. Names are those of OpenTelemetry's semantic conventions where it has one.

use std::time::{Duration, SystemTime};

use axum::http::{HeaderMap, Method, StatusCode};
use opentelemetry::{
    KeyValue,
    trace::{SpanBuilder, SpanKind},
};

use super::{Parent, Recording, Traces};

/// Links of one call of a script to requests beside the first; the others of its batch are not named.
const MAX_LINKS: usize = 16;

impl Traces {
    /// The span of a request, if it is to be recorded; `route` is the router's pattern.
    pub fn request(&self, headers: &HeaderMap, method: &Method, route: Option<&str>) -> Option<Recording> {
        let parent = self.arrived(headers)?;
        let method = known(method);
        let name = route.map_or_else(|| method.to_owned(), |route| format!("{method} {route}"));
        let mut attributes = vec![KeyValue::new("http.request.method", method)];
        attributes.extend(route.map(|route| KeyValue::new("http.route", route.to_owned())));
        Some(parent.child(span(name, SpanKind::Server).with_attributes(attributes)))
    }

    /// The span of a flush that has been running for so long, if it is to be recorded.
    pub fn flush(&self, running: Duration, partition: u16, rows: usize) -> Option<Recording> {
        let parent = self.drawn()?;
        let attributes = [count("cota.partition", usize::from(partition)), count("cota.rows", rows)];
        let span = span("flush", SpanKind::Internal).with_attributes(attributes);
        Some(parent.child(span.with_start_time(SystemTime::now() - running)))
    }

    /// The span of one attempt at a webhook, if it is to be recorded; `event` is a kind of event.
    pub fn webhook(&self, event: &'static str) -> Option<Recording> {
        let parent = self.drawn()?;
        let attributes =
            [KeyValue::new("http.request.method", "POST"), KeyValue::new("cota.event.type", event)];
        Some(parent.child(span("POST webhook", SpanKind::Client).with_attributes(attributes)))
    }
}

impl Parent {
    /// The span of operations that go through a lane together, from their place in the queue to their answer.
    pub fn lane(&self, partition: u16, operations: usize) -> Recording {
        let attributes =
            [count("cota.partition", usize::from(partition)), count("cota.operations", operations)];
        self.child(span("lane", SpanKind::Internal).with_attributes(attributes))
    }

    fn script(&self, name: &'static str, operations: usize) -> Recording {
        let attributes = [
            KeyValue::new("db.system.name", "redis"),
            KeyValue::new("db.operation.name", "EVALSHA"),
            KeyValue::new("db.stored_procedure.name", name),
            count("cota.operations", operations),
        ];
        self.child(span(format!("EVALSHA {name}"), SpanKind::Client).with_attributes(attributes))
    }
}

impl Recording {
    /// How a request was answered; `problem` is the code of one that was not served.
    pub fn answered(&mut self, status: StatusCode, problem: Option<&'static str>) {
        self.set("http.response.status_code", i64::from(status.as_u16()));
        if let Some(problem) = problem {
            self.fail(problem);
        }
    }

    /// How an attempt at a webhook ended: what its receiver answered, or why there was nothing.
    pub fn attempted(&mut self, answer: Result<u16, &'static str>) {
        match answer {
            Ok(status) => {
                self.set("http.response.status_code", i64::from(status));
                if status >= 400 {
                    self.fail(status.to_string());
                }
            }
            Err(fault) => self.fail(fault),
        }
    }
}

/// The span of one call of a script that carries a batch: below the first of the lanes' spans, linked to the others, and
/// they to it. None when there are none.
pub fn script<'a>(
    name: &'static str,
    operations: usize,
    mut lanes: impl Iterator<Item = &'a mut Recording>,
) -> Option<Recording> {
    let first = lanes.next()?;
    first.note("sent");
    let mut script = first.parent().script(name, operations);
    for (n, lane) in lanes.enumerate() {
        lane.note("sent");
        lane.link(script.parent());
        if n < MAX_LINKS {
            script.link(lane.parent());
        }
    }
    Some(script)
}

/// Calls a script for the work that runs, under a span of its own if that is recorded.
pub async fn calling<T, E>(
    name: &'static str,
    operations: usize,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let mut span = Parent::current().map(|parent| parent.script(name, operations));
    let result = call.await;
    if let (Some(span), Err(_)) = (&mut span, &result) {
        span.fail("call_failed");
    }
    result
}

fn span(name: impl Into<std::borrow::Cow<'static, str>>, kind: SpanKind) -> SpanBuilder {
    SpanBuilder::from_name(name).with_kind(kind)
}

fn count(key: &'static str, count: usize) -> KeyValue {
    KeyValue::new(key, i64::try_from(count).unwrap_or(i64::MAX))
}

/// The method's name if it is one of HTTP's: a caller may send any word.
fn known(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => "_OTHER",
    }
}
