//! Who recovers a partition, and who does the work that one replica at a time does: session-level advisory locks.

use std::time::Duration;

use sqlx::{ConnectOptions, Connection, PgConnection};

use super::{Store, StoreError};
use crate::quota::PartitionId;

/// First key of the two-part advisory locks: "recovery of partition n".
const RECOVERY: i32 = 0x00C0_7A01;
/// "Task n".
const TASK: i32 = 0x00C0_7A02;

/// Work that one replica at a time does. Doing it twice at once would be wasted, not wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    Anomalies = 1,
    Reports = 2,
    Drift = 3,
    Backups = 4,
}

/// Held while one process recovers a partition or does a task.
///
/// It keeps others from wasted work and is not what makes that work safe: recovery has its epoch, which fences a holder
/// whose session the server has ended, and the tasks write what can be written once. The lock lives on a connection of its own, never in the pool, and dropping it
/// closes the socket: the server then ends the session, and the lock with it.
#[derive(Debug)]
pub struct SessionLock {
    connection: PgConnection,
    timeout: Duration,
}

impl SessionLock {
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
    pub async fn try_lock_recovery(&self, partition: PartitionId) -> Result<Option<SessionLock>, StoreError> {
        self.try_lock(RECOVERY, i32::from(partition.0)).await
    }

    /// Takes the lock if it is free; `None` when another process does this task.
    pub async fn try_lock_task(&self, task: Task) -> Result<Option<SessionLock>, StoreError> {
        self.try_lock(TASK, task as i32).await
    }

    async fn try_lock(&self, class: i32, key: i32) -> Result<Option<SessionLock>, StoreError> {
        let take = async {
            let mut connection = self.options.connect().await.map_err(StoreError::from_acquire)?;
            let taken = sqlx::query_scalar!(r#"SELECT pg_try_advisory_lock($1, $2) AS "taken!""#, class, key)
                .fetch_one(&mut connection)
                .await?;
            if taken {
                return Ok(Some(SessionLock { connection, timeout: self.call_timeout }));
            }
            connection.close().await?;
            Ok(None)
        };
        tokio::time::timeout(self.call_timeout, take)
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable("taking a lock timed out".into())))
    }
}
