//! Giving tokens to users, and taking them back: purchases, bonuses, adjustments.

use uuid::Uuid;

use super::{Accounts, is_text};
use crate::{
    quota::{Tokens, UserId},
    store::{Credit, CreditOutcome, Grant, GrantKind, Payment, StoreError, User},
};

/// Longest reason of a credit, in bytes.
pub const MAX_REASON_LENGTH: usize = 1_000;
/// Longest payment method or provider, in bytes.
pub const MAX_METHOD_LENGTH: usize = 100;
/// Longest reference of a payment, in bytes.
pub const MAX_REFERENCE_LENGTH: usize = 255;
/// The provider of payments that name none.
pub const DEFAULT_PROVIDER: &str = "default";
/// Keys that begin with this are made by the service itself.
pub const RESERVED_KEYS: &str = "renewal:";

/// The kinds of grant that an operator makes as a credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreditKind {
    /// Paid for: there is a payment with it.
    Purchase,
    /// Given.
    Bonus,
}

impl CreditKind {
    pub const ALL: [Self; 2] = [Self::Purchase, Self::Bonus];

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// The word in API calls and answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Purchase => GrantKind::Purchase.as_str(),
            Self::Bonus => GrantKind::Bonus.as_str(),
        }
    }
}

/// A credit to be made: a purchase with its payment, or else a bonus.
#[derive(Clone, Debug)]
pub struct CreditUser {
    /// At least 1.
    pub tokens: Tokens,
    /// Unchecked.
    pub payment: Option<Payment>,
    /// Scoped to the user; 1–255 bytes.
    pub idempotency_key: String,
    pub reason: Option<String>,
}

/// Which way an adjustment goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Gives tokens.
    Up,
    /// Takes tokens.
    Down,
}

impl Direction {
    pub const ALL: [Self; 2] = [Self::Up, Self::Down];

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|direction| direction.as_str() == name)
    }

    /// The word in API calls.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// A correction by hand.
#[derive(Clone, Debug)]
pub struct AdjustUser {
    pub direction: Direction,
    /// At least 1.
    pub tokens: Tokens,
    /// Why, for whoever reads the history: never absent.
    pub reason: String,
    /// The transaction that is reversed or corrected: what is given back of it never exceeds what it charged.
    pub transaction: Option<Uuid>,
    /// Scoped to the user; 1–255 bytes.
    pub idempotency_key: String,
}

/// A grant that was made, now or before under the same key or for the same payment.
#[derive(Clone, Debug)]
pub struct Credited {
    pub grant: Grant,
    pub user: User,
    pub replayed: bool,
    /// Whether Redis has the new total already.
    pub effective: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum CreditError {
    #[error("there is no such user")]
    NotFound,
    #[error("a credit is at least 1 token")]
    Zero,
    #[error("the total would reach 2^53")]
    OutOfRange,
    #[error("the reason is invalid")]
    InvalidReason,
    /// The member of the payment at fault.
    #[error("the payment's {0} is invalid")]
    InvalidPayment(&'static str),
    #[error("the key is one of the service's own")]
    ReservedKey,
    #[error("the key was used for another credit")]
    Mismatch,
    #[error("the payment was credited with other facts, or to another user")]
    PaymentUsed,
    #[error("the user has no such transaction")]
    TransactionNotFound,
    #[error("at most {0} tokens can be adjusted")]
    Exceeds(u64),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Accounts {
    /// Gives tokens, once per key and once per payment, and waits a moment for Redis to have them.
    pub async fn credit(&self, id: UserId, credit: CreditUser) -> Result<Credited, CreditError> {
        let CreditUser { tokens, payment, idempotency_key, reason } = credit;
        if let Some(payment) = &payment {
            check_payment(payment)?;
        }
        let kind = if payment.is_some() { GrantKind::Purchase } else { GrantKind::Bonus };
        let credit = Credit { reason, payment, ..Credit::new(kind, signed(tokens)?, idempotency_key) };
        self.grant(id, credit).await
    }

    /// Corrects a total by hand, once per key. Taking may leave less than was used: what is available is then below
    /// zero, as after an overage, and reserves wait for credit.
    pub async fn adjust(&self, id: UserId, adjustment: AdjustUser) -> Result<Credited, CreditError> {
        let AdjustUser { direction, tokens, reason, transaction, idempotency_key } = adjustment;
        let tokens = match direction {
            Direction::Up => signed(tokens)?,
            Direction::Down => -signed(tokens)?,
        };
        let credit = Credit {
            reason: Some(reason),
            transaction,
            ..Credit::new(GrantKind::Adjustment, tokens, idempotency_key)
        };
        self.grant(id, credit).await
    }

    async fn grant(&self, id: UserId, credit: Credit) -> Result<Credited, CreditError> {
        if credit.idempotency_key.starts_with(RESERVED_KEYS) {
            return Err(CreditError::ReservedKey);
        }
        if credit.reason.as_deref().is_some_and(|reason| !is_text(reason, MAX_REASON_LENGTH)) {
            return Err(CreditError::InvalidReason);
        }
        let (grant, user, replayed) = match self.store.credit(id, &credit).await? {
            CreditOutcome::Granted { grant, user } => (grant, user, false),
            CreditOutcome::Replayed { grant, user } => (grant, user, true),
            CreditOutcome::Mismatch => return Err(CreditError::Mismatch),
            CreditOutcome::PaymentUsed => return Err(CreditError::PaymentUsed),
            CreditOutcome::UserNotFound => return Err(CreditError::NotFound),
            CreditOutcome::TransactionNotFound => return Err(CreditError::TransactionNotFound),
            CreditOutcome::Exceeds { limit } => return Err(CreditError::Exceeds(limit)),
            CreditOutcome::OutOfRange => return Err(CreditError::OutOfRange),
        };
        Ok(Credited { grant, user, replayed, effective: self.effective(id).await })
    }

    /// A user's grants, newest first, those before `before`, at most `limit`.
    pub async fn credits(
        &self,
        id: UserId,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<Grant>, CreditError> {
        let grants = self.store.grants(id, before, limit).await?;
        // No rows may also mean no user.
        if grants.is_empty() && self.store.user(id).await?.is_none() {
            return Err(CreditError::NotFound);
        }
        Ok(grants)
    }
}

/// At most 10^12, and not 0.
fn signed(tokens: Tokens) -> Result<i64, CreditError> {
    if tokens == Tokens::ZERO { Err(CreditError::Zero) } else { Ok(tokens.get() as i64) }
}

/// The rules of a payment's texts: printable, and within their bounds.
pub(super) fn check_payment(payment: &Payment) -> Result<(), CreditError> {
    let is_name = |text: &str, longest| is_text(text, longest) && !text.chars().any(char::is_control);
    if !is_name(&payment.method, MAX_METHOD_LENGTH) {
        Err(CreditError::InvalidPayment("payment_method"))
    } else if !is_name(&payment.provider, MAX_METHOD_LENGTH) {
        Err(CreditError::InvalidPayment("provider"))
    } else if payment.reference.as_deref().is_some_and(|text| !is_name(text, MAX_REFERENCE_LENGTH)) {
        Err(CreditError::InvalidPayment("provider_reference"))
    } else {
        Ok(())
    }
}
