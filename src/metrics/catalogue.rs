//! Every metric there is, in the order of `docs/METRICS.md`.

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
        $(pub(super) const $const: &str = $name;)+

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
    Gauge LANE_IN_FLIGHT "cota_lane_in_flight_operations" ["lane"] "Operations of the batches that are with Redis.";
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
    Histogram FLUSH_SECONDS "cota_flush_seconds" [] "One page of the outbox: read, booked, acked.";
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
