//! What a replica keeps of each partition: its keys, its gate, its load.

use std::{
    sync::{
        PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Mutex;

use super::{gate::Gate, keys::Keys};
use crate::{
    config::LedgerConfig,
    quota::{PartitionId, Partitions, UserId},
};

/// One partition, as this replica sees it.
pub struct Shard {
    pub id: PartitionId,
    pub keys: Keys,
    pub gate: Gate,
    /// One sweep at a time.
    pub sweep: Mutex<()>,
    outbox_depth: AtomicU64,
    short_of_memory: AtomicBool,
    swept: std::sync::Mutex<Swept>,
    soft_limit: u64,
    hard_limit: u64,
}

impl Shard {
    /// Whether reserves must be refused, so that settles keep their room.
    pub fn is_full(&self) -> bool {
        self.outbox_depth() >= self.soft_limit || self.short_of_memory.load(Ordering::Relaxed)
    }

    /// Whether even settles must wait: the outbox may not outgrow the witness rings.
    pub fn is_overfull(&self) -> bool {
        self.outbox_depth() >= self.hard_limit || !self.gate.has_room()
    }

    /// Unflushed entries at the last reading.
    pub fn outbox_depth(&self) -> u64 {
        self.outbox_depth.load(Ordering::Relaxed)
    }

    pub fn note_outbox_depth(&self, depth: u64) {
        self.outbox_depth.store(depth, Ordering::Relaxed);
    }

    /// The last sweep that read what is due.
    pub fn swept(&self) -> Swept {
        *self.swept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn note_sweep(&self, overdue: Duration) {
        let swept = Swept { at: Instant::now(), overdue };
        *self.swept.lock().unwrap_or_else(PoisonError::into_inner) = swept;
    }

    pub fn note_memory(&self, short: bool) {
        self.short_of_memory.store(short, Ordering::Relaxed);
    }
}

/// What the last sweep of a partition met.
#[derive(Clone, Copy, Debug)]
pub struct Swept {
    /// When it began.
    pub at: Instant,
    /// How long before that the oldest expiry was due; zero when none was.
    pub overdue: Duration,
}

/// All partitions.
pub struct Shards {
    partitions: Partitions,
    shards: Vec<Shard>,
}

impl Shards {
    pub fn new(partitions: Partitions, config: &LedgerConfig) -> Self {
        let shard = |id| Shard {
            id,
            keys: Keys::of(id, partitions),
            gate: Gate::new(config.witness_capacity),
            sweep: Mutex::new(()),
            outbox_depth: AtomicU64::new(0),
            short_of_memory: AtomicBool::new(false),
            swept: std::sync::Mutex::new(Swept { at: Instant::now(), overdue: Duration::ZERO }),
            soft_limit: config.outbox_soft_limit,
            hard_limit: config.outbox_hard_limit,
        };
        Self { partitions, shards: partitions.iter().map(shard).collect() }
    }

    pub fn get(&self, id: PartitionId) -> &Shard {
        // Partition ids are made by `Partitions` only, each below its count.
        &self.shards[usize::from(id.0)]
    }

    /// The partition an account lives in.
    pub fn of(&self, user: UserId) -> &Shard {
        self.get(self.partitions.of(user))
    }

    pub fn iter(&self) -> impl Iterator<Item = &Shard> {
        self.shards.iter()
    }

    pub fn len(&self) -> usize {
        self.shards.len()
    }
}
