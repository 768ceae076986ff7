//! A collector of spans: takes OTLP over HTTP and keeps what it is sent.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use cota::config::TracingConfig;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value as AnyValue},
    trace::v1::{Span, span::SpanKind, status::StatusCode as SpanStatus},
};
use prost::Message;
use tokio::{net::TcpListener, task::JoinHandle};

use super::world::until;

/// A span that came, ids as hexadecimal digits.
#[derive(Clone, Debug)]
pub struct Collected {
    pub trace: String,
    pub id: String,
    /// Empty for the first of its trace.
    pub parent: String,
    pub state: String,
    pub name: String,
    pub kind: SpanKind,
    pub failed: bool,
    /// Numbers as digits.
    pub attributes: BTreeMap<String, String>,
    pub events: Vec<String>,
    /// Trace and span.
    pub links: Vec<(String, String)>,
    /// In nanoseconds since 1970.
    pub from: u64,
    pub to: u64,
}

impl Collected {
    fn of(span: Span) -> Self {
        Self {
            trace: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            kind: span.kind(),
            state: span.trace_state,
            name: span.name,
            failed: span.status.is_some_and(|status| status.code() == SpanStatus::Error),
            attributes: attributes(span.attributes),
            events: span.events.into_iter().map(|event| event.name).collect(),
            links: span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect(),
            from: span.start_time_unix_nano,
            to: span.end_time_unix_nano,
        }
    }

    pub fn says(&self, attributes: &[(&str, &str)]) {
        let expected = attributes.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        assert_eq!(self.attributes, expected.collect(), "{}", self.name);
    }

    pub fn is_child_of(&self, parent: &Self) -> bool {
        self.trace == parent.trace && self.parent == parent.id
    }

    pub fn encloses(&self, other: &Self) -> bool {
        self.from <= other.from && other.to <= self.to
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attributes(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |pair: KeyValue| match pair.value.and_then(|value| value.value) {
        Some(AnyValue::StringValue(text)) => (pair.key, text),
        Some(AnyValue::IntValue(number)) => (pair.key, number.to_string()),
        other => panic!("{}: {other:?}", pair.key),
    };
    pairs.into_iter().map(text).collect()
}

#[derive(Default)]
struct Shared {
    spans: Mutex<Vec<Collected>>,
    /// Of the last delivery: what it says of the service.
    service: Mutex<BTreeMap<String, String>>,
    raw: Mutex<Vec<u8>>,
}

/// It runs until it is dropped.
pub struct Collector {
    url: String,
    shared: Arc<Shared>,
    running: JoinHandle<()>,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared::default());
        let router = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&shared));
        let running = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, shared, running }
    }

    /// Has spans sent here, and this share of the traces that begin in the service.
    pub fn configure(&self, config: &mut TracingConfig, sampling_ratio: f64) {
        config.endpoint = Some(self.url.clone());
        config.sampling_ratio = sampling_ratio;
    }

    pub fn spans(&self) -> Vec<Collected> {
        self.shared.spans.lock().unwrap().clone()
    }

    /// What it was told of the service that sends.
    pub fn service(&self) -> BTreeMap<String, String> {
        self.shared.service.lock().unwrap().clone()
    }

    /// Whether this text was anywhere in what was sent.
    pub fn saw(&self, text: &str) -> bool {
        let raw = self.shared.raw.lock().unwrap();
        raw.windows(text.len()).any(|window| window == text.as_bytes())
    }

    /// Waits for what `find` finds in all that has come.
    pub async fn has<T>(&self, what: &str, mut find: impl FnMut(&[Collected]) -> Option<T>) -> T {
        let mut found = None;
        until(what, async || {
            found = find(&self.spans());
            found.is_some()
        })
        .await;
        found.unwrap()
    }

    /// Waits until so many spans of a trace have come.
    pub async fn trace(&self, id: &str, spans: usize) -> Vec<Collected> {
        self.has("the trace has come", |all| {
            let of_it: Vec<_> = all.iter().filter(|span| span.trace == id).cloned().collect();
            (of_it.len() >= spans).then_some(of_it)
        })
        .await
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn take(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    assert_eq!(headers["content-type"], "application/x-protobuf");
    let request = ExportTraceServiceRequest::decode(body.clone()).unwrap();
    for resource in request.resource_spans {
        *shared.service.lock().unwrap() = attributes(resource.resource.unwrap_or_default().attributes);
        let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans).map(Collected::of);
        shared.spans.lock().unwrap().extend(spans);
    }
    shared.raw.lock().unwrap().extend(&body);
    StatusCode::OK
}
