//! The recorder behind all metrics: one per process; and handles to what it records.

use std::{
    collections::HashMap,
    sync::{
        LazyLock, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use super::{ALL, BATCH_OPERATIONS, BUILD, FLUSH_ROWS, Kind, Metric, RECOVERY_SECONDS, process, zero};

/// Upper bounds that resolve 100 µs to 1 s, in seconds.
const SECONDS: [f64; 14] =
    [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0];
/// A recovery waits for witnesses and reads all that is pending: 50 ms to a minute.
const RECOVERY: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 3.0, 10.0, 30.0, 60.0];
const OPERATIONS_IN_BATCH: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];
const ROWS_IN_FLUSH: [f64; 10] = [1.0, 10.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2000.0, 5000.0, 10_000.0];

/// Renders what was recorded.
#[derive(Clone)]
pub struct Exporter(PrometheusHandle);

impl Exporter {
    /// Starts recording in this process. There is one recorder: a second start in one process shares it.
    ///
    /// # Errors
    /// When the buckets are malformed.
    pub fn start() -> Result<Self, BuildError> {
        static STARTED: Mutex<Option<PrometheusHandle>> = Mutex::new(None);
        // What a panic could leave behind is a whole handle or none.
        let mut started = STARTED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = &*started {
            return Ok(Self(handle.clone()));
        }
        let recorder = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS)?
            .set_buckets_for_metric(Matcher::Full(RECOVERY_SECONDS.into()), &RECOVERY)?
            .set_buckets_for_metric(Matcher::Full(BATCH_OPERATIONS.into()), &OPERATIONS_IN_BATCH)?
            .set_buckets_for_metric(Matcher::Full(FLUSH_ROWS.into()), &ROWS_IN_FLUSH)?
            .build_recorder();
        let exporter = Self(started.insert(recorder.handle()).clone());
        // Already set by whoever embeds this library: theirs goes on recording.
        let _ = metrics::set_global_recorder(recorder);
        RECORDING.store(true, Ordering::Release);
        ALL.iter().for_each(describe);
        zero::start();
        metrics::gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Ok(exporter)
    }

    /// Prometheus' text format.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Must run every few seconds, or histograms keep every sample. Reads what the process itself uses, too.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
        process::read();
    }
}

fn describe(metric: &Metric) {
    match metric.kind {
        Kind::Counter => metrics::describe_counter!(metric.name, metric.help),
        Kind::Gauge => metrics::describe_gauge!(metric.name, metric.help),
        Kind::Histogram => metrics::describe_histogram!(metric.name, metric.help),
    }
}

/// Set once there is a recorder: a handle made before that records nothing, and must not be kept.
static RECORDING: AtomicBool = AtomicBool::new(false);

/// Handles by their two labels, each looked up in the recorder once: that look-up costs more than the recording.
pub(super) struct Handles<H>(LazyLock<RwLock<HashMap<(&'static str, &'static str), H>>>);

impl<H> Handles<H> {
    pub(super) const fn new() -> Self {
        Self(LazyLock::new(RwLock::default))
    }

    /// Records through the handle of these labels. Both must be of bounded sets: they are kept for ever.
    pub(super) fn record(
        &self,
        first: &str,
        second: &str,
        make: impl FnOnce(&'static str, &'static str) -> H,
        record: impl FnOnce(&H),
    ) {
        // A panic under the lock leaves a whole map behind.
        if let Some(handle) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&(first, second)) {
            return record(handle);
        }
        if RECORDING.load(Ordering::Acquire) {
            let labels = (&*first.to_owned().leak(), &*second.to_owned().leak());
            let mut handles = self.0.write().unwrap_or_else(PoisonError::into_inner);
            record(handles.entry(labels).or_insert_with(|| make(labels.0, labels.1)));
        }
    }
}
