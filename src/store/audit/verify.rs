//! Checking the log: every link, every batch against the ledger, every grant against its act, and the checkpoints.
//!
//! Log and ledger are read as two streams in one snapshot, in the order of the chains, so that memory is bounded whatever
//! their size. Flushes go on meanwhile: what they add is not in the snapshot.

use std::collections::BTreeMap;

use futures_util::{Stream, StreamExt, TryStreamExt, stream::Peekable};
use uuid::Uuid;

use super::{
    ACTS, ChainHead,
    chain::{BatchDigest, Content, HASH_LENGTH, LedgerFields, NOTHING},
};
use crate::store::{StoreError, signed};

/// How much is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Everything.
    Whole,
    /// The newest so many rows of each chain and their transactions; not the grants.
    Newest(u32),
}

/// What a check found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Rows of the log that were read.
    pub rows: u64,
    /// Transactions that were read.
    pub transactions: u64,
    /// What is wrong, the first [`MAX_FINDINGS`].
    pub findings: Vec<Finding>,
    /// How many more there are.
    pub more: u64,
}

/// Findings that are kept.
pub const MAX_FINDINGS: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// A partition, or [`ACTS`].
    pub chain: i16,
    /// The row of the chain where it shows; `None` when it is about no row.
    pub number: Option<u64>,
    pub flaw: Flaw,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("the row is not what was hashed")]
    Changed,
    #[error("the row does not follow the one before it")]
    Unlinked,
    #[error("rows are missing before this one, or it stands twice")]
    Gap,
    #[error("the chain does not end where its head says")]
    Head,
    #[error("its transactions are not those that were booked")]
    Transactions,
    #[error("transaction {0} is in a batch that is not in the log")]
    Stray(Uuid),
    #[error("transaction {0} was booked by a version without chains, or put in")]
    Unchained(Uuid),
    #[error("grant {0} is not as it was made, or its act is missing")]
    Grant(Uuid),
    #[error("the act of grant {0:?} is here, and the grant is not as it says")]
    NoGrant(String),
    #[error("a checkpoint names another hash")]
    Rewritten,
    #[error("a checkpoint knows rows up to here, and they are gone")]
    Cut,
}

impl Verification {
    /// Nothing was found.
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    pub(super) fn found(&mut self, chain: i16, number: Option<i64>, flaw: Flaw) {
        if self.findings.len() < MAX_FINDINGS {
            let number = number.map(i64::unsigned_abs);
            self.findings.push(Finding { chain, number, flaw });
        } else {
            self.more += 1;
        }
    }
}

pub(super) struct LogRow {
    pub chain: i16,
    pub number: i64,
    pub previous: Vec<u8>,
    pub hash: Vec<u8>,
    pub at_us: i64,
    pub actor: String,
    pub actor_role: String,
    pub action: String,
    pub user_id: Option<Uuid>,
    pub data: String,
}

impl LogRow {
    fn hashed(&self) -> [u8; HASH_LENGTH] {
        let content = Content {
            at_us: self.at_us,
            actor: &self.actor,
            actor_role: &self.actor_role,
            action: &self.action,
            user: self.user_id,
            data: &self.data,
        };
        content.hash(self.chain, self.number, &self.previous)
    }
}

pub(super) struct LedgerRow {
    pub partition: i16,
    pub audit_number: Option<i64>,
    pub id: Uuid,
    pub user_id: Uuid,
    pub reservation_id: String,
    pub kind: String,
    pub tokens_used: i64,
    pub model_used: Option<String>,
    pub request_id: Option<String>,
    pub input_tokens: Option<i64>,
    pub output_tokens: Option<i64>,
    pub cached_tokens: Option<i64>,
    pub cost_usd: Option<String>,
    pub flags: i16,
    pub at_ms: i64,
    pub outbox_sequence: i64,
    pub outbox_nonce: i64,
}

impl LedgerRow {
    fn fields(&self) -> LedgerFields<'_> {
        LedgerFields {
            id: self.id,
            user: self.user_id,
            reservation: &self.reservation_id,
            kind: &self.kind,
            tokens: self.tokens_used,
            model: self.model_used.as_deref(),
            request_id: self.request_id.as_deref(),
            input_tokens: self.input_tokens,
            output_tokens: self.output_tokens,
            cached_tokens: self.cached_tokens,
            cost_usd: self.cost_usd.as_deref(),
            flags: self.flags,
            at_ms: self.at_ms,
            outbox_sequence: self.outbox_sequence,
            outbox_nonce: self.outbox_nonce,
        }
    }

    /// Its place in the order of both streams; before all rows of its chain when it has none.
    fn place(&self) -> (i16, i64) {
        (self.partition, self.audit_number.unwrap_or(0))
    }
}

/// Where the check of a chain begins.
#[derive(Clone, Debug)]
pub(super) struct Start {
    /// The first row that is checked.
    pub number: i64,
    /// What that row has to follow; `None` when it is not known.
    pub previous: Option<Vec<u8>>,
}

/// Walks over the log and the ledger beside it.
pub(super) struct Walk<'a> {
    pub found: Verification,
    pub starts: BTreeMap<i16, Start>,
    pub heads: BTreeMap<i16, ChainHead>,
    /// Newest trusted checkpoint of each chain.
    pub checkpoints: BTreeMap<i16, ChainHead>,
    pub progress: &'a mut (dyn FnMut(u64, u64) + Send),
}

/// The last row that was seen of a chain.
struct Last {
    chain: i16,
    number: i64,
    hash: Vec<u8>,
    /// Whether a checkpoint of the chain was met.
    met: bool,
}

/// How often progress is told, in rows of either stream.
const TELL_EVERY: u64 = 10_000;

impl Walk<'_> {
    /// Both streams are in the order of chain and number.
    pub(super) async fn run(
        &mut self,
        log: impl Stream<Item = Result<LogRow, sqlx::Error>> + Unpin,
        ledger: impl Stream<Item = Result<LedgerRow, sqlx::Error>> + Unpin,
    ) -> Result<(), StoreError> {
        let (mut log, mut ledger) = (log, ledger.peekable());
        let mut last: Option<Last> = None;
        while let Some(row) = log.try_next().await? {
            self.count(true);
            if last.as_ref().is_none_or(|last| last.chain != row.chain) {
                self.end(last.take());
            }
            self.strays(&mut ledger, (row.chain, row.number)).await?;
            last = Some(self.link(last, &row));
            if row.chain != ACTS {
                self.batch(&mut ledger, &row).await?;
            }
        }
        self.end(last);
        self.strays(&mut ledger, (i16::MAX, i64::MAX)).await?;
        // Chains of which no row is left.
        for (chain, head) in std::mem::take(&mut self.heads) {
            if head.number > 0 {
                self.found.found(chain, Some(signed(head.number)), Flaw::Head);
            }
        }
        for (chain, point) in std::mem::take(&mut self.checkpoints) {
            if point.number > 0 {
                self.found.found(chain, Some(signed(point.number)), Flaw::Cut);
            }
        }
        Ok(())
    }

    fn count(&mut self, is_log: bool) {
        let count = if is_log { &mut self.found.rows } else { &mut self.found.transactions };
        *count += 1;
        if *count % TELL_EVERY == 0 {
            (self.progress)(self.found.rows, self.found.transactions);
        }
    }

    /// Holds a row against the one before it, and against itself.
    fn link(&mut self, last: Option<Last>, row: &LogRow) -> Last {
        let start = self.starts.get(&row.chain);
        let (expected, previous) = match &last {
            Some(last) => (last.number + 1, Some(last.hash.clone())),
            None => match start {
                Some(start) => (start.number, start.previous.clone()),
                None => (1, Some(NOTHING.to_vec())),
            },
        };
        let at = Some(row.number);
        if row.number != expected {
            self.found.found(row.chain, at, Flaw::Gap);
        } else if previous.is_some_and(|previous| previous != row.previous) {
            self.found.found(row.chain, at, Flaw::Unlinked);
        }
        if row.hashed()[..] != row.hash {
            self.found.found(row.chain, at, Flaw::Changed);
        }
        let mut met = last.is_some_and(|last| last.met);
        if let Some(point) = self.checkpoints.get(&row.chain)
            && signed(point.number) == row.number
        {
            met = true;
            if point.hash != row.hash {
                self.found.found(row.chain, at, Flaw::Rewritten);
            }
        }
        Last { chain: row.chain, number: row.number, hash: row.hash.clone(), met }
    }

    /// A chain is at its end.
    fn end(&mut self, last: Option<Last>) {
        let Some(Last { chain, number, hash, met }) = last else { return };
        let head = self.heads.remove(&chain);
        if head.is_none_or(|head| signed(head.number) != number || head.hash != hash) {
            self.found.found(chain, Some(number), Flaw::Head);
        }
        if let Some(point) = self.checkpoints.remove(&chain)
            && !met
            && signed(point.number) > number
        {
            self.found.found(chain, Some(signed(point.number)), Flaw::Cut);
        }
    }

    /// Transactions that come before a row and belong to none.
    async fn strays(
        &mut self,
        ledger: &mut Peekable<impl Stream<Item = Result<LedgerRow, sqlx::Error>> + Unpin>,
        before: (i16, i64),
    ) -> Result<(), StoreError> {
        while let Some(row) = next_if(ledger, |place| place < before).await? {
            self.count(false);
            let flaw = match row.audit_number {
                Some(_) => Flaw::Stray(row.id),
                None => Flaw::Unchained(row.id),
            };
            self.found.found(row.partition, row.audit_number, flaw);
        }
        Ok(())
    }

    /// Holds a batch's transactions against its digest.
    async fn batch(
        &mut self,
        ledger: &mut Peekable<impl Stream<Item = Result<LedgerRow, sqlx::Error>> + Unpin>,
        row: &LogRow,
    ) -> Result<(), StoreError> {
        let mut digest = BatchDigest::default();
        while let Some(transaction) = next_if(ledger, |place| place == (row.chain, row.number)).await? {
            self.count(false);
            digest.add(&transaction.fields());
        }
        if digest.data() != row.data {
            self.found.found(row.chain, Some(row.number), Flaw::Transactions);
        }
        Ok(())
    }
}

/// The next row if its place is as asked.
async fn next_if(
    ledger: &mut Peekable<impl Stream<Item = Result<LedgerRow, sqlx::Error>> + Unpin>,
    is_asked: impl Fn((i16, i64)) -> bool,
) -> Result<Option<LedgerRow>, StoreError> {
    let mut ledger = std::pin::Pin::new(ledger);
    // An error is taken out, to be told.
    let wanted =
        |next: &Result<LedgerRow, sqlx::Error>| next.as_ref().map_or(true, |row| is_asked(row.place()));
    Ok(ledger.as_mut().next_if(wanted).await.transpose()?)
}

/// The first row of a chain that is checked.
pub(super) fn first_number(head: &ChainHead, extent: Extent) -> i64 {
    match extent {
        Extent::Whole => 1,
        Extent::Newest(rows) => signed(head.number.saturating_sub(u64::from(rows))) + 1,
    }
}
