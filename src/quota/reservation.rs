//! A reservation as callers see it.

use super::{Metadata, Model, ReservationId};

/// Time to live of a reservation whose caller names none.
pub const DEFAULT_TTL_SECONDS: u32 = 600;

/// Longest time to live, a day; also how long after a recovery lost reservations may still be settled.
pub const MAX_TTL_SECONDS: u32 = 86_400;

/// `pending → settled | released | expired`; a terminal state is reached once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Pending,
    Settled,
    Released,
    Expired,
}

impl State {
    pub const ALL: [Self; 4] = [Self::Pending, Self::Settled, Self::Released, Self::Expired];

    /// The word in API answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Settled => "settled",
            Self::Released => "released",
            Self::Expired => "expired",
        }
    }
}

/// A reservation and its facts. Times are Unix milliseconds by the clock of Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    pub id: ReservationId,
    pub state: State,
    /// Held on the balance.
    pub tokens: u64,
    /// Progress the gateway reported.
    pub used_tokens: u64,
    /// Charged so far, by settle or by expiry; `None` while nothing is.
    pub charged_tokens: Option<u64>,
    pub model: Option<Model>,
    pub metadata: Option<Metadata>,
    pub reserved_at_ms: u64,
    pub expires_at_ms: u64,
}
