//! Short names for operations. Unless told otherwise they are of user 0, with policy version 1.

use cota::{
    ledger::wire::{Operation, Options, Verb, fingerprint},
    quota::{BudgetId, Line, Metadata, Model},
};

use crate::support::partition::{balance_line, rid, user};

pub const MOST: u64 = 1_000_000_000_000;
pub const MOST_TOTAL: u64 = (1 << 53) - 1;

fn operation(verb: Verb, id: usize, tokens: u64) -> Operation {
    Operation {
        tokens,
        policy_version: 1,
        fingerprint: fingerprint(verb, &[Some(tokens)], None),
        ..Operation::new(verb, user(0), rid(id), balance_line(user(0), tokens))
    }
}

/// Holds for a minute.
pub fn reserve(id: usize, tokens: u64) -> Operation {
    operation(Verb::Reserve, id, tokens).ttl(60_000)
}

pub fn settle(id: usize, tokens: u64) -> Operation {
    operation(Verb::Settle, id, tokens)
}

/// The gateway lost the usage.
pub fn settle_unknown_usage(id: usize) -> Operation {
    let settle = operation(Verb::Settle, id, 0).options(Options::USAGE_UNKNOWN);
    Operation { fingerprint: fingerprint(Verb::Settle, &[None], None), ..settle }
}

pub fn debit(id: usize, tokens: u64) -> Operation {
    operation(Verb::Debit, id, tokens)
}

pub fn release(id: usize) -> Operation {
    operation(Verb::Release, id, 0)
}

/// To a total hold; neither time nor progress.
pub fn extend(id: usize, total: u64) -> Operation {
    operation(Verb::Extend, id, total)
}

pub fn expire(id: usize) -> Operation {
    operation(Verb::Expire, id, 0)
}

/// What a test changes about an operation.
pub trait Tweak {
    fn of(self, n: usize) -> Self;
    fn ttl(self, ms: u64) -> Self;
    fn policy(self, version: u64) -> Self;
    fn options(self, options: Options) -> Self;
    /// Held back while the operation before it in the call has no definite answer.
    fn follows(self) -> Self;
    /// Progress of an extend; what an expiry row has charged before a settle.
    fn second(self, tokens: u64) -> Self;
    fn model(self, name: &str) -> Self;
    fn metadata(self, json: &str) -> Self;
    /// One line more, on the balance of another user.
    fn also(self, n: usize, amount: u64) -> Self;
}

impl Tweak for Operation {
    fn of(self, n: usize) -> Self {
        Self { user: user(n), lines: balance_line(user(n), self.tokens), ..self }
    }

    fn ttl(self, ms: u64) -> Self {
        Self { ttl_ms: ms, ..self }
    }

    fn policy(self, version: u64) -> Self {
        Self { policy_version: version, ..self }
    }

    fn options(self, options: Options) -> Self {
        Self { options: self.options.with(options), ..self }
    }

    fn follows(self) -> Self {
        self.options(Options::FOLLOWS)
    }

    fn second(self, tokens: u64) -> Self {
        Self { second: tokens, ..self }
    }

    fn model(self, name: &str) -> Self {
        let model = Some(Model::new(name).unwrap());
        Self { fingerprint: fingerprint(self.verb, &[Some(self.tokens)], model.as_ref()), model, ..self }
    }

    fn metadata(self, json: &str) -> Self {
        Self { metadata: Some(Metadata::new(json).unwrap()), ..self }
    }

    fn also(mut self, n: usize, amount: u64) -> Self {
        self.lines.push(Line { budget: BudgetId::Balance(user(n)), amount: amount as i64 });
        self
    }
}
