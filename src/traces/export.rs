//! From the end of a span to the collector.
//!
//! Spans that have ended wait in a bounded queue; one that finds it full is dropped, and counted. One task takes what
//! waits, up to [`MAX_BATCH`] at a time, and sends it once: what the collector does not take is lost, and counted. A
//! collector that is away costs its spans and nothing else. At the end of the service the task sends what is left, for
//! [`SHUTDOWN`] at most.

use std::time::Duration;

use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{Span, SpanData, SpanExporter as _, SpanProcessor},
};
use reqwest::{Client, Url, redirect::Policy};
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::TracesError;
use crate::{
    config::{TracingConfig, millis},
    metrics,
};

/// Spans that wait at most.
const QUEUE: usize = 4_096;

/// Spans of one delivery at most.
const MAX_BATCH: usize = 512;

/// How long the first of a delivery waits for others.
const PAUSE: Duration = Duration::from_millis(500);

/// How long a shutdown waits for what is left to be sent.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// Takes spans as they end.
#[derive(Debug)]
pub struct Queue(mpsc::Sender<SpanData>);

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if self.0.try_send(span).is_err() {
            metrics::spans("dropped", 1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// The task that sends spans, if there is one.
pub struct Exporting(Option<(JoinHandle<()>, CancellationToken)>);

impl Exporting {
    pub(super) fn nothing() -> Self {
        Self(None)
    }

    /// Sends what is left, within a short time.
    pub async fn stop(self) {
        let Some((mut task, stop)) = self.0 else { return };
        stop.cancel();
        if timeout(SHUTDOWN, &mut task).await.is_err() {
            task.abort();
            tracing::warn!("spans are lost: the collector did not take them before the end");
        }
    }
}

/// The queue, and the task behind it.
pub fn start(url: &Url, config: &TracingConfig) -> Result<(Queue, Exporting), TracesError> {
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client(url, millis(config.timeout_ms))?)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(url.as_str())
        .with_timeout(millis(config.timeout_ms))
        .with_retry_policy(RetryPolicy::disabled())
        .build()?;
    exporter.set_resource(&resource());
    let (queue, spans) = mpsc::channel(QUEUE);
    let stop = CancellationToken::new();
    let task = tokio::spawn(run(spans, exporter, stop.clone()));
    Ok((Queue(queue), Exporting(Some((task, stop)))))
}

/// It goes where it is told, through no proxy of the environment.
fn client(url: &Url, timeout: Duration) -> reqwest::Result<Client> {
    let client =
        Client::builder().redirect(Policy::none()).no_proxy().connect_timeout(timeout).timeout(timeout);
    match url.scheme() {
        "https" => client.build(),
        // The certificates that the system trusts are not asked for.
        _ => client.tls_certs_only([]).build(),
    }
}

/// Who makes the spans. `OTEL_RESOURCE_ATTRIBUTES` may add to it.
fn resource() -> Resource {
    Resource::builder()
        .with_service_name("cota")
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", Uuid::new_v4().to_string()))
        .build()
}

async fn run(mut spans: mpsc::Receiver<SpanData>, exporter: SpanExporter, stop: CancellationToken) {
    let mut is_well = true;
    while let Some(batch) = next(&mut spans, &stop).await {
        let count = batch.len();
        let sent = exporter.export(batch).await;
        metrics::spans(if sent.is_ok() { "exported" } else { "failed" }, count);
        match &sent {
            Ok(()) if !is_well => tracing::info!("the collector takes spans again"),
            Err(error) if is_well => tracing::warn!(%error, "the collector does not take spans"),
            _ => {}
        }
        is_well = sent.is_ok();
    }
}

/// What is to be sent next; none at the end, which is when nothing waits any more after `stop`.
async fn next(spans: &mut mpsc::Receiver<SpanData>, stop: &CancellationToken) -> Option<Vec<SpanData>> {
    let mut batch = Vec::new();
    while batch.is_empty() {
        tokio::select! {
            biased;
            () = stop.cancelled(), if !spans.is_closed() => spans.close(),
            () = fill(&mut batch, spans) => {
                if batch.is_empty() {
                    return None;
                }
            }
        }
    }
    Some(batch)
}

/// Waits for one, and then a moment for others. Safe to drop: what was taken is in the batch.
async fn fill(batch: &mut Vec<SpanData>, spans: &mut mpsc::Receiver<SpanData>) {
    if spans.recv_many(batch, MAX_BATCH).await == 0 {
        return;
    }
    let more = async {
        while batch.len() < MAX_BATCH && spans.recv_many(batch, MAX_BATCH - batch.len()).await > 0 {}
    };
    // The time being up is the usual end.
    let _ = timeout(PAUSE, more).await;
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{Tracer, TracerProvider};
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;
    use crate::metrics::Exporter;

    fn queue(capacity: usize) -> (SdkTracerProvider, mpsc::Receiver<SpanData>) {
        let (queue, spans) = mpsc::channel(capacity);
        (SdkTracerProvider::builder().with_span_processor(Queue(queue)).build(), spans)
    }

    fn make(provider: &SdkTracerProvider, spans: usize) {
        let tracer = provider.tracer("test");
        (0..spans).for_each(|_| drop(tracer.start("span")));
    }

    #[tokio::test]
    async fn what_finds_no_room_is_dropped_and_counted() {
        let metrics = Exporter::start().unwrap();
        let (provider, mut spans) = queue(2);
        make(&provider, 5);
        assert_eq!(spans.len(), 2);
        assert!(metrics.render().contains("cota_trace_spans_total{outcome=\"dropped\"} 3"));
        assert_eq!(next(&mut spans, &CancellationToken::new()).await.map(|batch| batch.len()), Some(2));
    }

    #[tokio::test]
    async fn after_the_stop_what_is_left_is_sent_and_that_is_all() {
        let (provider, mut spans) = queue(MAX_BATCH * 2);
        make(&provider, MAX_BATCH + 1);
        let stop = CancellationToken::new();
        stop.cancel();
        for expected in [Some(MAX_BATCH), Some(1), None] {
            assert_eq!(next(&mut spans, &stop).await.map(|batch| batch.len()), expected);
        }
        make(&provider, 1);
        assert_eq!(next(&mut spans, &stop).await.map(|batch| batch.len()), None);
    }
}
