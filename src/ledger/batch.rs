//! One round of a lane: jobs grouped into `apply` calls, sent as one pipeline, answered under the gate.

use std::sync::Arc;

use redis::{Pipeline, RedisError, Value};

use super::{
    gate::{Doubt, Pass},
    job::{Job, Reason, Verdict},
    ring::Witnessed,
    scripts,
    session::{Link, is_no_script, leads_nowhere},
    shard::{Shard, Shards},
    wire::{Answer, Head, Operation, Status, Verb, apply},
};
use crate::{
    config::LedgerConfig,
    metrics,
    quota::PartitionId,
    traces::{self, Recording},
};

/// What every `apply` call is told.
pub struct Limits {
    pub max_batch: usize,
    retention_ms: u64,
    expired_retention_ms: u64,
}

impl Limits {
    pub fn new(config: &LedgerConfig) -> Self {
        Self {
            max_batch: config.max_batch,
            retention_ms: config.retention_seconds.saturating_mul(1000),
            expired_retention_ms: config.expired_retention_seconds.saturating_mul(1000),
        }
    }
}

/// One `apply` call: jobs of one partition, and the life they are sent under.
struct Call {
    partition: PartitionId,
    pass: Pass,
    nonce: u64,
    jobs: Vec<Job>,
    /// How many operations the jobs bring.
    weight: usize,
    /// From the request to the reply, if one of the jobs is recorded.
    span: Option<Recording>,
}

/// See the module.
pub struct Batch {
    calls: Vec<Call>,
    pipe: Pipeline,
    /// A gate is open for another server than this connection leads to.
    misled: bool,
    /// The connection has just been made: where it leads is where Redis is now.
    fresh: bool,
}

impl Batch {
    /// Groups the jobs by partition, in order, at most `max_batch` a call. Jobs that cannot be sent are answered.
    pub fn build(jobs: Vec<Job>, shards: &Shards, limits: &Limits, run_id: &Arc<str>, fresh: bool) -> Self {
        let mut batch = Self { calls: Vec::new(), pipe: Pipeline::new(), misled: false, fresh };
        for job in jobs {
            let open = batch.calls.iter_mut().rev().find(|call| call.partition == job.partition);
            let weight = job.weight();
            // A job is never split: what holds the links of a chain back is inside one call.
            match open.filter(|call| call.weight + weight <= limits.max_batch) {
                Some(call) => {
                    call.weight += weight;
                    call.jobs.push(job);
                }
                None => batch.begin(job, shards, run_id),
            }
        }
        for call in &mut batch.calls {
            call.shed_settles(shards.get(call.partition));
        }
        batch.calls.retain(|call| !call.jobs.is_empty());
        for call in &batch.calls {
            call.append_to(&mut batch.pipe, shards.get(call.partition), limits);
        }
        batch
    }

    fn begin(&mut self, job: Job, shards: &Shards, run_id: &Arc<str>) {
        let partition = job.partition;
        match shards.get(partition).gate.pass() {
            Some(pass) if pass.run_id == *run_id => {
                let nonce = rand::random::<u64>() >> 2;
                let weight = job.weight();
                self.calls.push(Call { partition, pass, nonce, weight, jobs: vec![job], span: None });
            }
            pass => {
                if let Some(pass) = pass {
                    self.misled = true;
                    if self.fresh {
                        shards.get(partition).gate.doubt(&pass, Doubt::Recheck);
                    }
                }
                job.answer_all(|| Verdict::NotRun(Reason::Closed));
            }
        }
    }

    /// How many operations it brings to Redis.
    pub fn operations(&self) -> usize {
        self.calls.iter().map(|call| call.operations().count()).sum()
    }

    /// Sends the pipeline and answers every job. False when the connection must not be used again.
    pub async fn run(mut self, link: &mut Link, shards: &Shards) -> bool {
        if self.calls.is_empty() {
            return !self.misled;
        }
        self.calls.iter_mut().for_each(Call::sets_out);
        let replies = match link.send(scripts::APPLY.name, self.pipe).await {
            Ok(replies) if replies.len() == self.calls.len() => replies,
            result => {
                tracing::warn!(error = ?result.err(), "a batch got no reply");
                self.calls.into_iter().for_each(Call::unanswered);
                return false;
            }
        };
        let mut usable = !self.misled;
        let mut scripts_lost = false;
        for (mut call, reply) in self.calls.into_iter().zip(replies) {
            call.has_replied(&reply);
            match reply {
                Ok(value) => usable &= call.answer(value, shards),
                Err(error) => {
                    scripts_lost |= is_no_script(&error);
                    usable &= !leads_nowhere(&error);
                    call.refused(&error);
                }
            }
        }
        usable && (!scripts_lost || link.load_scripts().await.is_ok())
    }
}

impl Call {
    /// Settles wait while the outbox is at its hard limit: what a ring cannot remember must not be acked.
    fn shed_settles(&mut self, shard: &Shard) {
        if !shard.is_overfull() {
            return;
        }
        for job in &mut self.jobs {
            let before = job.weight();
            job.refuse(Reason::Shed, spends);
            (job.weight()..before).for_each(|_| metrics::shed("outbox"));
        }
        self.jobs = std::mem::take(&mut self.jobs).into_iter().filter_map(Job::unless_refused).collect();
    }

    fn operations(&self) -> impl Iterator<Item = &Arc<Operation>> {
        self.jobs.iter().flat_map(Job::operations)
    }

    /// Begins its span, below those of the jobs that have one.
    fn sets_out(&mut self) {
        let operations = self.weight;
        let lanes = self.jobs.iter_mut().filter_map(Job::span);
        self.span = traces::script(scripts::APPLY.name, operations, lanes);
    }

    /// Ends its span, before those of its jobs.
    fn has_replied(&mut self, reply: &Result<Value, RedisError>) {
        if let (Some(mut span), Err(error)) = (self.span.take(), reply) {
            span.fail(error.code().unwrap_or("call_failed").to_owned());
        }
    }

    /// What it did, if anything, nobody knows.
    fn unanswered(mut self) {
        if let Some(mut span) = self.span.take() {
            span.fail("no_reply");
        }
        self.answer_all(|| Verdict::Unknown);
    }

    /// The same verdict on all of it.
    fn answer_all(self, verdict: impl Fn() -> Verdict) {
        self.jobs.into_iter().for_each(|job| job.answer_all(&verdict));
    }

    fn append_to(&self, pipe: &mut Pipeline, shard: &Shard, limits: &Limits) {
        let operations: Vec<&Operation> = self.operations().map(|operation| &**operation).collect();
        metrics::batch(operations.len());
        let head = Head {
            epoch: self.pass.epoch,
            high_water: self.pass.high_water,
            run_id: &self.pass.run_id,
            nonce: self.nonce,
            full: shard.is_full(),
            retention_ms: limits.retention_ms,
            expired_retention_ms: limits.expired_retention_ms,
        };
        pipe.add_command(apply(&shard.keys, head, &operations));
    }

    /// False when the reply is not this call's: then nothing on this connection can be trusted.
    fn answer(self, value: Value, shards: &Shards) -> bool {
        let gate = &shards.get(self.partition).gate;
        let Value::Array(fields) = value else { return self.lost() };
        match (fields.first(), fields.get(1), fields.get(2)) {
            (Some(Value::Int(0)), Some(Value::Int(sequence)), Some(Value::Int(now_ms))) => {
                let (sequence, now_ms) = (sequence.unsigned_abs(), now_ms.unsigned_abs());
                match self.answers(&fields) {
                    Some(answers) => self.admit(gate, sequence, now_ms, answers),
                    None => self.lost(),
                }
            }
            (Some(Value::Int(code @ 1..=4)), ..) => {
                gate.doubt(&self.pass, if matches!(code, 1 | 4) { Doubt::Lost } else { Doubt::Recheck });
                self.answer_all(|| Verdict::NotRun(Reason::Closed));
                true
            }
            _ => self.lost(),
        }
    }

    /// The packed answers, if this is the reply to this very call.
    fn answers(&self, fields: &[Value]) -> Option<Vec<Answer>> {
        let echo = matches!(fields.get(3), Some(Value::BulkString(echo)) if *echo == self.nonce.to_string().into_bytes());
        if !echo || fields.len() != self.operations().count() + 4 {
            return None;
        }
        let decode = |field: &Value| match field {
            Value::BulkString(bytes) => Some(Answer::decode(bytes).unwrap_or_else(|_| Answer::unreadable())),
            _ => None,
        };
        fields[4..].iter().map(decode).collect()
    }

    fn admit(self, gate: &super::gate::Gate, sequence: u64, now_ms: u64, answers: Vec<Answer>) -> bool {
        let acked = self.operations().zip(&answers).filter_map(|(operation, answer)| {
            (spends(operation) && matches!(answer.status, Status::Ok | Status::Replay))
                .then(|| Witnessed::of(operation, answer, self.pass.epoch))?
        });
        if gate.admit(&self.pass, sequence, acked.collect()) {
            let pass = self.pass;
            let verdict = |answer| Verdict::Answered { answer, pass: pass.clone(), now_ms };
            let mut verdicts = answers.into_iter().map(verdict);
            self.jobs.into_iter().for_each(|job| job.answer(&mut verdicts));
        } else {
            // It ran in a life that has ended since: the caller runs it again.
            self.answer_all(|| Verdict::Unknown);
        }
        true
    }

    fn lost(self) -> bool {
        tracing::error!("a reply of Redis does not belong to its call");
        self.answer_all(|| Verdict::Unknown);
        false
    }

    fn refused(self, error: &RedisError) {
        let not_run = is_no_script(error) || leads_nowhere(error) || error.code() == Some("MISCONF");
        if !not_run {
            tracing::error!(%error, "a script failed");
        }
        let verdict = || match (not_run, is_no_script(error)) {
            (true, true) => Verdict::NotRun(Reason::Closed),
            (true, false) => Verdict::NotRun(Reason::Down),
            (false, _) => Verdict::Unknown,
        };
        self.answer_all(verdict);
    }
}

/// What a ring must remember once it is acked.
fn spends(operation: &Operation) -> bool {
    matches!(operation.verb, Verb::Settle | Verb::Debit)
}
