//! A chain: the operations of one account in a batch call, equal to calling them one by one in order.
//!
//! They go to Redis together, as segments of one `apply` call each (the first with those of the other chains of the
//! batch call, see `convoy`), and no operation overtakes an earlier one of its
//! chain, also not when the earlier one must run again:
//!
//! - What has no definite answer yet (COLD, STALE, a denial while something is overdue, an id that Postgres must be
//!   asked for) holds back what follows it, inside the script (`lua/apply/run.lua`). It is resolved here, and the next
//!   segment begins with it.
//! - A call that did not run ran none of its operations, so its segment begins again.
//! - A call whose reply was lost may have run all of them. They are run again only where that cannot show: no id twice,
//!   and what takes room after what gives it back. Else an answer could already see what came after it (a reserve its
//!   own settle, a denial the room of a later release), so the caller is told that the outcome is unknown, as by a
//!   single call whose reply was lost; and what comes later in the chain is not run.

use std::{collections::HashSet, sync::Arc};

use tokio::time::Instant;

use super::{
    Done, Ledger, Outcome, Refusal,
    calls::{Attempt, Next},
    job::{Operations, Reason, Verdict, Verdicts},
    lane::Lane,
    shard::Shard,
    verbs::MAX_LOOKUPS,
    wire::{Operation, Options},
};
use crate::{
    metrics,
    quota::{Ask, UserId},
};

/// One operation, and how often Postgres was asked for it.
struct Link {
    attempt: Attempt,
    lookups: usize,
}

/// What a segment may hold; narrower after a queue was full, so that what a single call would get through gets
/// through.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    Whole,
    /// Only what takes room, or only what does not: the two have their own queues.
    Alike,
    Single,
}

/// How a segment goes on after one verdict.
enum Flow {
    /// The operation has its answer.
    Next,
    /// It must run again, and what follows it in the segment has not run.
    Again,
}

/// The operations of one account, on their way. Safe to drop: what waits in a queue is then treated as single calls
/// are, and what was not yet handed over is not done.
pub struct Chain<'a> {
    ledger: &'a Ledger,
    user: UserId,
    pub(super) shard: &'a Shard,
    deadline: Instant,
    started: Instant,
    /// Those that cannot even be asked are refused when their turn comes.
    links: Vec<Result<Link, Refusal>>,
    /// As many as have their answer; the next operation is the one after them.
    answers: Vec<Result<Done, Refusal>>,
    pace: Pace,
    /// The first segment, if it went with those of other chains.
    heard: Option<Segment>,
}

/// Operations that have been sent together, up to `end` of the chain, and what was said of them.
struct Segment {
    end: usize,
    verdicts: Verdicts,
}

impl<'a> Chain<'a> {
    pub(super) fn new(ledger: &'a Ledger, user: UserId, asks: Vec<Ask>, deadline: Instant) -> Self {
        let link = |ask| {
            let attempt = Attempt::new(Arc::new(ledger.operation(user, ask)?), deadline);
            Ok(Link { attempt, lookups: 0 })
        };
        Self {
            ledger,
            user,
            shard: ledger.calls.shards().of(user),
            deadline,
            started: Instant::now(),
            answers: Vec::with_capacity(asks.len()),
            links: asks.into_iter().map(link).collect(),
            pace: Pace::Whole,
            heard: None,
        }
    }

    pub(super) fn lane(&self) -> &'a Lane {
        self.ledger.calls.lane_of(self.user)
    }

    /// Takes the verdicts on its first operations, which went with those of other chains.
    pub(super) fn hear(&mut self, verdicts: Verdicts) {
        self.heard = Some(Segment { end: verdicts.len(), verdicts });
    }

    /// Runs what is left, in order, and gives one answer for each operation; one that is refused spoils no other.
    pub async fn run(mut self) -> Vec<Result<Done, Refusal>> {
        if let Some(segment) = self.heard.take() {
            self.take_all(segment).await;
        }
        while let Some(next) = self.links.get(self.answers.len()) {
            match next {
                Err(refusal) => self.answers.push(Err(refusal.clone())),
                Ok(_) => self.run_segment().await,
            }
        }
        self.answers
    }

    async fn run_segment(&mut self) {
        if self.shard.gate.wait_open(self.deadline).await.is_none() {
            return self.give_up();
        }
        let (lane, at) = (self.lane(), self.answers.len());
        let operations = self.next_segment();
        let end = at + operations.len();
        match lane.enqueue(self.shard.id, operations, self.deadline) {
            Ok(queued) => {
                let verdicts = queued.verdicts().await;
                self.take_all(Segment { end, verdicts }).await;
            }
            Err(Reason::Shed) if end - at > 1 => {
                self.pace = if self.pace == Pace::Whole { Pace::Alike } else { Pace::Single };
            }
            Err(reason) => {
                // One that is refused; the next may have a queue with room.
                self.take(Verdict::NotRun(reason), at + 1).await;
            }
        }
    }

    async fn take_all(&mut self, segment: Segment) {
        for verdict in segment.verdicts {
            let flow = self.take(verdict, segment.end).await;
            // After a refusal of all that was left there is nothing to hear of the others.
            if matches!(flow, Flow::Again) || self.answers.len() >= segment.end {
                return;
            }
        }
    }

    /// The operations that go together next; none when the next cannot even be asked.
    pub(super) fn next_segment(&mut self) -> Operations {
        let at = self.answers.len();
        let end = at + self.segment();
        self.mark(at, end);
        self.links[at..end].iter().flatten().map(|link| Arc::clone(&link.attempt.operation)).collect()
    }

    /// How many of the operations that are left go together.
    fn segment(&self) -> usize {
        let left = &self.links[self.answers.len()..];
        let takes_room = |link: &Link| link.attempt.operation.verb.takes_room();
        let first = left.iter().flatten().next().map(takes_room);
        let alike = |link: &Link| self.pace == Pace::Whole || Some(takes_room(link)) == first;
        let most = if self.pace == Pace::Single { 1 } else { self.lane().longest_job() };
        left.iter().take(most).take_while(|link| link.as_ref().is_ok_and(alike)).count()
    }

    /// The first of a segment stands for itself, the others follow; and what the first has learned of the policy is
    /// told to them.
    fn mark(&mut self, at: usize, end: usize) {
        let mut policy = None;
        for (n, link) in self.links[at..end].iter_mut().flatten().enumerate() {
            // Nobody else has it any more, so nothing is copied.
            let op = Arc::make_mut(&mut link.attempt.operation);
            op.options =
                if n == 0 { op.options.without(Options::FOLLOWS) } else { op.options.with(Options::FOLLOWS) };
            if op.verb.takes_room() {
                op.policy_version = *policy.get_or_insert(op.policy_version);
            }
        }
    }

    /// Takes the verdict on the next operation, in a segment that goes on to `end`.
    async fn take(&mut self, verdict: Verdict, end: usize) -> Flow {
        let at = self.answers.len();
        if matches!(verdict, Verdict::Unknown) && self.lost(at, end) {
            return Flow::Next;
        }
        let Some(Ok(link)) = self.links.get_mut(at) else { return Flow::Next };
        let verb = link.attempt.operation.verb;
        let next = self.ledger.calls.next(self.shard, &mut link.attempt, verdict).await;
        let (word, answer) = match next {
            Next::Again if Instant::now() >= self.deadline => {
                let refusal = link.attempt.unavailable();
                (refusal.as_str(), Err(refusal))
            }
            Next::Again => return Flow::Again,
            Next::Refuse(refusal) => (refusal.as_str(), Err(refusal)),
            Next::Done(definite) => {
                let word = definite.answer.status.as_str();
                match self.ledger.conclude(&mut link.attempt.operation, definite, self.deadline).await {
                    Ok(Some(done)) => (word, Ok(done)),
                    Err(refusal) => (word, Err(refusal)),
                    Ok(None) if link.lookups + 1 < MAX_LOOKUPS => {
                        link.lookups += 1;
                        return Flow::Again;
                    }
                    Ok(None) => (word, Err(Refusal::Unavailable { outcome: Outcome::None })),
                }
            }
        };
        metrics::operation(verb.as_str(), word, self.started.elapsed());
        let unknown = matches!(answer, Err(Refusal::Unavailable { outcome: Outcome::Unknown }));
        self.answers.push(answer);
        if unknown {
            self.give_up();
        }
        Flow::Next
    }

    /// The reply to a segment was lost. True when it must not be run again: then all of it has its answer.
    fn lost(&mut self, at: usize, end: usize) -> bool {
        let sent = || self.links[at..end].iter().flatten();
        let again = end - at == 1 || may_run_again(sent().map(|link| &*link.attempt.operation));
        for link in self.links[at..end].iter_mut().flatten() {
            link.attempt.unknown = true;
        }
        if !again {
            self.give_up();
        }
        !again
    }

    /// Refuses all that is left, each with what may have become of it.
    fn give_up(&mut self) {
        for link in &self.links[self.answers.len()..] {
            let refusal = link.as_ref().map_or_else(Clone::clone, |link| {
                let refusal = link.attempt.unavailable();
                let verb = link.attempt.operation.verb;
                metrics::operation(verb.as_str(), refusal.as_str(), self.started.elapsed());
                refusal
            });
            self.answers.push(Err(refusal));
        }
    }
}

/// Whether operations that may all have run, in this order, answer the second time as they did the first.
fn may_run_again<'a>(operations: impl IntoIterator<Item = &'a Operation>) -> bool {
    let (mut ids, mut has_taken) = (HashSet::new(), false);
    operations.into_iter().all(|op| {
        let gives_back_late = has_taken && !op.verb.takes_room();
        has_taken |= op.verb.takes_room();
        ids.insert(&op.id) && !gives_back_late
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ledger::wire::Verb, quota::ReservationId};

    #[test]
    fn what_a_second_run_would_show_is_not_run_again() {
        use Verb::{Debit, Extend, Release, Reserve, Settle};
        let user = UserId::generate();
        for (operations, may) in [
            (&[(Settle, "a"), (Debit, "b"), (Release, "c")][..], true),
            (&[(Reserve, "a"), (Reserve, "b"), (Extend, "c")], true),
            (&[(Settle, "a"), (Release, "b"), (Reserve, "c"), (Extend, "d")], true),
            // The reserve would find itself settled, or twice the same.
            (&[(Reserve, "a"), (Settle, "a")], false),
            (&[(Settle, "a"), (Reserve, "a")], false),
            (&[(Reserve, "a"), (Reserve, "a")], false),
            // A reserve that was denied would find the room that came after it.
            (&[(Reserve, "a"), (Release, "b")], false),
            (&[(Settle, "a"), (Extend, "b"), (Debit, "c")], false),
        ] {
            let id = |id| ReservationId::new(id).unwrap();
            let made =
                operations.iter().map(|(verb, name)| Operation::new(*verb, user, id(name), Vec::new()));
            assert_eq!(may_run_again(made.collect::<Vec<_>>().iter()), may, "{operations:?}");
        }
    }
}
