//! Metrics: each declared once, with its name, kind, labels and help; recorded through the functions here, so that a
//! label can only be one of a bounded set. Never an account, reservation or path as a label.

use std::{
    collections::HashMap,
    sync::{
        LazyLock, Mutex, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use metrics::{Counter, Histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

/// A metric's kind, as in Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A metric as `docs/METRICS.md` lists it.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

macro_rules! metrics {
    ($($kind:ident $const:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(const $const: &str = $name;)+

        /// All of them.
        pub const ALL: &[Metric] =
            &[$(Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help }),+];
    };
}

metrics! {
    Counter OPERATIONS "cota_operations_total" ["verb", "outcome"] "Operations of the ledger, by verb and how they ended.";
    Histogram OPERATION_SECONDS "cota_operation_seconds" ["verb"] "From the call of an operation to its definite answer.";
    Counter PROBLEMS "cota_problems_total" ["code"] "Problems answered over HTTP, by their stable code.";
    Counter AUTH_REFUSALS "cota_auth_refusals_total" ["reason"] "JWTs that were not taken, by reason.";
    Counter JWKS_REFRESHES "cota_jwks_refreshes_total" ["issuer", "outcome"] "Readings of an issuer's key set: changed, unchanged, failed; and expired, when its keys were not read for so long that they are refused.";
    Gauge JWKS_KEYS "cota_jwks_keys" ["issuer"] "Keys that check JWTs of an issuer.";
    Gauge JWKS_AGE "cota_jwks_age_seconds" ["issuer"] "Time since an issuer's key set was last read.";
    Counter LIMITED "cota_limited_total" ["limiter"] "Calls and connections refused by a limiter: networks, callers, in_flight or connections.";
    Gauge LIMITER_KEYS "cota_limiter_keys" ["limiter"] "Networks and callers a limiter remembers.";
    Gauge IN_FLIGHT "cota_http_calls_in_flight" [] "Calls that run.";
    Counter CERTIFICATES "cota_tls_certificates_total" ["outcome"] "Changes of the listener's certificate files: renewed or refused.";
    Histogram HTTP_SECONDS "cota_http_request_seconds" ["route", "status"] "HTTP requests, by route and class of status.";
    Histogram BATCH_OPERATIONS "cota_lane_batch_operations" [] "Operations of one apply call.";
    Counter SHED "cota_lane_shed_total" ["queue"] "Operations refused because a queue, a share or the outbox was full.";
    Counter SESSIONS "cota_redis_sessions_total" ["outcome"] "Connections made to Redis.";
    Counter LOADS "cota_cold_loads_total" ["outcome"] "Cold accounts given to Redis.";
    Counter PUSHES "cota_grant_pushes_total" ["outcome"] "Pushes of an account's granted state to Redis.";
    Counter EXPIRED "cota_expired_total" [] "Reservations the sweeper expired.";
    Counter RECOVERIES "cota_recoveries_total" ["outcome"] "Recoveries of a partition.";
    Gauge GATES_OPEN "cota_partitions_open" [] "Partitions this replica serves.";
    Gauge WITNESSED "cota_witnessed_settles" [] "Acked settles Postgres is not known to have.";
    Gauge OUTBOX_DEPTH "cota_outbox_entries" ["partition"] "Entries in the outbox at the last reading.";
    Gauge OUTBOX_AGE "cota_outbox_age_seconds" ["partition"] "Age of the oldest entry at the last reading.";
    Counter FLUSHED "cota_flushed_rows_total" ["result"] "Outbox entries booked: inserted, replayed, or dead letters.";
    Histogram FLUSH_SECONDS "cota_flush_seconds" [] "One flush: read, book, ack.";
    Counter FLUSH_FAILURES "cota_flush_failures_total" [] "Flushes that failed and are repeated.";
    Counter CHECKPOINTS "cota_audit_checkpoints_total" ["outcome"] "Checkpoints of the audit log: written, or failed.";
    Counter ANOMALIES "cota_anomalies_total" [] "Hours flagged in which a user used more than is ordinary for it.";
    Counter MONTHS_TOLD "cota_monthly_reports_total" [] "Monthly reports of users that were written.";
    Histogram NOTIFICATION_SECONDS "cota_notification_attempt_seconds" ["channel"] "One attempt at a notification, up to its receiver's answer.";
    Counter NOTIFICATIONS "cota_notification_attempts_total" ["channel", "outcome"] "Attempts at notifications: delivered, retry, failed for good, or disabled with their endpoint.";
    Gauge NOTIFICATION_BACKLOG "cota_notifications_pending" ["queue"] "Events whose notifications are not queued yet (events), and notifications to be sent.";
    Gauge NOTIFICATION_OVERDUE "cota_notifications_overdue_seconds" ["queue"] "How long the oldest in the queue has been due.";
    Gauge LIVE_STREAMS "cota_live_streams" [] "Live streams of balances and events that are open.";
    Gauge BUILD "cota_build_info" ["version"] "Always 1; the version that runs.";
}

/// Upper bounds that resolve 100 µs to 1 s, in seconds.
const SECONDS: [f64; 14] =
    [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0];
const OPERATIONS_IN_BATCH: [f64; 7] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0];

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
            .set_buckets_for_metric(Matcher::Full(BATCH_OPERATIONS.into()), &OPERATIONS_IN_BATCH)?
            .build_recorder();
        let exporter = Self(started.insert(recorder.handle()).clone());
        // Already set by whoever embeds this library: theirs goes on recording.
        let _ = metrics::set_global_recorder(recorder);
        RECORDING.store(true, Ordering::Release);
        ALL.iter().for_each(describe);
        metrics::gauge!(BUILD, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
        Ok(exporter)
    }

    /// Prometheus' text format.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Must run every few seconds, or histograms keep every sample.
    pub fn upkeep(&self) {
        self.0.run_upkeep();
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
struct Handles<H>(LazyLock<RwLock<HashMap<(&'static str, &'static str), H>>>);

impl<H> Handles<H> {
    const fn new() -> Self {
        Self(LazyLock::new(RwLock::default))
    }

    /// Records through the handle of these labels. Both must be of bounded sets: they are kept for ever.
    fn record(
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

pub fn operation(verb: &'static str, outcome: &'static str, took: Duration) {
    static COUNTERS: Handles<Counter> = Handles::new();
    static HISTOGRAMS: Handles<Histogram> = Handles::new();
    let counter = |verb, outcome| metrics::counter!(OPERATIONS, "verb" => verb, "outcome" => outcome);
    COUNTERS.record(verb, outcome, counter, |counter| counter.increment(1));
    let histogram = |verb, _| metrics::histogram!(OPERATION_SECONDS, "verb" => verb);
    HISTOGRAMS.record(verb, "", histogram, |histogram| histogram.record(took));
}

pub fn problem(code: &'static str) {
    metrics::counter!(PROBLEMS, "code" => code).increment(1);
}

pub fn auth_refusal(reason: &'static str) {
    metrics::counter!(AUTH_REFUSALS, "reason" => reason).increment(1);
}

/// `issuer` is one of the configuration's, never one that a JWT names.
pub fn jwks_refresh(issuer: &str, outcome: &'static str) {
    metrics::counter!(JWKS_REFRESHES, "issuer" => issuer.to_owned(), "outcome" => outcome).increment(1);
}

/// `age` is none before the first reading.
pub fn jwks_keys(issuer: &str, keys: usize, age: Option<Duration>) {
    metrics::gauge!(JWKS_KEYS, "issuer" => issuer.to_owned()).set(keys as f64);
    if let Some(age) = age {
        metrics::gauge!(JWKS_AGE, "issuer" => issuer.to_owned()).set(age.as_secs_f64());
    }
}

/// Something refused by one of the limiters.
pub fn limited(limiter: &'static str) {
    metrics::counter!(LIMITED, "limiter" => limiter).increment(1);
}

pub fn limiter_keys(limiter: &'static str, keys: usize) {
    metrics::gauge!(LIMITER_KEYS, "limiter" => limiter).set(keys as f64);
}

pub fn calls_in_flight(calls: usize) {
    metrics::gauge!(IN_FLIGHT).set(calls as f64);
}

pub fn certificate(outcome: &'static str) {
    metrics::counter!(CERTIFICATES, "outcome" => outcome).increment(1);
}

pub fn checkpoint(is_written: bool) {
    let outcome = if is_written { "written" } else { "failed" };
    metrics::counter!(CHECKPOINTS, "outcome" => outcome).increment(1);
}

/// `route` is the router's pattern, never the path as sent.
pub fn http_request(route: &str, status: &'static str, took: Duration) {
    static HISTOGRAMS: Handles<Histogram> = Handles::new();
    let histogram = |route, status| metrics::histogram!(HTTP_SECONDS, "route" => route, "status" => status);
    HISTOGRAMS.record(route, status, histogram, |histogram| histogram.record(took));
}

pub fn batch(operations: usize) {
    static HISTOGRAMS: Handles<Histogram> = Handles::new();
    let histogram = |_, _| metrics::histogram!(BATCH_OPERATIONS);
    HISTOGRAMS.record("", "", histogram, |histogram| histogram.record(operations as f64));
}

pub fn shed(queue: &'static str) {
    metrics::counter!(SHED, "queue" => queue).increment(1);
}

pub fn redis_session(outcome: &'static str) {
    metrics::counter!(SESSIONS, "outcome" => outcome).increment(1);
}

pub fn cold_loads(outcome: &'static str, accounts: u64) {
    metrics::counter!(LOADS, "outcome" => outcome).increment(accounts);
}

pub fn grant_push(outcome: &'static str) {
    metrics::counter!(PUSHES, "outcome" => outcome).increment(1);
}

pub fn expired(reservations: u64) {
    metrics::counter!(EXPIRED).increment(reservations);
}

pub fn recovery(outcome: &'static str) {
    metrics::counter!(RECOVERIES, "outcome" => outcome).increment(1);
}

pub fn partitions_open(open: usize) {
    metrics::gauge!(GATES_OPEN).set(open as f64);
}

pub fn witnessed(settles: usize) {
    metrics::gauge!(WITNESSED).set(settles as f64);
}

pub fn outbox(partition: u16, depth: u64, age: Duration) {
    metrics::gauge!(OUTBOX_DEPTH, "partition" => partition.to_string()).set(depth as f64);
    metrics::gauge!(OUTBOX_AGE, "partition" => partition.to_string()).set(age.as_secs_f64());
}

pub fn flushed(inserted: usize, replayed: usize, dead: usize, took: Duration) {
    for (result, rows) in [("inserted", inserted), ("replayed", replayed), ("dead", dead)] {
        metrics::counter!(FLUSHED, "result" => result).increment(rows as u64);
    }
    metrics::histogram!(FLUSH_SECONDS).record(took);
}

pub fn flush_failed() {
    metrics::counter!(FLUSH_FAILURES).increment(1);
}

pub fn anomalies(flagged: usize) {
    metrics::counter!(ANOMALIES).increment(flagged as u64);
}

pub fn month_told() {
    metrics::counter!(MONTHS_TOLD).increment(1);
}

/// An attempt at a notification; one that is tried again is counted each time.
pub fn notification(channel: &'static str, outcome: &'static str, took: Duration) {
    metrics::counter!(NOTIFICATIONS, "channel" => channel, "outcome" => outcome).increment(1);
    metrics::histogram!(NOTIFICATION_SECONDS, "channel" => channel).record(took);
}

pub fn live_streams(streams: usize) {
    metrics::gauge!(LIVE_STREAMS).set(streams as f64);
}

/// Every replica measures the same queue.
pub fn notification_backlog(queue: &'static str, pending: u64, overdue: Duration) {
    metrics::gauge!(NOTIFICATION_BACKLOG, "queue" => queue).set(pending as f64);
    metrics::gauge!(NOTIFICATION_OVERDUE, "queue" => queue).set(overdue.as_secs_f64());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exporter_of_a_process_renders_what_is_recorded() {
        let (first, second) = (Exporter::start().unwrap(), Exporter::start().unwrap());
        shed("reserve");
        for exporter in [first, second] {
            assert!(exporter.render().contains("cota_lane_shed_total{queue=\"reserve\"}"));
        }
    }

    #[test]
    fn names_follow_the_convention() {
        for metric in ALL {
            assert!(metric.name.starts_with("cota_"), "{}", metric.name);
            assert_eq!(metric.kind == Kind::Counter, metric.name.ends_with("_total"), "{}", metric.name);
            let time = metric.name.ends_with("_seconds");
            assert!(
                metric.kind != Kind::Histogram || time || metric.name == BATCH_OPERATIONS,
                "{}",
                metric.name
            );
        }
    }
}
