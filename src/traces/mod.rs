//! Traces: what became of a request and where its time went, as OpenTelemetry spans that go to a collector by OTLP.
//! `docs/TRACING.md` tells which spans there are and what they say.
//!
//! Whether a request is recorded is decided once, where it arrives ([`Traces::request`]): by its caller, if it brings a
//! W3C trace context, else by lot. For one that is not, nothing is made, there or further on. Who works for one that is
//! finds it by [`Parent::current`], passed along with the task ([`Parent::scope`]) and not as a parameter, since it is
//! needed at the ends of every use case and by nothing between them.
//!
//! Spans go by a bounded queue to one task, which sends them ([`export`]): nobody waits for a collector.

mod context;
mod export;
mod kinds;
mod span;

use std::sync::Arc;

use axum::http::HeaderMap;
use opentelemetry::{Context, trace::TracerProvider};
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};

pub use export::Exporting;
pub use kinds::{calling, script};
pub use span::{Parent, Recording, within};

use crate::config::TracingConfig;
use context::Arrived;

/// Why tracing cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    #[error(transparent)]
    Client(#[from] reqwest::Error),
    #[error(transparent)]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// Where traces begin; records nothing by default. Cheap to clone.
#[derive(Clone, Default)]
pub struct Traces(Option<Arc<Recorder>>);

struct Recorder {
    tracer: SdkTracer,
    /// Share of the traces that begin here which are recorded, 0 to 1.
    sampling_ratio: f64,
}

impl Traces {
    /// As configured, and the task that sends what is recorded.
    ///
    /// # Errors
    /// When no client can be made for the endpoint.
    pub fn start(config: &TracingConfig) -> Result<(Self, Exporting), TracesError> {
        let Some(url) = config.traces_url() else { return Ok((Self::default(), Exporting::nothing())) };
        let (queue, exporting) = export::start(&url, config)?;
        // What gets this far is recorded: the decision was made before anything was.
        let provider =
            SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOn).with_span_processor(queue).build();
        let recorder = Recorder { tracer: provider.tracer("cota"), sampling_ratio: config.sampling_ratio };
        Ok((Self(Some(Arc::new(recorder))), exporting))
    }

    /// What the spans of a request with these headers hang from, if it is to be recorded.
    fn arrived(&self, headers: &HeaderMap) -> Option<Parent> {
        let recorder = self.0.as_deref()?;
        let context = match context::arrived(headers) {
            Arrived::Nothing => return recorder.drawn(),
            Arrived::Unsampled => return None,
            Arrived::Sampled(context) => context,
        };
        Some(Parent::new(&recorder.tracer, context))
    }

    /// What the spans of something that begins here hang from, if it is to be recorded.
    fn drawn(&self) -> Option<Parent> {
        self.0.as_deref()?.drawn()
    }
}

impl Recorder {
    fn drawn(&self) -> Option<Parent> {
        let is_drawn = self.sampling_ratio > 0.0 && rand::random::<f64>() < self.sampling_ratio;
        is_drawn.then(|| Parent::new(&self.tracer, Context::new()))
    }
}
