//! Who recovers a partition: a session-level advisory lock.

use std::time::Duration;

use sqlx::{ConnectOptions, Connection, PgConnection};

use super::{Store, StoreError};
use crate::quota::PartitionId;

/// First key of the two-part advisory locks: "recovery of partition n".
const LOCK_CLASS: i32 = 0x00C0_7A01;

/// Held while one process recovers a partition.
///
/// It keeps others from wasted work and is not what makes recovery safe: that is the epoch, which fences a holder
/// whose session the server has ended. The lock lives on a connection of its own, never in the pool, and dropping it
/// closes the socket: the server then ends the session, and the lock with it.
#[derive(Debug)]
pub struct RecoveryLock {
    connection: PgConnection,
    timeout: Duration,
}

impl RecoveryLock {
    /// Whether the session, and so the lock, is still there.
    pub async fn is_held(&mut self) -> bool {
        matches!(tokio::time::timeout(self.timeout, self.connection.ping()).await, Ok(Ok(())))
    }

    /// Gives the lock back and waits until the server has it; after an error the drop of the connection does.
    pub async fn release(self) {
        let _ = tokio::time::timeout(self.timeout, self.connection.close()).await;
    }
}

impl Store {
    /// Takes the lock if it is free; `None` when another process recovers this partition.
    pub async fn try_lock_recovery(
        &self,
        partition: PartitionId,
    ) -> Result<Option<RecoveryLock>, StoreError> {
        let take = async {
            let mut connection = self.options.connect().await.map_err(StoreError::from_acquire)?;
            let taken = sqlx::query_scalar!(
                r#"SELECT pg_try_advisory_lock($1, $2) AS "taken!""#,
                LOCK_CLASS,
                i32::from(partition.0),
            )
            .fetch_one(&mut connection)
            .await?;
            if taken {
                return Ok(Some(RecoveryLock { connection, timeout: self.call_timeout }));
            }
            connection.close().await?;
            Ok(None)
        };
        tokio::time::timeout(self.call_timeout, take)
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable("taking the recovery lock timed out".into())))
    }
}
