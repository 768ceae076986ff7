//! The rows of a batch into the ledger, and their sums onto the accounts; a row that Postgres refuses is found by halves.

use std::collections::HashMap;

use sqlx::{Connection, PgConnection};

use super::rows::{RowColumns, spend_by_account};
use crate::{
    quota::{Entry, OutboxId, PartitionId},
    store::{
        StoreError,
        error::{Verdict, verdict_of},
    },
};

/// Inserts rows and adds to their accounts; gives the outbox ids of the rows that Postgres refuses, with its words.
/// Each half of a refused range is tried on its own, so one bad row among n costs about 2 log n more statements.
pub(super) async fn insert_bisecting(
    connection: &mut PgConnection,
    partition: PartitionId,
    audit_number: i64,
    rows: &[&Entry],
) -> Result<HashMap<OutboxId, String>, StoreError> {
    let mut refused = HashMap::new();
    let mut ranges = vec![rows];
    while let Some(range) = ranges.pop() {
        let mut savepoint = connection.begin().await?;
        match insert(&mut savepoint, partition, audit_number, range).await {
            Ok(()) => savepoint.commit().await?,
            Err(Refusal::Rows(detail)) => {
                savepoint.rollback().await?;
                if let [row] = range {
                    refused.insert(row.outbox_id, detail);
                } else {
                    let (first, second) = range.split_at(range.len() / 2);
                    // A stack: the first half is next, so that rows go in in their order.
                    ranges.extend([second, first]);
                }
            }
            Err(Refusal::Store(error)) => return Err(error),
        }
    }
    Ok(refused)
}

enum Refusal {
    /// At least one of the rows cannot be stored.
    Rows(String),
    Store(StoreError),
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        if error.as_database_error().is_some_and(|error| error.is_unique_violation()) {
            return Self::Store(StoreError::Contended("rows appeared that were not there".into()));
        }
        match verdict_of(&error) {
            Some(Verdict::RefusesRow) => Self::Rows(error.to_string()),
            _ => Self::Store(error.into()),
        }
    }
}

async fn insert(
    connection: &mut PgConnection,
    partition: PartitionId,
    audit_number: i64,
    rows: &[&Entry],
) -> Result<(), Refusal> {
    if rows.is_empty() {
        return Ok(());
    }
    insert_rows(connection, partition, audit_number, &RowColumns::new(rows)).await?;
    let (ids, spends) = spend_by_account(rows);
    let changed = sqlx::query!(
        "UPDATE user_accounts a SET used_tokens = a.used_tokens + s.tokens, updated_at = now()
         FROM UNNEST($1::uuid[], $2::bigint[]) AS s (id, tokens) WHERE a.id = s.id",
        &ids,
        &spends,
    )
    .execute(connection)
    .await?
    .rows_affected();
    if changed != ids.len() as u64 {
        return Err(Refusal::Store(StoreError::corrupt("a locked account is gone")));
    }
    Ok(())
}

async fn insert_rows(
    connection: &mut PgConnection,
    partition: PartitionId,
    audit_number: i64,
    rows: &RowColumns<'_>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        r#"INSERT INTO token_transactions (
               id, user_id, reservation_id, kind, tokens_used, model_used, request_id, input_tokens, output_tokens,
               cached_tokens, flags, metadata, "timestamp", outbox_sequence, outbox_nonce, partition,
               audit_number
           )
           SELECT id, user_id, reservation_id, kind, tokens, model, request_id, input_tokens, output_tokens,
                  cached_tokens, flags, metadata::json, 'epoch'::timestamptz + at_ms * interval '1 millisecond',
                  outbox_sequence, outbox_nonce, $1, $17
           FROM UNNEST(
               $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::text[], $9::bigint[],
               $10::bigint[], $11::bigint[], $12::smallint[], $13::text[], $14::bigint[], $15::bigint[], $16::bigint[]
           ) AS r (
               id, user_id, reservation_id, kind, tokens, model, request_id, input_tokens, output_tokens,
               cached_tokens, flags, metadata, at_ms, outbox_sequence, outbox_nonce
           )"#,
        partition.0 as i16,
        &rows.ids,
        &rows.users,
        &rows.reservations as &[&str],
        &rows.kinds as &[&str],
        &rows.tokens,
        &rows.models as &[Option<&str>],
        &rows.request_ids as &[Option<&str>],
        &rows.input_tokens as &[Option<i64>],
        &rows.output_tokens as &[Option<i64>],
        &rows.cached_tokens as &[Option<i64>],
        &rows.flags,
        &rows.metadata as &[Option<&str>],
        &rows.at_ms,
        &rows.outbox_sequences,
        &rows.outbox_nonces,
        audit_number,
    )
    .execute(connection)
    .await?;
    Ok(())
}
