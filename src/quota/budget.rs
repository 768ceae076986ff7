//! Budgets and the lines of a reservation.
//!
//! A reservation is a list of lines (budget, amount). All lines fit or none is touched, and what comes back
//! comes back by the lines in the record. Today every list has one line, the account's balance; quotas, groups
//! and in-flight limits add lines and need no other change.

use super::UserId;

/// Names one counter that a reservation must fit in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BudgetId {
    /// The balance of an account, in tokens.
    Balance(UserId),
}

impl BudgetId {
    /// The account or group whose counter this is.
    pub fn owner(&self) -> UserId {
        match self {
            Self::Balance(owner) => *owner,
        }
    }

    /// The word API answers and metrics use for this kind of budget.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Balance(_) => "balance",
        }
    }
}

/// An amount on one budget. Negative only in a correction that gives back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    pub budget: BudgetId,
    pub amount: i64,
}

/// A budget that cannot take what a reserve asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShortBudget {
    pub budget: BudgetId,
    pub requested: u64,
    pub available: i64,
}
