//! The outbox as the flusher and recovery see it: read in order, ack by exact id.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use redis::Value;

use super::{
    gate::{Doubt, Pass},
    scripts,
    session::{CallError, SharedSession},
    shard::{Shard, Shards},
    wire::decode_entry,
};
use crate::{
    config::LedgerConfig,
    quota::{Entry, MAX_TOTAL_TOKENS, OutboxId, PartitionId},
};

/// Entries of one `ack` call; every loop in a script is bounded.
const ACK_PAGE: usize = 250;

/// Entries of one `outbox` call: Redis does nothing else while it reads them.
const READ_PAGE: usize = 1_000;

/// Before all entries, as `XRANGE` takes it.
const HEAD: &[u8] = b"-";

/// One reading: the partition's identity and entries in their order, taken together.
#[derive(Clone, Debug)]
pub struct OutboxPage {
    /// Whether the partition was open; entries of any other must not be booked by the flusher.
    pub open: bool,
    pub epoch: u64,
    /// The run id in the partition's meta hash; the reading was made on this very server, or there is none.
    pub run_id: Arc<str>,
    /// Count of mutations.
    pub sequence: u64,
    /// Count of outbox entries.
    pub outbox_sequence: u64,
    /// Entries in the outbox, these and any before them included.
    pub depth: u64,
    /// The highest outbox sequence that was ever acked; 0 when none was, or Redis does not tell (before 7.0). Entries are
    /// acked after their commit, so a Postgres that does not know of it has gone back to an earlier state.
    pub acked_up_to: u64,
    pub entries: Vec<Entry>,
    /// Entries of a format this version does not know. They stay, for one that does.
    pub unreadable: usize,
}

impl OutboxPage {
    /// How many entries were met, readable or not.
    pub fn met(&self) -> usize {
        self.entries.len() + self.unreadable
    }

    fn life(&self) -> (bool, u64, &str) {
        (self.open, self.epoch, &self.run_id)
    }

    /// Adds a later reading, if it is of the same life; says whether it did.
    fn append(&mut self, later: Self) -> bool {
        if self.life() != later.life() {
            return false;
        }
        self.sequence = later.sequence;
        self.outbox_sequence = later.outbox_sequence;
        self.acked_up_to = later.acked_up_to;
        self.entries.extend(later.entries);
        self.unreadable += later.unreadable;
        true
    }

    /// Age of the oldest entry, by the clocks of Redis and of this machine; zero when there is none.
    pub fn age(&self) -> Duration {
        let written = self.entries.first().map(|entry| UNIX_EPOCH + Duration::from_millis(entry.at_ms));
        written.and_then(|written| SystemTime::now().duration_since(written).ok()).unwrap_or_default()
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Outbox {
    redis: Arc<SharedSession>,
    shards: Arc<Shards>,
    retention: [Vec<u8>; 2],
}

impl Outbox {
    pub fn new(redis: Arc<SharedSession>, shards: Arc<Shards>, config: &LedgerConfig) -> Self {
        let ms = |seconds: u64| seconds.saturating_mul(1000).to_string().into_bytes();
        let retention = [ms(config.retention_seconds), ms(config.expired_retention_seconds)];
        Self { redis, shards, retention }
    }

    /// The first `limit` entries, 1 … 10,000; or those that come after an entry. What an entry cannot be read after
    /// ends the page, and so does another life.
    ///
    /// # Errors
    /// When Redis does not answer, or answers as another server than the one the partition was opened on.
    pub async fn read(
        &self,
        partition: PartitionId,
        limit: usize,
        after: Option<OutboxId>,
    ) -> Result<OutboxPage, CallError> {
        let mut asked = limit.min(READ_PAGE);
        let mut page = self.read_once(partition, asked, after).await?;
        // Less than was asked for: that was all.
        while page.met() == asked && asked < limit && page.unreadable == 0 {
            let last = page.entries.last().map(|entry| entry.outbox_id);
            let more = (limit - asked).min(READ_PAGE);
            // What has been read may be booked; the next reading meets whatever is wrong.
            let Ok(later) = self.read_once(partition, more, last).await else { break };
            if !page.append(later) {
                break;
            }
            asked += more;
        }
        Ok(page)
    }

    async fn read_once(
        &self,
        partition: PartitionId,
        limit: usize,
        after: Option<OutboxId>,
    ) -> Result<OutboxPage, CallError> {
        let shard = self.shards.get(partition);
        let pass = shard.gate.pass();
        let from = after.map_or_else(|| HEAD.to_vec(), |id| format!("({id}").into_bytes());
        let (page, run_id) = self.page(shard, limit, from).await?;
        if let Some(pass) = pass.filter(|pass| pass.run_id == run_id && has_lost(&page, pass)) {
            shard.gate.doubt(&pass, Doubt::Lost);
        }
        shard.note_outbox_depth(page.depth);
        if page.open && page.run_id != run_id {
            return Err(CallError::NotRun("the partition was opened on another Redis server".into()));
        }
        Ok(page)
    }

    /// As [`Outbox::read`] of one entry, whichever server opened the partition.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn peek(&self, partition: PartitionId) -> Result<OutboxPage, CallError> {
        self.page(self.shards.get(partition), 1, HEAD.to_vec()).await.map(|(page, _)| page)
    }

    /// A reading, and the run id of the server that answered.
    async fn page(
        &self,
        shard: &Shard,
        limit: usize,
        from: Vec<u8>,
    ) -> Result<(OutboxPage, Arc<str>), CallError> {
        let keys = [shard.keys.meta(), shard.keys.outbox()];
        let reply = self.redis.call(&scripts::OUTBOX, &keys, &[limit.to_string().into_bytes(), from]).await?;
        let page = decode(reply.value).ok_or_else(|| CallError::NotRun("a malformed outbox reply".into()))?;
        Ok((page, reply.run_id))
    }

    /// Retention of settled and of expired records, in milliseconds, as scripts take them.
    pub fn retention(&self) -> &[Vec<u8>; 2] {
        &self.retention
    }

    /// Deletes entries Postgres has, by exact id, and starts the retention of their records. The witness ring of this
    /// replica forgets them too.
    ///
    /// # Errors
    /// When Redis does not answer; the entries are then met again, and booked as replays.
    pub async fn ack(&self, partition: PartitionId, entries: &[Entry]) -> Result<(), CallError> {
        let Shard { keys, gate, .. } = self.shards.get(partition);
        gate.confirm(&entries.iter().map(|entry| entry.outbox_id).collect());
        for page in entries.chunks(ACK_PAGE) {
            let records = page.iter().map(|entry| keys.record(entry.user, &entry.reservation));
            let script_keys: Vec<_> = std::iter::once(keys.outbox()).chain(records).collect();
            let ids = page.iter().map(|entry| entry.outbox_id.to_string().into_bytes());
            let args: Vec<_> = self.retention.iter().cloned().chain(ids).collect();
            self.redis.call(&scripts::ACK, &script_keys, &args).await?;
        }
        Ok(())
    }
}

/// Whether this reading proves that Redis has lost state of a life, also while no call is made: the partition is gone,
/// or counts fewer mutations than were seen before the reading.
fn has_lost(page: &OutboxPage, pass: &Pass) -> bool {
    page.epoch == 0 || (page.epoch == pass.epoch && page.open && page.sequence < pass.high_water)
}

fn decode(reply: Value) -> Option<OutboxPage> {
    let Value::Array(fields) = reply else { return None };
    let [state, epoch, sequence, outbox_sequence, run_id, depth, acked, entries @ ..] = fields.as_slice()
    else {
        return None;
    };
    let text = |value: &Value| match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        _ => None,
    };
    let count = |value: &Value| match value {
        Value::Int(n) => u64::try_from(*n).ok(),
        _ => None,
    };
    // Postgres knows no count beyond these either: such an id was broken, and is in the dead letters.
    let acked = text(acked)?.parse::<OutboxId>().map_or(0, |id| id.sequence);
    let acked_up_to = if acked <= MAX_TOTAL_TOKENS { acked } else { 0 };
    let mut page = OutboxPage {
        open: text(state)? == "open",
        epoch: count(epoch)?,
        run_id: text(run_id)?.into(),
        sequence: count(sequence)?,
        outbox_sequence: count(outbox_sequence)?,
        depth: count(depth)?,
        acked_up_to,
        entries: Vec::with_capacity(entries.len() / 2),
        unreadable: 0,
    };
    for pair in entries.chunks_exact(2) {
        let id = text(&pair[0]).and_then(|id| id.parse::<OutboxId>().ok());
        let entry = match (&pair[1], id) {
            (Value::BulkString(payload), Some(id)) => decode_entry(id, payload).ok(),
            _ => None,
        };
        match entry {
            Some(entry) => page.entries.push(entry),
            None => page.unreadable += 1,
        }
    }
    Some(page)
}
