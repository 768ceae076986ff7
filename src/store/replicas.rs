//! The running processes, and what each has seen of each partition.

use std::{collections::HashSet, time::Duration};

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{Store, StoreError, schema::newest_migration, signed};
use crate::quota::PartitionId;

/// One run of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplicaId(pub Uuid);

impl ReplicaId {
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl Store {
    /// Says that this process lives; the first call registers it.
    pub async fn heartbeat(&self, replica: ReplicaId) -> Result<(), StoreError> {
        self.run(async |mut connection| {
            sqlx::query!(
                "INSERT INTO replicas (id, schema_version) VALUES ($1, $2)
                 ON CONFLICT (id) DO UPDATE SET seen_at = now()",
                replica.0,
                newest_migration(),
            )
            .execute(&mut *connection)
            .await
        })
        .await?;
        Ok(())
    }

    /// How many processes seen within that time, by the clock of Postgres, know no sealed addresses.
    pub async fn replicas_without_seals(&self, within: Duration) -> Result<u64, StoreError> {
        let count = self
            .run(async |mut connection| {
                sqlx::query_scalar!(
                    r#"SELECT count(*) AS "n!" FROM replicas
                       WHERE schema_version IS NULL AND seen_at > now() - make_interval(secs => $1)"#,
                    within.as_secs_f64(),
                )
                .fetch_one(&mut *connection)
                .await
            })
            .await?;
        super::unsigned(count)
    }

    /// Processes seen within that time, by the clock of Postgres.
    pub async fn live_replicas(&self, within: Duration) -> Result<HashSet<ReplicaId>, StoreError> {
        let ids = self
            .run(async |mut connection| {
                sqlx::query_scalar!(
                    "SELECT id FROM replicas WHERE seen_at > now() - make_interval(secs => $1)",
                    within.as_secs_f64(),
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        Ok(ids.into_iter().map(ReplicaId).collect())
    }

    /// Notes which epoch a replica serves and the highest mutation count it has seen. Neither steps back. This is no
    /// witness report: that comes with the ring, through [`Store::book`]. The replica must be registered.
    pub async fn report(
        &self,
        replica: ReplicaId,
        partition: PartitionId,
        epoch: u64,
        high_water: u64,
    ) -> Result<(), StoreError> {
        self.run(async |mut connection| {
            report(&mut connection, replica, partition, epoch, high_water, 0).await
        })
        .await
    }

    /// The replicas whose whole ring is in the ledger under the recovery of `epoch`.
    pub async fn witness_reports(
        &self,
        partition: PartitionId,
        epoch: u64,
    ) -> Result<HashSet<ReplicaId>, StoreError> {
        let ids = self
            .run(async |mut connection| {
                sqlx::query_scalar!(
                    "SELECT replica_id FROM replica_reports WHERE partition = $1 AND ring_epoch = $2",
                    partition.0 as i16,
                    signed(epoch),
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        Ok(ids.into_iter().map(ReplicaId).collect())
    }

    /// Takes a process off the list, at the end of an orderly shutdown. What it has seen stays known.
    pub async fn retire_replica(&self, replica: ReplicaId) -> Result<(), StoreError> {
        self.run(async |mut connection| remove(&mut connection, &[replica.0]).await).await
    }

    /// Takes off the list all that were not seen for that time; says how many. What they have seen stays known.
    pub async fn remove_dead_replicas(&self, unseen_for: Duration) -> Result<u64, StoreError> {
        self.run(async |mut connection| {
            let dead = sqlx::query_scalar!(
                "SELECT id FROM replicas WHERE seen_at <= now() - make_interval(secs => $1) ORDER BY id",
                unseen_for.as_secs_f64(),
            )
            .fetch_all(&mut *connection)
            .await?;
            remove(&mut connection, &dead).await?;
            Ok::<_, StoreError>(dead.len() as u64)
        })
        .await
    }
}

/// Writes a report; `ring_epoch` 0 leaves the witness part alone.
pub(super) async fn report(
    connection: &mut PgConnection,
    replica: ReplicaId,
    partition: PartitionId,
    epoch: u64,
    high_water: u64,
    ring_epoch: u64,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO replica_reports AS r (replica_id, partition, epoch, high_water, ring_epoch)
         VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT (replica_id, partition) DO UPDATE
         SET epoch = greatest(r.epoch, excluded.epoch), high_water = greatest(r.high_water, excluded.high_water),
             ring_epoch = greatest(r.ring_epoch, excluded.ring_epoch), reported_at = now()",
        replica.0,
        partition.0 as i16,
        signed(epoch),
        signed(high_water),
        signed(ring_epoch),
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Removes replicas, after what they have reported is kept in the partitions' own rows.
async fn remove(connection: &mut PgConnection, replicas: &[Uuid]) -> Result<(), StoreError> {
    if replicas.is_empty() {
        return Ok(());
    }
    let mut transaction = connection.begin().await?;
    sqlx::query!(
        "WITH seen AS (
             SELECT p.id, s.high_water FROM partitions p
             JOIN (
                 SELECT partition, max(high_water) AS high_water
                 FROM replica_reports WHERE replica_id = ANY($1) GROUP BY partition
             ) s ON s.partition = p.id AND s.high_water > p.high_water
             ORDER BY p.id FOR NO KEY UPDATE OF p
         )
         UPDATE partitions p SET high_water = greatest(p.high_water, seen.high_water)
         FROM seen WHERE p.id = seen.id",
        replicas,
    )
    .execute(&mut *transaction)
    .await?;
    sqlx::query!("DELETE FROM replicas WHERE id = ANY($1)", replicas).execute(&mut *transaction).await?;
    transaction.commit().await.map_err(StoreError::from_commit)?;
    Ok(())
}
