//! Tickets for the live stream: each opens it once, on whichever replica.
//!
//! Only their hashes lie here, so that whoever reads the table has no ticket.

use std::time::Duration;

use jiff::Timestamp;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{Store, StoreError};
use crate::quota::UserId;

/// Tickets of one user that are good at the same time; a further one takes the place of the oldest.
pub const MAX_TICKETS: i64 = 10;

impl Store {
    /// Keeps a ticket of the user by its hash; until when it is good, `None` when there is no such user.
    pub async fn issue_ticket(
        &self,
        user: UserId,
        hash: [u8; 32],
        good_for: Duration,
    ) -> Result<Option<Timestamp>, StoreError> {
        self.run(async |mut connection| issue(&mut connection, user, hash, good_for.as_secs_f64()).await)
            .await
    }

    /// Takes a ticket: whose it is, `None` when it was taken before, is no longer good or never was one.
    pub async fn redeem_ticket(&self, hash: [u8; 32]) -> Result<Option<UserId>, StoreError> {
        let user = self
            .run(async |mut connection| {
                sqlx::query_scalar!(
                    "WITH taken AS (DELETE FROM event_tickets WHERE hash = $1 RETURNING user_id, expires_at)
                     SELECT user_id FROM taken WHERE expires_at > now()",
                    &hash[..],
                )
                .fetch_optional(&mut *connection)
                .await
            })
            .await?;
        Ok(user.map(UserId))
    }

    /// Deletes tickets that nobody took in time; says how many.
    pub async fn forget_tickets(&self) -> Result<u64, StoreError> {
        let deleted = self
            .run(async |mut connection| {
                sqlx::query!("DELETE FROM event_tickets WHERE expires_at <= now()")
                    .execute(&mut *connection)
                    .await
            })
            .await?;
        Ok(deleted.rows_affected())
    }
}

async fn issue(
    connection: &mut PgConnection,
    user: UserId,
    hash: [u8; 32],
    seconds: f64,
) -> Result<Option<Timestamp>, StoreError> {
    let mut transaction = connection.begin().await?;
    // The lock is for the number, which holds however many ask at once.
    let locked = sqlx::query_scalar!("SELECT id FROM user_accounts WHERE id = $1 FOR NO KEY UPDATE", user.0)
        .fetch_optional(&mut *transaction)
        .await?;
    if locked.is_none() {
        return Ok(None);
    }
    make_room(&mut transaction, user.0).await?;
    let expires_at = sqlx::query_scalar!(
        r#"INSERT INTO event_tickets (hash, user_id, expires_at) VALUES ($1, $2, now() + make_interval(secs => $3))
         RETURNING expires_at AS "expires_at: jiff_sqlx::Timestamp""#,
        &hash[..],
        user.0,
        seconds,
    )
    .fetch_one(&mut *transaction)
    .await?;
    transaction.commit().await.map_err(StoreError::from_commit)?;
    Ok(Some(expires_at.to_jiff()))
}

async fn make_room(connection: &mut PgConnection, user: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "DELETE FROM event_tickets WHERE hash IN (
             SELECT hash FROM event_tickets WHERE user_id = $1 ORDER BY expires_at DESC OFFSET $2
         )",
        user,
        MAX_TICKETS - 1,
    )
    .execute(connection)
    .await?;
    Ok(())
}
