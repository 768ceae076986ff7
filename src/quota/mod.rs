//! The core vocabulary: amounts, ids, budgets, reservations, transactions and what may be refused.
//!
//! Pure: no I/O, no async, no clock. Everything else speaks in these types, so that an amount that is out of
//! range or an id of the wrong form cannot get past the place where it entered.

mod amount;
pub mod anomaly;
mod balance;
mod budget;
mod event;
mod id;
mod money;
mod partition;
pub mod period;
pub mod projection;
mod renewal;
mod request;
mod reservation;
mod text;
mod threshold;
mod thresholds;
mod transaction;

pub use amount::{AmountError, MAX_OPERATION_TOKENS, MAX_TOTAL_TOKENS, Tokens};
pub use balance::Balance;
pub use budget::{BudgetId, Line, ShortBudget};
pub use event::EventKind;
pub use id::{IdError, MAX_RESERVATION_ID_LENGTH, ReservationId, UserId};
pub use money::{Currency, Money, MoneyError};
pub use partition::{PartitionId, Partitions};
pub use renewal::{
    InvalidRule, MAX_RENEWALS_PER_MONTH, Plan, RenewalMode, RenewalRule, month_of, next_month,
};
pub use request::{Ask, Charge, Debit, Extend, Reserve, Settle, Usage};
pub use reservation::{DEFAULT_TTL_SECONDS, MAX_TTL_SECONDS, Reservation, State};
pub use text::{
    MAX_METADATA_LENGTH, MAX_MODEL_LENGTH, MAX_REQUEST_ID_LENGTH, Metadata, Model, RequestId, TextError,
};
pub use threshold::{AlertThreshold, InvalidThreshold};
pub use thresholds::{Level, OutOfOrder, Standing, Thresholds};
pub use transaction::{Entry, Flags, Kind, OutboxId, Transaction, transaction_id};
