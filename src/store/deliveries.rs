//! The log of what was sent to an endpoint.

use jiff::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Store, StoreError};
use crate::quota::UserId;

/// A webhook and what has become of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub id: i64,
    pub event_id: i64,
    /// Of the event.
    pub kind: String,
    pub state: DeliveryState,
    /// Since it was queued, or since it was last sent again on request.
    pub attempts: u32,
    pub last_attempt_at: Option<Timestamp>,
    /// What the receiver answered last, if it did.
    pub last_status: Option<u16>,
    /// Why the last attempt was no success, in a few words.
    pub last_error: Option<String>,
    /// While it is pending.
    pub next_attempt_at: Option<Timestamp>,
    pub created_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryState {
    /// To be sent, or just being sent.
    Pending,
    Delivered,
    /// Given up.
    Failed,
}

impl DeliveryState {
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Failed];

    /// The word in SQL and API answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// What came of sending something again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resend {
    /// It is due now, as if it had never been tried; or it is just being sent.
    Queued(Delivery),
    /// Its endpoint is disabled; nothing was changed.
    Disabled,
    NotFound,
}

struct Row {
    id: i64,
    event_id: i64,
    kind: String,
    state: String,
    attempts: i32,
    last_attempt_at: Option<jiff_sqlx::Timestamp>,
    last_status: Option<i16>,
    last_error: Option<String>,
    next_attempt_at: jiff_sqlx::Timestamp,
    created_at: jiff_sqlx::Timestamp,
}

impl TryFrom<Row> for Delivery {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        let state = DeliveryState::from_name(&row.state)
            .ok_or_else(|| StoreError::corrupt(format_args!("state {:?} of a notification", row.state)))?;
        let next = (state == DeliveryState::Pending).then(|| row.next_attempt_at.to_jiff());
        Ok(Self {
            id: row.id,
            event_id: row.event_id,
            kind: row.kind,
            state,
            attempts: row.attempts.unsigned_abs(),
            last_attempt_at: row.last_attempt_at.map(jiff_sqlx::Timestamp::to_jiff),
            last_status: row.last_status.map(i16::cast_unsigned),
            last_error: row.last_error,
            next_attempt_at: next,
            created_at: row.created_at.to_jiff(),
        })
    }
}

impl Store {
    /// What was sent or is to be sent to an endpoint of the user, newest first, those before `before`, at most `limit`.
    /// `None` when the user has no such endpoint.
    pub async fn deliveries(
        &self,
        user: UserId,
        endpoint: Uuid,
        before: Option<i64>,
        state: Option<DeliveryState>,
        limit: u32,
    ) -> Result<Option<Vec<Delivery>>, StoreError> {
        let rows = self
            .run_as(user, async |mut connection| {
                let found = sqlx::query_scalar!(
                    "SELECT id FROM webhook_endpoints WHERE id = $1 AND user_id = $2",
                    endpoint,
                    user.0,
                )
                .fetch_optional(&mut *connection)
                .await?;
                match found {
                    Some(_) => page(&mut connection, endpoint, before, state, limit).await.map(Some),
                    None => Ok(None),
                }
            })
            .await?;
        rows.map(|rows| rows.into_iter().map(Delivery::try_from).collect()).transpose()
    }

    /// Queues a webhook again, whatever became of it and however long its endpoint was to rest. Its id for the receiver
    /// stays the same.
    pub async fn resend(&self, user: UserId, endpoint: Uuid, delivery: i64) -> Result<Resend, StoreError> {
        self.run(async |mut connection| resend(&mut connection, user, endpoint, delivery).await).await
    }
}

async fn page(
    connection: &mut PgConnection,
    endpoint: Uuid,
    before: Option<i64>,
    state: Option<DeliveryState>,
    limit: u32,
) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        "SELECT n.id, n.event_id, v.kind, n.state, n.attempts, n.last_attempt_at, n.last_status, n.last_error,
                n.next_attempt_at, n.created_at
         FROM notifications n JOIN user_events v ON v.id = n.event_id
         WHERE n.endpoint_id = $1 AND n.channel = 'webhook' AND n.id < $2 AND ($3::text IS NULL OR n.state = $3)
         ORDER BY n.id DESC LIMIT $4",
        endpoint,
        before.unwrap_or(i64::MAX),
        state.map(DeliveryState::as_str),
        i64::from(limit),
    )
    .fetch_all(connection)
    .await
}

async fn resend(
    connection: &mut PgConnection,
    user: UserId,
    endpoint: Uuid,
    delivery: i64,
) -> Result<Resend, StoreError> {
    let enabled = sqlx::query_scalar!(
        r#"SELECT e.disabled_at IS NULL AS "enabled!"
         FROM webhook_endpoints e JOIN notifications n ON n.endpoint_id = e.id
         WHERE e.id = $1 AND e.user_id = $2 AND n.id = $3"#,
        endpoint,
        user.0,
        delivery,
    )
    .fetch_optional(&mut *connection)
    .await?;
    match enabled {
        None => return Ok(Resend::NotFound),
        Some(false) => return Ok(Resend::Disabled),
        Some(true) => {}
    }
    // What is just being sent is left alone: its attempt is one more already.
    let row = sqlx::query_as!(
        Row,
        "UPDATE notifications n
         SET state = 'pending',
             attempts = CASE WHEN lease IS NOT NULL AND next_attempt_at > now() THEN attempts ELSE 0 END,
             next_attempt_at = CASE WHEN lease IS NOT NULL AND next_attempt_at > now() THEN next_attempt_at
                                    ELSE now() END,
             lease = CASE WHEN next_attempt_at > now() THEN lease END,
             finished_at = NULL
         FROM user_events v
         WHERE n.id = $1 AND n.endpoint_id = $2 AND v.id = n.event_id
         RETURNING n.id, n.event_id, v.kind, n.state, n.attempts, n.last_attempt_at, n.last_status, n.last_error,
                   n.next_attempt_at, n.created_at",
        delivery,
        endpoint,
    )
    .fetch_optional(connection)
    .await?;
    row.map_or(Ok(Resend::NotFound), |row| row.try_into().map(Resend::Queued))
}
