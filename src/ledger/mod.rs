//! The Redis protocol. (Signatures only, until the real one lands.)
#![allow(unused_variables, clippy::unused_async)]

use tokio::time::Instant;

use crate::quota::{
    Balance, Debit, Extend, Reservation, ReservationId, Reserve, Settle, ShortBudget, State, Transaction,
    UserId,
};

mod refusal {}

/// What a verb did, with the balance after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt<T> {
    pub subject: T,
    pub balance: Balance,
    /// The same call had been answered before; nothing happened now.
    pub replayed: bool,
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

/// Handle on the ledger; cheap to clone.
#[derive(Clone)]
pub struct Ledger;

impl Ledger {
    pub async fn reserve(
        &self,
        user: UserId,
        ask: Reserve,
        deadline: Instant,
    ) -> Result<Receipt<Reservation>, Refusal> {
        unimplemented!()
    }
    pub async fn settle(
        &self,
        user: UserId,
        ask: Settle,
        deadline: Instant,
    ) -> Result<Receipt<Transaction>, Refusal> {
        unimplemented!()
    }
    pub async fn debit(
        &self,
        user: UserId,
        ask: Debit,
        deadline: Instant,
    ) -> Result<Receipt<Transaction>, Refusal> {
        unimplemented!()
    }
    pub async fn release(
        &self,
        user: UserId,
        id: ReservationId,
        deadline: Instant,
    ) -> Result<Receipt<Reservation>, Refusal> {
        unimplemented!()
    }
    pub async fn extend(
        &self,
        user: UserId,
        ask: Extend,
        deadline: Instant,
    ) -> Result<Receipt<Reservation>, Refusal> {
        unimplemented!()
    }
    /// A reservation, from Redis or, once retention has passed, from Postgres.
    pub async fn reservation(
        &self,
        user: UserId,
        id: ReservationId,
        deadline: Instant,
    ) -> Result<Reservation, Refusal> {
        unimplemented!()
    }
    /// Pending reservations by id, after `after`, at most `limit`.
    pub async fn pending(
        &self,
        user: UserId,
        after: Option<ReservationId>,
        limit: usize,
        deadline: Instant,
    ) -> Result<Vec<Reservation>, Refusal> {
        unimplemented!()
    }
    pub async fn account(&self, user: UserId, deadline: Instant) -> Result<Account, Refusal> {
        unimplemented!()
    }
    /// Which partitions are not open, for `/readyz`; empty when all are.
    pub fn closed_partitions(&self) -> Vec<crate::quota::PartitionId> {
        unimplemented!()
    }
    /// Push one account's grants, policy version and suspension to Redis now; false if it could not be confirmed by `deadline`.
    pub async fn sync_now(&self, user: UserId, deadline: Instant) -> bool {
        unimplemented!()
    }
}
