//! One operation on its way through a lane, and who waits for it.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{
    gate::Pass,
    wire::{Answer, Operation},
};
use crate::quota::PartitionId;

/// What a lane says of a job.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "the large one is the usual one; a box would cost each call an allocation"
)]
pub enum Verdict {
    /// Definite: given under the gate.
    Answered { answer: Answer, pass: Pass, now_ms: u64 },
    /// It has not run, and will not.
    NotRun(Reason),
    /// It may have run; the same id is safe to send again.
    Unknown,
}

/// Why a job did not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The partition's gate is closed, or its life has ended.
    Closed,
    /// Redis cannot be reached.
    Down,
    /// The caller's deadline passed while it waited.
    Late,
    /// The queue, the user's share of it, or the witness ring is full.
    Shed,
}

const WAITING: u8 = 0;
const SENT: u8 = 1;
const ABANDONED: u8 = 2;

/// Who has the job: still waiting, sent, or given up by its caller. Settled by one atomic step, so that a caller who
/// gives up knows whether anything was sent.
#[derive(Debug, Default)]
struct Custody(AtomicU8);

impl Custody {
    fn claim(&self, by: u8) -> bool {
        self.0.compare_exchange(WAITING, by, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// One operation in a lane's queue.
pub struct Job {
    pub partition: PartitionId,
    pub operation: Arc<Operation>,
    pub deadline: Instant,
    /// What follows it in a chain: goes to Redis in the same call, right behind it and in this order.
    pub followers: Vec<Job>,
    custody: Arc<Custody>,
    reply: oneshot::Sender<Verdict>,
}

impl Job {
    pub fn new(partition: PartitionId, operation: Arc<Operation>, deadline: Instant) -> (Self, Waiter) {
        let (reply, receiver) = oneshot::channel();
        let custody = Arc::new(Custody::default());
        let waiter = Waiter { custody: Arc::clone(&custody), receiver, drops: operation.verb.takes_room() };
        (Self { partition, operation, deadline, followers: Vec::new(), custody, reply }, waiter)
    }

    /// Claims the job for sending; `None` when its caller has left or its deadline has passed. A settle whose caller
    /// left is sent all the same: its usage is real.
    ///
    /// Of a chain the links are claimed each by itself; what is left of it goes on in order.
    pub fn claim(mut self, now: Instant) -> Option<Self> {
        if self.followers.is_empty() {
            return self.claim_alone(now);
        }
        let followers = std::mem::take(&mut self.followers);
        let mut claimed =
            self.claim_alone(now).into_iter().chain(followers.into_iter().filter_map(|link| link.claim(now)));
        let head = claimed.next()?;
        Some(Self { followers: claimed.collect(), ..head })
    }

    fn claim_alone(self, now: Instant) -> Option<Self> {
        if self.operation.verb.takes_room() && now >= self.deadline {
            self.answer(Verdict::NotRun(Reason::Late));
            return None;
        }
        self.custody.claim(SENT).then_some(self)
    }

    /// How many operations it brings.
    pub fn weight(&self) -> usize {
        1 + self.followers.len()
    }

    /// The links of the chain one by one, in order; a lone operation is its own.
    pub fn links(mut self) -> impl Iterator<Item = Self> {
        let followers = std::mem::take(&mut self.followers);
        std::iter::once(self).chain(followers)
    }

    /// Tells the caller, if it is still there.
    pub fn answer(self, verdict: Verdict) {
        // A caller that has left is no error.
        let _ = self.reply.send(verdict);
    }
}

/// The caller's end of a job. Dropping it gives a waiting reserve up, but not a settle.
pub struct Waiter {
    custody: Arc<Custody>,
    receiver: oneshot::Receiver<Verdict>,
    drops: bool,
}

impl Waiter {
    /// The verdict, or at the deadline what can be said then.
    pub async fn wait(mut self, deadline: Instant) -> Verdict {
        match timeout_at(deadline, &mut self.receiver).await {
            Ok(Ok(verdict)) => verdict,
            // The lane is gone, with the job unsent or its outcome unknown; or the time is up.
            Ok(Err(_)) | Err(_) if self.drops && self.custody.claim(ABANDONED) => {
                Verdict::NotRun(Reason::Late)
            }
            Ok(Err(_)) | Err(_) => Verdict::Unknown,
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        if self.drops {
            self.custody.claim(ABANDONED);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ledger::wire::Verb,
        quota::{ReservationId, UserId},
    };

    /// A chain of these verbs, and who waits for each.
    fn chain(verbs: &[Verb]) -> (Job, Vec<Waiter>) {
        let partition = PartitionId(0);
        let deadline = Instant::now() + std::time::Duration::from_secs(60);
        let job = |verb: &Verb| {
            let operation = Operation::new(*verb, UserId::generate(), ReservationId::generate(), Vec::new());
            Job::new(partition, Arc::new(operation), deadline)
        };
        let (mut jobs, waiters): (Vec<Job>, Vec<Waiter>) = verbs.iter().map(job).unzip();
        let followers = jobs.split_off(1);
        let mut head = jobs.remove(0);
        head.followers = followers;
        (head, waiters)
    }

    fn verbs(job: Job) -> Vec<Verb> {
        job.links().map(|job| job.operation.verb).collect()
    }

    #[test]
    fn of_a_chain_whose_caller_has_left_what_was_used_goes_on_in_order() {
        let (whole, _waiters) = chain(&[Verb::Reserve, Verb::Settle]);
        assert_eq!(whole.weight(), 2);
        assert_eq!(whole.claim(Instant::now()).map(verbs), Some(vec![Verb::Reserve, Verb::Settle]));

        let (left, waiters) = chain(&[Verb::Reserve, Verb::Settle, Verb::Extend, Verb::Release, Verb::Debit]);
        drop(waiters);
        assert_eq!(
            left.claim(Instant::now()).map(verbs),
            Some(vec![Verb::Settle, Verb::Release, Verb::Debit])
        );

        let (left, waiters) = chain(&[Verb::Reserve, Verb::Reserve]);
        drop(waiters);
        assert!(left.claim(Instant::now()).is_none());
    }
}
