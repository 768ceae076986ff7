//! A span that is being recorded, and what its children are made from.

use opentelemetry::{
    Context, KeyValue, StringValue, Value,
    trace::{Span as _, SpanBuilder, Status, TraceContextExt, Tracer},
};
use opentelemetry_sdk::trace::{SdkTracer, Span};
use reqwest::header::HeaderValue;

use super::context;

tokio::task_local! {
    static CURRENT: Parent;
}

/// What spans are made from: they belong to its trace, below its span. Cheap to clone.
#[derive(Clone)]
pub struct Parent {
    tracer: SdkTracer,
    context: Context,
}

/// A span that is being recorded. It ends when it is dropped: also when its work is.
pub struct Recording(Box<Open>);

struct Open {
    span: Span,
    parent: Parent,
}

/// Does the work of a span, if there is one.
pub async fn within<T>(span: Option<&Recording>, work: impl Future<Output = T>) -> T {
    match span {
        Some(span) => span.parent().scope(work).await,
        None => work.await,
    }
}

impl Parent {
    pub(super) fn new(tracer: &SdkTracer, context: Context) -> Self {
        Self { tracer: tracer.clone(), context }
    }

    /// That of the work that runs, if it is recorded.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Self::clone).ok()
    }

    /// Does work that belongs to it.
    pub async fn scope<T>(&self, work: impl Future<Output = T>) -> T {
        CURRENT.scope(self.clone(), work).await
    }

    pub(super) fn child(&self, span: SpanBuilder) -> Recording {
        let span = self.tracer.build_with_context(span, &self.context);
        let context = Context::new().with_remote_span_context(span.span_context().clone());
        Recording(Box::new(Open { span, parent: Self { tracer: self.tracer.clone(), context } }))
    }

    /// The header by which others join the trace.
    pub fn traceparent(&self) -> Option<(&'static str, HeaderValue)> {
        Some((context::TRACEPARENT, context::traceparent(self.context.span().span_context())?))
    }
}

impl Recording {
    /// What its children are made from.
    pub fn parent(&self) -> &Parent {
        &self.0.parent
    }

    /// The id of its trace, for the log.
    pub fn trace_id(&self) -> impl std::fmt::Display + use<> {
        self.0.span.span_context().trace_id()
    }

    pub(super) fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        self.0.span.set_attribute(KeyValue::new(key, value));
    }

    /// Marks it as failed; `error` is a word of ours, one of few.
    pub fn fail(&mut self, error: impl Into<StringValue>) {
        self.set("error.type", error.into());
        self.0.span.set_status(Status::error(""));
    }

    /// Something that happened in the course of it, now.
    pub(super) fn note(&mut self, event: &'static str) {
        self.0.span.add_event(event, Vec::new());
    }

    /// Points to a span of another trace.
    pub(super) fn link(&mut self, to: &Parent) {
        self.0.span.add_link(to.context.span().span_context().clone(), Vec::new());
    }
}
