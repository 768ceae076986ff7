//! Metrics: each declared once, with its name, kind, labels and help; recorded through the functions here, so that a
//! label can only be one of a bounded set. Never an account, reservation or path as a label; the busiest users alone
//! have series of their own, on another page ([`render_users`]).

mod process;
mod recorder;
mod users;
mod zero;

use std::time::Duration;

use metrics::{Counter, Histogram};

pub use recorder::Exporter;
use recorder::Handles;
pub use users::{PER_USER, UserRow, render_users};

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
    Counter DENIALS "cota_denials_total" ["budget"] "Budgets that were short when a reserve or extend was denied, by kind.";
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
    Gauge LANE_WAITING "cota_lane_waiting_jobs" ["lane", "queue"] "Operations and chains that wait in a lane's queue.";
    Gauge LANE_CAPACITY "cota_lane_capacity_jobs" ["queue"] "As many may wait in each lane.";
    Gauge LANE_IN_FLIGHT "cota_lane_in_flight_operations" ["lane"] "Operations of the batch that is with Redis.";
    Counter SHED "cota_lane_shed_total" ["queue"] "Operations refused because a queue, a share or the outbox was full.";
    Counter SESSIONS "cota_redis_sessions_total" ["outcome"] "Connections made to Redis.";
    Gauge REDIS_UP "cota_redis_up" [] "1 when Redis answered the last look as a server the ledger may use, else 0.";
    Histogram REDIS_SECONDS "cota_redis_call_seconds" ["call"] "Round trips to Redis, by script; load_scripts, info and command for the others.";
    Counter REDIS_FAILURES "cota_redis_failures_total" ["call"] "Calls to Redis without an answer, or refused by it.";
    Gauge REDIS_MEMORY "cota_redis_memory_bytes" [] "Memory that Redis uses.";
    Gauge REDIS_MEMORY_LIMIT "cota_redis_memory_limit_bytes" [] "Memory that Redis may use; 0 without a limit.";
    Gauge POSTGRES_UP "cota_postgres_up" [] "1 when Postgres answered the last look, else 0.";
    Histogram POSTGRES_SECONDS "cota_postgres_look_seconds" [] "A look at the partitions in Postgres, from the wait for a connection to the answer.";
    Gauge POSTGRES_CONNECTIONS "cota_postgres_connections" ["state"] "Connections of the pool: in_use or idle.";
    Gauge POSTGRES_LIMIT "cota_postgres_connections_limit" [] "Connections the pool may have.";
    Gauge POSTGRES_WAITING "cota_postgres_waiting_calls" [] "Calls that wait for a connection of the pool.";
    Counter LOADS "cota_cold_loads_total" ["outcome"] "Cold accounts given to Redis.";
    Counter PUSHES "cota_grant_pushes_total" ["outcome"] "Pushes of an account's granted state to Redis.";
    Counter RENEWALS "cota_renewals_total" ["outcome"] "Renewals of users' tokens: granted at once, requested, capped (the month has none left), or failed.";
    Counter EXPIRED "cota_expired_total" [] "Reservations the sweeper expired.";
    Gauge SWEEP_AGE "cota_sweep_age_seconds" [] "Time since the open partition whose sweep is longest ago was swept.";
    Gauge OVERDUE "cota_overdue_seconds" [] "Time since the oldest reservation that the last sweeps met was due; 0 when none was.";
    Counter RECOVERIES "cota_recoveries_total" ["outcome"] "Recoveries of a partition.";
    Histogram RECOVERY_SECONDS "cota_recovery_seconds" [] "Recoveries that were done, from the new epoch to the open gate.";
    Gauge EPOCH "cota_partition_epoch" ["partition"] "Epoch of the partition as this replica knows it; one more with each recovery.";
    Gauge PARTITIONS "cota_partitions" [] "Partitions there are.";
    Gauge GATES_OPEN "cota_partitions_open" [] "Partitions this replica serves.";
    Gauge WITNESSED "cota_witnessed_settles" [] "Acked settles Postgres is not known to have.";
    Gauge WITNESS_FILL "cota_witness_fill_ratio" [] "Share of its capacity that the fullest witness ring of this replica holds.";
    Gauge OUTBOX_LIMIT "cota_outbox_limit_entries" ["limit"] "Entries of an outbox at which reserves (soft) and settles (hard) are refused.";
    Gauge OUTBOX_DEPTH "cota_outbox_entries" ["partition"] "Entries in the outbox at the last reading.";
    Gauge OUTBOX_AGE "cota_outbox_age_seconds" ["partition"] "Age of the oldest entry at the last reading.";
    Counter FLUSHED "cota_flushed_rows_total" ["result"] "Outbox entries booked: inserted, replayed, or dead letters.";
    Histogram FLUSH_ROWS "cota_flush_rows" [] "Outbox entries of one flush.";
    Gauge DEAD_LETTERS "cota_dead_letters_unresolved" [] "Dead letters that wait for somebody.";
    Histogram FLUSH_SECONDS "cota_flush_seconds" [] "One flush: read, book, ack.";
    Counter FLUSH_FAILURES "cota_flush_failures_total" [] "Flushes that failed and are repeated.";
    Gauge DRIFT "cota_drift_accounts" [] "Accounts whose used tokens are not the sum of what was booked, as the replica that looks has found; 0 for the others.";
    Counter DRIFT_CHECKED "cota_drift_checked_total" [] "Accounts that were looked at for drift.";
    Counter CHECKPOINTS "cota_audit_checkpoints_total" ["outcome"] "Checkpoints of the audit log: written, or failed.";
    Counter BACKUPS "cota_backups_total" ["outcome"] "Backups of Postgres: written and verified, or failed.";
    Gauge BACKUP_AGE "cota_backup_age_seconds" [] "Age of the newest backup in backup.directory, else since this replica began to look; 0 without backups.";
    Gauge BACKUP_INTERVAL "cota_backup_interval_seconds" [] "What that age is to stay below; 0 without backups.";
    Gauge RESTORED "cota_postgres_went_back_timestamp_seconds" [] "When a recovery of this replica last found Postgres in an earlier state, in Unix time; 0 for never.";
    Counter RESTORED_TOKENS "cota_restored_tokens_total" [] "Tokens that Redis knew to be spent and Postgres had lost, and that were booked anew.";
    Counter ANOMALIES "cota_anomalies_total" [] "Hours flagged in which a user used more than is ordinary for it.";
    Counter MONTHS_TOLD "cota_monthly_reports_total" [] "Monthly reports of users that were written.";
    Histogram NOTIFICATION_SECONDS "cota_notification_attempt_seconds" ["channel"] "One attempt at a notification, up to its receiver's answer.";
    Counter NOTIFICATIONS "cota_notification_attempts_total" ["channel", "outcome"] "Attempts at notifications: delivered, retry, failed for good, or disabled with their endpoint.";
    Gauge NOTIFICATION_BACKLOG "cota_notifications_pending" ["queue"] "Events whose notifications are not queued yet (events), and notifications to be sent.";
    Gauge NOTIFICATION_OVERDUE "cota_notifications_overdue_seconds" ["queue"] "How long the oldest in the queue has been due.";
    Gauge LIVE_STREAMS "cota_live_streams" [] "Live streams of balances and events that are open.";
    Counter SPANS "cota_trace_spans_total" ["outcome"] "Finished spans of traces: exported, dropped because too many waited for the collector, or failed when it did not take them.";
    Gauge CPU_SECONDS "process_cpu_seconds_total" [] "CPU time that the process has used.";
    Gauge RESIDENT_MEMORY "process_resident_memory_bytes" [] "Memory of the process.";
    Gauge OPEN_FILES "process_open_fds" [] "Files and sockets it has open.";
    Gauge MAX_FILES "process_max_fds" [] "As many it may have open.";
    Gauge THREADS "process_threads" [] "Its threads.";
    Gauge START_TIME "process_start_time_seconds" [] "When it started, in Unix time.";
    Gauge BUILD "cota_build_info" ["version"] "Always 1; the version that runs.";
}

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
