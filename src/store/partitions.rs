//! The life of a partition: its epoch, its state, the server it was opened on, and the high water of its counters.
//!
//! A row changes hands by its epoch, the fence token: [`Store::begin_recovery`] gives each attempt an epoch of its
//! own, and every later step names it and does nothing once another attempt has begun. Steps only go up, so a
//! witness that comes after step 2 is told that it is too late. [`Store::open`] ends the attempt.

use sqlx::{Connection, PgConnection};

use super::{Store, StoreError, signed, unsigned};
use crate::quota::{PartitionId, Partitions};

/// How far above everything known a recovery starts counting: no lost answer can have gone that far.
const BASE_MARGIN: i64 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionState {
    Open,
    Recovering,
}

impl PartitionState {
    /// The word in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Recovering => "recovering",
        }
    }

    fn from_sql(word: &str) -> Result<Self, StoreError> {
        match word {
            "open" => Ok(Self::Open),
            "recovering" => Ok(Self::Recovering),
            other => Err(StoreError::corrupt(format_args!("partition state {other:?}"))),
        }
    }
}

/// A partition as Postgres has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionRow {
    pub id: PartitionId,
    /// 0 before the first recovery.
    pub epoch: u64,
    pub state: PartitionState,
    /// Of the recovery in that epoch, 0 … 7.
    pub step: u8,
    /// Of the Redis master it was last opened on.
    pub run_id: Option<String>,
    /// Highest count of mutations (`sq`) known.
    pub high_water: u64,
    /// Highest count of outbox entries (`oq`) known.
    pub outbox_high_water: u64,
    /// It was found in an earlier state than Redis has seen, and no recovery has made up for it yet.
    pub went_back: bool,
}

pub(super) struct RawPartition {
    pub id: i16,
    pub epoch: i64,
    pub state: String,
    pub step: i16,
    pub run_id: Option<String>,
    pub high_water: i64,
    pub outbox_high_water: i64,
    pub went_back: bool,
}

impl TryFrom<RawPartition> for PartitionRow {
    type Error = StoreError;

    fn try_from(row: RawPartition) -> Result<Self, StoreError> {
        let small = |value: i16| {
            u16::try_from(value).map_err(|_| StoreError::corrupt(format_args!("partition number {value}")))
        };
        Ok(Self {
            id: PartitionId(small(row.id)?),
            epoch: unsigned(row.epoch)?,
            state: PartitionState::from_sql(&row.state)?,
            step: u8::try_from(row.step)
                .map_err(|_| StoreError::corrupt(format_args!("recovery step {}", row.step)))?,
            run_id: row.run_id,
            high_water: unsigned(row.high_water)?,
            outbox_high_water: unsigned(row.outbox_high_water)?,
            went_back: row.went_back,
        })
    }
}

impl Store {
    /// Makes sure that there are partitions: `wanted` of them if there are none yet. The count in Postgres wins
    /// from then on, since it decides where every account lives.
    pub async fn ensure_partitions(&self, wanted: Partitions) -> Result<Partitions, StoreError> {
        let count = self.run(async |mut connection| ensure(&mut connection, wanted).await).await?;
        u16::try_from(count)
            .ok()
            .and_then(Partitions::new)
            .ok_or_else(|| StoreError::corrupt(format_args!("{count} partitions")))
    }

    /// All partitions, by id.
    pub async fn partitions(&self) -> Result<Vec<PartitionRow>, StoreError> {
        let rows = self
            .run(async |mut connection| {
                sqlx::query_as!(
                    RawPartition,
                    r#"SELECT id, epoch, state, step, run_id, high_water, outbox_high_water,
                              restored_at IS NOT NULL AS "went_back!"
                       FROM partitions ORDER BY id"#
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        rows.into_iter().map(PartitionRow::try_from).collect()
    }

    /// Step 0 of a recovery: closes the partition under a new epoch, above its own, `at_least_epoch` (what Redis
    /// has) and whatever a replica has reported. One that does not know of the outbox `acked_up_to` there is marked as
    /// gone back. `None` if there is no such partition.
    pub async fn begin_recovery(
        &self,
        partition: PartitionId,
        at_least_epoch: u64,
        acked_up_to: u64,
    ) -> Result<Option<u64>, StoreError> {
        self.run(async |mut connection| {
            sqlx::query_scalar!(
                "UPDATE partitions
                 SET epoch = greatest(
                         epoch, $2,
                         (SELECT max(greatest(r.epoch, r.ring_epoch)) FROM replica_reports r WHERE r.partition = $1)
                     ) + 1,
                     state = 'recovering', step = 0, updated_at = now(),
                     restored_at = CASE WHEN outbox_high_water < $3 THEN now() ELSE restored_at END
                 WHERE id = $1
                 RETURNING epoch",
                partition.0 as i16,
                signed(at_least_epoch),
                signed(acked_up_to),
            )
            .fetch_optional(&mut *connection)
            .await
        })
        .await?
        .map(unsigned)
        .transpose()
    }

    /// Goes on to `step`; false when this is not the recovery that runs, or it is there already.
    pub async fn advance(&self, partition: PartitionId, epoch: u64, step: u8) -> Result<bool, StoreError> {
        self.run(async |mut connection| {
            sqlx::query!(
                "UPDATE partitions SET step = $3, updated_at = now()
                 WHERE id = $1 AND epoch = $2 AND state = 'recovering' AND step < $3",
                partition.0 as i16,
                signed(epoch),
                i16::from(step),
            )
            .execute(&mut *connection)
            .await
        })
        .await
        .map(|done| done.rows_affected() == 1)
    }

    /// The count from which `sq` and `oq` go on: a million above everything known, the two given (what is left in
    /// Redis) included. Noted in the row, so that each call gives a higher one. `None` when this is not the recovery
    /// that runs.
    pub async fn set_base(
        &self,
        partition: PartitionId,
        epoch: u64,
        sequence: u64,
        outbox_sequence: u64,
    ) -> Result<Option<u64>, StoreError> {
        self.run(async |mut connection| {
            sqlx::query_scalar!(
                "WITH known AS (
                     SELECT greatest(
                         p.high_water, p.outbox_high_water, $3,
                         (SELECT max(r.high_water) FROM replica_reports r WHERE r.partition = p.id)
                     ) AS sequence
                     FROM partitions p WHERE p.id = $1 FOR NO KEY UPDATE
                 )
                 UPDATE partitions
                 SET high_water = known.sequence + $4, outbox_high_water = known.sequence + $4, updated_at = now()
                 FROM known
                 WHERE id = $1 AND epoch = $2 AND state = 'recovering'
                 RETURNING high_water",
                partition.0 as i16,
                signed(epoch),
                signed(sequence.max(outbox_sequence)),
                BASE_MARGIN,
            )
            .fetch_optional(&mut *connection)
            .await
        })
        .await?
        .map(unsigned)
        .transpose()
    }

    /// Ends the recovery: the partition is open on the server `run_id`. False when this is not the recovery that
    /// runs.
    pub async fn open(
        &self,
        partition: PartitionId,
        epoch: u64,
        run_id: &str,
        base: u64,
    ) -> Result<bool, StoreError> {
        self.run(async |mut connection| {
            sqlx::query!(
                "UPDATE partitions
                 SET state = 'open', step = 7, run_id = $3, updated_at = now(),
                     high_water = greatest(high_water, $4), outbox_high_water = greatest(outbox_high_water, $4)
                 WHERE id = $1 AND epoch = $2 AND state = 'recovering'",
                partition.0 as i16,
                signed(epoch),
                run_id,
                signed(base),
            )
            .execute(&mut *connection)
            .await
        })
        .await
        .map(|done| done.rows_affected() == 1)
    }
}

async fn ensure(connection: &mut PgConnection, wanted: Partitions) -> Result<i64, StoreError> {
    if let Some(count) = count(connection).await? {
        return Ok(count);
    }
    let mut transaction = connection.begin().await?;
    // Against two first starts with different wishes, whose rows would add up.
    sqlx::query!("LOCK TABLE partitions IN SHARE ROW EXCLUSIVE MODE").execute(&mut *transaction).await?;
    sqlx::query!(
        "INSERT INTO partitions (id)
         SELECT generate_series(0, $1::int - 1) WHERE NOT EXISTS (SELECT FROM partitions)",
        i32::from(wanted.count()),
    )
    .execute(&mut *transaction)
    .await?;
    let count = count(&mut transaction).await?;
    transaction.commit().await.map_err(StoreError::from_commit)?;
    count.ok_or(StoreError::Corrupt("partitions that were just made are gone".into()))
}

/// How many partitions there are, if any; their numbers must have no gap.
async fn count(connection: &mut PgConnection) -> Result<Option<i64>, StoreError> {
    let row = sqlx::query!(r#"SELECT count(*) AS "count!", max(id) AS highest FROM partitions"#)
        .fetch_one(connection)
        .await?;
    match row.highest {
        None => Ok(None),
        Some(highest) if i64::from(highest) + 1 == row.count => Ok(Some(row.count)),
        Some(_) => Err(StoreError::corrupt("the partitions are not numbered without a gap")),
    }
}
