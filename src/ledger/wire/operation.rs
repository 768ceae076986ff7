//! One operation of an `apply` batch.

use sha2::{Digest, Sha256};

use super::{
    Facts,
    bytes::{put, put_prefixed},
};
use crate::{
    ledger::keys::{budget_name, member},
    quota::{Line, Metadata, Model, ReservationId, UserId},
};

/// The six verbs of `apply`, with their numbers on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Verb {
    Reserve = 1,
    Settle = 2,
    Debit = 3,
    Release = 4,
    Extend = 5,
    Expire = 6,
}

impl Verb {
    pub const ALL: [Self; 6] =
        [Self::Reserve, Self::Settle, Self::Debit, Self::Release, Self::Extend, Self::Expire];

    /// The word in metrics and fingerprints.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reserve => "reserve",
            Self::Settle => "settle",
            Self::Debit => "debit",
            Self::Release => "release",
            Self::Extend => "extend",
            Self::Expire => "expire",
        }
    }

    /// Reserves and extends ask for room and may be shed; the rest reports what has happened and goes first.
    pub fn takes_room(self) -> bool {
        matches!(self, Self::Reserve | Self::Extend)
    }
}

/// Bit set of an operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options(pub u8);

impl Options {
    /// The gateway lost the usage: charge what was held.
    pub const USAGE_UNKNOWN: Self = Self(1);
    /// Postgres has been asked and knows no row of this id.
    pub const NO_ROW: Self = Self(2);
    /// A witness saw this settle acked: charge it, whatever Redis remembers.
    pub const WITNESSED: Self = Self(4);
    /// The operation before it in the same call is of the same chain: held back until that has a definite answer.
    pub const FOLLOWS: Self = Self(8);

    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// One operation; see the header of `lua/apply/begin.lua` for its layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    pub verb: Verb,
    pub options: Options,
    pub user: UserId,
    pub id: ReservationId,
    /// Hold of a reserve or extend, charge of a settle or debit.
    pub tokens: u64,
    pub ttl_ms: u64,
    /// Extend: progress. Settle: what an expiry row in Postgres has charged.
    pub second: u64,
    pub policy_version: u64,
    pub fingerprint: [u8; 8],
    pub model: Option<Model>,
    pub metadata: Option<Metadata>,
    pub facts: Facts,
    /// The first is the account's balance.
    pub lines: Vec<Line>,
}

impl Operation {
    /// An operation with nothing but its names and its lines.
    pub fn new(verb: Verb, user: UserId, id: ReservationId, lines: Vec<Line>) -> Self {
        Self {
            verb,
            options: Options::default(),
            user,
            id,
            tokens: 0,
            ttl_ms: 0,
            second: 0,
            policy_version: 0,
            fingerprint: [0; 8],
            model: None,
            metadata: None,
            facts: Facts::default(),
            lines,
        }
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(160);
        out.push(self.verb as u8);
        out.push(self.options.0);
        put(&mut out, 1, self.lines.len() as u64);
        put(&mut out, 8, self.tokens);
        put(&mut out, 6, self.ttl_ms);
        put(&mut out, 8, self.second);
        put(&mut out, 8, self.policy_version);
        out.extend_from_slice(&self.fingerprint);
        put_prefixed(&mut out, 1, &member(self.user, &self.id));
        put_prefixed(&mut out, 1, self.model.as_ref().map_or("", Model::as_str).as_bytes());
        put_prefixed(&mut out, 2, self.metadata.as_ref().map_or("", Metadata::as_str).as_bytes());
        put_prefixed(&mut out, 2, &self.facts.encode());
        put_prefixed(&mut out, 2, &encode_lines(&self.lines));
        out
    }
}

/// As a record has them.
fn encode_lines(lines: &[Line]) -> Vec<u8> {
    let mut out = Vec::with_capacity(24 * lines.len());
    for line in lines {
        put_prefixed(&mut out, 1, &budget_name(line.budget));
        put(&mut out, 6, line.amount.unsigned_abs());
    }
    out
}

/// What makes a repeat the same call: verb, amounts or usage, and model, as sent and normalised; not the time to
/// live, metadata or request id (`protocol.md` §2). Never all zeros: those mean "none" in a record.
pub fn fingerprint(verb: Verb, numbers: &[Option<u64>], model: Option<&Model>) -> [u8; 8] {
    let mut hash = Sha256::new();
    hash.update([verb as u8]);
    for number in numbers {
        hash.update([u8::from(number.is_some())]);
        hash.update(number.unwrap_or_default().to_be_bytes());
    }
    hash.update(model.map_or("", Model::as_str).as_bytes());
    let digest = hash.finalize();
    let mut out = [0; 8];
    out.copy_from_slice(&digest[..8]);
    out[0] |= 1;
    out
}
