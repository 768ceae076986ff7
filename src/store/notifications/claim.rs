//! Taking webhooks on to send them.

use std::time::Duration;

use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{HEALTHY_AT_ONCE, seconds};
use crate::{
    crypto::{Keyring, OpenError},
    quota::{EventKind, UserId},
    store::{
        Event, Store, StoreError,
        webhooks::{previous_place, secret_place},
    },
};

/// Rows that are looked at for those that may be sent now.
const WINDOW: i64 = 1_000;

/// A webhook that was taken on to be sent.
#[derive(Clone)]
pub struct WebhookClaim {
    pub notification: i64,
    pub(super) lease: Uuid,
    /// Of the present turn, this one included.
    pub attempts: u32,
    pub event: Event,
    pub endpoint: Uuid,
    pub url: String,
    /// What it is signed with: the endpoint's secret, then the one before, while that goes on signing.
    pub secrets: Result<Vec<Vec<u8>>, OpenError>,
    /// Failures of the endpoint since its last success.
    pub failures: u32,
    /// For how long it has been failing.
    pub failing_for: Duration,
}

struct ClaimRow {
    id: i64,
    attempts: i32,
    event_id: i64,
    user_id: Uuid,
    kind: String,
    data: Value,
    event_created_at: jiff_sqlx::Timestamp,
    endpoint_id: Uuid,
    url: String,
    secret_sealed: Vec<u8>,
    previous_secret_sealed: Option<Vec<u8>>,
    failures: i32,
    failing_seconds: f64,
}

impl ClaimRow {
    fn claim(self, lease: Uuid, keyring: &Keyring) -> Result<WebhookClaim, StoreError> {
        let secrets = self.secrets(keyring);
        let kind = EventKind::from_name(&self.kind)
            .ok_or_else(|| StoreError::corrupt(format_args!("event kind {:?}", self.kind)))?;
        Ok(WebhookClaim {
            notification: self.id,
            lease,
            attempts: self.attempts.unsigned_abs(),
            event: Event {
                id: self.event_id,
                user: UserId(self.user_id),
                kind,
                data: self.data,
                created_at: self.event_created_at.to_jiff(),
            },
            endpoint: self.endpoint_id,
            url: self.url,
            secrets,
            failures: self.failures.unsigned_abs(),
            failing_for: seconds(self.failing_seconds),
        })
    }

    fn secrets(&self, keyring: &Keyring) -> Result<Vec<Vec<u8>>, OpenError> {
        let mut secrets = vec![keyring.open(secret_place(self.endpoint_id), &self.secret_sealed)?];
        if let Some(previous) = &self.previous_secret_sealed {
            secrets.push(keyring.open(previous_place(self.endpoint_id), previous)?);
        }
        Ok(secrets)
    }
}

impl Store {
    /// Takes on webhooks that are due, the longest overdue first, at most `limit`; nobody else has them while the
    /// `lease` lasts.
    pub async fn claim_webhooks(&self, limit: u32, lease: Duration) -> Result<Vec<WebhookClaim>, StoreError> {
        let id = Uuid::now_v7();
        let rows = self
            .run(async |mut connection| claim(&mut connection, limit, id, lease.as_secs_f64()).await)
            .await?;
        rows.into_iter().map(|row| row.claim(id, &self.keyring)).collect()
    }
}

async fn claim(
    connection: &mut PgConnection,
    limit: u32,
    lease: Uuid,
    lease_seconds: f64,
) -> Result<Vec<ClaimRow>, sqlx::Error> {
    // A kind that only a newer version knows is left to it.
    let kinds: Vec<String> = EventKind::ALL.iter().map(|kind| kind.as_str().to_owned()).collect();
    // What another one has taken on meanwhile is no longer due when its row is locked here, and is passed over.
    sqlx::query_as!(
        ClaimRow,
        r#"WITH due AS (
             SELECT id, event_id, endpoint_id, next_attempt_at FROM notifications
             WHERE channel = 'webhook' AND state = 'pending' AND next_attempt_at <= now()
             ORDER BY next_attempt_at LIMIT $3
         ), ranked AS (
             SELECT d.id, e.failures,
                    row_number() OVER (PARTITION BY e.id ORDER BY d.next_attempt_at, d.id)
                    + (SELECT count(*) FROM notifications o
                       WHERE o.endpoint_id = e.id AND o.lease IS NOT NULL AND o.next_attempt_at > now()) AS place
             FROM due d JOIN webhook_endpoints e ON e.id = d.endpoint_id JOIN user_events v ON v.id = d.event_id
             WHERE e.disabled_at IS NULL AND v.kind = ANY($6)
         ), chosen AS (
             SELECT n.id FROM notifications n JOIN ranked r ON r.id = n.id
             WHERE r.place <= CASE WHEN r.failures = 0 THEN $4::bigint ELSE 1 END
               AND n.state = 'pending' AND n.next_attempt_at <= now()
             ORDER BY n.next_attempt_at, n.id LIMIT $5 FOR UPDATE OF n SKIP LOCKED
         )
         UPDATE notifications n
         SET lease = $1, next_attempt_at = now() + make_interval(secs => $2), attempts = n.attempts + 1,
             last_attempt_at = now()
         FROM chosen c, webhook_endpoints e, user_events v
         WHERE n.id = c.id AND e.id = n.endpoint_id AND v.id = n.event_id
         RETURNING n.id, n.attempts, v.id AS event_id, n.user_id, v.kind, v.data, v.created_at AS event_created_at,
                   e.id AS endpoint_id, e.url, e.secret_sealed,
                   CASE WHEN e.previous_until > now() THEN e.previous_secret_sealed END AS previous_secret_sealed,
                   e.failures, coalesce(extract(epoch FROM now() - e.failing_since), 0)::float8 AS "failing_seconds!""#,
        lease,
        lease_seconds,
        WINDOW,
        HEALTHY_AT_ONCE,
        i64::from(limit),
        &kinds,
    )
    .fetch_all(connection)
    .await
}
