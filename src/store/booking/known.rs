//! What Postgres has of a batch already: in the ledger, and among the dead letters.

use std::collections::{HashMap, HashSet};

use sqlx::PgConnection;

use super::{
    rows::{outbox_ids, reservations},
    rules::{Known, KnownRows},
};
use crate::{
    quota::{Entry, Kind, OutboxId, PartitionId},
    store::StoreError,
};

/// What the ledger has of the reservations of these entries.
pub(super) async fn ledger_rows<'a>(
    connection: &mut PgConnection,
    entries: &[&'a Entry],
) -> Result<KnownRows<'a>, StoreError> {
    let (users, ids) = reservations(entries.iter().map(|entry| (entry.user, entry.reservation.as_str())));
    // LATERAL and LIMIT (four kinds, four rows) keep this a probe of the unique index per reservation, whatever the
    // planner believes about the size of a fast-growing table.
    let rows = sqlx::query!(
        "SELECT t.user_id, t.reservation_id, t.kind, t.tokens_used, t.outbox_sequence, t.outbox_nonce
         FROM UNNEST($1::uuid[], $2::text[]) AS e (user_id, reservation_id)
         CROSS JOIN LATERAL (
             SELECT user_id, reservation_id, kind, tokens_used, outbox_sequence, outbox_nonce
             FROM token_transactions
             WHERE user_id = e.user_id AND reservation_id = e.reservation_id
             LIMIT 4
         ) t",
        &users,
        &ids as &[&str],
    )
    .fetch_all(connection)
    .await?;
    let mut known = KnownRows::new();
    if rows.is_empty() {
        return Ok(known);
    }
    let names: HashMap<_, _> = entries
        .iter()
        .map(|entry| ((entry.user.0, entry.reservation.as_str()), (entry.user, &entry.reservation)))
        .collect();
    for row in rows {
        let kind = Kind::from_name(&row.kind);
        let name = names.get(&(row.user_id, row.reservation_id.as_str()));
        let (Some(kind), Some(name)) = (kind, name) else {
            return Err(StoreError::corrupt(format_args!("a transaction of kind {:?}", row.kind)));
        };
        known.entry(*name).or_default().push(Known {
            kind,
            tokens: row.tokens_used,
            outbox_id: OutboxId {
                sequence: row.outbox_sequence.cast_unsigned(),
                nonce: row.outbox_nonce.cast_unsigned(),
            },
        });
    }
    Ok(known)
}

/// Which of these entries are among the dead letters.
pub(super) async fn buried_ids(
    connection: &mut PgConnection,
    partition: PartitionId,
    entries: &[&Entry],
) -> Result<HashSet<OutboxId>, sqlx::Error> {
    let (sequences, nonces) = outbox_ids(entries.iter().map(|entry| entry.outbox_id));
    find_buried(connection, partition, &sequences, &nonces).await
}

/// Which of these outbox ids are among the dead letters.
pub(in crate::store) async fn find_buried(
    connection: &mut PgConnection,
    partition: PartitionId,
    sequences: &[i64],
    nonces: &[i64],
) -> Result<HashSet<OutboxId>, sqlx::Error> {
    let rows = sqlx::query!(
        "SELECT d.outbox_sequence, d.outbox_nonce
         FROM dead_letters d
         JOIN UNNEST($2::bigint[], $3::bigint[]) AS e (sequence, nonce)
              ON d.outbox_sequence = e.sequence AND d.outbox_nonce = e.nonce
         WHERE d.partition = $1",
        partition.0 as i16,
        sequences,
        nonces,
    )
    .fetch_all(connection)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| OutboxId {
            sequence: row.outbox_sequence.cast_unsigned(),
            nonce: row.outbox_nonce.cast_unsigned(),
        })
        .collect())
}
