//! Events of accounts: written with the change they tell of, read by notifications and the live stream.

use jiff::Timestamp;
use serde_json::Value;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Store, StoreError, raw_ids};
use crate::quota::{EventKind, UserId};

/// An event to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct NewEvent {
    pub user: UserId,
    pub kind: EventKind,
    /// A JSON object with the facts, at most 16 KiB; ids and numbers, never an address.
    pub data: Value,
}

/// An event as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Grows with every event of the user.
    pub id: i64,
    pub user: UserId,
    pub kind: EventKind,
    /// A JSON object with the facts.
    pub data: Value,
    pub created_at: Timestamp,
}

struct Row {
    id: i64,
    user_id: Uuid,
    kind: String,
    data: Value,
    created_at: jiff_sqlx::Timestamp,
}

impl TryFrom<Row> for Event {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: row.id,
            user: UserId(row.user_id),
            kind: EventKind::from_name(&row.kind)
                .ok_or_else(|| StoreError::corrupt(format_args!("event kind {:?}", row.kind)))?,
            data: row.data,
            created_at: row.created_at.to_jiff(),
        })
    }
}

impl Store {
    /// The id of each user's last event, 0 before the first. Unknown users are left out.
    pub async fn last_events(&self, users: &[UserId]) -> Result<Vec<(UserId, i64)>, StoreError> {
        let rows = self
            .run(async |mut connection| {
                // One look into the index per user, at its end.
                sqlx::query!(
                    r#"SELECT u.id, coalesce((SELECT max(e.id) FROM user_events e WHERE e.user_id = u.id), 0) AS "last!"
                     FROM user_accounts u WHERE u.id = ANY($1)"#,
                    &raw_ids(users),
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        Ok(rows.into_iter().map(|row| (UserId(row.id), row.last)).collect())
    }

    /// A user's events with ids above `after`, oldest first, at most `limit`.
    ///
    /// # Errors
    /// When Postgres cannot be asked, or holds a kind that this version does not know.
    pub async fn events_after(&self, user: UserId, after: i64, limit: u32) -> Result<Vec<Event>, StoreError> {
        let rows = self
            .run_as(user, async |mut connection| {
                sqlx::query_as!(
                    Row,
                    "SELECT id, user_id, kind, data, created_at
                     FROM user_events WHERE user_id = $1 AND id > $2 ORDER BY id LIMIT $3",
                    user.0,
                    after,
                    i64::from(limit),
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        rows.into_iter().map(Event::try_from).collect()
    }
}

/// Appends events, in their order, to the SQL transaction that made them happen.
///
/// The caller holds the rows of their accounts (`FOR NO KEY UPDATE`): so a smaller id of one user was committed first.
pub(super) async fn append(connection: &mut PgConnection, events: &[NewEvent]) -> Result<(), sqlx::Error> {
    if events.is_empty() {
        return Ok(());
    }
    let users: Vec<Uuid> = events.iter().map(|event| event.user.0).collect();
    let kinds: Vec<String> = events.iter().map(|event| event.kind.as_str().to_owned()).collect();
    let data: Vec<Value> = events.iter().map(|event| event.data.clone()).collect();
    sqlx::query!(
        "INSERT INTO user_events (user_id, kind, data)
         SELECT user_id, kind, data
         FROM UNNEST($1::uuid[], $2::text[], $3::jsonb[]) WITH ORDINALITY AS e (user_id, kind, data, position)
         ORDER BY position",
        &users,
        &kinds,
        &data,
    )
    .execute(connection)
    .await?;
    Ok(())
}
