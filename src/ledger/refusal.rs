//! What the ledger answers, and why it refuses.

use crate::quota::{Balance, Reservation, ShortBudget, State, Transaction};

/// What a verb did, with the balance after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt<T> {
    pub subject: T,
    pub balance: Balance,
    /// The same call had been answered before; nothing happened now.
    pub replayed: bool,
}

/// What one of the verbs did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// Reserve, release, extend.
    Held(Receipt<Reservation>),
    /// Settle, debit.
    Charged(Receipt<Transaction>),
}

/// A verb has its own kind of receipt; should it ever bring another, nothing definite is known.
const STRANGE: Refusal = Refusal::Unavailable { outcome: Outcome::Unknown };

impl Done {
    /// See [`Receipt::replayed`].
    pub fn replayed(&self) -> bool {
        match self {
            Self::Held(receipt) => receipt.replayed,
            Self::Charged(receipt) => receipt.replayed,
        }
    }

    pub(super) fn held(self) -> Result<Receipt<Reservation>, Refusal> {
        match self {
            Self::Held(receipt) => Ok(receipt),
            Self::Charged(_) => Err(STRANGE),
        }
    }

    pub(super) fn charged(self) -> Result<Receipt<Transaction>, Refusal> {
        match self {
            Self::Charged(receipt) => Ok(receipt),
            Self::Held(_) => Err(STRANGE),
        }
    }
}

/// An account as Redis has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    pub balance: Balance,
    pub suspended: bool,
}

/// Whether a call that got no definite answer may have had an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    None,
    Unknown,
}

impl Outcome {
    /// The word in API answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Unknown => "unknown",
        }
    }
}

/// Why the ledger did not do what was asked. Nothing changed, except perhaps after `Unavailable` with
/// [`Outcome::Unknown`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the user is not known")]
    UserNotFound,
    #[error("the user is suspended")]
    Suspended,
    #[error("not enough tokens")]
    Insufficient { short: Vec<ShortBudget> },
    #[error("the id was used with other numbers")]
    Mismatch,
    #[error("the reservation is finished")]
    Finished { state: State },
    #[error("there is no such reservation")]
    ReservationNotFound,
    #[error("a total would pass 2^53")]
    AmountOutOfRange,
    /// Too many waiting calls, or too little room in Redis or the outbox; nothing was sent.
    #[error("too busy")]
    Overloaded,
    #[error("the ledger is not available")]
    Unavailable { outcome: Outcome },
}

impl Refusal {
    /// The word in metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::UserNotFound => "user_not_found",
            Self::Suspended => "suspended",
            Self::Insufficient { .. } => "denied",
            Self::Mismatch => "mismatch",
            Self::Finished { .. } => "finished",
            Self::ReservationNotFound => "unknown_id",
            Self::AmountOutOfRange => "range",
            Self::Overloaded => "overloaded",
            Self::Unavailable { outcome: Outcome::None } => "unavailable",
            Self::Unavailable { outcome: Outcome::Unknown } => "unknown_outcome",
        }
    }
}
