//! Runs one operation until it has a definite answer, or its deadline has passed.
//!
//! A lane's verdict is not always one: the partition may be closed, the account cold, the policy stale, a reply lost.
//! Each of these is resolved here and the operation sent again with the same id, which is always safe. What leaves is
//! an answer given under the gate, or a refusal that says whether anything may have happened.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

use super::{
    Outcome, Refusal,
    cold::{ColdLoads, Loading},
    gate::Pass,
    job::{Reason, Verdict},
    lane::Lane,
    loader::Loader,
    policy::Policies,
    session::SharedSession,
    shard::{Shard, Shards},
    sweeper,
    wire::{Answer, Operation, Status},
};
use crate::{metrics, quota::UserId};

/// Pause before an operation is sent again after a fault.
pub const RETRY_PAUSE: Duration = Duration::from_millis(10);

/// Handle for running operations; cheap to clone.
#[derive(Clone)]
pub struct Calls {
    lanes: Arc<[Lane]>,
    shards: Arc<Shards>,
    loader: Loader,
    cold: ColdLoads,
    policies: Policies,
    redis: Arc<SharedSession>,
}

/// A definite answer and the life and moment it was given in.
#[derive(Clone, Debug)]
pub struct Definite {
    pub answer: Answer,
    pub pass: Pass,
    pub now_ms: u64,
}

/// What is to happen after a verdict.
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the usual one; a box would cost each call an allocation"
)]
pub enum Next {
    Done(Definite),
    Again,
    Refuse(Refusal),
}

/// One operation on its way: what is known of it so far.
pub struct Attempt {
    pub operation: Arc<Operation>,
    deadline: Instant,
    /// A try may have run.
    pub unknown: bool,
}

impl Attempt {
    pub fn new(operation: Arc<Operation>, deadline: Instant) -> Self {
        Self { operation, deadline, unknown: false }
    }

    pub fn unavailable(&self) -> Refusal {
        Refusal::Unavailable { outcome: if self.unknown { Outcome::Unknown } else { Outcome::None } }
    }
}

impl Calls {
    pub fn new(
        lanes: Vec<Lane>,
        shards: Arc<Shards>,
        loader: Loader,
        cold: ColdLoads,
        redis: Arc<SharedSession>,
    ) -> Self {
        Self { lanes: lanes.into(), shards, loader, cold, policies: Policies::new(), redis }
    }

    pub fn shards(&self) -> &Shards {
        &self.shards
    }

    /// For accounts that Redis does not have.
    pub fn cold(&self) -> &ColdLoads {
        &self.cold
    }

    /// The connection for everything that is not on the hot path.
    pub fn redis(&self) -> &SharedSession {
        &self.redis
    }

    pub fn policies(&self) -> &Policies {
        &self.policies
    }

    /// Runs it. Answers that need another look (COLD, STALE, a denial while something is due) are resolved first.
    ///
    /// # Errors
    /// `UserNotFound`, `Overloaded`, or `Unavailable` with what may have happened.
    pub async fn run(&self, operation: Arc<Operation>, deadline: Instant) -> Result<Definite, Refusal> {
        let (verb, started) = (operation.verb, Instant::now());
        let result = self.run_until(operation, deadline).await;
        let outcome = match &result {
            Ok(definite) => definite.answer.status.as_str(),
            Err(refusal) => refusal.as_str(),
        };
        metrics::operation(verb.as_str(), outcome, started.elapsed());
        result
    }

    async fn run_until(&self, operation: Arc<Operation>, deadline: Instant) -> Result<Definite, Refusal> {
        let shard = self.shards.of(operation.user);
        let lane = self.lane_of(operation.user);
        let mut attempt = Attempt::new(operation, deadline);
        loop {
            if shard.gate.wait_open(deadline).await.is_none() {
                return Err(attempt.unavailable());
            }
            let verdict = lane.run(shard.id, Arc::clone(&attempt.operation), deadline).await;
            match self.next(shard, &mut attempt, verdict).await {
                Next::Done(definite) => return Ok(definite),
                Next::Refuse(refusal) => return Err(refusal),
                Next::Again if Instant::now() >= deadline => return Err(attempt.unavailable()),
                Next::Again => {}
            }
        }
    }

    /// All lanes.
    pub fn lanes(&self) -> &[Lane] {
        &self.lanes
    }

    /// Operations of one account stay in one lane, so that they stay in order.
    pub fn lane_of(&self, user: UserId) -> &Lane {
        let (high, low) = user.0.as_u64_pair();
        &self.lanes[((high ^ low) % self.lanes.len() as u64) as usize]
    }

    /// What is to happen after this verdict on the attempt; what can be resolved has been.
    pub async fn next(&self, shard: &Shard, attempt: &mut Attempt, verdict: Verdict) -> Next {
        match verdict {
            Verdict::Answered { answer, pass, now_ms } => match answer.status {
                // Boxed: every request's future would be as large as these rare ones, and is moved about.
                Status::Cold | Status::Stale => Box::pin(self.resolve(shard, attempt, &answer, &pass)).await,
                Status::Denied if answer.due => Box::pin(self.resolve(shard, attempt, &answer, &pass)).await,
                Status::HeldBack => Next::Again,
                _ => Next::Done(Definite { answer, pass, now_ms }),
            },
            Verdict::Unknown => {
                attempt.unknown = true;
                sleep(RETRY_PAUSE).await;
                Next::Again
            }
            Verdict::NotRun(Reason::Closed) => {
                sleep(RETRY_PAUSE).await;
                Next::Again
            }
            // A settle is worth waiting for; a reserve's caller is better told at once.
            Verdict::NotRun(Reason::Down) if !attempt.operation.verb.takes_room() => {
                sleep(RETRY_PAUSE).await;
                Next::Again
            }
            Verdict::NotRun(Reason::Down | Reason::Late) => Next::Refuse(attempt.unavailable()),
            Verdict::NotRun(Reason::Shed) if attempt.unknown => Next::Refuse(attempt.unavailable()),
            Verdict::NotRun(Reason::Shed) => Next::Refuse(Refusal::Overloaded),
        }
    }

    /// Does what an answer that is none yet asks for.
    async fn resolve(&self, shard: &Shard, attempt: &mut Attempt, answer: &Answer, pass: &Pass) -> Next {
        let deadline = attempt.deadline;
        let resolved = match answer.status {
            Status::Cold => {
                match timeout_at(deadline, self.cold.load(shard, pass, attempt.operation.user)).await {
                    Ok(Loading::UnknownUser) => return Next::Refuse(Refusal::UserNotFound),
                    Ok(Loading::Loaded) => true,
                    Ok(Loading::Busy) | Err(_) => false,
                }
            }
            Status::Stale => {
                let user = attempt.operation.user;
                let reload = self.policies.reload(shard, &self.loader, user, answer.policy_version);
                match timeout_at(deadline, reload).await {
                    Ok(Some(version)) => {
                        Arc::make_mut(&mut attempt.operation).policy_version = version;
                        true
                    }
                    Ok(None) | Err(_) => false,
                }
            }
            _ => timeout_at(deadline, sweeper::sweep(self, shard)).await.is_ok(),
        };
        if !resolved {
            sleep(RETRY_PAUSE).await;
        }
        Next::Again
    }
}
