//! Operations on their way through a lane, and who waits for them.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

use smallvec::SmallVec;
use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

use super::{
    gate::Pass,
    wire::{Answer, Operation},
};
use crate::{
    quota::PartitionId,
    traces::{Parent, Recording},
};

/// What a lane says of an operation.
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

/// Why an operation did not run.
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

/// Operations that travel together: nearly always one.
pub type Operations = SmallVec<[Arc<Operation>; 1]>;

/// One for each operation, in order.
pub type Verdicts = SmallVec<[Verdict; 1]>;

/// An operation of a job, and why it is not to be sent, if so.
struct Slot {
    operation: Arc<Operation>,
    refused: Option<Reason>,
}

/// Operations in a lane's queue that go to Redis in one call and in this order: one, or those of a batch call.
pub struct Job {
    pub partition: PartitionId,
    deadline: Instant,
    slots: SmallVec<[Slot; 1]>,
    custody: Arc<Custody>,
    reply: oneshot::Sender<Verdicts>,
    /// From now to the answer, if the request is recorded.
    span: Option<Recording>,
}

impl Job {
    pub fn new(partition: PartitionId, operations: Operations, deadline: Instant) -> (Self, Waiter) {
        let (reply, receiver) = oneshot::channel();
        let custody = Arc::new(Custody::default());
        let room = operations.iter().map(|operation| operation.verb.takes_room()).collect();
        let waiter = Waiter { custody: Arc::clone(&custody), receiver, room };
        let span = Parent::current().map(|parent| parent.lane(partition.0, operations.len()));
        let slots = operations.into_iter().map(|operation| Slot { operation, refused: None }).collect();
        (Self { partition, deadline, slots, custody, reply, span }, waiter)
    }

    /// Claims the job for sending; `None` when nothing of it is to be sent: what takes room is not, once its caller has
    /// left or its deadline has passed. A settle whose caller left is sent all the same: its usage is real.
    pub fn claim(mut self, now: Instant) -> Option<Self> {
        let takes_room = |operation: &Operation| operation.verb.takes_room();
        if !self.custody.claim(SENT) {
            self.slots.retain(|slot| !takes_room(&slot.operation));
        }
        if now >= self.deadline {
            self.refuse(Reason::Late, takes_room);
        }
        self.unless_refused()
    }

    /// Takes operations out of what is to be sent.
    pub fn refuse(&mut self, reason: Reason, which: impl Fn(&Operation) -> bool) {
        for slot in &mut self.slots {
            if slot.refused.is_none() && which(&slot.operation) {
                slot.refused = Some(reason);
            }
        }
    }

    /// The job, or `None` when nothing of it is left to be sent: then its caller has been told.
    pub fn unless_refused(self) -> Option<Self> {
        if self.weight() > 0 {
            return Some(self);
        }
        self.answer(std::iter::empty());
        None
    }

    /// What is to be sent, in order.
    pub fn operations(&self) -> impl Iterator<Item = &Arc<Operation>> {
        self.slots.iter().filter(|slot| slot.refused.is_none()).map(|slot| &slot.operation)
    }

    /// How many operations are to be sent.
    pub fn weight(&self) -> usize {
        self.operations().count()
    }

    /// The span of its way through the lane, if there is one.
    pub fn span(&mut self) -> Option<&mut Recording> {
        self.span.as_mut()
    }

    /// Tells the caller, if it is still there, the verdicts on what was sent; takes as many as that.
    pub fn answer(self, mut verdicts: impl Iterator<Item = Verdict>) {
        let verdict = |slot: &Slot| match slot.refused {
            Some(reason) => Verdict::NotRun(reason),
            None => verdicts.next().unwrap_or(Verdict::Unknown),
        };
        // It ends before that of the caller.
        drop(self.span);
        // A caller that has left is no error.
        let _ = self.reply.send(self.slots.iter().map(verdict).collect());
    }

    /// The same verdict on all that was sent.
    pub fn answer_all(self, verdict: impl Fn() -> Verdict) {
        self.answer(std::iter::repeat_with(verdict));
    }
}

/// The caller's end of a job. Dropping it gives up what takes room and is still waiting, but no settle.
pub struct Waiter {
    custody: Arc<Custody>,
    receiver: oneshot::Receiver<Verdicts>,
    /// Which of the operations take room.
    room: SmallVec<[bool; 1]>,
}

impl Waiter {
    /// The verdicts, or at the deadline what can be said then.
    pub async fn wait(mut self, deadline: Instant) -> Verdicts {
        if let Ok(Ok(verdicts)) = timeout_at(deadline, &mut self.receiver).await {
            return verdicts;
        }
        // The lane is gone, with the job unsent or its outcome unknown; or the time is up.
        let given_up = self.give_up();
        let verdict = |takes_room: &bool| match given_up && *takes_room {
            true => Verdict::NotRun(Reason::Late),
            false => Verdict::Unknown,
        };
        self.room.iter().map(verdict).collect()
    }

    fn give_up(&self) -> bool {
        self.room.contains(&true) && self.custody.claim(ABANDONED)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.give_up();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        ledger::wire::Verb,
        quota::{ReservationId, UserId},
    };

    fn job(verbs: &[Verb]) -> (Job, Waiter) {
        let operation = |verb: &Verb| {
            Arc::new(Operation::new(*verb, UserId::generate(), ReservationId::generate(), Vec::new()))
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        Job::new(PartitionId(0), verbs.iter().map(operation).collect(), deadline)
    }

    fn verbs(job: Job) -> Vec<Verb> {
        job.operations().map(|operation| operation.verb).collect()
    }

    #[test]
    fn of_a_job_whose_caller_has_left_what_was_used_goes_on_in_order() {
        let (whole, _waiter) = job(&[Verb::Reserve, Verb::Settle]);
        assert_eq!(whole.weight(), 2);
        assert_eq!(whole.claim(Instant::now()).map(verbs), Some(vec![Verb::Reserve, Verb::Settle]));

        let (left, waiter) = job(&[Verb::Reserve, Verb::Settle, Verb::Extend, Verb::Release, Verb::Debit]);
        drop(waiter);
        let sent = left.claim(Instant::now()).map(verbs);
        assert_eq!(sent, Some(vec![Verb::Settle, Verb::Release, Verb::Debit]));

        let (left, waiter) = job(&[Verb::Reserve, Verb::Reserve]);
        drop(waiter);
        assert!(left.claim(Instant::now()).is_none());
    }

    #[tokio::test]
    async fn each_operation_has_its_own_verdict() {
        let (mut shed, waiter) = job(&[Verb::Settle, Verb::Reserve, Verb::Debit, Verb::Release]);
        shed.refuse(Reason::Shed, |operation| matches!(operation.verb, Verb::Settle | Verb::Debit));
        assert_eq!(shed.weight(), 2);
        shed.answer([Verdict::NotRun(Reason::Closed), Verdict::Unknown].into_iter());
        let verdicts = waiter.wait(Instant::now() + Duration::from_secs(60)).await;
        assert!(
            matches!(
                &verdicts[..],
                [
                    Verdict::NotRun(Reason::Shed),
                    Verdict::NotRun(Reason::Closed),
                    Verdict::NotRun(Reason::Shed),
                    Verdict::Unknown
                ]
            ),
            "{verdicts:?}"
        );
    }

    #[tokio::test]
    async fn at_the_deadline_only_what_takes_room_is_given_up() {
        let (late, _waiter) = job(&[Verb::Reserve, Verb::Settle]);
        assert_eq!(late.claim(Instant::now() + Duration::from_secs(61)).map(verbs), Some(vec![Verb::Settle]));

        let (waiting, waiter) = job(&[Verb::Reserve, Verb::Settle]);
        let verdicts = waiter.wait(Instant::now()).await;
        assert!(matches!(&verdicts[..], [Verdict::NotRun(Reason::Late), Verdict::Unknown]), "{verdicts:?}");
        assert_eq!(waiting.claim(Instant::now()).map(verbs), Some(vec![Verb::Settle]), "its usage is real");

        let (sent, waiter) = job(&[Verb::Reserve]);
        let sent = sent.claim(Instant::now());
        let verdicts = waiter.wait(Instant::now()).await;
        assert!(matches!(&verdicts[..], [Verdict::Unknown]), "{verdicts:?}");
        assert!(sent.is_some());
    }
}
