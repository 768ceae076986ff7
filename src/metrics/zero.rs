//! Counters that are there from the start, at zero: a rate sees the first event only if it has seen the time before.
//! And what is zero until somebody finds otherwise.

use super::*;

/// Metric, label and its values.
const LABELLED: [(&str, &str, &[&str]); 13] = [
    (DENIALS, "budget", &["balance"]),
    (LIMITED, "limiter", &["networks", "callers", "in_flight", "connections"]),
    (CERTIFICATES, "outcome", &["renewed", "refused"]),
    (SHED, "queue", &["share", "reserves", "urgent", "outbox"]),
    (SESSIONS, "outcome", &["opened", "refused"]),
    (REDIS_FAILURES, "call", &["apply", "outbox", "ack", "due", "load", "sync", "peek", "info", "command"]),
    (LOADS, "outcome", &["loaded", "lost"]),
    (PUSHES, "outcome", &["done", "absent", "failed"]),
    (RECOVERIES, "outcome", &["done", "failed"]),
    (CHECKPOINTS, "outcome", &["written", "failed"]),
    (BACKUPS, "outcome", &["written", "failed"]),
    (FLUSHED, "result", &["inserted", "replayed", "dead"]),
    (SPANS, "outcome", &["exported", "dropped", "failed"]),
];

const CHANNELS: [&str; 2] = ["webhook", "email"];
const ATTEMPTS: [&str; 4] = ["delivered", "retry", "failed", "disabled"];

/// Outcomes of operations that are errors of the service.
const ERRORS: [&str; 3] = ["unavailable", "unknown_outcome", "overloaded"];
const VERBS: [&str; 5] = ["reserve", "settle", "debit", "release", "extend"];

pub(super) fn start() {
    for (name, label, values) in LABELLED {
        for value in values {
            metrics::counter!(name, label => *value).increment(0);
        }
    }
    for (verb, outcome) in VERBS.into_iter().flat_map(|verb| ERRORS.map(|outcome| (verb, outcome))) {
        metrics::counter!(OPERATIONS, "verb" => verb, "outcome" => outcome).increment(0);
    }
    for (channel, outcome) in
        CHANNELS.into_iter().flat_map(|channel| ATTEMPTS.map(|outcome| (channel, outcome)))
    {
        metrics::counter!(NOTIFICATIONS, "channel" => channel, "outcome" => outcome).increment(0);
    }
    metrics::counter!(EXPIRED).increment(0);
    metrics::counter!(RESTORED_TOKENS).increment(0);
    for gauge in [RESTORED, BACKUP_AGE, BACKUP_INTERVAL] {
        metrics::gauge!(gauge).set(0.0);
    }
    metrics::counter!(FLUSH_FAILURES).increment(0);
    metrics::counter!(DRIFT_CHECKED).increment(0);
    // Most replicas never look.
    metrics::gauge!(DRIFT).set(0.0);
}
