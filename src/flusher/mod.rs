//! The flusher: moves the outbox to Postgres, every entry exactly once.
//!
//! *At least once*: an entry leaves the outbox only by its exact id, after the commit was confirmed, and every round
//! starts reading at the head. *At most once*: the ledger's unique key. So an unknown commit is repeated, and two
//! flushers, a zombie or a replay all go through the same statement ([`crate::store::Store::book`]). Any replica may
//! flush any partition; the row lock on `partitions` lets one at a time.

mod round;
mod top_users;

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use top_users::TopUsers;

use crate::{
    config::{FlusherConfig, MetricsConfig, millis},
    ledger::{CallError, Outbox},
    metrics,
    quota::{PartitionId, Partitions},
    store::{Store, StoreError},
    traces::Traces,
};

/// Pause after a fault, so that a store that is down is not hammered.
const FAULT_PAUSE: Duration = Duration::from_millis(200);

/// Pause when another replica is flushing the partition.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// Why a round flushed nothing.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    #[error(transparent)]
    Redis(#[from] CallError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0} entries have a format this version does not know")]
    Unreadable(usize),
}

impl FlushError {
    /// The word for it in spans.
    fn as_str(&self) -> &'static str {
        match self {
            Self::Redis(_) => "redis",
            Self::Store(_) => "store",
            Self::Unreadable(_) => "unreadable",
        }
    }
}

/// What one round did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// So many entries are in Postgres and gone from the outbox; whether `more` may wait.
    Flushed { entries: usize, more: bool },
    /// The outbox was empty.
    Empty,
    /// The partition is not open, or in another life than Postgres knows: not the flusher's to book.
    Closed,
    /// Another replica is at it.
    Busy,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Flusher {
    outbox: Outbox,
    store: Store,
    partitions: Partitions,
    config: FlusherConfig,
    top_users: Arc<TopUsers>,
    renewals: Arc<Notify>,
    traces: Traces,
}

impl Flusher {
    pub fn new(outbox: Outbox, store: Store, partitions: Partitions, config: FlusherConfig) -> Self {
        let top_users = Arc::new(TopUsers::new(&MetricsConfig::default()));
        let (renewals, traces) = (Arc::default(), Traces::default());
        Self { outbox, store, partitions, config, top_users, renewals, traces }
    }

    /// What is told whenever a flush leaves accounts that are to be renewed.
    pub fn renewals(&self) -> Arc<Notify> {
        Arc::clone(&self.renewals)
    }

    /// Counts what it writes for this page.
    #[must_use]
    pub fn counting(self, top_users: Arc<TopUsers>) -> Self {
        Self { top_users, ..self }
    }

    /// Records its flushes as these say.
    #[must_use]
    pub fn traced(self, traces: Traces) -> Self {
        Self { traces, ..self }
    }

    /// Starts one task per partition.
    pub fn start(self) -> RunningFlusher {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let flusher = Arc::new(self);
        for partition in flusher.partitions.iter() {
            tasks.spawn(Arc::clone(&flusher).run(partition, stop.clone()));
        }
        RunningFlusher { flusher, tasks, stop }
    }

    async fn run(self: Arc<Self>, partition: PartitionId, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let pause = match self.flush(partition).await {
                Ok(Round::Flushed { more: true, .. }) => continue,
                Ok(Round::Flushed { .. } | Round::Empty) => millis(self.config.interval_ms),
                Ok(Round::Busy) => BUSY_PAUSE,
                Ok(Round::Closed) => FAULT_PAUSE,
                Err(error) => {
                    metrics::flush_failed();
                    tracing::warn!(partition = partition.0, %error, "a flush failed and will be repeated");
                    FAULT_PAUSE
                }
            };
            stop.run_until_cancelled(sleep(pause)).await;
        }
    }

    /// Flushes until every outbox is empty, or the time is up; true when all are empty.
    pub async fn drain(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        for partition in self.partitions.iter() {
            loop {
                match self.flush(partition).await {
                    Ok(Round::Empty) => break,
                    Ok(Round::Flushed { .. }) => {}
                    Ok(Round::Busy | Round::Closed) | Err(_) => sleep(BUSY_PAUSE).await,
                }
                if Instant::now() >= deadline {
                    return false;
                }
            }
        }
        true
    }
}

/// The running tasks of a flusher.
pub struct RunningFlusher {
    flusher: Arc<Flusher>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl RunningFlusher {
    /// Stops the tasks and empties the outbox as far as the time allows; what remains stays in Redis for the next
    /// flusher.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        let within = millis(self.flusher.config.drain_timeout_ms);
        if !self.flusher.drain(within).await {
            tracing::warn!("the outbox is not empty at shutdown; the next flusher goes on with it");
        }
    }
}
