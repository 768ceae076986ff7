//! A lane: one Redis connection, two bounded queues, one batch in flight.
//!
//! It takes what waits, groups it by partition, sends one `apply` per partition as one pipeline and hands each caller
//! its answer. It never waits for a batch to fill: batches grow by themselves while one is in flight. Settles,
//! releases, debits and expiries have their own queue and go first; reserves are shed first. Without a connection
//! every job is answered with [`Reason::Down`] while the lane probes for a new one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use smallvec::{SmallVec, smallvec};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    batch::{Batch, Limits},
    job::{Job, Operations, Reason, Verdict, Verdicts, Waiter},
    session::{Session, Sessions},
    shard::Shards,
    waiting::{Share, WaitingReserves},
    wire::Operation,
};
use crate::{config::LedgerConfig, metrics, quota::PartitionId};

/// How often a lane without a connection tries for one.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// Calls of a round, of the few partitions there may be: a crowd of operations is not to wait for a round trip each 64.
const LEAST_CALLS: usize = 4;

/// The callers' side of a lane.
#[derive(Clone)]
pub struct Lane {
    urgent: mpsc::Sender<Job>,
    reserves: mpsc::Sender<Job>,
    waiting: Arc<WaitingReserves>,
    /// What waiting operations that go together may take of the queues: these count jobs, and they are one.
    together: Room,
    max_batch: usize,
    in_flight: Arc<AtomicUsize>,
}

/// How full a lane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneLoad {
    /// Jobs that wait, of one operation or of many that go together: settles and their like, and reserves.
    pub urgent: usize,
    pub reserves: usize,
    /// Operations of the batch that is with Redis.
    pub in_flight: usize,
}

/// How many operations of jobs of many may wait, by queue.
#[derive(Clone)]
struct Room {
    urgent: Arc<Semaphore>,
    reserves: Arc<Semaphore>,
}

/// Operations in a queue, as their caller holds them.
pub struct Queued {
    waiter: Waiter,
    deadline: Instant,
    _shares: SmallVec<[Share; 1]>,
    _room: Option<OwnedSemaphorePermit>,
}

impl Queued {
    /// The verdicts, one for each operation, in order.
    pub async fn verdicts(self) -> Verdicts {
        self.waiter.wait(self.deadline).await
    }
}

impl Lane {
    /// A lane and the task that runs it.
    pub fn new(config: &LedgerConfig, sessions: Sessions, shards: &Arc<Shards>) -> (Self, LaneTask) {
        let (urgent, urgent_jobs) = mpsc::channel(config.settle_queue);
        let (reserves, reserve_jobs) = mpsc::channel(config.reserve_queue);
        let waiting = Arc::new(WaitingReserves::new(config.reserves_per_user));
        let together = Room {
            urgent: Arc::new(Semaphore::new(config.settle_queue)),
            reserves: Arc::new(Semaphore::new(config.reserve_queue)),
        };
        let max_batch = config.max_batch;
        let in_flight = Arc::new(AtomicUsize::new(0));
        let lane = Self { urgent, reserves, waiting, together, max_batch, in_flight: Arc::clone(&in_flight) };
        let task = LaneTask {
            urgent: urgent_jobs,
            reserves: reserve_jobs,
            sessions,
            shards: Arc::clone(shards),
            limits: Limits::new(config),
            session: None,
            next_probe: Instant::now(),
            in_flight,
        };
        (lane, task)
    }

    /// Puts an operation in the queue and waits for its verdict. Safe to drop at any point: a reserve that is still
    /// waiting is then given up, everything else runs to its end.
    pub async fn run(&self, partition: PartitionId, operation: Arc<Operation>, deadline: Instant) -> Verdict {
        match self.enqueue(partition, smallvec![operation], deadline) {
            Ok(queued) => queued.verdicts().await.pop().unwrap_or(Verdict::Unknown),
            Err(reason) => Verdict::NotRun(reason),
        }
    }

    /// How full it is now.
    pub fn load(&self) -> LaneLoad {
        let waiting = |queue: &mpsc::Sender<Job>| queue.max_capacity() - queue.capacity();
        LaneLoad {
            urgent: waiting(&self.urgent),
            reserves: waiting(&self.reserves),
            in_flight: self.in_flight.load(Ordering::Relaxed),
        }
    }

    /// The most operations that go in one call.
    pub fn longest_job(&self) -> usize {
        self.max_batch
    }

    /// Puts operations in a queue, to reach Redis in one call and in this order: in the reserves' queue if one of them
    /// takes room, so that a batch call is no way past the others. At most [`Self::longest_job`].
    ///
    /// # Errors
    /// Why none of them was taken.
    pub fn enqueue(
        &self,
        partition: PartitionId,
        operations: Operations,
        deadline: Instant,
    ) -> Result<Queued, Reason> {
        let mut shares = SmallVec::new();
        for operation in operations.iter().filter(|operation| operation.verb.takes_room()) {
            shares.push(self.waiting.enter(operation.user).ok_or_else(|| shed("share"))?);
        }
        let (queue, room, name) = if shares.is_empty() {
            (&self.urgent, &self.together.urgent, "urgent")
        } else {
            (&self.reserves, &self.together.reserves, "reserves")
        };
        let room = match u32::try_from(operations.len()) {
            Ok(1) => None,
            count => {
                let count = count.unwrap_or(u32::MAX);
                Some(Arc::clone(room).try_acquire_many_owned(count).map_err(|_| shed(name))?)
            }
        };
        let (job, waiter) = Job::new(partition, operations, deadline);
        match queue.try_send(job) {
            Ok(()) => Ok(Queued { waiter, deadline, _shares: shares, _room: room }),
            Err(mpsc::error::TrySendError::Full(_)) => Err(shed(name)),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Reason::Down),
        }
    }
}

fn shed(queue: &'static str) -> Reason {
    metrics::shed(queue);
    Reason::Shed
}

/// The task behind a lane.
pub struct LaneTask {
    urgent: mpsc::Receiver<Job>,
    reserves: mpsc::Receiver<Job>,
    sessions: Sessions,
    shards: Arc<Shards>,
    limits: Limits,
    session: Option<Session>,
    next_probe: Instant,
    in_flight: Arc<AtomicUsize>,
}

impl LaneTask {
    /// Serves until `stop`, then what is still in the queues.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let first = tokio::select! {
                biased;
                job = self.urgent.recv() => job,
                job = self.reserves.recv() => job,
                () = stop.cancelled() => break,
            };
            // Whoever is ready to ask does so first: under load that makes larger batches, and costs nothing without.
            tokio::task::yield_now().await;
            let jobs = self.take_waiting(first);
            self.serve(jobs).await;
        }
        self.urgent.close();
        self.reserves.close();
        loop {
            let jobs = self.take_waiting(None);
            if jobs.is_empty() {
                return;
            }
            self.serve(jobs).await;
        }
    }

    /// What waits, urgent jobs first, at most a round; a quarter of each round is the reserves' own.
    fn take_waiting(&mut self, first: Option<Job>) -> Vec<Job> {
        let round = self.limits.max_batch * self.shards.len().max(LEAST_CALLS);
        let mut jobs: Vec<Job> = first.into_iter().collect();
        let mut operations: usize = jobs.iter().map(Job::weight).sum();
        while operations < (round * 3).div_ceil(4) {
            let Ok(job) = self.urgent.try_recv() else { break };
            operations += job.weight();
            jobs.push(job);
        }
        while operations < round {
            let Ok(job) = self.reserves.try_recv() else { break };
            operations += job.weight();
            jobs.push(job);
        }
        jobs
    }

    async fn serve(&mut self, jobs: Vec<Job>) {
        let now = Instant::now();
        let jobs: Vec<Job> = jobs.into_iter().filter_map(|job| job.claim(now)).collect();
        if jobs.is_empty() {
            return;
        }
        let fresh = self.session.is_none();
        let Some(mut session) = self.connected().await else {
            jobs.into_iter().for_each(|job| job.answer_all(|| Verdict::NotRun(Reason::Down)));
            return;
        };
        let batch = Batch::build(jobs, &self.shards, &self.limits, session.link().run_id(), fresh);
        self.in_flight.store(batch.operations(), Ordering::Relaxed);
        let usable = batch.run(session.link(), &self.shards).await;
        self.in_flight.store(0, Ordering::Relaxed);
        if usable {
            self.session = Some(session);
        } else {
            session.discard();
        }
    }

    async fn connected(&mut self) -> Option<Session> {
        if let Some(session) = self.session.take() {
            return Some(session);
        }
        if Instant::now() < self.next_probe {
            return None;
        }
        match self.sessions.open().await {
            Ok(session) => Some(session),
            Err(error) => {
                tracing::warn!(%error, "no connection to Redis");
                self.next_probe = Instant::now() + PROBE_INTERVAL;
                None
            }
        }
    }
}
