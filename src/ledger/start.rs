//! Puts the ledger together and starts its background tasks.

use std::sync::{Arc, Mutex};

use tokio::time::{Instant, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    calls::Calls,
    cold::{ColdLoadTask, ColdLoads},
    keeper::Keeper,
    lane::{Lane, LaneTask},
    loader::Loader,
    outbox::Outbox,
    pusher::Pusher,
    session::{CallError, Sessions, SharedSession},
    shard::Shards,
    sweeper::Sweeper,
    witness::WitnessTask,
};
use crate::{
    config::{Config, millis},
    quota::{PartitionId, Partitions, UserId},
    store::{ReplicaId, Store},
};

/// Handle on the ledger; cheap to clone. Every method is safe to drop while it runs: a reserve that is still waiting
/// is then given up, everything else runs to its end, and a repeat with the same id finds out.
#[derive(Clone)]
pub struct Ledger {
    pub(super) calls: Calls,
    pub(super) store: Store,
    pusher: Pusher,
    outbox: Outbox,
}

/// What runs behind a ledger.
pub struct Background {
    lanes: Vec<LaneTask>,
    cold: ColdLoadTask,
    keeper: Arc<Keeper>,
    sweeper: Sweeper,
    witness: WitnessTask,
    pusher: Pusher,
    config: crate::config::LedgerConfig,
    tasks: TaskTracker,
    stop_work: CancellationToken,
    stop_lanes: CancellationToken,
}

impl Ledger {
    /// Makes a ledger whose gates are all closed; they open once [`Background::start`] runs.
    ///
    /// # Errors
    /// When the Redis URL is none.
    pub fn new(
        config: &Config,
        store: Store,
        partitions: Partitions,
    ) -> Result<(Self, Background), CallError> {
        let sessions = Sessions::new(&config.redis, config.ledger.lanes + 2)?;
        let shards = Arc::new(Shards::new(partitions, &config.ledger));
        let redis = Arc::new(SharedSession::new(sessions.clone()));
        let loader = Loader::new(Arc::clone(&redis), store.clone());
        let lanes = (0..config.ledger.lanes).map(|_| Lane::new(&config.ledger, sessions.clone(), &shards));
        let (lanes, lane_tasks): (Vec<_>, Vec<_>) = lanes.unzip();
        let (cold, cold_task) = ColdLoads::new(Arc::clone(&shards), store.clone(), loader.clone());
        let calls = Calls::new(lanes, Arc::clone(&shards), loader.clone(), cold, Arc::clone(&redis));
        // Its own connection: large readings must not hold up balances.
        let outbox = Outbox::new(Arc::new(SharedSession::new(sessions)), Arc::clone(&shards), &config.ledger);
        let pusher = Pusher { shards: Arc::clone(&shards), store: store.clone(), loader };
        let keeper = Arc::new(Keeper {
            shards,
            store: store.clone(),
            redis,
            outbox: outbox.clone(),
            replica: ReplicaId::generate(),
            config: config.ledger.clone(),
            reported: Mutex::default(),
            recovering: Mutex::default(),
            booked_up_to: Mutex::default(),
        });
        let background = Background {
            lanes: lane_tasks,
            cold: cold_task,
            keeper,
            sweeper: Sweeper { calls: calls.clone(), interval: millis(config.ledger.sweep_interval_ms) },
            witness: WitnessTask { calls: calls.clone(), store: store.clone() },
            pusher: pusher.clone(),
            config: config.ledger.clone(),
            tasks: TaskTracker::new(),
            stop_work: CancellationToken::new(),
            stop_lanes: CancellationToken::new(),
        };
        Ok((Self { calls, store, pusher, outbox }, background))
    }

    /// All partitions of the deployment.
    pub fn partitions(&self) -> Vec<PartitionId> {
        self.calls.shards().iter().map(|shard| shard.id).collect()
    }

    /// Whether Redis answers by `deadline`, as a server the ledger may use.
    pub async fn redis_answers(&self, deadline: Instant) -> bool {
        timeout_at(deadline, self.calls.redis().server_info()).await.is_ok_and(|info| info.is_ok())
    }

    /// Partitions that are not open, for `/readyz`; empty when all are.
    pub fn closed_partitions(&self) -> Vec<PartitionId> {
        let closed = self.calls.shards().iter().filter(|shard| !shard.gate.is_open());
        closed.map(|shard| shard.id).collect()
    }

    /// Acked settles Postgres may not have yet, over all partitions.
    pub fn witnessed(&self) -> usize {
        self.calls.shards().iter().map(|shard| shard.gate.ring_size()).sum()
    }

    /// Pushes an account's grants, policy version and suspension to Redis now; false when that could not be
    /// confirmed by `deadline`: it then follows by itself.
    pub async fn sync_now(&self, user: UserId, deadline: Instant) -> bool {
        timeout_at(deadline, self.pusher.push(user)).await.unwrap_or(false)
    }

    /// The outbox, for the flusher.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }
}

impl Background {
    /// Starts every task. They belong to the returned handle and end with [`Running::stop`].
    pub fn start(self) -> Running {
        let Self { lanes, cold, keeper, sweeper, witness, pusher, config, tasks, stop_work, stop_lanes } =
            self;
        for lane in lanes {
            tasks.spawn(lane.run(stop_lanes.clone()));
        }
        tasks.spawn(cold.run(stop_work.clone()));
        tasks.spawn(keeper.run(stop_work.clone(), tasks.clone()));
        tasks.spawn(sweeper.run(stop_work.clone()));
        tasks.spawn(witness.run(stop_work.clone()));
        tasks.spawn(pusher.run(millis(config.sync_interval_ms), stop_work.clone()));
        Running { tasks, stop_work, stop_lanes }
    }
}

/// The running tasks behind a ledger.
pub struct Running {
    tasks: TaskTracker,
    stop_work: CancellationToken,
    stop_lanes: CancellationToken,
}

impl Running {
    /// Stops everything; what is still in a lane's queue is served first.
    pub async fn stop(self) {
        self.stop_work.cancel();
        self.stop_lanes.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
