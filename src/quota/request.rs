//! What a caller asks of the ledger.

use super::{AmountError, Metadata, Model, RequestId, ReservationId, Tokens};

/// Hold tokens before a model call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserve {
    pub id: ReservationId,
    pub tokens: Tokens,
    pub model: Option<Model>,
    /// 1 … 86,400.
    pub ttl_seconds: u32,
    pub metadata: Option<Metadata>,
}

/// Charge what was really used and give back the rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settle {
    pub id: ReservationId,
    pub charge: Charge,
    /// Takes the reservation's model when absent.
    pub model: Option<Model>,
    pub request_id: Option<RequestId>,
}

/// A settle without a reservation; exactly once by id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Debit {
    pub id: ReservationId,
    /// [`Charge::Unknown`] is refused before it gets here: there is no reservation to take an amount from.
    pub charge: Charge,
    pub model: Option<Model>,
    pub request_id: Option<RequestId>,
}

/// Raise a pending reservation. All parts are absolute and never lower anything, so that a repeat is harmless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extend {
    pub id: ReservationId,
    /// New total hold.
    pub tokens: Option<Tokens>,
    /// New expiry, from now; 1 … 86,400.
    pub ttl_seconds: Option<u32>,
    /// What the running call has used so far.
    pub used_tokens: Option<Tokens>,
}

/// One operation of any verb, as a batch brings them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    Reserve(Reserve),
    Settle(Settle),
    Debit(Debit),
    Release(ReservationId),
    Extend(Extend),
}

impl Ask {
    /// The reservation or debit it is about.
    pub fn id(&self) -> &ReservationId {
        match self {
            Self::Reserve(ask) => &ask.id,
            Self::Settle(ask) => &ask.id,
            Self::Debit(ask) => &ask.id,
            Self::Release(id) => id,
            Self::Extend(ask) => &ask.id,
        }
    }
}

/// How much a settle or debit charges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Charge {
    Tokens(Tokens),
    Usage(Usage),
    /// The gateway lost the usage: the reserved amount is charged, flagged `estimated`.
    Unknown,
}

/// What the model's provider reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub input_tokens: Tokens,
    pub output_tokens: Tokens,
    /// Part of `input_tokens`, never more than it.
    pub cached_input_tokens: Option<Tokens>,
}

impl Usage {
    /// Input and output together.
    ///
    /// # Errors
    /// [`AmountError::OutOfRange`] above what one operation may carry.
    pub fn total(&self) -> Result<Tokens, AmountError> {
        self.input_tokens.checked_add(self.output_tokens)
    }
}
