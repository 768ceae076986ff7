//! Noting what came of an attempt, and what follows for its endpoint.

use std::time::Duration;

use serde_json::json;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::WebhookClaim;
use crate::{
    crypto::Keyring,
    quota::EventKind,
    store::{
        DisabledReason, Store, StoreError,
        audit::{Act, Action, record},
        events::{self, NewEvent},
    },
};

/// What came of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt<'a> {
    /// What the receiver answered, if it did.
    pub status: Option<u16>,
    /// A few words of ours, at most 255 bytes; nothing that the receiver sent.
    pub error: Option<&'a str>,
    pub verdict: Verdict,
}

/// What is to become of a notification after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Delivered,
    /// It failed; tried again `after` this, while the endpoint rests for `pause`.
    Retry {
        after: Duration,
        pause: Duration,
    },
    /// It failed for the last time; the endpoint rests for `pause`.
    Failed {
        pause: Duration,
    },
    /// It failed for the last time, and nothing is sent to the endpoint any more.
    Disable(DisabledReason),
}

impl Store {
    /// Notes what came of an attempt; false when it is no longer this one's to note: the lease ended and another took
    /// over, or the endpoint was deleted.
    pub async fn finish_webhook(
        &self,
        claim: &WebhookClaim,
        attempt: Attempt<'_>,
    ) -> Result<bool, StoreError> {
        self.run(async |mut connection| finish(&mut connection, &self.keyring, claim, attempt).await).await
    }
}

async fn finish(
    connection: &mut PgConnection,
    keyring: &Keyring,
    claim: &WebhookClaim,
    attempt: Attempt<'_>,
) -> Result<bool, StoreError> {
    let mut transaction = connection.begin().await?;
    let mut disabled = false;
    match attempt.verdict {
        Verdict::Delivered => recovered(&mut transaction, claim.endpoint).await?,
        Verdict::Retry { pause, .. } | Verdict::Failed { pause } => {
            rest(&mut transaction, claim.endpoint, pause).await?;
        }
        Verdict::Disable(reason) => disabled = disable(&mut transaction, claim, reason).await?,
    }
    if !note(&mut transaction, claim, attempt).await? {
        return Ok(false);
    }
    if let Verdict::Retry { .. } | Verdict::Failed { .. } = attempt.verdict {
        put_off(&mut transaction, claim.endpoint).await?;
    }
    if disabled {
        let data = json!({"what": "webhook.disabled", "webhook_id": claim.endpoint});
        let act = Act { action: Action::ConfigurationChanged, user: Some(claim.event.user), data };
        record(&mut transaction, keyring, act).await?;
    }
    transaction.commit().await.map_err(StoreError::from_commit)?;
    Ok(true)
}

async fn recovered(connection: &mut PgConnection, endpoint: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE webhook_endpoints SET failures = 0, failing_since = NULL, paused_until = NULL
         WHERE id = $1 AND failures > 0",
        endpoint,
    )
    .execute(connection)
    .await?;
    Ok(())
}

async fn rest(connection: &mut PgConnection, endpoint: Uuid, pause: Duration) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE webhook_endpoints
         SET failures = failures + 1, failing_since = coalesce(failing_since, now()),
             paused_until = greatest(paused_until, now() + make_interval(secs => $2))
         WHERE id = $1",
        endpoint,
        pause.as_secs_f64(),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// What waits for an endpoint waits at least as long as it rests.
async fn put_off(connection: &mut PgConnection, endpoint: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE notifications n SET next_attempt_at = e.paused_until FROM webhook_endpoints e
         WHERE e.id = $1 AND n.endpoint_id = e.id AND n.channel = 'webhook' AND n.state = 'pending'
           AND n.lease IS NULL AND n.next_attempt_at < e.paused_until",
        endpoint,
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// The user hears of it by other ways; of two that disable it at once, one tells, and hears that it did.
async fn disable(
    connection: &mut PgConnection,
    claim: &WebhookClaim,
    reason: DisabledReason,
) -> Result<bool, sqlx::Error> {
    // Events are written under the account's lock.
    sqlx::query_scalar!("SELECT id FROM user_accounts WHERE id = $1 FOR NO KEY UPDATE", claim.event.user.0)
        .fetch_optional(&mut *connection)
        .await?;
    let disabled = sqlx::query!(
        "UPDATE webhook_endpoints SET disabled_at = now(), disabled_reason = $2, version = version + 1,
                updated_at = now()
         WHERE id = $1 AND disabled_at IS NULL",
        claim.endpoint,
        reason.as_str(),
    )
    .execute(&mut *connection)
    .await?;
    if disabled.rows_affected() == 0 {
        return Ok(false);
    }
    let data = json!({"webhook_id": claim.endpoint, "reason": reason.as_str()});
    let event = NewEvent { user: claim.event.user, kind: EventKind::WebhookDisabled, data };
    events::append(connection, &[event]).await?;
    Ok(true)
}

/// Whether the attempt was still the one that counts.
async fn note(
    connection: &mut PgConnection,
    claim: &WebhookClaim,
    attempt: Attempt<'_>,
) -> Result<bool, sqlx::Error> {
    let (state, after) = match attempt.verdict {
        Verdict::Delivered => ("delivered", None),
        Verdict::Retry { after, .. } => ("pending", Some(after)),
        Verdict::Failed { .. } | Verdict::Disable(_) => ("failed", None),
    };
    let noted = sqlx::query!(
        "UPDATE notifications
         SET state = $3, lease = NULL, last_status = $4, last_error = $5,
             next_attempt_at = now() + make_interval(secs => $6),
             finished_at = CASE WHEN $3 = 'pending' THEN NULL ELSE now() END
         WHERE id = $1 AND lease = $2",
        claim.notification,
        claim.lease,
        state,
        attempt.status.map(u16::cast_signed),
        attempt.error,
        after.unwrap_or_default().as_secs_f64(),
    )
    .execute(connection)
    .await?;
    Ok(noted.rows_affected() == 1)
}
