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
//!    add to that, so the pure rules (`rules`) decide on the truth.
//! 4. It inserts the rows. One that breaks a unique key means that somebody booked without the lock; the batch starts
//!    again rather than guess. So `used_tokens` grows by rows really inserted, and only those.
//! 5. It adds the batch's row to the partition's audit chain ([`super::audit`]), adds to the accounts and to the sums of
//!    usage (`rollups`), moves the accounts' alerts to where usage now stands, marks those that are to be renewed, buries
//!    the dead letters, raises the high water, writes the witness's report, commits.
//!
//! A repeat finds every outbox id in the ledger or the dead letters and changes nothing, so a COMMIT whose answer was
//! lost ([`StoreError::Unknown`]) is simply repeated.
//!
//! A row that Postgres refuses must not hold up the others: the batch is bisected under savepoints down to it, it goes
//! to the dead letters in the same SQL transaction, and the rest goes on.

mod chain;
mod insert;
mod known;
mod rollups;
mod rows;
mod rules;

use std::collections::{HashMap, HashSet};

use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use self::{
    insert::insert_bisecting,
    known::{buried_ids, ledger_rows},
    rows::{accounts, flaw},
    rules::{Decision, decide},
};
use super::{
    DeadReason, MAX_ATTEMPTS, PartitionState, ReplicaId, Store, StoreError, alerts, audit,
    dead_letters::bury,
    error::{Verdict, verdict_of},
    partitions::RawPartition,
    renewals, replicas, restored, signed,
};
use crate::quota::{Entry, OutboxId, PartitionId};

pub(super) use known::find_buried;
pub(super) use rows::{DeadColumns, outbox_ids, reservations};

/// Who books, and what gives it the right to.
#[derive(Clone, Copy, Debug)]
pub enum Booker<'a> {
    /// The partition is open in the epoch, on the Redis master that the entries were read from, and Postgres knows of all
    /// that was acked there. If it does not, booking would hide that it has gone back: it is marked instead.
    Flusher { run_id: &'a str, acked_up_to: u64 },
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

/// What became of a batch; the entries together are those of the batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Booked {
    /// Rows that were added to the ledger, the converted ones among them.
    pub inserted: usize,
    /// Entries that the ledger or the dead letters had already.
    pub replayed: usize,
    /// Entries that went to the dead letters now.
    pub dead: usize,
    /// Accounts that were left with few tokens, and are for the renewer to look at now; no entries.
    pub to_renew: usize,
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
            Ok(Some(row)) if self.may_book(&row) && self.has_gone_back(&row) => {
                restored::mark(&mut transaction, self.partition).await?;
                transaction.commit().await.map_err(StoreError::from_commit)?;
                return Ok(Booking::Fenced);
            }
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
                    r#"SELECT id, epoch, state, step, run_id, high_water, outbox_high_water,
                              restored_at IS NOT NULL AS "went_back!"
                       FROM partitions WHERE id = $1 FOR NO KEY UPDATE NOWAIT"#,
                    id,
                )
                .fetch_optional(connection)
                .await
            }
            Booker::Witness { .. } | Booker::Recovery => {
                sqlx::query_as!(
                    RawPartition,
                    r#"SELECT id, epoch, state, step, run_id, high_water, outbox_high_water,
                              restored_at IS NOT NULL AS "went_back!"
                       FROM partitions WHERE id = $1 FOR NO KEY UPDATE"#,
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
                Booker::Flusher { run_id, .. } => {
                    row.state == PartitionState::Open.as_str() && row.run_id.as_deref() == Some(run_id)
                }
                Booker::Witness { .. } => {
                    row.state == PartitionState::Recovering.as_str() && row.step <= LAST_WITNESS_STEP
                }
                Booker::Recovery => row.state == PartitionState::Recovering.as_str(),
            }
    }

    /// Entries are acked after their commit, so the row knew of them, in a later state than this one.
    fn has_gone_back(&self, row: &RawPartition) -> bool {
        matches!(self.by, Booker::Flusher { acked_up_to, .. } if signed(acked_up_to) > row.outbox_high_water)
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
        let link = audit::chain::next(connection, self.partition.0 as i16).await?;
        let refused = insert_bisecting(connection, self.partition, link.number, &rows).await?;
        let booked: Vec<&Entry> =
            rows.iter().copied().filter(|row| !refused.contains_key(&row.outbox_id)).collect();
        rollups::add(connection, &booked).await?;
        let spenders = accounts(&booked);
        alerts::settle(connection, &spenders, alerts::Cause::Usage).await?;
        let to_renew = renewals::mark_due(connection, &spenders).await?;
        let excesses = self.collect_dead(&decisions, &refused, &mut dead);
        let mut buried_now = 0;
        if !dead.is_empty() {
            buried_now = bury(connection, self.partition, self.spend_epoch(), &dead).await? as usize;
        }
        chain::chain(connection, self.partition, link, &rows, &refused).await?;
        let inserted = rows.len() - refused.len();
        // The letter for the excess of a converted row is not the entry itself; its row is new, and so is the letter.
        let dead = buried_now - excesses;
        Ok(Booked { inserted, dead, replayed: self.entries.len() - inserted - dead, to_renew })
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
pub(super) async fn lock_accounts(
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> Result<HashSet<Uuid>, sqlx::Error> {
    let existing = sqlx::query_scalar!(
        "SELECT id FROM user_accounts WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE",
        ids
    )
    .fetch_all(connection)
    .await?;
    Ok(existing.into_iter().collect())
}
