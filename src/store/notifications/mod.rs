//! The queue of notifications.
//!
//! An event becomes notifications in the SQL statement that marks it as fanned out, so it is fanned out once, whoever
//! does it and however often. A notification is sent by whoever took it on: that moves `next_attempt_at` to the end of a
//! lease and counts the attempt *before* anything is sent. Who dies on the way is followed by another when the lease
//! ends; who comes back too late finds another lease, and what it learned is not noted. So a notification is sent at
//! least once, and again only after an attempt whose end is not known; receivers tell by its id, which stays the same.
//!
//! **An endpoint that fails rests.** Its pause, which grows with its failures or is what it asked for, is written into
//! the rows that wait for it, so that what is due is always worth a try. A healthy endpoint is sent up to
//! [`HEALTHY_AT_ONCE`] at a time, a failing one a single one: nobody else waits for one that hangs.
//!
//! Locks: an account's row, then the endpoint, then notifications.

mod claim;
mod emails;
mod finish;

use std::time::Duration;

use super::{Store, StoreError, unsigned};

pub use claim::WebhookClaim;
pub use emails::{EmailClaim, EmailVerdict};
pub use finish::{Attempt, Verdict};

/// Notifications that are sent to one endpoint at a time, while none fails.
pub const HEALTHY_AT_ONCE: i64 = 4;

/// What waits in one place.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Backlog {
    pub pending: u64,
    /// How long the oldest has been due.
    pub overdue: Duration,
}

/// What waits in all.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Backlogs {
    /// Events whose notifications are not queued yet.
    pub events: Backlog,
    pub webhooks: Backlog,
    pub emails: Backlog,
}

/// Clocks that were set back make no negative time.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default()
}

impl Store {
    /// Queues the notifications of events that have none yet, at most `limit` of them; says how many events these
    /// were. E-mails are queued where some are sent. Several may do it at once.
    pub async fn fan_out(&self, limit: u32, emails: bool) -> Result<u64, StoreError> {
        let taken = self
            .run(async |mut connection| {
                // An endpoint that is being deleted just now is passed over, not waited for.
                sqlx::query_scalar!(
                    r#"WITH waiting AS (
                         SELECT id, user_id, kind FROM user_events WHERE fanned_out_at IS NULL
                         ORDER BY id LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
                     ), receivers AS (
                         SELECT w.id AS event_id, w.user_id, e.id AS endpoint_id,
                                greatest(now(), e.paused_until) AS due
                         FROM waiting w JOIN webhook_endpoints e ON e.user_id = w.user_id
                         WHERE e.disabled_at IS NULL AND (e.kinds IS NULL OR w.kind = ANY(e.kinds))
                           AND NOT EXISTS (SELECT 1 FROM notification_settings s
                                           WHERE s.user_id = w.user_id AND NOT s.webhooks_enabled)
                         FOR KEY SHARE OF e SKIP LOCKED
                     ), webhooks AS (
                         INSERT INTO notifications (event_id, user_id, channel, endpoint_id, next_attempt_at)
                         SELECT event_id, user_id, 'webhook', endpoint_id, due FROM receivers
                         ORDER BY event_id, endpoint_id
                         ON CONFLICT DO NOTHING
                     ), emails AS (
                         INSERT INTO notifications (event_id, user_id, channel)
                         SELECT w.id, w.user_id, 'email'
                         FROM waiting w LEFT JOIN notification_settings s ON s.user_id = w.user_id
                         WHERE $2 AND coalesce(s.email_enabled, true)
                           AND (s.email_kinds IS NULL OR w.kind = ANY(s.email_kinds))
                         ORDER BY w.id
                         ON CONFLICT DO NOTHING
                     ), marked AS (
                         UPDATE user_events v SET fanned_out_at = now() FROM waiting w WHERE v.id = w.id
                         RETURNING v.id
                     )
                     SELECT count(*) AS "count!" FROM marked"#,
                    i64::from(limit),
                    emails,
                )
                .fetch_one(&mut *connection)
                .await
            })
            .await?;
        unsigned(taken)
    }

    /// Ends what is due for endpoints that are disabled, at most `limit`; says how many.
    pub async fn fail_disabled_webhooks(&self, limit: u32) -> Result<u64, StoreError> {
        let failed = self
            .run(async |mut connection| {
                sqlx::query!(
                    "UPDATE notifications SET state = 'failed', lease = NULL, finished_at = now(),
                            last_error = 'the endpoint is disabled'
                     WHERE id IN (
                         SELECT n.id FROM notifications n JOIN webhook_endpoints e ON e.id = n.endpoint_id
                         WHERE n.channel = 'webhook' AND n.state = 'pending' AND n.next_attempt_at <= now()
                           AND e.disabled_at IS NOT NULL
                         LIMIT $1 FOR UPDATE OF n SKIP LOCKED
                     )",
                    i64::from(limit),
                )
                .execute(&mut *connection)
                .await
            })
            .await?;
        Ok(failed.rows_affected())
    }

    /// Deletes notifications that ended longer ago than `age`, at most `limit`; says how many.
    pub async fn forget_notifications(&self, age: Duration, limit: u32) -> Result<u64, StoreError> {
        let deleted = self
            .run(async |mut connection| {
                sqlx::query!(
                    "DELETE FROM notifications WHERE id IN (
                         SELECT id FROM notifications WHERE finished_at < now() - make_interval(secs => $1)
                         ORDER BY finished_at LIMIT $2 FOR UPDATE SKIP LOCKED
                     )",
                    age.as_secs_f64(),
                    i64::from(limit),
                )
                .execute(&mut *connection)
                .await
            })
            .await?;
        Ok(deleted.rows_affected())
    }

    /// How much waits, and for how long.
    pub async fn notification_backlogs(&self) -> Result<Backlogs, StoreError> {
        let row = self
            .run(async |mut connection| {
                sqlx::query!(
                    r#"SELECT
                         (SELECT count(*) FROM user_events WHERE fanned_out_at IS NULL) AS "events!",
                         (SELECT extract(epoch FROM now() - min(created_at))::float8 FROM user_events
                          WHERE fanned_out_at IS NULL) AS events_overdue,
                         (SELECT count(*) FROM notifications WHERE state = 'pending' AND channel = 'webhook')
                             AS "webhooks!",
                         (SELECT extract(epoch FROM now() - min(next_attempt_at))::float8 FROM notifications
                          WHERE state = 'pending' AND channel = 'webhook') AS webhooks_overdue,
                         (SELECT count(*) FROM notifications WHERE state = 'pending' AND channel = 'email')
                             AS "emails!",
                         (SELECT extract(epoch FROM now() - min(next_attempt_at))::float8 FROM notifications
                          WHERE state = 'pending' AND channel = 'email') AS emails_overdue"#
                )
                .fetch_one(&mut *connection)
                .await
            })
            .await?;
        let backlog = |pending: i64, overdue: Option<f64>| Backlog {
            pending: pending.unsigned_abs(),
            overdue: seconds(overdue.unwrap_or(0.0)),
        };
        Ok(Backlogs {
            events: backlog(row.events, row.events_overdue),
            webhooks: backlog(row.webhooks, row.webhooks_overdue),
            emails: backlog(row.emails, row.emails_overdue),
        })
    }
}
