//! E-mails of the queue.

use std::time::Duration;

use uuid::Uuid;

use crate::{
    quota::{EventKind, UserId},
    store::{Event, Store, StoreError},
};

/// An e-mail that was taken on to be sent.
#[derive(Clone, Debug)]
pub struct EmailClaim {
    pub notification: i64,
    pub(super) lease: Uuid,
    /// This one included.
    pub attempts: u32,
    pub event: Event,
}

/// What is to become of an e-mail after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmailVerdict {
    Delivered,
    /// Tried again after this.
    Retry(Duration),
    Failed,
}

struct Row {
    id: i64,
    attempts: i32,
    event_id: i64,
    user_id: Uuid,
    kind: String,
    data: serde_json::Value,
    created_at: jiff_sqlx::Timestamp,
}

impl Row {
    fn claim(self, lease: Uuid) -> Result<EmailClaim, StoreError> {
        let kind = EventKind::from_name(&self.kind)
            .ok_or_else(|| StoreError::corrupt(format_args!("event kind {:?}", self.kind)))?;
        Ok(EmailClaim {
            notification: self.id,
            lease,
            attempts: self.attempts.unsigned_abs(),
            event: Event {
                id: self.event_id,
                user: UserId(self.user_id),
                kind,
                data: self.data,
                created_at: self.created_at.to_jiff(),
            },
        })
    }
}

impl Store {
    /// Takes on e-mails that are due, the longest overdue first, at most `limit`; nobody else has them while the `lease`
    /// lasts.
    pub async fn claim_emails(&self, limit: u32, lease: Duration) -> Result<Vec<EmailClaim>, StoreError> {
        let id = Uuid::now_v7();
        // A kind that only a newer version knows is left to it.
        let kinds: Vec<String> = EventKind::ALL.iter().map(|kind| kind.as_str().to_owned()).collect();
        let rows = self
            .run(async |mut connection| {
                sqlx::query_as!(
                    Row,
                    "WITH chosen AS (
                         SELECT n.id FROM notifications n JOIN user_events v ON v.id = n.event_id
                         WHERE n.channel = 'email' AND n.state = 'pending' AND n.next_attempt_at <= now()
                           AND v.kind = ANY($4)
                         ORDER BY n.next_attempt_at LIMIT $3 FOR UPDATE OF n SKIP LOCKED
                     )
                     UPDATE notifications n
                     SET lease = $1, next_attempt_at = now() + make_interval(secs => $2), attempts = n.attempts + 1,
                         last_attempt_at = now()
                     FROM chosen c, user_events v WHERE n.id = c.id AND v.id = n.event_id
                     RETURNING n.id, n.attempts, v.id AS event_id, n.user_id, v.kind, v.data, v.created_at",
                    id,
                    lease.as_secs_f64(),
                    i64::from(limit),
                    &kinds,
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        rows.into_iter().map(|row| row.claim(id)).collect()
    }

    /// Notes what came of an attempt: the mail server's code, if it said something, and why it was no success in a few
    /// words of ours, at most 255 bytes. False when the lease ended and another took over.
    pub async fn finish_email(
        &self,
        claim: &EmailClaim,
        status: Option<u16>,
        error: Option<&str>,
        verdict: EmailVerdict,
    ) -> Result<bool, StoreError> {
        let (state, after) = match verdict {
            EmailVerdict::Delivered => ("delivered", Duration::ZERO),
            EmailVerdict::Retry(after) => ("pending", after),
            EmailVerdict::Failed => ("failed", Duration::ZERO),
        };
        let noted = self
            .run(async |mut connection| {
                sqlx::query!(
                    "UPDATE notifications
                     SET state = $3, lease = NULL, last_status = $4, last_error = $5,
                         next_attempt_at = now() + make_interval(secs => $6),
                         finished_at = CASE WHEN $3 = 'pending' THEN NULL ELSE now() END
                     WHERE id = $1 AND lease = $2",
                    claim.notification,
                    claim.lease,
                    state,
                    status.map(u16::cast_signed),
                    error,
                    after.as_secs_f64(),
                )
                .execute(&mut *connection)
                .await
            })
            .await?;
        Ok(noted.rows_affected() == 1)
    }
}
