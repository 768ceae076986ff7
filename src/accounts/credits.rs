//! Giving tokens to users.

use uuid::Uuid;

use super::{Accounts, is_text};
use crate::{
    quota::{Tokens, UserId},
    store::{Credit, CreditOutcome, Grant, GrantKind, StoreError, User},
};

/// Longest reason of a credit, in bytes.
pub const MAX_REASON_LENGTH: usize = 1_000;

/// The kinds of grant that an operator makes as a credit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreditKind {
    Purchase,
    Bonus,
}

impl CreditKind {
    pub const ALL: [Self; 2] = [Self::Purchase, Self::Bonus];

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// The word in API calls and answers.
    pub fn as_str(self) -> &'static str {
        self.grant_kind().as_str()
    }

    fn grant_kind(self) -> GrantKind {
        match self {
            Self::Purchase => GrantKind::Purchase,
            Self::Bonus => GrantKind::Bonus,
        }
    }
}

/// A credit to be made.
#[derive(Clone, Debug)]
pub struct CreditUser {
    /// At least 1.
    pub tokens: Tokens,
    pub kind: CreditKind,
    /// Scoped to the user; 1–255 bytes.
    pub idempotency_key: String,
    pub reason: Option<String>,
}

/// A credit that was made, now or before under the same key.
#[derive(Clone, Debug)]
pub struct Credited {
    pub grant: Grant,
    pub user: User,
    pub replayed: bool,
    /// Whether the tokens can be reserved already.
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
    #[error("the key was used for another credit")]
    Mismatch,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Accounts {
    /// Gives tokens, once per key, and waits a moment for Redis to have them.
    pub async fn credit(&self, id: UserId, credit: CreditUser) -> Result<Credited, CreditError> {
        let credit = checked(credit)?;
        let (grant, user, replayed) = match self.store.credit(id, &credit).await? {
            CreditOutcome::Granted { grant, user } => (grant, user, false),
            CreditOutcome::Replayed { grant, user } => (grant, user, true),
            CreditOutcome::Mismatch => return Err(CreditError::Mismatch),
            CreditOutcome::UserNotFound => return Err(CreditError::NotFound),
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

fn checked(credit: CreditUser) -> Result<Credit, CreditError> {
    if credit.tokens == Tokens::ZERO {
        return Err(CreditError::Zero);
    }
    if credit.reason.as_deref().is_some_and(|reason| !is_text(reason, MAX_REASON_LENGTH)) {
        return Err(CreditError::InvalidReason);
    }
    Ok(Credit {
        kind: credit.kind.grant_kind(),
        // At most 10^12.
        tokens: credit.tokens.get() as i64,
        idempotency_key: credit.idempotency_key,
        reason: credit.reason,
    })
}
