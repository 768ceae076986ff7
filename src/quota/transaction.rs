//! Settled ledger entries, and the outbox entries they come from.

use uuid::Uuid;

use super::{Line, Metadata, Model, RequestId, ReservationId, UserId};

/// What made a transaction. Unique per user, reservation and kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Settle,
    /// A settle without a reservation.
    Debit,
    /// Progress charged because the reservation expired unsettled.
    Expiry,
    /// The difference a settle makes to what an expiry charged; may be negative.
    Correction,
}

impl Kind {
    /// The word in SQL and API answers, and part of the transaction's id.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Settle => "settle",
            Self::Debit => "debit",
            Self::Expiry => "expiry",
            Self::Correction => "correction",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Settle, Self::Debit, Self::Expiry, Self::Correction]
            .into_iter()
            .find(|kind| kind.as_str() == name)
    }
}

/// What is particular about a transaction; a bit set, one `SMALLINT` in SQL.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flags(pub u8);

impl Flags {
    /// Actual above reserved.
    pub const OVERAGE: Self = Self(1);
    /// The reserved amount or the reported progress stands in for unknown usage.
    pub const ESTIMATED: Self = Self(2);
    /// Settled after its expiry.
    pub const LATE: Self = Self(4);
    /// Charged without a hold, because Redis lost the reservation.
    pub const RECOVERED: Self = Self(8);

    const NAMES: [(Self, &str); 4] = [
        (Self::OVERAGE, "overage"),
        (Self::ESTIMATED, "estimated"),
        (Self::LATE, "late"),
        (Self::RECOVERED, "recovered"),
    ];

    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The words in API answers, in a fixed order.
    pub fn names(self) -> Vec<&'static str> {
        Self::NAMES.iter().filter(|(flag, _)| self.contains(*flag)).map(|(_, name)| *name).collect()
    }
}

/// Id of an outbox entry: `<oq>-<nonce>`. The nonce is random, so that no two lives of a Redis ever hand out
/// the same id for different content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OutboxId {
    /// Position in the partition's outbox, below 2^53.
    pub sequence: u64,
    /// 62 random bits.
    pub nonce: u64,
}

impl std::fmt::Display for OutboxId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.sequence, self.nonce)
    }
}

impl std::str::FromStr for OutboxId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (sequence, nonce) = text.split_once('-').unwrap_or((text, ""));
        Ok(Self { sequence: sequence.parse()?, nonce: nonce.parse()? })
    }
}

/// One settled transaction on its way from Redis to Postgres.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub outbox_id: OutboxId,
    pub user: UserId,
    pub reservation: ReservationId,
    pub kind: Kind,
    /// Tokens charged; negative only for a correction.
    pub tokens: i64,
    pub flags: Flags,
    /// Unix milliseconds by the clock of Redis.
    pub at_ms: u64,
    pub model: Option<Model>,
    pub request_id: Option<RequestId>,
    pub input_tokens: Option<u64>,
    pub output_tokens: Option<u64>,
    pub cached_input_tokens: Option<u64>,
    pub metadata: Option<Metadata>,
    /// What it spends on each budget.
    pub lines: Vec<Line>,
}

impl Entry {
    pub fn transaction_id(&self) -> Uuid {
        transaction_id(self.user, &self.reservation, self.kind)
    }
}

/// The same on every path to the ledger: UUIDv5 of user, reservation and kind.
pub fn transaction_id(user: UserId, reservation: &ReservationId, kind: Kind) -> Uuid {
    Uuid::new_v5(&user.0, format!("{}:{reservation}", kind.as_str()).as_bytes())
}

/// A settled transaction as callers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub id: Uuid,
    pub reservation: ReservationId,
    pub kind: Kind,
    /// What the reservation or debit was charged in all.
    pub tokens: u64,
    pub model: Option<Model>,
    pub flags: Flags,
    /// Unix milliseconds by the clock of Redis.
    pub settled_at_ms: u64,
}
