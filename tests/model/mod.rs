//! An executable model of one partition (`apply` and what recovery does to it), written from the rules and not from
//! the scripts. It is fed the same operations and the clock readings Redis answered with, and must agree on every
//! answer and on every counter.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;

use cota::{
    ledger::wire::{Options, Status, Verb},
    quota::{Kind, MAX_TOTAL_TOKENS, MAX_TTL_SECONDS, State},
};

/// Users and reservations are small numbers here; the harness gives them real ids.
pub type Name = (usize, usize);

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    pub verb: Verb,
    pub name: Name,
    pub tokens: u64,
    pub ttl_ms: u64,
    /// Extend: progress. Settle: what Postgres says an expiry has charged.
    pub second: u64,
    pub options: u8,
    pub policy: u64,
    /// Stands for the fingerprint: calls with equal numbers are the same call.
    pub print: u8,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    pub granted: u64,
    pub version: u64,
    pub spent: u64,
    pub held: u64,
    pub policy: u64,
    pub suspended: bool,
}

impl Budget {
    pub fn available(&self) -> i64 {
        self.granted as i64 - self.spent as i64 - self.held as i64
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rec {
    pub state: State,
    /// `None`: made without a reserve.
    pub print: Option<u8>,
    /// With the verb: a settle and a debit of equal numbers are not the same call.
    pub settle_print: Option<(Verb, u8)>,
    pub hold: u64,
    /// Whether a budget of this epoch counts the hold.
    pub counted: bool,
    pub expires_at: u64,
    pub progress: u64,
    pub charged: u64,
    pub charged_by_expiry: u64,
    pub flags: u8,
}

/// One transaction on its way to Postgres.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booked {
    pub name: Name,
    pub kind: Kind,
    pub tokens: i64,
    pub flags: u8,
}

/// What the model expects of one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expected {
    pub status: Status,
    /// With a denial: something in the partition is overdue.
    pub due: bool,
    pub budget: Option<Budget>,
    pub record: Option<Rec>,
}

impl Expected {
    /// Whether the caller has to do something and run the operation again before it has its answer.
    fn is_open(&self) -> bool {
        match self.status {
            Status::Cold | Status::Stale | Status::Unknown | Status::HeldBack => true,
            Status::Denied => self.due,
            _ => false,
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Only accounts that were loaded in this epoch.
    pub budgets: BTreeMap<usize, Budget>,
    pub records: BTreeMap<Name, Rec>,
    pub outbox: Vec<Booked>,
    pub recovered_at: Option<u64>,
    pub full: bool,
}

const OVERAGE: u8 = 1;
const ESTIMATED: u8 = 2;
const LATE: u8 = 4;
const RECOVERED: u8 = 8;

impl Model {
    /// The operations of one call at the moment `now`. What follows an operation that must be run again waits for it.
    pub fn call(&mut self, ops: &[Op], now: u64) -> Vec<Expected> {
        let mut answers: Vec<Expected> = Vec::new();
        for op in ops {
            let follows = Options(op.options).has(Options::FOLLOWS);
            let waits = follows && answers.last().is_some_and(Expected::is_open);
            answers.push(if waits { self.hold_back(op) } else { self.apply(op, now) });
        }
        answers
    }

    fn hold_back(&self, op: &Op) -> Expected {
        let budget = self.budgets.get(&op.name.0).cloned();
        Expected { status: Status::HeldBack, due: false, budget, record: None }
    }

    /// One operation at the moment `now`.
    pub fn apply(&mut self, op: &Op, now: u64) -> Expected {
        let record = self.records.get(&op.name).cloned();
        if op.verb != Verb::Expire && !self.budgets.contains_key(&op.name.0) {
            return Expected { status: Status::Cold, due: false, budget: None, record: None };
        }
        let status = match op.verb {
            Verb::Reserve => self.reserve(op, record, now),
            Verb::Settle => self.settle(op, record, now),
            Verb::Debit => self.debit(op, record, now),
            Verb::Release => self.release(op, record, now),
            Verb::Extend => self.extend(op, record, now),
            Verb::Expire => self.expire(op, record, now),
        };
        let record = self.records.get(&op.name).cloned().filter(|_| carries_record(op.verb, status));
        let overdue = |record: &Rec| record.state == State::Pending && now >= record.expires_at;
        let due = status == Status::Denied && self.records.values().any(overdue);
        Expected { status, due, budget: self.budgets.get(&op.name.0).cloned(), record }
    }

    fn budget(&mut self, op: &Op) -> &mut Budget {
        self.budgets.entry(op.name.0).or_default()
    }

    fn reserve(&mut self, op: &Op, record: Option<Rec>, now: u64) -> Status {
        if let Some(record) = record {
            return match record.print {
                Some(print) if print != op.print => Status::Mismatch,
                _ if record.state == State::Pending && !due(&record, now) => Status::Replay,
                _ => Status::Finished,
            };
        }
        let full = self.full;
        let budget = self.budget(op);
        if budget.suspended {
            return Status::Suspended;
        }
        if budget.policy != op.policy {
            return Status::Stale;
        }
        if full {
            return Status::Full;
        }
        if op.tokens > 0 && budget.available() < op.tokens as i64 {
            return Status::Denied;
        }
        budget.held += op.tokens;
        let record =
            Rec { print: Some(op.print), hold: op.tokens, expires_at: now + op.ttl_ms, ..blank(now) };
        self.records.insert(op.name, record);
        Status::Ok
    }

    fn settle(&mut self, op: &Op, record: Option<Rec>, now: u64) -> Status {
        let options = Options(op.options);
        let (witnessed, unknown) = (options.has(Options::WITNESSED), options.has(Options::USAGE_UNKNOWN));
        let reserved = record.clone().filter(|record| record.state != State::Released);
        let Some(mut record) = reserved else {
            let released = record.is_some();
            let window = u64::from(MAX_TTL_SECONDS) * 1000;
            let lost = options.has(Options::NO_ROW) && self.recovered_at.is_some_and(|at| now - at <= window);
            if unknown || !(witnessed || (!released && (op.second > 0 || lost))) {
                return if released { Status::Released } else { Status::Unknown };
            }
            let flags = if op.second > 0 { LATE } else { RECOVERED };
            let record = Rec { charged_by_expiry: op.second, flags, ..blank(now) };
            return self.charge(op, record, op.tokens);
        };
        if record.state == State::Settled {
            let same = match record.settle_print {
                Some(print) if !witnessed => print == (op.verb, op.print),
                _ => unknown || record.charged == op.tokens,
            };
            return if same { Status::Replay } else { Status::Mismatch };
        }
        let tokens = if unknown { record.hold } else { op.tokens };
        record.flags = 0;
        if record.state == State::Expired || due(&record, now) {
            record.flags |= LATE;
        }
        if tokens > record.hold {
            record.flags |= OVERAGE;
        }
        if unknown {
            record.flags |= ESTIMATED;
        }
        self.charge(op, record, tokens)
    }

    /// Books the charge and finishes the record, giving back what it holds.
    fn charge(&mut self, op: &Op, mut record: Rec, tokens: u64) -> Status {
        let delta = tokens as i64 - record.charged_by_expiry as i64;
        let budget = self.budget(op);
        if budget.spent as i64 + delta > MAX_TOTAL_TOKENS as i64 {
            return Status::Range;
        }
        if record.state == State::Pending && record.counted {
            budget.held -= record.hold;
        }
        budget.spent = budget.spent.saturating_add_signed(delta);
        let kind = if record.charged_by_expiry > 0 { Kind::Correction } else { Kind::Settle };
        self.outbox.push(Booked { name: op.name, kind, tokens: delta, flags: record.flags });
        record.state = State::Settled;
        record.settle_print = Some((op.verb, op.print));
        record.charged = tokens;
        self.records.insert(op.name, record);
        Status::Ok
    }

    fn debit(&mut self, op: &Op, record: Option<Rec>, now: u64) -> Status {
        if let Some(record) = record {
            let same = record.state == State::Settled && record.settle_print == Some((op.verb, op.print));
            return if same { Status::Replay } else { Status::Mismatch };
        }
        let budget = self.budget(op);
        if budget.spent + op.tokens > MAX_TOTAL_TOKENS {
            return Status::Range;
        }
        budget.spent += op.tokens;
        self.outbox.push(Booked { name: op.name, kind: Kind::Debit, tokens: op.tokens as i64, flags: 0 });
        let record = Rec {
            state: State::Settled,
            settle_print: Some((op.verb, op.print)),
            charged: op.tokens,
            ..blank(now)
        };
        self.records.insert(op.name, record);
        Status::Ok
    }

    fn release(&mut self, op: &Op, record: Option<Rec>, now: u64) -> Status {
        let Some(mut record) = record else {
            self.records.insert(op.name, Rec { state: State::Released, ..blank(now) });
            return Status::Ok;
        };
        match record.state {
            State::Released => Status::Replay,
            State::Settled | State::Expired => Status::Finished,
            State::Pending if due(&record, now) => match self.finish_expired(op, record) {
                Status::Ok => Status::Finished,
                other => other,
            },
            State::Pending => {
                let hold = record.hold;
                self.budget(op).held -= hold;
                record.state = State::Released;
                self.records.insert(op.name, record);
                Status::Ok
            }
        }
    }

    fn extend(&mut self, op: &Op, record: Option<Rec>, now: u64) -> Status {
        let Some(mut record) = record else { return Status::Unknown };
        if record.state != State::Pending || due(&record, now) {
            return Status::Finished;
        }
        let expires_at = record.expires_at.max(if op.ttl_ms > 0 { now + op.ttl_ms } else { 0 });
        let raise = op.tokens.saturating_sub(record.hold);
        if raise == 0 && expires_at == record.expires_at && op.second <= record.progress {
            return Status::Replay;
        }
        let full = self.full;
        let budget = self.budget(op);
        if raise > 0 {
            if budget.policy != op.policy {
                return Status::Stale;
            }
            if full {
                return Status::Full;
            }
            if budget.available() < raise as i64 {
                return Status::Denied;
            }
            budget.held += raise;
        }
        record.hold += raise;
        record.expires_at = expires_at;
        record.progress = record.progress.max(op.second);
        self.records.insert(op.name, record);
        Status::Ok
    }

    fn expire(&mut self, op: &Op, record: Option<Rec>, now: u64) -> Status {
        match record {
            Some(record) if record.state == State::Pending && due(&record, now) => {
                self.finish_expired(op, record)
            }
            _ => Status::Gone,
        }
    }

    fn finish_expired(&mut self, op: &Op, mut record: Rec) -> Status {
        let cold = !self.budgets.contains_key(&op.name.0);
        if record.progress > 0 {
            if cold {
                return Status::Cold;
            }
            if self.budget(op).spent + record.progress > MAX_TOTAL_TOKENS {
                return Status::Range;
            }
        }
        if !cold {
            let (hold, progress) = (if record.counted { record.hold } else { 0 }, record.progress);
            let budget = self.budget(op);
            budget.held -= hold;
            budget.spent += progress;
        }
        record.state = State::Expired;
        record.charged = record.progress;
        record.charged_by_expiry = record.progress;
        if record.progress > 0 {
            record.flags = ESTIMATED | if record.progress > record.hold { OVERAGE } else { 0 };
            let booked = Booked {
                name: op.name,
                kind: Kind::Expiry,
                tokens: record.progress as i64,
                flags: record.flags,
            };
            self.outbox.push(booked);
        }
        self.records.insert(op.name, record);
        Status::Ok
    }

    /// A recovery that drained the outbox: pending reservations are carried over, everything else starts from the
    /// ledger when it is next used.
    pub fn recover(&mut self, now: u64, ledger: &BTreeMap<usize, (Budget, u64)>) {
        self.outbox.clear();
        self.recovered_at = Some(now);
        self.budgets.clear();
        for (name, record) in &mut self.records {
            if record.state == State::Pending {
                record.counted = true;
                record.progress = 0;
                let (state, spent) = &ledger[&name.0];
                let fresh = Budget { spent: *spent, held: 0, ..state.clone() };
                self.budgets.entry(name.0).or_insert(fresh).held += record.hold;
            }
        }
    }

    /// Σ lines of pending records, per account: what `held` must be.
    pub fn held_by_records(&self, user: usize) -> u64 {
        let pending =
            self.records.iter().filter(|(name, r)| name.0 == user && r.state == State::Pending && r.counted);
        pending.map(|(_, record)| record.hold).sum()
    }
}

fn blank(now: u64) -> Rec {
    Rec {
        state: State::Pending,
        print: None,
        settle_print: None,
        hold: 0,
        counted: true,
        expires_at: now,
        progress: 0,
        charged: 0,
        charged_by_expiry: 0,
        flags: 0,
    }
}

fn due(record: &Rec, now: u64) -> bool {
    now >= record.expires_at || !record.counted
}

/// Which answers bring the record along: not that of a reserve, whose caller has sent all of it.
fn carries_record(verb: Verb, status: Status) -> bool {
    use Status::{Finished, Mismatch, Ok, Released, Replay};
    matches!(status, Replay | Finished | Released | Mismatch) || (status == Ok && verb != Verb::Reserve)
}
