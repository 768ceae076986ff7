//! Reading the ledger.

use std::collections::HashSet;

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    PartitionRow, Store, StoreError,
    booking::{find_buried, outbox_ids, reservations},
    partitions::RawPartition,
    unsigned,
};
use crate::quota::{Flags, Kind, Model, OutboxId, PartitionId, ReservationId, UserId, transaction_id};

/// A row of the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerRow {
    pub user: UserId,
    pub reservation: ReservationId,
    pub kind: Kind,
    /// Negative only in a correction.
    pub tokens: i64,
    pub flags: Flags,
    pub model: Option<Model>,
    /// By the clock of Redis.
    pub at: Timestamp,
    pub outbox_id: OutboxId,
}

/// An account whose used tokens are not the sum of its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drift {
    pub user: UserId,
    pub used_tokens: u64,
    /// Σ of its rows.
    pub booked_tokens: i64,
}

struct RawRow {
    user_id: Uuid,
    reservation_id: String,
    kind: String,
    tokens_used: i64,
    flags: i16,
    model_used: Option<String>,
    timestamp: jiff_sqlx::Timestamp,
    outbox_sequence: i64,
    outbox_nonce: i64,
}

impl TryFrom<RawRow> for LedgerRow {
    type Error = StoreError;

    fn try_from(row: RawRow) -> Result<Self, StoreError> {
        let name = &row.reservation_id;
        Ok(Self {
            user: UserId(row.user_id),
            reservation: ReservationId::new(name)
                .map_err(|error| StoreError::corrupt(format_args!("reservation id {name:?}: {error}")))?,
            kind: Kind::from_name(&row.kind)
                .ok_or_else(|| StoreError::corrupt(format_args!("transaction kind {:?}", row.kind)))?,
            tokens: row.tokens_used,
            flags: u8::try_from(row.flags)
                .map(Flags)
                .map_err(|_| StoreError::corrupt(format_args!("flags {}", row.flags)))?,
            model: row
                .model_used
                .map(|model| {
                    Model::new(&model)
                        .map_err(|error| StoreError::corrupt(format_args!("model {model:?}: {error}")))
                })
                .transpose()?,
            at: row.timestamp.to_jiff(),
            outbox_id: OutboxId {
                sequence: unsigned(row.outbox_sequence)?,
                nonce: unsigned(row.outbox_nonce)?,
            },
        })
    }
}

impl Store {
    /// What the ledger has of one reservation, and the partition as it is in the same snapshot: an answer drawn from
    /// the rows holds only if the partition is open in the epoch and on the server that the caller believes in.
    /// `None` if there is no such partition.
    pub async fn transactions_of(
        &self,
        partition: PartitionId,
        user: UserId,
        reservation: &ReservationId,
    ) -> Result<Option<(Vec<LedgerRow>, PartitionRow)>, StoreError> {
        // One statement is one snapshot.
        let joined = self
            .run_as(user, async |mut connection| {
                sqlx::query!(
                    r#"SELECT p.id, p.epoch, p.state, p.step, p.run_id, p.high_water, p.outbox_high_water,
                              p.restored_at IS NOT NULL AS "went_back!",
                              t.user_id AS "user_id?", t.reservation_id AS "reservation_id?", t.kind AS "kind?",
                              t.tokens_used AS "tokens_used?", t.flags AS "flags?", t.model_used,
                              t."timestamp" AS "timestamp?", t.outbox_sequence AS "outbox_sequence?",
                              t.outbox_nonce AS "outbox_nonce?"
                       FROM partitions p
                       LEFT JOIN token_transactions t ON t.user_id = $2 AND t.reservation_id = $3
                       WHERE p.id = $1"#,
                    partition.0 as i16,
                    user.0,
                    reservation.as_str(),
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        let mut rows = Vec::new();
        let mut found = None;
        for row in joined {
            if let (Some(user_id), Some(reservation_id), Some(kind)) =
                (row.user_id, row.reservation_id, row.kind)
                && let (Some(tokens_used), Some(flags)) = (row.tokens_used, row.flags)
                && let (Some(timestamp), Some(outbox_sequence)) = (row.timestamp, row.outbox_sequence)
                && let Some(outbox_nonce) = row.outbox_nonce
            {
                let model_used = row.model_used;
                rows.push(
                    RawRow {
                        user_id,
                        reservation_id,
                        kind,
                        tokens_used,
                        flags,
                        model_used,
                        timestamp,
                        outbox_sequence,
                        outbox_nonce,
                    }
                    .try_into()?,
                );
            }
            found = Some(RawPartition {
                id: row.id,
                epoch: row.epoch,
                state: row.state,
                step: row.step,
                run_id: row.run_id,
                high_water: row.high_water,
                outbox_high_water: row.outbox_high_water,
                went_back: row.went_back,
            });
        }
        Ok(found.map(PartitionRow::try_from).transpose()?.map(|partition| (rows, partition)))
    }

    /// What the ledger has of many reservations, in no order. For recovery, which marks those in Redis.
    pub async fn rows_of_many(
        &self,
        wanted: &[(UserId, ReservationId)],
    ) -> Result<Vec<LedgerRow>, StoreError> {
        let (users, ids) = reservations(wanted.iter().map(|(user, id)| (*user, id.as_str())));
        let rows = self
            .run(async |mut connection| {
                sqlx::query_as!(
                    RawRow,
                    r#"SELECT t.user_id, t.reservation_id, t.kind, t.tokens_used, t.flags, t.model_used, t."timestamp",
                              t.outbox_sequence, t.outbox_nonce
                       FROM UNNEST($1::uuid[], $2::text[]) AS e (user_id, reservation_id)
                       CROSS JOIN LATERAL (
                           SELECT * FROM token_transactions
                           WHERE user_id = e.user_id AND reservation_id = e.reservation_id
                           LIMIT 4
                       ) t"#,
                    &users,
                    &ids as &[&str],
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        rows.into_iter().map(LedgerRow::try_from).collect()
    }

    /// Which of these outbox ids have arrived: in the ledger, in their own kind or converted to a correction, or in
    /// the dead letters. A witness may forget them.
    pub async fn booked(
        &self,
        partition: PartitionId,
        wanted: &[(UserId, ReservationId, Kind, OutboxId)],
    ) -> Result<Vec<OutboxId>, StoreError> {
        let mut ids = Vec::with_capacity(wanted.len() * 2);
        for (user, reservation, kind, _) in wanted {
            ids.push(transaction_id(*user, reservation, *kind));
            if matches!(kind, Kind::Settle | Kind::Debit) {
                ids.push(transaction_id(*user, reservation, Kind::Correction));
            }
        }
        let (sequences, nonces) = outbox_ids(wanted.iter().map(|(.., id)| *id));
        let arrived: HashSet<OutboxId> = self
            .run(async |mut connection| {
                let rows = sqlx::query!(
                    "SELECT outbox_sequence, outbox_nonce FROM token_transactions WHERE id = ANY($1)",
                    &ids,
                )
                .fetch_all(&mut *connection)
                .await?;
                let mut arrived = find_buried(&mut connection, partition, &sequences, &nonces).await?;
                arrived.extend(rows.into_iter().map(|row| OutboxId {
                    sequence: row.outbox_sequence.cast_unsigned(),
                    nonce: row.outbox_nonce.cast_unsigned(),
                }));
                Ok::<_, sqlx::Error>(arrived)
            })
            .await?;
        Ok(wanted.iter().map(|(.., id)| *id).filter(|id| arrived.contains(id)).collect())
    }

    /// Accounts whose used tokens are not the sum of their rows: always none, or the ledger is broken. Reads the whole
    /// ledger.
    pub async fn drift(&self) -> Result<Vec<Drift>, StoreError> {
        let rows = self
            .run(async |mut connection| {
                sqlx::query!(
                    r#"SELECT a.id, a.used_tokens, coalesce(t.tokens, 0)::bigint AS "booked!"
                       FROM user_accounts a
                       LEFT JOIN (
                           SELECT user_id, sum(tokens_used) AS tokens FROM token_transactions GROUP BY user_id
                       ) t ON t.user_id = a.id
                       WHERE a.used_tokens <> coalesce(t.tokens, 0)
                       ORDER BY a.id"#
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        rows.into_iter()
            .map(|row| {
                Ok(Drift {
                    user: UserId(row.id),
                    used_tokens: unsigned(row.used_tokens)?,
                    booked_tokens: row.booked,
                })
            })
            .collect()
    }
}
