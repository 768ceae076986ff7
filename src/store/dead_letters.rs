//! Outbox entries that the ledger did not take.

use jiff::Timestamp;
use sqlx::PgConnection;

use super::{Store, StoreError, booking::DeadColumns, signed, unsigned};
use crate::quota::{OutboxId, PartitionId, UserId};

/// Why an entry is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DeadReason {
    /// The same kind with the same amount was booked under another outbox id: Redis charged twice, the ledger once.
    LateReplay,
    /// The id was used again for another amount: an alarm.
    IdReused,
    /// An expiry or a correction for what a settle had already charged in full.
    AfterSettle,
    /// Not the entry itself, which was booked as a correction, but what its settle had charged too much: the expiry.
    Converted,
    /// Postgres refuses the row; `detail` says why.
    Refused,
}

impl DeadReason {
    /// The word in SQL and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LateReplay => "late_replay",
            Self::IdReused => "id_reused",
            Self::AfterSettle => "after_settle",
            Self::Converted => "converted",
            Self::Refused => "refused",
        }
    }

    fn from_sql(word: &str) -> Result<Self, StoreError> {
        [Self::LateReplay, Self::IdReused, Self::AfterSettle, Self::Converted, Self::Refused]
            .into_iter()
            .find(|reason| reason.as_str() == word)
            .ok_or_else(|| StoreError::corrupt(format_args!("dead letter reason {word:?}")))
    }
}

/// What Redis counts and the ledger does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    pub id: i64,
    pub partition: PartitionId,
    pub outbox_id: OutboxId,
    pub user: UserId,
    /// As in the entry.
    pub reservation: String,
    /// As in the entry.
    pub kind: String,
    /// Signed tokens that Redis counts and the ledger does not.
    pub tokens: i64,
    /// The epoch whose budgets count them; `None` when recovery met the entry: budgets are loaded anew after that.
    pub spend_epoch: Option<u64>,
    pub reason: DeadReason,
    pub detail: Option<String>,
    pub created_at: Timestamp,
}

impl Store {
    /// How many wait for an operator or the reconciler.
    pub async fn dead_letter_count(&self) -> Result<u64, StoreError> {
        let count = self
            .run(async |mut connection| {
                sqlx::query_scalar!(
                    r#"SELECT count(*) AS "count!" FROM dead_letters WHERE resolved_at IS NULL"#
                )
                .fetch_one(&mut *connection)
                .await
            })
            .await?;
        unsigned(count)
    }

    /// Those that wait, by id, after `after` (0 for the first page), at most `limit`.
    pub async fn dead_letters(&self, after: i64, limit: u32) -> Result<Vec<DeadLetter>, StoreError> {
        let rows = self
            .run(async |mut connection| {
                sqlx::query!(
                    "SELECT id, partition, outbox_sequence, outbox_nonce, user_id, reservation_id, kind, tokens,
                            spend_epoch, reason, detail, created_at
                     FROM dead_letters WHERE resolved_at IS NULL AND id > $1 ORDER BY id LIMIT $2",
                    after,
                    i64::from(limit),
                )
                .fetch_all(&mut *connection)
                .await
            })
            .await?;
        rows.into_iter()
            .map(|row| {
                Ok(DeadLetter {
                    id: row.id,
                    partition: PartitionId(row.partition.cast_unsigned()),
                    outbox_id: OutboxId {
                        sequence: row.outbox_sequence.cast_unsigned(),
                        nonce: row.outbox_nonce.cast_unsigned(),
                    },
                    user: UserId(row.user_id),
                    reservation: row.reservation_id,
                    kind: row.kind,
                    tokens: row.tokens,
                    spend_epoch: row.spend_epoch.map(unsigned).transpose()?,
                    reason: DeadReason::from_sql(&row.reason)?,
                    detail: row.detail,
                    created_at: row.created_at.to_jiff(),
                })
            })
            .collect()
    }
}

/// Buries entries, each once; says how many were new.
pub(super) async fn bury(
    connection: &mut PgConnection,
    partition: PartitionId,
    spend_epoch: Option<u64>,
    dead: &DeadColumns<'_>,
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query!(
        "INSERT INTO dead_letters (partition, spend_epoch, outbox_sequence, outbox_nonce, user_id, reservation_id,
                                   kind, tokens, entry, reason, detail)
         SELECT $1, $2, sequence, nonce, user_id, reservation_id, kind, tokens, entry::jsonb, reason, detail
         FROM UNNEST($3::bigint[], $4::bigint[], $5::uuid[], $6::text[], $7::text[], $8::bigint[], $9::text[],
                     $10::text[], $11::text[])
              AS d (sequence, nonce, user_id, reservation_id, kind, tokens, entry, reason, detail)
         ON CONFLICT DO NOTHING",
        partition.0 as i16,
        spend_epoch.map(signed),
        &dead.outbox_sequences,
        &dead.outbox_nonces,
        &dead.users,
        &dead.reservations as &[&str],
        &dead.kinds as &[&str],
        &dead.tokens,
        &dead.entries,
        &dead.reasons as &[&str],
        &dead.details as &[Option<String>],
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
