//! A lane: one Redis connection, two bounded queues, one batch in flight.
//!
//! It takes what waits, groups it by partition, sends one `apply` per partition as one pipeline and hands each caller
//! its answer. It never waits for a batch to fill: batches grow by themselves while one is in flight. Settles,
//! releases, debits and expiries have their own queue and go first; reserves are shed first. Without a connection
//! every job is answered with [`Reason::Down`] while the lane probes for a new one.

use std::{sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    batch::{Batch, Limits},
    job::{Job, Reason, Verdict},
    session::{Session, Sessions},
    shard::Shards,
    waiting::WaitingReserves,
    wire::Operation,
};
use crate::{config::LedgerConfig, metrics, quota::PartitionId};

/// How often a lane without a connection tries for one.
const PROBE_INTERVAL: Duration = Duration::from_millis(100);

/// The callers' side of a lane.
#[derive(Clone)]
pub struct Lane {
    urgent: mpsc::Sender<Job>,
    reserves: mpsc::Sender<Job>,
    waiting: Arc<WaitingReserves>,
}

impl Lane {
    /// A lane and the task that runs it.
    pub fn new(config: &LedgerConfig, sessions: Sessions, shards: &Arc<Shards>) -> (Self, LaneTask) {
        let (urgent, urgent_jobs) = mpsc::channel(config.settle_queue);
        let (reserves, reserve_jobs) = mpsc::channel(config.reserve_queue);
        let waiting = Arc::new(WaitingReserves::new(config.reserves_per_user));
        let lane = Self { urgent, reserves, waiting };
        let task = LaneTask {
            urgent: urgent_jobs,
            reserves: reserve_jobs,
            sessions,
            shards: Arc::clone(shards),
            limits: Limits::new(config),
            session: None,
            next_probe: Instant::now(),
        };
        (lane, task)
    }

    /// Puts an operation in the queue and waits for its verdict. Safe to drop at any point: a reserve that is still
    /// waiting is then given up, everything else runs to its end.
    pub async fn run(&self, partition: PartitionId, operation: Arc<Operation>, deadline: Instant) -> Verdict {
        let takes_room = operation.verb.takes_room();
        let share = if takes_room { self.waiting.enter(operation.user) } else { None };
        if takes_room && share.is_none() {
            metrics::shed("share");
            return Verdict::NotRun(Reason::Shed);
        }
        let (job, waiter) = Job::new(partition, operation, deadline);
        let queue = if takes_room { &self.reserves } else { &self.urgent };
        match queue.try_send(job) {
            Ok(()) => waiter.wait(deadline).await,
            Err(mpsc::error::TrySendError::Full(_)) => {
                metrics::shed(if takes_room { "reserves" } else { "urgent" });
                Verdict::NotRun(Reason::Shed)
            }
            Err(mpsc::error::TrySendError::Closed(_)) => Verdict::NotRun(Reason::Down),
        }
    }
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
        let round = self.limits.max_batch * self.shards.len();
        let mut jobs: Vec<Job> = first.into_iter().collect();
        while jobs.len() < (round * 3).div_ceil(4) {
            let Ok(job) = self.urgent.try_recv() else { break };
            jobs.push(job);
        }
        while jobs.len() < round {
            let Ok(job) = self.reserves.try_recv() else { break };
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
            jobs.into_iter().for_each(|job| job.answer(Verdict::NotRun(Reason::Down)));
            return;
        };
        let batch = Batch::build(jobs, &self.shards, &self.limits, session.link().run_id(), fresh);
        if batch.run(session.link(), &self.shards).await {
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
