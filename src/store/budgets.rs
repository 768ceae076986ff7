//! How an account gets to Redis: as versioned state, loaded once per epoch and synced on every change.
//!
//! # Why the spend of a load is right
//!
//! Redis counts the spend of an account in its budget, which it is handed here once per epoch: `spent` is what the
//! ledger has. Nothing may be missing in it that Redis counted before, and nothing may arrive in the ledger later
//! that is in it already or that Redis will not count.
//!
//! - A script spends only on a budget of the running epoch; without one the answer is COLD. So as long as an account
//!   is cold in an epoch, the outbox has no entry of that epoch for it, and no flush of that epoch can add to its
//!   row, neither before nor after the snapshot.
//! - Entries of older epochs are in the ledger or the dead letters before the epoch opens: recovery writes the
//!   witnesses' rings and drains the outbox under the new epoch, and every booking of an older epoch is fenced by
//!   the `partitions` row. The snapshot sees that row open in the epoch, so it sees those bookings too.
//! - Two replicas may load at once. The second is refused by Redis (the budget exists in this epoch), so that its
//!   `spent`, by then perhaps too old or already counted, has no effect.
//! - A load that crosses a recovery is refused by Redis as well: its epoch is over.
//!
//! `loaded_epoch` and `loaded_at` are committed *before* the state goes to Redis: an account that Postgres knows as
//! handed over and Redis does not have, still so after a while, was lost.

use std::time::Duration;

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{PartitionState, Store, StoreError, UserStatus, raw_ids, signed, unsigned};
use crate::quota::{PartitionId, UserId};

/// What Redis must know of an account besides its spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetState {
    pub user: UserId,
    /// Granted tokens.
    pub granted: u64,
    /// Redis takes a state only if this is newer than what it has.
    pub version: u64,
    pub policy_version: u64,
    pub suspended: bool,
}

/// An account on its way to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub state: BudgetState,
    /// Tokens spent, all of them in the ledger.
    pub spent: u64,
    /// How long ago it was handed to Redis in this epoch, if it was: then this `spent` must not go there. If Redis
    /// still does not have it after a while, it was lost.
    pub handed_over: Option<Duration>,
}

struct StateRow {
    id: Uuid,
    total_tokens: i64,
    version: i64,
    policy_version: i64,
    status: String,
}

impl TryFrom<StateRow> for BudgetState {
    type Error = StoreError;

    fn try_from(row: StateRow) -> Result<Self, StoreError> {
        Ok(Self {
            user: UserId(row.id),
            granted: unsigned(row.total_tokens)?,
            version: unsigned(row.version)?,
            policy_version: unsigned(row.policy_version)?,
            // A deleted account takes what is under way, and nothing new.
            suspended: row.status != UserStatus::Active.as_str(),
        })
    }
}

struct LoadRow {
    id: Uuid,
    total_tokens: i64,
    used_tokens: i64,
    version: i64,
    policy_version: i64,
    status: String,
    loaded_epoch: i64,
    loaded_for_seconds: Option<f64>,
}

impl LoadRow {
    fn loaded(self, epoch: u64) -> Result<Loaded, StoreError> {
        let spent = unsigned(self.used_tokens)?;
        // When it is not known, it was before that was noted.
        let age = self
            .loaded_for_seconds
            .map_or(Duration::MAX, |seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default());
        let handed_over = (unsigned(self.loaded_epoch)? >= epoch).then_some(age);
        let Self { id, total_tokens, version, policy_version, status, .. } = self;
        let state = StateRow { id, total_tokens, version, policy_version, status }.try_into()?;
        Ok(Loaded { state, spent, handed_over })
    }
}

impl Store {
    /// What Redis must know of one account, as it is now.
    pub async fn budget_state(&self, user: UserId) -> Result<Option<BudgetState>, StoreError> {
        self.run(async |mut connection| {
            sqlx::query_as!(
                StateRow,
                "SELECT id, total_tokens, version, policy_version, status FROM user_accounts WHERE id = $1",
                user.0,
            )
            .fetch_optional(&mut *connection)
            .await
        })
        .await?
        .map(BudgetState::try_from)
        .transpose()
    }

    /// Takes cold accounts for Redis and notes that they are handed over in `epoch`. `None` when the partition is not
    /// open in it; unknown users are left out.
    pub async fn load_cold(
        &self,
        partition: PartitionId,
        epoch: u64,
        users: &[UserId],
    ) -> Result<Option<Vec<Loaded>>, StoreError> {
        self.load(partition, epoch, PartitionState::Open, users).await
    }

    /// Takes the accounts that carried-over reservations hold, during the recovery of `epoch`. `None` when that
    /// recovery is over or another one runs; unknown users are left out.
    pub async fn load_for_recovery(
        &self,
        partition: PartitionId,
        epoch: u64,
        users: &[UserId],
    ) -> Result<Option<Vec<Loaded>>, StoreError> {
        self.load(partition, epoch, PartitionState::Recovering, users).await
    }

    async fn load(
        &self,
        partition: PartitionId,
        epoch: u64,
        state: PartitionState,
        users: &[UserId],
    ) -> Result<Option<Vec<Loaded>>, StoreError> {
        self.run(async |mut connection| load_many(&mut connection, partition, epoch, state, users).await)
            .await
    }

    /// Accounts whose state Redis is not known to have, at most `limit`.
    pub async fn unsynced(&self, limit: u32) -> Result<Vec<BudgetState>, StoreError> {
        let rows = self
            .run(async |mut connection| {
                sqlx::query_as!(
                    StateRow,
                    "SELECT id, total_tokens, version, policy_version, status
                     FROM user_accounts WHERE synced_version < version ORDER BY id LIMIT $1",
                    i64::from(limit),
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        rows.into_iter().map(BudgetState::try_from).collect()
    }

    /// Notes which versions Redis has. Never steps back, and never past the account's own version.
    pub async fn note_synced(&self, synced: &[(UserId, u64)]) -> Result<(), StoreError> {
        let users: Vec<Uuid> = synced.iter().map(|(user, _)| user.0).collect();
        let versions: Vec<i64> = synced.iter().map(|(_, version)| signed(*version)).collect();
        self.run(async |mut connection| {
            sqlx::query!(
                "WITH note AS (
                     SELECT a.id, n.version
                     FROM UNNEST($1::uuid[], $2::bigint[]) AS n (id, version) JOIN user_accounts a USING (id)
                     ORDER BY a.id FOR NO KEY UPDATE OF a
                 )
                 UPDATE user_accounts a
                 SET synced_version = greatest(a.synced_version, least(note.version, a.version))
                 FROM note WHERE a.id = note.id AND a.synced_version < note.version",
                &users,
                &versions,
            )
            .execute(&mut *connection)
            .await
        })
        .await?;
        Ok(())
    }

    /// Notes accounts as settled that Redis does not have and has not been given in the epoch named: a later load
    /// reads the present version by itself. The condition is judged under the row's lock, so a load that was given
    /// the account meanwhile is not overlooked. Says how many were noted.
    pub async fn note_cold(&self, cold: &[(UserId, u64, u64)]) -> Result<usize, StoreError> {
        if cold.is_empty() {
            return Ok(0);
        }
        let users: Vec<Uuid> = cold.iter().map(|(user, ..)| user.0).collect();
        let versions: Vec<i64> = cold.iter().map(|(_, version, _)| signed(*version)).collect();
        let epochs: Vec<i64> = cold.iter().map(|(.., epoch)| signed(*epoch)).collect();
        let done = self
            .run(async |mut connection| {
                sqlx::query!(
                    "WITH note AS (
                         SELECT a.id, n.version, n.epoch
                         FROM UNNEST($1::uuid[], $2::bigint[], $3::bigint[]) AS n (id, version, epoch)
                         JOIN user_accounts a USING (id)
                         ORDER BY a.id FOR NO KEY UPDATE OF a
                     )
                     UPDATE user_accounts a SET synced_version = note.version
                     FROM note
                     WHERE a.id = note.id AND a.version = note.version AND a.loaded_epoch < note.epoch",
                    &users,
                    &versions,
                    &epochs,
                )
                .execute(&mut *connection)
                .await
            })
            .await?;
        Ok(usize::try_from(done.rows_affected()).unwrap_or(usize::MAX))
    }
}

/// The partition's state is read before the accounts are: what was booked before it became so is in their rows. In a
/// recovery its row is held to the end, so that no other one begins meanwhile; an open one belongs to the flusher,
/// which does not wait, and Redis refuses a load whose epoch has ended since.
async fn load_many(
    connection: &mut PgConnection,
    partition: PartitionId,
    epoch: u64,
    state: PartitionState,
    users: &[UserId],
) -> Result<Option<Vec<Loaded>>, StoreError> {
    let mut transaction = connection.begin().await?;
    if !is_in(&mut transaction, partition, epoch, state).await? {
        return Ok(None);
    }
    let rows = sqlx::query_as!(
        LoadRow,
        r#"SELECT id, total_tokens, used_tokens, version, policy_version, status, loaded_epoch,
                  extract(epoch FROM now() - loaded_at)::float8 AS loaded_for_seconds
           FROM user_accounts WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE"#,
        &raw_ids(users),
    )
    .fetch_all(&mut *transaction)
    .await?;
    sqlx::query!(
        "UPDATE user_accounts SET loaded_epoch = $2, loaded_at = now() WHERE id = ANY($1) AND loaded_epoch < $2",
        &raw_ids(users),
        signed(epoch),
    )
    .execute(&mut *transaction)
    .await?;
    transaction.commit().await.map_err(StoreError::from_commit)?;
    rows.into_iter().map(|row| row.loaded(epoch)).collect::<Result<_, _>>().map(Some)
}

async fn is_in(
    connection: &mut PgConnection,
    partition: PartitionId,
    epoch: u64,
    state: PartitionState,
) -> Result<bool, sqlx::Error> {
    let (id, epoch) = (partition.0 as i16, signed(epoch));
    let found =
        match state {
            PartitionState::Open => {
                sqlx::query_scalar!(
                    "SELECT id FROM partitions WHERE id = $1 AND epoch = $2 AND state = 'open'",
                    id,
                    epoch
                )
                .fetch_optional(connection)
                .await?
            }
            PartitionState::Recovering => sqlx::query_scalar!(
                "SELECT id FROM partitions WHERE id = $1 AND epoch = $2 AND state = 'recovering' FOR SHARE",
                id,
                epoch
            )
            .fetch_optional(connection)
            .await?,
        };
    Ok(found.is_some())
}
