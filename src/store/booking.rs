//! The one way into the ledger: the flusher, the witnesses and recovery all book through [`Store::book`].
//!
//! # Exactly once
//!
//! One SQL transaction per batch:
//!
//! 1. It locks the partition's row and checks the booker's right: the epoch, and the run id, state or step that go
//!    with its role. Bookings of one partition so run one after the other, and one whose epoch is over is fenced. The
//!    flusher does not wait for the lock: whoever holds it does the work.
//! 2. It locks the accounts in the order of their ids, so that no two bookings can deadlock over them.
//! 3. It reads what the ledger and the dead letters have of the batch's reservations. Under the lock nobody else can
//!    add to that, so the pure rules (`booking_rules`) decide on the truth.
//! 4. It inserts the rows `ON CONFLICT DO NOTHING`. A row that does conflict means that somebody booked without the
//!    lock; the batch starts again rather than guess. So `used_tokens` grows by rows really inserted, and only those.
//! 5. It adds to the accounts, buries the dead letters, raises the high water, writes the witness's report, commits.
//!
//! A repeat finds every outbox id in the ledger or the dead letters and changes nothing, so a COMMIT whose answer was
//! lost ([`StoreError::Unknown`]) is simply repeated.
//!
//! A row that Postgres refuses must not hold up the others: the batch is bisected under savepoints down to it, it goes
//! to the dead letters in the same SQL transaction, and the rest goes on.

use std::collections::{HashMap, HashSet};

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use super::{
    DeadReason, MAX_ATTEMPTS, PartitionState, ReplicaId, Store, StoreError,
    booking_rows::{DeadColumns, RowColumns, accounts, flaw, outbox_ids, reservations, spend_by_account},
    booking_rules::{Decision, Known, KnownRows, decide},
    dead_letters::bury,
    error::{Verdict, verdict_of},
    partitions::RawPartition,
    replicas, signed,
};
use crate::quota::{Entry, Kind, OutboxId, PartitionId};

/// Who books, and what gives it the right to.
#[derive(Clone, Copy, Debug)]
pub enum Booker<'a> {
    /// The partition is open in the epoch, on the Redis master that the entries were read from.
    Flusher { run_id: &'a str },
    /// A replica writing its ring: the recovery of the epoch runs and has not passed step 2.
    Witness {
        /// Registered by a heartbeat.
        replica: ReplicaId,
        /// This is the end of the ring: the replica's witness report is written with it, also when no entry is left.
        last: bool,
    },
    /// The coordinator draining the outbox: the recovery of the epoch runs.
    Recovery,
}

/// What became of a batch; together the number of its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Booked {
    /// Rows that were added to the ledger, the converted ones among them.
    pub inserted: usize,
    /// Entries that the ledger or the dead letters had already.
    pub replayed: usize,
    /// Entries that went to the dead letters now.
    pub dead: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Booking {
    /// Committed: the entries may be acked.
    Booked(Booked),
    /// This booker has no right to, and with this epoch never will. Nothing changed.
    Fenced,
    /// Another booking holds the partition. Nothing changed.
    Busy,
}

impl Store {
    /// Books a batch of outbox entries of one partition, in their order, exactly once.
    ///
    /// `sequence` is the highest mutation count (`sq`) the caller has seen; with the highest outbox sequence of the
    /// batch it raises the partition's high water.
    ///
    /// # Errors
    /// Retryable ones mean that the whole batch may be booked again, whatever had become of it.
    pub async fn book(
        &self,
        partition: PartitionId,
        epoch: u64,
        by: Booker<'_>,
        entries: &[Entry],
        sequence: u64,
    ) -> Result<Booking, StoreError> {
        let batch = Batch { partition, epoch, by, entries, sequence };
        let mut attempt = 1;
        loop {
            match self.run(async |mut connection| batch.book(&mut connection).await).await {
                Err(StoreError::Contended(_)) if attempt < MAX_ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }
}

struct Batch<'a> {
    partition: PartitionId,
    epoch: u64,
    by: Booker<'a>,
    entries: &'a [Entry],
    sequence: u64,
}

impl Batch<'_> {
    async fn book(&self, connection: &mut PgConnection) -> Result<Booking, StoreError> {
        let mut transaction = connection.begin().await?;
        match self.lock(&mut transaction).await {
            Ok(Some(row)) if self.may_book(&row) => {}
            Ok(_) => {
                // Now, not when the pool gets to it: the rightful booker does not wait for the lock.
                transaction.rollback().await?;
                return Ok(Booking::Fenced);
            }
            Err(error) if verdict_of(&error) == Some(Verdict::Locked) => return Ok(Booking::Busy),
            Err(error) => return Err(error.into()),
        }
        let booked = self.book_entries(&mut transaction).await?;
        self.note_high_water(&mut transaction).await?;
        if let Booker::Witness { replica, last: true } = self.by {
            replicas::report(
                &mut transaction,
                replica,
                self.partition,
                self.epoch,
                self.sequence,
                self.epoch,
            )
            .await?;
        }
        transaction.commit().await.map_err(StoreError::from_commit)?;
        Ok(Booking::Booked(booked))
    }

    /// Locks the partition; nobody else books, opens, closes or advances it until the end.
    async fn lock(&self, connection: &mut PgConnection) -> Result<Option<RawPartition>, sqlx::Error> {
        let id = self.partition.0 as i16;
        match self.by {
            Booker::Flusher { .. } => {
                sqlx::query_as!(
                    RawPartition,
                    "SELECT id, epoch, state, step, run_id, high_water, outbox_high_water
                     FROM partitions WHERE id = $1 FOR NO KEY UPDATE NOWAIT",
                    id,
                )
                .fetch_optional(connection)
                .await
            }
            Booker::Witness { .. } | Booker::Recovery => {
                sqlx::query_as!(
                    RawPartition,
                    "SELECT id, epoch, state, step, run_id, high_water, outbox_high_water
                     FROM partitions WHERE id = $1 FOR NO KEY UPDATE",
                    id,
                )
                .fetch_optional(connection)
                .await
            }
        }
    }

    fn may_book(&self, row: &RawPartition) -> bool {
        row.epoch == signed(self.epoch)
            && match self.by {
                Booker::Flusher { run_id } => {
                    row.state == PartitionState::Open.as_str() && row.run_id.as_deref() == Some(run_id)
                }
                Booker::Witness { .. } => {
                    row.state == PartitionState::Recovering.as_str() && row.step <= LAST_WITNESS_STEP
                }
                Booker::Recovery => row.state == PartitionState::Recovering.as_str(),
            }
    }

    async fn book_entries(&self, connection: &mut PgConnection) -> Result<Booked, StoreError> {
        if self.entries.is_empty() {
            return Ok(Booked::default());
        }
        let mut dead = DeadColumns::default();
        let sound = self.sort_out(connection, &mut dead).await?;
        let mut known = ledger_rows(connection, &sound).await?;
        let buried = buried_ids(connection, self.partition, &sound).await?;
        let decisions = decide(sound, &mut known, &buried);

        let rows: Vec<&Entry> = decisions
            .iter()
            .filter_map(|decision| match decision {
                Decision::Book(entry) => Some(*entry),
                Decision::Convert { row, .. } => Some(&**row),
                Decision::Replay | Decision::Bury(..) => None,
            })
            .collect();
        let refused = insert_bisecting(connection, self.partition, &rows).await?;
        let excesses = self.collect_dead(&decisions, &refused, &mut dead);
        let mut buried_now = 0;
        if !dead.is_empty() {
            buried_now = bury(connection, self.partition, self.spend_epoch(), &dead).await? as usize;
        }
        let inserted = rows.len() - refused.len();
        // The letter for the excess of a converted row is not the entry itself; its row is new, and so is the letter.
        let dead = buried_now - excesses;
        Ok(Booked { inserted, dead, replayed: self.entries.len() - inserted - dead })
    }

    /// Locks the accounts, and puts aside what no row can be made of.
    async fn sort_out<'e>(
        &'e self,
        connection: &mut PgConnection,
        dead: &mut DeadColumns<'e>,
    ) -> Result<Vec<&'e Entry>, StoreError> {
        let all: Vec<&Entry> = self.entries.iter().collect();
        let existing = lock_accounts(connection, &accounts(&all)).await?;
        Ok(all
            .into_iter()
            .filter(|entry| {
                let gone = !existing.contains(&entry.user.0);
                let detail = flaw(entry).or(gone.then_some("there is no such account"));
                if let Some(detail) = detail {
                    let detail = Some(detail.to_owned());
                    dead.push(self.partition, entry, entry.tokens, DeadReason::Refused, detail);
                }
                detail.is_none()
            })
            .collect())
    }

    /// Adds the dead letters of the decisions; says how many are excesses of converted rows.
    fn collect_dead<'e>(
        &self,
        decisions: &'e [Decision<'_>],
        refused: &HashMap<OutboxId, String>,
        dead: &mut DeadColumns<'e>,
    ) -> usize {
        let mut excesses = 0;
        for decision in decisions {
            match decision {
                Decision::Replay => {}
                Decision::Bury(entry, reason) => {
                    dead.push(self.partition, entry, entry.tokens, *reason, None)
                }
                Decision::Book(entry) | Decision::Convert { entry, .. }
                    if let Some(detail) = refused.get(&entry.outbox_id) =>
                {
                    let detail = Some(detail.clone());
                    dead.push(self.partition, entry, entry.tokens, DeadReason::Refused, detail);
                }
                Decision::Convert { entry, excess, .. } => {
                    dead.push(self.partition, entry, *excess, DeadReason::Converted, None);
                    excesses += 1;
                }
                Decision::Book(_) => {}
            }
        }
        excesses
    }

    /// The epoch in whose budgets Redis counts what these entries spent. Recovery loads budgets anew after it booked.
    fn spend_epoch(&self) -> Option<u64> {
        match self.by {
            Booker::Flusher { .. } => Some(self.epoch),
            Booker::Witness { .. } | Booker::Recovery => None,
        }
    }

    async fn note_high_water(&self, connection: &mut PgConnection) -> Result<(), StoreError> {
        let outbox_sequence = self.entries.iter().map(|entry| entry.outbox_id.sequence).max().unwrap_or(0);
        // Counts of Redis are below 2^53; a higher one is a broken entry, which must not lift the base for ever.
        let sane = |count: u64| if count <= crate::quota::MAX_TOTAL_TOKENS { signed(count) } else { 0 };
        let changed = sqlx::query!(
            "UPDATE partitions
             SET high_water = greatest(high_water, $2), outbox_high_water = greatest(outbox_high_water, $3),
                 updated_at = now()
             WHERE id = $1",
            self.partition.0 as i16,
            sane(self.sequence),
            sane(outbox_sequence),
        )
        .execute(connection)
        .await?
        .rows_affected();
        if changed == 1 { Ok(()) } else { Err(StoreError::corrupt("a locked partition is gone")) }
    }
}

/// Recovery waits for the rings in this step; after it they are too late.
const LAST_WITNESS_STEP: i16 = 2;

/// Locks accounts in the order of their ids; gives those that exist. `NO KEY`: other bookings may refer to the rows.
async fn lock_accounts(connection: &mut PgConnection, ids: &[Uuid]) -> Result<HashSet<Uuid>, sqlx::Error> {
    let existing = sqlx::query_scalar!(
        "SELECT id FROM user_accounts WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE",
        ids
    )
    .fetch_all(connection)
    .await?;
    Ok(existing.into_iter().collect())
}

/// What the ledger has of the reservations of these entries.
async fn ledger_rows<'a>(
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
async fn buried_ids(
    connection: &mut PgConnection,
    partition: PartitionId,
    entries: &[&Entry],
) -> Result<HashSet<OutboxId>, sqlx::Error> {
    let (sequences, nonces) = outbox_ids(entries.iter().map(|entry| entry.outbox_id));
    find_buried(connection, partition, &sequences, &nonces).await
}

pub(super) async fn find_buried(
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

/// Inserts rows and adds to their accounts; gives the outbox ids of the rows that Postgres refuses, with its words.
/// Each half of a refused range is tried on its own, so one bad row among n costs about 2 log n more statements.
async fn insert_bisecting(
    connection: &mut PgConnection,
    partition: PartitionId,
    rows: &[&Entry],
) -> Result<HashMap<OutboxId, String>, StoreError> {
    let mut refused = HashMap::new();
    let mut ranges = vec![rows];
    while let Some(range) = ranges.pop() {
        let mut savepoint = connection.begin().await?;
        match insert(&mut savepoint, partition, range).await {
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
        match verdict_of(&error) {
            Some(Verdict::RefusesRow) => Self::Rows(error.to_string()),
            _ => Self::Store(error.into()),
        }
    }
}

async fn insert(
    connection: &mut PgConnection,
    partition: PartitionId,
    rows: &[&Entry],
) -> Result<(), Refusal> {
    if rows.is_empty() {
        return Ok(());
    }
    let inserted = insert_rows(connection, partition, &RowColumns::new(rows)).await?;
    if inserted != rows.len() as u64 {
        return Err(Refusal::Store(StoreError::Contended("rows appeared that were not there".into())));
    }
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
    rows: &RowColumns<'_>,
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query!(
        r#"INSERT INTO token_transactions (
               id, user_id, reservation_id, kind, tokens_used, model_used, request_id, input_tokens, output_tokens,
               cached_tokens, flags, metadata, "timestamp", outbox_sequence, outbox_nonce, partition
           )
           SELECT id, user_id, reservation_id, kind, tokens, model, request_id, input_tokens, output_tokens,
                  cached_tokens, flags, metadata::json, 'epoch'::timestamptz + at_ms * interval '1 millisecond',
                  outbox_sequence, outbox_nonce, $1
           FROM UNNEST(
               $2::uuid[], $3::uuid[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::text[], $9::bigint[],
               $10::bigint[], $11::bigint[], $12::smallint[], $13::text[], $14::bigint[], $15::bigint[], $16::bigint[]
           ) AS r (
               id, user_id, reservation_id, kind, tokens, model, request_id, input_tokens, output_tokens,
               cached_tokens, flags, metadata, at_ms, outbox_sequence, outbox_nonce
           )
           ON CONFLICT DO NOTHING"#,
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
    )
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
