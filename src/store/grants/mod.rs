//! Grants: immutable, signed changes of what an account has in all, and the payments behind them.
//!
//! | file | what is in it |
//! | --- | --- |
//! | `make` | one grant, once per key and once per payment, in one SQL transaction |
//! | `rows` | how they are read |

mod make;
mod rows;

use jiff::Timestamp;
use uuid::Uuid;

pub(super) use make::{account, act, insert, is_paid, lock_account};
pub(super) use rows::by_key;

use super::User;
use crate::quota::{Currency, Money, UserId};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    pub id: Uuid,
    pub user: UserId,
    pub kind: GrantKind,
    /// Signed, never 0; negative only for an adjustment.
    pub tokens: i64,
    pub idempotency_key: String,
    pub reason: Option<String>,
    /// What was paid for it.
    pub payment: Option<Payment>,
    /// The transaction that an adjustment reverses or corrects.
    pub transaction: Option<Uuid>,
    pub created_at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantKind {
    Purchase,
    Bonus,
    Renewal,
    /// The only kind that may take away.
    Adjustment,
}

impl GrantKind {
    pub const ALL: [Self; 4] = [Self::Purchase, Self::Bonus, Self::Renewal, Self::Adjustment];

    /// The word in SQL and API answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Purchase => "purchase",
            Self::Bonus => "bonus",
            Self::Renewal => "renewal",
            Self::Adjustment => "adjustment",
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// What was paid, and by which way. The caller has checked the texts: method and provider 1–100 bytes, reference 1–255.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// Such as `pix` or `card`.
    pub method: String,
    pub amount: Money,
    pub currency: Currency,
    /// Who took it; references are unique within it.
    pub provider: String,
    /// The provider's own id of the payment; a payment without one is told apart by the idempotency key alone.
    pub reference: Option<String>,
}

/// A grant to be made. The caller has checked the texts: key 1–255 bytes, reason at most 1,000.
#[derive(Clone, Debug)]
pub struct Credit {
    pub kind: GrantKind,
    /// Signed, ±10^12 at most, not 0, negative only for an adjustment; else [`CreditOutcome::OutOfRange`].
    pub tokens: i64,
    /// Scoped to the user.
    pub idempotency_key: String,
    pub reason: Option<String>,
    /// Recorded with the grant; its reference is credited once among all users.
    pub payment: Option<Payment>,
    /// Of the user; what is given back of it in all never exceeds what it charged. For an adjustment only.
    pub transaction: Option<Uuid>,
}

impl Credit {
    /// A grant with nothing but its tokens.
    pub fn new(kind: GrantKind, tokens: i64, idempotency_key: impl Into<String>) -> Self {
        let idempotency_key = idempotency_key.into();
        Self { kind, tokens, idempotency_key, reason: None, payment: None, transaction: None }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreditOutcome {
    /// Granted now; `user` is as the grant left it.
    Granted {
        grant: Grant,
        user: User,
    },
    /// Granted before under this key, or for this payment; `user` is as it is now.
    Replayed {
        grant: Grant,
        user: User,
    },
    /// The key was used for another kind, amount, payment or transaction; nothing changed.
    Mismatch,
    /// The provider's reference was credited with other facts, or to another user; nothing changed.
    PaymentUsed,
    UserNotFound,
    /// The ledger has no such transaction of this user; nothing changed.
    TransactionNotFound,
    /// An adjustment may take, or give back, at most so many tokens; nothing changed.
    Exceeds {
        limit: u64,
    },
    /// The amount is none a grant may carry, or the total would reach 2^53; nothing changed.
    OutOfRange,
}
