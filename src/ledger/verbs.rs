//! The verbs as callers know them: each makes its operation, runs it, and reads the answer.

use std::sync::Arc;

use tokio::time::Instant;

use super::{
    Ledger, Outcome, Receipt, Refusal,
    calls::Definite,
    lookup::{self, Found},
    wire::{Answer, Facts, Operation, Options, Status, Verb, fingerprint},
};
use crate::quota::{
    AmountError, Charge, Debit, Extend, Kind, Model, RequestId, Reservation, ReservationId, Reserve, Settle,
    ShortBudget, State, Tokens, Transaction, UserId, transaction_id,
};

/// How often an operation is looked up in Postgres before it is given up; each look-up has its own reason.
const MAX_LOOKUPS: usize = 8;

impl From<AmountError> for Refusal {
    fn from(_: AmountError) -> Self {
        Self::AmountOutOfRange
    }
}

impl Ledger {
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
        let policies = self.calls.policies();
        let mut op = Operation::new(Verb::Reserve, user, ask.id, policies.lines(user, ask.tokens.get()));
        op.fingerprint = fingerprint(Verb::Reserve, &[Some(ask.tokens.get())], ask.model.as_ref());
        op.tokens = ask.tokens.get();
        op.ttl_ms = u64::from(ask.ttl_seconds) * 1000;
        op.policy_version = policies.version(user);
        op.model = ask.model;
        op.metadata = ask.metadata;
        let op = Arc::new(op);
        let definite = self.calls.run(Arc::clone(&op), deadline).await?;
        match definite.answer.status {
            Status::Ok | Status::Replay => held(&op, definite),
            _ => Err(refusal(&op, definite)),
        }
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
        let Settle { id, charge, model, request_id } = ask;
        let mut op = Arc::new(self.charge(Verb::Settle, user, id, charge, model, request_id)?);
        for _ in 0..MAX_LOOKUPS {
            let definite = self.calls.run(Arc::clone(&op), deadline).await?;
            match definite.answer.status {
                Status::Ok | Status::Replay => return charged(&op, definite),
                Status::Unknown if op.options.has(Options::NO_ROW) => {
                    return Err(Refusal::ReservationNotFound);
                }
                Status::Unknown => {
                    if let Some(receipt) =
                        Box::pin(self.settle_unknown(Arc::make_mut(&mut op), definite, deadline)).await?
                    {
                        return Ok(receipt);
                    }
                }
                _ => return Err(refusal(&op, definite)),
            }
        }
        Err(Refusal::Unavailable { outcome: Outcome::None })
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
        let op = Arc::new(self.charge(Verb::Debit, user, ask.id, ask.charge, ask.model, ask.request_id)?);
        let definite = self.calls.run(Arc::clone(&op), deadline).await?;
        match definite.answer.status {
            Status::Ok | Status::Replay => charged(&op, definite),
            _ => Err(refusal(&op, definite)),
        }
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
        let op = Arc::new(Operation::new(Verb::Release, user, id, self.calls.policies().lines(user, 0)));
        let definite = self.calls.run(Arc::clone(&op), deadline).await?;
        match definite.answer.status {
            Status::Ok | Status::Replay => held(&op, definite),
            _ => Err(refusal(&op, definite)),
        }
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
        let tokens = ask.tokens.map_or(0, Tokens::get);
        let policies = self.calls.policies();
        let mut op = Operation::new(Verb::Extend, user, ask.id, policies.lines(user, tokens));
        op.tokens = tokens;
        op.ttl_ms = ask.ttl_seconds.map_or(0, |seconds| u64::from(seconds) * 1000);
        op.second = ask.used_tokens.map_or(0, Tokens::get);
        op.policy_version = policies.version(user);
        let op = Arc::new(op);
        for _ in 0..MAX_LOOKUPS {
            let definite = self.calls.run(Arc::clone(&op), deadline).await?;
            match definite.answer.status {
                Status::Ok | Status::Replay => return held(&op, definite),
                Status::Unknown => match Box::pin(self.find(&op, &definite, deadline)).await? {
                    Found::Charged { .. } => return Err(Refusal::Finished { state: State::Settled }),
                    Found::Expired { .. } => return Err(Refusal::Finished { state: State::Expired }),
                    Found::Nothing => return Err(Refusal::ReservationNotFound),
                    Found::OtherLife => {}
                },
                _ => return Err(refusal(&op, definite)),
            }
        }
        Err(Refusal::Unavailable { outcome: Outcome::None })
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
    let record = record.ok_or(Refusal::Unavailable { outcome: Outcome::Unknown })?;
    let subject = record.reservation(op.id.clone(), pass.epoch, now_ms);
    Ok(Receipt { subject, balance, replayed: status == Status::Replay })
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
            Refusal::Insufficient { short: answer.short.into_iter().filter_map(short).collect() }
        }
        Status::Suspended => Refusal::Suspended,
        Status::Full => Refusal::Overloaded,
        Status::Unknown | Status::Gone => Refusal::ReservationNotFound,
        Status::Range => Refusal::AmountOutOfRange,
        // Cold and stale are resolved before they get here; an unreadable record is left alone.
        Status::Ok | Status::Replay | Status::Stale | Status::Cold | Status::Unreadable => {
            Refusal::Unavailable { outcome: Outcome::None }
        }
    }
}
