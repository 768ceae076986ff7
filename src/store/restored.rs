//! Postgres that has gone back to an earlier state: restored from a backup, or failed over to a server that lagged.
//!
//! The mark stands in the row of each partition. Whoever notices sets it: [`Store::restored`] for a database just
//! restored; for a running service [`Store::note_gone_back`], the flusher before it books, and the beginning of every
//! recovery. It calls for a recovery, which holds every account against Redis (`ledger/restored.rs`) and clears it.

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{Store, StoreError, signed, unsigned};
use crate::quota::{PartitionId, UserId};

/// By how much versions jump: past all that were given out after the state that is back. Whoever has read one of those
/// (`If-Match`), or Redis, must not take it for the present one.
const VERSION_LEAP: i64 = 1_000_000;

/// Where an account stands in Postgres.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    pub user: UserId,
    pub granted: u64,
    pub used: u64,
}

impl Store {
    /// Prepares a database that was restored for its first start: every partition must recover, hold its accounts
    /// against Redis, and every version leaps. In one SQL transaction, without time-outs.
    pub async fn restored(&self) -> Result<(), StoreError> {
        let mut connection = self.owner_session().await?;
        let mut transaction = connection.begin().await?;
        sqlx::query!(
            "UPDATE partitions
             SET restored_at = now(), state = 'recovering', step = 0, run_id = NULL, updated_at = now()"
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query!(
            "UPDATE user_accounts SET version = version + $1, policy_version = policy_version + $1",
            VERSION_LEAP
        )
        .execute(&mut *transaction)
        .await?;
        sqlx::query!("UPDATE auto_renewals SET version = version + $1", VERSION_LEAP)
            .execute(&mut *transaction)
            .await?;
        sqlx::query!("UPDATE webhook_endpoints SET version = version + $1", VERSION_LEAP)
            .execute(&mut *transaction)
            .await?;
        sqlx::query!("UPDATE notification_settings SET version = version + $1", VERSION_LEAP)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await.map_err(StoreError::from_commit)?;
        Ok(connection.close().await?)
    }

    /// Notes that this partition is behind what Redis knows.
    pub async fn note_gone_back(&self, partition: PartitionId) -> Result<(), StoreError> {
        self.run(async |mut connection| mark(&mut connection, partition).await).await
    }

    /// The mark, if the partition's accounts are to be held against Redis.
    pub async fn restored_mark(&self, partition: PartitionId) -> Result<Option<String>, StoreError> {
        let mark = self
            .run(async |mut connection| {
                sqlx::query_scalar!(
                    "SELECT restored_at::text FROM partitions WHERE id = $1",
                    partition.0 as i16
                )
                .fetch_optional(&mut *connection)
                .await
            })
            .await?;
        Ok(mark.flatten())
    }

    /// Takes this very mark off, once what it asks for is done; a newer one stays.
    pub async fn clear_restored(&self, partition: PartitionId, mark: &str) -> Result<(), StoreError> {
        self.run(async |mut connection| {
            sqlx::query!(
                "UPDATE partitions SET restored_at = NULL WHERE id = $1 AND restored_at::text = $2",
                partition.0 as i16,
                mark,
            )
            .execute(&mut *connection)
            .await
        })
        .await?;
        Ok(())
    }

    /// Where accounts stand, by id, after `after`, at most `limit`.
    pub async fn standings(&self, after: UserId, limit: u32) -> Result<Vec<Standing>, StoreError> {
        let rows = self
            .run(async |mut connection| {
                sqlx::query!(
                    "SELECT id, total_tokens, used_tokens FROM user_accounts WHERE id > $1 ORDER BY id LIMIT $2",
                    after.0,
                    i64::from(limit),
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        let standing = |id: Uuid, granted, used| {
            Ok(Standing { user: UserId(id), granted: unsigned(granted)?, used: unsigned(used)? })
        };
        rows.into_iter().map(|row| standing(row.id, row.total_tokens, row.used_tokens)).collect()
    }

    /// What Redis counts as spent of an account in `epoch` although the ledger has refused it. A recovery buries without
    /// an epoch; since the mark was set that is of the present one.
    pub async fn refused_tokens(&self, user: UserId, epoch: u64) -> Result<i64, StoreError> {
        self.run(async |mut connection| {
            sqlx::query_scalar!(
                r#"SELECT coalesce(sum(d.tokens), 0)::bigint AS "tokens!"
                   FROM dead_letters d LEFT JOIN partitions p ON p.id = d.partition
                   WHERE d.user_id = $1
                         AND (d.spend_epoch = $2 OR (d.spend_epoch IS NULL AND d.created_at >= p.restored_at))"#,
                user.0,
                signed(epoch),
            )
            .fetch_one(&mut *connection)
            .await
        })
        .await
    }
}

/// See [`Store::note_gone_back`].
pub(super) async fn mark(connection: &mut PgConnection, partition: PartitionId) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE partitions SET restored_at = now(), updated_at = now() WHERE id = $1",
        partition.0 as i16
    )
    .execute(connection)
    .await?;
    Ok(())
}
