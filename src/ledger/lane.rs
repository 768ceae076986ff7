//! A lane: one Redis connection, two bounded queues, a few batches in flight.
//!
//! It takes what waits, groups it by partition, sends one `apply` per partition as one pipeline and hands each caller
//! its answer. It never waits for a batch to fill: batches grow by themselves while one is in flight. Another one sets
//! out meanwhile only when it is worth a call: so Redis always has work under load, and never many small calls. Settles,
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
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    batch::{Batch, Limits},
    job::{Job, Operations, Reason, Verdict, Verdicts, Waiter},
    session::{Link, Session, Sessions},
    shard::Shards,
    waiting::{Share, WaitingReserves},
    wire::Operation,
};
use crate::{config::LedgerConfig, metrics, quota::PartitionId};

/// How often a lane without a connection tries for one.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// Most batches with Redis at a time: enough for it to have the next one when it is done with one.
const MOST_FLIGHTS: usize = 3;

/// As many operations for each partition as make up for what a call costs Redis before its first.
const WORTH_A_CALL: usize = 16;

/// The callers' side of a lane.
#[derive(Clone)]
pub struct Lane {
    urgent: mpsc::Sender<Job>,
    reserves: mpsc::Sender<Job>,
    waiting: Arc<WaitingReserves>,
    /// What waiting operations that go together may take of the queues: these count jobs, and they are one.
    together: Room,
    max_batch: usize,
    crowd: Arc<Crowd>,
    in_flight: Arc<AtomicUsize>,
}

/// How full a lane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LaneLoad {
    /// Jobs that wait, of one operation or of many that go together: settles and their like, and reserves.
    pub urgent: usize,
    pub reserves: usize,
    /// Operations of the batches that are with Redis.
    pub in_flight: usize,
}

/// How many operations of jobs of many may wait, by queue.
#[derive(Clone)]
struct Room {
    urgent: Arc<Semaphore>,
    reserves: Arc<Semaphore>,
}

/// The operations in both queues, and whether they are worth a batch of their own beside one in flight.
struct Crowd {
    waiting: AtomicUsize,
    enough: usize,
    /// Told when they become as many.
    gathered: Notify,
}

impl Crowd {
    fn new(enough: usize) -> Self {
        Self { waiting: AtomicUsize::new(0), enough, gathered: Notify::new() }
    }

    /// Counts operations before they can be taken, and puts them in their queue.
    fn enter(&self, operations: usize, queue: impl FnOnce()) {
        let before = self.waiting.fetch_add(operations, Ordering::Relaxed);
        queue();
        if before < self.enough && before + operations >= self.enough {
            self.gathered.notify_one();
        }
    }

    fn leave(&self, operations: usize) {
        self.waiting.fetch_sub(operations, Ordering::Relaxed);
    }

    fn is_enough(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) >= self.enough
    }
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
        let crowd = Arc::new(Crowd::new(WORTH_A_CALL.min(max_batch) * shards.len()));
        let lane = Self {
            urgent,
            reserves,
            waiting,
            together,
            max_batch,
            crowd: Arc::clone(&crowd),
            in_flight: Arc::clone(&in_flight),
        };
        let task = LaneTask {
            urgent: urgent_jobs,
            reserves: reserve_jobs,
            sessions,
            shards: Arc::clone(shards),
            limits: Limits::new(config),
            round: max_batch * shards.len(),
            session: None,
            sessions_opened: 0,
            next_probe: Instant::now(),
            crowd,
            flights: JoinSet::new(),
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
        let weight = operations.len();
        let (job, waiter) = Job::new(partition, operations, deadline);
        let place = queue.try_reserve().map_err(|error| match error {
            mpsc::error::TrySendError::Full(()) => shed(name),
            mpsc::error::TrySendError::Closed(()) => Reason::Down,
        })?;
        self.crowd.enter(weight, || place.send(job));
        Ok(Queued { waiter, deadline, _shares: shares, _room: room })
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
    /// Most operations that set out at once.
    round: usize,
    session: Option<Session>,
    /// Numbers them, so that a batch that went wrong is laid to the one it was sent on.
    sessions_opened: u64,
    next_probe: Instant,
    crowd: Arc<Crowd>,
    flights: JoinSet<Landing>,
    in_flight: Arc<AtomicUsize>,
}

/// How a batch came back.
struct Landing {
    session: u64,
    /// Whether that may be used again.
    usable: bool,
}

impl LaneTask {
    /// Serves until `stop`, then what is still in the queues.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            self.send_beside_others().await;
            let is_idle = self.flights.is_empty();
            let first = tokio::select! {
                biased;
                Some(landing) = self.flights.join_next() => {
                    self.land(landing.ok());
                    continue;
                }
                () = self.crowd.gathered.notified(), if !is_idle => continue,
                job = self.urgent.recv(), if is_idle => job,
                job = self.reserves.recv(), if is_idle => job,
                () = stop.cancelled() => break,
            };
            // Whoever is ready to ask does so first: under load that makes larger batches, and costs nothing without.
            tokio::task::yield_now().await;
            let jobs = self.take_waiting(first);
            self.send(jobs).await;
        }
        self.urgent.close();
        self.reserves.close();
        loop {
            let jobs = self.take_waiting(None);
            let was_last = jobs.is_empty();
            self.send(jobs).await;
            while let Some(landing) = self.flights.join_next().await {
                self.land(landing.ok());
            }
            if was_last {
                return;
            }
        }
    }

    /// While a batch is in flight.
    async fn send_beside_others(&mut self) {
        while (1..MOST_FLIGHTS).contains(&self.flights.len()) && self.crowd.is_enough() {
            let jobs = self.take_waiting(None);
            if jobs.is_empty() {
                return;
            }
            self.send(jobs).await;
        }
    }

    /// A batch is back; without a word when its task broke.
    fn land(&mut self, landing: Option<Landing>) {
        let is_usable =
            landing.is_some_and(|landing| landing.usable || landing.session != self.sessions_opened);
        if !is_usable && let Some(session) = self.session.take() {
            session.discard();
        }
    }

    /// What waits, urgent jobs first, at most a round; a quarter of each round is the reserves' own.
    fn take_waiting(&mut self, first: Option<Job>) -> Vec<Job> {
        let round = self.round;
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
        self.crowd.leave(operations);
        jobs
    }

    async fn send(&mut self, jobs: Vec<Job>) {
        let now = Instant::now();
        let jobs: Vec<Job> = jobs.into_iter().filter_map(|job| job.claim(now)).collect();
        if jobs.is_empty() {
            return;
        }
        let fresh = self.session.is_none();
        let Some(mut link) = self.link().await else {
            jobs.into_iter().for_each(|job| job.answer_all(|| Verdict::NotRun(Reason::Down)));
            return;
        };
        let batch = Batch::build(jobs, &self.shards, &self.limits, link.run_id(), fresh);
        let counted = InFlight::count(&self.in_flight, batch.operations());
        let (session, shards) = (self.sessions_opened, Arc::clone(&self.shards));
        self.flights.spawn(async move {
            let _counted = counted;
            Landing { session, usable: batch.run(&mut link, &shards).await }
        });
    }

    async fn link(&mut self) -> Option<Link> {
        if self.session.is_none() && Instant::now() >= self.next_probe {
            match self.sessions.open().await {
                Ok(session) => {
                    self.session = Some(session);
                    self.sessions_opened += 1;
                }
                Err(error) => {
                    tracing::warn!(%error, "no connection to Redis");
                    self.next_probe = Instant::now() + PROBE_INTERVAL;
                }
            }
        }
        self.session.as_mut().map(|session| session.link().clone())
    }
}

/// Operations that are with Redis, until it is dropped.
struct InFlight {
    all: Arc<AtomicUsize>,
    operations: usize,
}

impl InFlight {
    fn count(all: &Arc<AtomicUsize>, operations: usize) -> Self {
        all.fetch_add(operations, Ordering::Relaxed);
        Self { all: Arc::clone(all), operations }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.all.fetch_sub(self.operations, Ordering::Relaxed);
    }
}
