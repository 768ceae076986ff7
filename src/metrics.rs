//! Metrics: each declared once, with its name, kind, labels and help; recorded through the functions here, so that a
//! label can only be one of a bounded set. Never an account, reservation or path as a label; the busiest users alone
//! have series of their own, on another page ([`render_users`]).

mod catalogue;
mod process;
mod recorder;
mod users;
mod zero;

use std::time::Duration;

use metrics::{Counter, Histogram};

use catalogue::*;
pub use catalogue::{ALL, Kind, Metric};
pub use recorder::Exporter;
use recorder::Handles;
pub use users::{PER_USER, UserRow, render_users};

pub fn operation(verb: &'static str, outcome: &'static str, took: Duration) {
    static COUNTERS: Handles<Counter> = Handles::new();
    static HISTOGRAMS: Handles<Histogram> = Handles::new();
    let counter = |verb, outcome| metrics::counter!(OPERATIONS, "verb" => verb, "outcome" => outcome);
    COUNTERS.record(verb, outcome, counter, |counter| counter.increment(1));
    let histogram = |verb, _| metrics::histogram!(OPERATION_SECONDS, "verb" => verb);
    HISTOGRAMS.record(verb, "", histogram, |histogram| histogram.record(took));
}

/// `budget` is a kind of budget, never the name of one.
pub fn denied(budget: &'static str) {
    static COUNTERS: Handles<Counter> = Handles::new();
    count(&COUNTERS, budget, |budget| metrics::counter!(DENIALS, "budget" => budget));
}

pub fn problem(code: &'static str) {
    static COUNTERS: Handles<Counter> = Handles::new();
    count(&COUNTERS, code, |code| metrics::counter!(PROBLEMS, "code" => code));
}

pub fn auth_refusal(reason: &'static str) {
    static COUNTERS: Handles<Counter> = Handles::new();
    count(&COUNTERS, reason, |reason| metrics::counter!(AUTH_REFUSALS, "reason" => reason));
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
    static COUNTERS: Handles<Counter> = Handles::new();
    count(&COUNTERS, limiter, |limiter| metrics::counter!(LIMITED, "limiter" => limiter));
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

pub fn backup(is_written: bool) {
    let outcome = if is_written { "written" } else { "failed" };
    metrics::counter!(BACKUPS, "outcome" => outcome).increment(1);
}

pub fn backup_age(age: Duration, interval: Duration) {
    metrics::gauge!(BACKUP_AGE).set(age.as_secs_f64());
    metrics::gauge!(BACKUP_INTERVAL).set(interval.as_secs_f64());
}

/// A recovery has made up for what Postgres had lost.
pub fn restored(tokens: u64) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    metrics::gauge!(RESTORED).set(now.as_secs_f64());
    metrics::counter!(RESTORED_TOKENS).increment(tokens);
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
    static COUNTERS: Handles<Counter> = Handles::new();
    count(&COUNTERS, queue, |queue| metrics::counter!(SHED, "queue" => queue));
}

/// How many wait in a lane's two queues, and how many operations are with Redis.
pub fn lane(lane: usize, urgent: usize, reserves: usize, in_flight: usize) {
    let lane = lane.to_string();
    for (queue, waiting) in [("urgent", urgent), ("reserves", reserves)] {
        metrics::gauge!(LANE_WAITING, "lane" => lane.clone(), "queue" => queue).set(waiting as f64);
    }
    metrics::gauge!(LANE_IN_FLIGHT, "lane" => lane).set(in_flight as f64);
}

pub fn lane_capacity(urgent: usize, reserves: usize) {
    metrics::gauge!(LANE_CAPACITY, "queue" => "urgent").set(urgent as f64);
    metrics::gauge!(LANE_CAPACITY, "queue" => "reserves").set(reserves as f64);
}

/// One round trip; `call` is a script's name, `load_scripts`, `info` or `command`.
pub fn redis_call(call: &'static str, succeeded: bool, took: Duration) {
    static HISTOGRAMS: Handles<Histogram> = Handles::new();
    static FAILURES: Handles<Counter> = Handles::new();
    let histogram = |call, _| metrics::histogram!(REDIS_SECONDS, "call" => call);
    HISTOGRAMS.record(call, "", histogram, |histogram| histogram.record(took));
    if !succeeded {
        count(&FAILURES, call, |call| metrics::counter!(REDIS_FAILURES, "call" => call));
    }
}

/// The last look at Redis: memory used and its limit in bytes, 0 for none; or that there was no answer.
pub fn redis_state(memory: Option<(u64, u64)>) {
    metrics::gauge!(REDIS_UP).set(if memory.is_some() { 1.0 } else { 0.0 });
    if let Some((used, limit)) = memory {
        metrics::gauge!(REDIS_MEMORY).set(used as f64);
        metrics::gauge!(REDIS_MEMORY_LIMIT).set(limit as f64);
    }
}

/// The last look at Postgres.
pub fn postgres_look(answered: bool, took: Duration) {
    metrics::gauge!(POSTGRES_UP).set(if answered { 1.0 } else { 0.0 });
    metrics::histogram!(POSTGRES_SECONDS).record(took);
}

/// Connections in use, idle and allowed; calls that wait for one.
pub fn postgres_pool(in_use: usize, idle: usize, limit: u32, waiting: usize) {
    metrics::gauge!(POSTGRES_CONNECTIONS, "state" => "in_use").set(in_use as f64);
    metrics::gauge!(POSTGRES_CONNECTIONS, "state" => "idle").set(idle as f64);
    metrics::gauge!(POSTGRES_LIMIT).set(f64::from(limit));
    metrics::gauge!(POSTGRES_WAITING).set(waiting as f64);
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

pub fn renewals(outcome: &'static str, count: u64) {
    metrics::counter!(RENEWALS, "outcome" => outcome).increment(count);
}

pub fn expired(reservations: u64) {
    metrics::counter!(EXPIRED).increment(reservations);
}

/// The longest time since an open partition was swept, and since what its sweep met first was due.
pub fn sweeper(age: Duration, overdue: Duration) {
    metrics::gauge!(SWEEP_AGE).set(age.as_secs_f64());
    metrics::gauge!(OVERDUE).set(overdue.as_secs_f64());
}

pub fn recovered(took: Duration) {
    metrics::counter!(RECOVERIES, "outcome" => "done").increment(1);
    metrics::histogram!(RECOVERY_SECONDS).record(took);
}

pub fn recovery_failed() {
    metrics::counter!(RECOVERIES, "outcome" => "failed").increment(1);
}

pub fn epoch(partition: u16, epoch: u64) {
    metrics::gauge!(EPOCH, "partition" => partition.to_string()).set(epoch as f64);
}

pub fn partitions(all: usize, open: usize) {
    metrics::gauge!(PARTITIONS).set(all as f64);
    metrics::gauge!(GATES_OPEN).set(open as f64);
}

/// Settles in all rings of this replica, and the share of its capacity that the fullest holds, 0 to 1.
pub fn witnessed(settles: usize, fullest: f64) {
    metrics::gauge!(WITNESSED).set(settles as f64);
    metrics::gauge!(WITNESS_FILL).set(fullest);
}

pub fn outbox_limits(soft: u64, hard: u64) {
    metrics::gauge!(OUTBOX_LIMIT, "limit" => "soft").set(soft as f64);
    metrics::gauge!(OUTBOX_LIMIT, "limit" => "hard").set(hard as f64);
}

pub fn outbox(partition: u16, depth: u64, age: Duration) {
    metrics::gauge!(OUTBOX_DEPTH, "partition" => partition.to_string()).set(depth as f64);
    metrics::gauge!(OUTBOX_AGE, "partition" => partition.to_string()).set(age.as_secs_f64());
}

pub fn flushed(inserted: usize, replayed: usize, dead: usize, took: Duration) {
    for (result, rows) in [("inserted", inserted), ("replayed", replayed), ("dead", dead)] {
        metrics::counter!(FLUSHED, "result" => result).increment(rows as u64);
    }
    metrics::histogram!(FLUSH_ROWS).record((inserted + replayed + dead) as f64);
    metrics::histogram!(FLUSH_SECONDS).record(took);
}

pub fn flush_failed() {
    metrics::counter!(FLUSH_FAILURES).increment(1);
}

/// Accounts that drift, as far as this replica knows.
pub fn drift(accounts: u64) {
    metrics::gauge!(DRIFT).set(accounts as f64);
}

pub fn drift_checked(accounts: usize) {
    metrics::counter!(DRIFT_CHECKED).increment(accounts as u64);
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

pub fn spans(outcome: &'static str, spans: usize) {
    metrics::counter!(SPANS, "outcome" => outcome).increment(spans as u64);
}

pub fn dead_letters(unresolved: u64) {
    metrics::gauge!(DEAD_LETTERS).set(unresolved as f64);
}

/// Adds one to the counter of this label.
fn count(counters: &Handles<Counter>, label: &'static str, make: impl FnOnce(&'static str) -> Counter) {
    counters.record(label, "", |label, _| make(label), |counter| counter.increment(1));
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
            // Those of the process have the names that everybody gives them; a counter here has no fractions.
            let is_ours = !metric.name.starts_with("process_");
            assert!(!is_ours || metric.name.starts_with("cota_"), "{}", metric.name);
            let is_counter = metric.kind == Kind::Counter || metric.name == CPU_SECONDS;
            assert_eq!(is_counter, metric.name.ends_with("_total"), "{}", metric.name);
            let has_buckets =
                metric.name.ends_with("_seconds") || [BATCH_OPERATIONS, FLUSH_ROWS].contains(&metric.name);
            assert!(metric.kind != Kind::Histogram || has_buckets, "{}", metric.name);
        }
    }
}
