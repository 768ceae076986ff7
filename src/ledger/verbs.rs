//! The verbs as callers know them: each makes its operation, runs it, and reads the answer.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    Done, Ledger, Outcome, Receipt, Refusal,
    calls::Definite,
    lookup::{self, Found},
    wire::{Answer, Facts, Operation, Options, Status, Verb, fingerprint},
};
use crate::{
    metrics,
    quota::{
        AmountError, Ask, Charge, Debit, Extend, Kind, Model, RequestId, Reservation, ReservationId, Reserve,
        Settle, ShortBudget, State, Tokens, Transaction, UserId, transaction_id,
    },
};

/// How often an operation is looked up in Postgres before it is given up; each look-up has its own reason.
pub(super) const MAX_LOOKUPS: usize = 8;

impl From<AmountError> for Refusal {
    fn from(_: AmountError) -> Self {
        Self::AmountOutOfRange
    }
}

impl Ledger {
    /// One operation, whichever its verb; see the verbs below.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub async fn perform(&self, user: UserId, ask: Ask, deadline: Instant) -> Result<Done, Refusal> {
        let mut op = Arc::new(self.operation(user, ask)?);
        for _ in 0..MAX_LOOKUPS {
            let definite = self.calls.run(Arc::clone(&op), deadline).await?;
            if let Some(done) = self.conclude(&mut op, definite, deadline).await? {
                return Ok(done);
            }
        }
        Err(Refusal::Unavailable { outcome: Outcome::None })
    }

    /// Holds tokens before a model call, all or nothing, once by id.
    ///
    /// # Errors
    /// See [`Refusal`]; nothing is held after any of them, but perhaps after `Unavailable` with an unknown outcome:
    /// then repeat with the same id.
    pub async fn reserve(
        &self,
        user: UserId,
        ask: Reserve,
        deadline: Instant,
    ) -> Result<Receipt<Reservation>, Refusal> {
        self.perform(user, Ask::Reserve(ask), deadline).await?.held()
    }

    /// Charges what was used and gives back the rest, once by id.
    ///
    /// # Errors
    /// See [`Refusal`]. Repeating is always safe.
    pub async fn settle(
        &self,
        user: UserId,
        ask: Settle,
        deadline: Instant,
    ) -> Result<Receipt<Transaction>, Refusal> {
        self.perform(user, Ask::Settle(ask), deadline).await?.charged()
    }

    /// Charges without a reservation, once by id.
    ///
    /// # Errors
    /// See [`Refusal`]. Repeating is always safe.
    pub async fn debit(
        &self,
        user: UserId,
        ask: Debit,
        deadline: Instant,
    ) -> Result<Receipt<Transaction>, Refusal> {
        self.perform(user, Ask::Debit(ask), deadline).await?.charged()
    }

    /// Gives everything back. An unknown id is remembered as released, so that a late reserve with it is refused.
    ///
    /// # Errors
    /// `Finished` when it was settled or has expired.
    pub async fn release(
        &self,
        user: UserId,
        id: ReservationId,
        deadline: Instant,
    ) -> Result<Receipt<Reservation>, Refusal> {
        self.perform(user, Ask::Release(id), deadline).await?.held()
    }

    /// Raises a pending reservation; never lowers anything, so that a repeat is harmless.
    ///
    /// # Errors
    /// `Insufficient` (then nothing changed), `Finished`, `ReservationNotFound`.
    pub async fn extend(
        &self,
        user: UserId,
        ask: Extend,
        deadline: Instant,
    ) -> Result<Receipt<Reservation>, Refusal> {
        self.perform(user, Ask::Extend(ask), deadline).await?.held()
    }

    /// What Redis is to be asked.
    ///
    /// # Errors
    /// `AmountOutOfRange` when the usage adds up to more than one operation may carry.
    pub(super) fn operation(&self, user: UserId, ask: Ask) -> Result<Operation, Refusal> {
        let policies = self.calls.policies();
        Ok(match ask {
            Ask::Reserve(ask) => {
                let tokens = ask.tokens.get();
                let mut op = Operation::new(Verb::Reserve, user, ask.id, policies.lines(user, tokens));
                op.fingerprint = fingerprint(Verb::Reserve, &[Some(tokens)], ask.model.as_ref());
                op.tokens = tokens;
                op.ttl_ms = u64::from(ask.ttl_seconds) * 1000;
                op.policy_version = policies.version(user);
                op.model = ask.model;
                op.metadata = ask.metadata;
                op
            }
            Ask::Settle(ask) => {
                self.charge(Verb::Settle, user, ask.id, ask.charge, ask.model, ask.request_id)?
            }
            Ask::Debit(ask) => {
                self.charge(Verb::Debit, user, ask.id, ask.charge, ask.model, ask.request_id)?
            }
            Ask::Release(id) => Operation::new(Verb::Release, user, id, policies.lines(user, 0)),
            Ask::Extend(ask) => {
                let tokens = ask.tokens.map_or(0, Tokens::get);
                let mut op = Operation::new(Verb::Extend, user, ask.id, policies.lines(user, tokens));
                op.tokens = tokens;
                op.ttl_ms = ask.ttl_seconds.map_or(0, |seconds| u64::from(seconds) * 1000);
                op.second = ask.used_tokens.map_or(0, Tokens::get);
                op.policy_version = policies.version(user);
                op
            }
        })
    }

    /// What a definite answer means to the caller; `None` when the operation, completed with what Postgres knows, must
    /// run again.
    pub(super) async fn conclude(
        &self,
        op: &mut Arc<Operation>,
        definite: Definite,
        deadline: Instant,
    ) -> Result<Option<Done>, Refusal> {
        match (op.verb, definite.answer.status) {
            (Verb::Settle | Verb::Debit, Status::Ok | Status::Replay) => {
                charged(op, definite).map(|receipt| Some(Done::Charged(receipt)))
            }
            (_, Status::Ok | Status::Replay) => held(op, definite).map(|receipt| Some(Done::Held(receipt))),
            (Verb::Settle, Status::Unknown) if !op.options.has(Options::NO_ROW) => {
                let found = Box::pin(self.settle_unknown(Arc::make_mut(op), definite, deadline)).await?;
                Ok(found.map(Done::Charged))
            }
            (Verb::Extend, Status::Unknown) => match Box::pin(self.find(op, &definite, deadline)).await? {
                Found::Charged { .. } => Err(Refusal::Finished { state: State::Settled }),
                Found::Expired { .. } => Err(Refusal::Finished { state: State::Expired }),
                Found::Nothing => Err(Refusal::ReservationNotFound),
                Found::OtherLife => Ok(None),
            },
            _ => Err(refusal(op, definite)),
        }
    }

    fn charge(
        &self,
        verb: Verb,
        user: UserId,
        id: ReservationId,
        charge: Charge,
        model: Option<Model>,
        request_id: Option<RequestId>,
    ) -> Result<Operation, Refusal> {
        let mut facts = Facts { request_id, ..Facts::default() };
        let mut options = Options::default();
        let (mut sent_tokens, mut tokens) = (None, 0);
        match charge {
            Charge::Tokens(amount) => {
                sent_tokens = Some(amount.get());
                tokens = amount.get();
            }
            Charge::Usage(usage) => {
                tokens = usage.total()?.get();
                facts.input_tokens = Some(usage.input_tokens.get());
                facts.output_tokens = Some(usage.output_tokens.get());
                facts.cached_input_tokens = usage.cached_input_tokens.map(Tokens::get);
            }
            Charge::Unknown => options = Options::USAGE_UNKNOWN,
        }
        let mut op = Operation::new(verb, user, id, self.calls.policies().lines(user, tokens));
        let numbers = [sent_tokens, facts.input_tokens, facts.output_tokens, facts.cached_input_tokens];
        op.fingerprint = fingerprint(verb, &numbers, model.as_ref());
        op.tokens = tokens;
        op.options = options;
        op.model = model;
        op.facts = facts;
        Ok(op)
    }

    /// Redis does not know the id. Either Postgres has the answer, or the operation is completed with what Postgres
    /// knows and must run again.
    async fn settle_unknown(
        &self,
        op: &mut Operation,
        definite: Definite,
        deadline: Instant,
    ) -> Result<Option<Receipt<Transaction>>, Refusal> {
        let balance = definite.answer.balance;
        let replay = |transaction| Ok(Some(Receipt { subject: transaction, balance, replayed: true }));
        let usage_unknown = op.options.has(Options::USAGE_UNKNOWN);
        match self.find(op, &definite, deadline).await? {
            Found::Charged { total, transaction } if usage_unknown || total == op.tokens => {
                replay(transaction)
            }
            Found::Charged { .. } => Err(Refusal::Mismatch),
            Found::Expired { transaction, .. } if usage_unknown => replay(transaction),
            Found::Expired { charged, .. } => {
                op.second = charged;
                Ok(None)
            }
            Found::Nothing => {
                op.options = op.options.with(Options::NO_ROW);
                Ok(None)
            }
            Found::OtherLife => Ok(None),
        }
    }

    async fn find(&self, op: &Operation, from: &Definite, deadline: Instant) -> Result<Found, Refusal> {
        let shard = self.calls.shards().of(op.user);
        lookup::find(&self.store, shard, from, (op.user, &op.id), deadline).await
    }
}

fn held(op: &Operation, definite: Definite) -> Result<Receipt<Reservation>, Refusal> {
    let Definite { answer: Answer { status, balance, record, .. }, pass, now_ms } = definite;
    let subject = match record {
        Some(record) => record.reservation(op.id.clone(), pass.epoch, now_ms),
        None if (op.verb, status) == (Verb::Reserve, Status::Ok) => fresh(op, now_ms),
        None => return Err(Refusal::Unavailable { outcome: Outcome::Unknown }),
    };
    Ok(Receipt { subject, balance, replayed: status == Status::Replay })
}

/// What a reserve has made: all of it was sent, but for the time.
fn fresh(op: &Operation, now_ms: u64) -> Reservation {
    Reservation {
        id: op.id.clone(),
        state: State::Pending,
        tokens: op.tokens,
        used_tokens: 0,
        charged_tokens: None,
        model: op.model.clone(),
        metadata: op.metadata.clone(),
        reserved_at_ms: now_ms,
        expires_at_ms: now_ms + op.ttl_ms,
    }
}

fn charged(op: &Operation, definite: Definite) -> Result<Receipt<Transaction>, Refusal> {
    let Answer { status, balance, record, .. } = definite.answer;
    let record = record.ok_or(Refusal::Unavailable { outcome: Outcome::Unknown })?;
    // A record that recovery marked as settled keeps no outbox entry; its kind is that of the call.
    let by_call = if op.verb == Verb::Debit { Kind::Debit } else { Kind::Settle };
    let kind = record.booked.last().map_or(by_call, |booked| booked.kind);
    let subject = Transaction {
        id: transaction_id(op.user, &op.id, kind),
        reservation: op.id.clone(),
        kind,
        tokens: record.charged,
        model: record.model,
        flags: record.flags,
        settled_at_ms: record.finished_at_ms,
    };
    Ok(Receipt { subject, balance, replayed: status == Status::Replay })
}

/// The refusal behind every status that is none of a verb's own.
fn refusal(op: &Operation, definite: Definite) -> Refusal {
    let Definite { answer, pass, now_ms } = definite;
    match answer.status {
        Status::Mismatch => Refusal::Mismatch,
        Status::Finished => {
            let finished =
                answer.record.map(|record| record.reservation(op.id.clone(), pass.epoch, now_ms).state);
            Refusal::Finished { state: finished.unwrap_or(State::Expired) }
        }
        Status::Released => Refusal::Finished { state: State::Released },
        Status::Denied => {
            let short = |(index, requested, available): (usize, u64, i64)| {
                op.lines.get(index).map(|line| ShortBudget { budget: line.budget, requested, available })
            };
            let short: Vec<ShortBudget> = answer.short.into_iter().filter_map(short).collect();
            short.iter().for_each(|short| metrics::denied(short.budget.kind()));
            Refusal::Insufficient { short }
        }
        Status::Suspended => Refusal::Suspended,
        Status::Full => Refusal::Overloaded,
        Status::Unknown | Status::Gone => Refusal::ReservationNotFound,
        Status::Range => Refusal::AmountOutOfRange,
        // Cold, stale and held back are resolved before they get here; an unreadable record is left alone.
        Status::Ok
        | Status::Replay
        | Status::Stale
        | Status::Cold
        | Status::HeldBack
        | Status::Unreadable => Refusal::Unavailable { outcome: Outcome::None },
    }
}
