//! Token amounts: integers only, bounded, so that no sum can pass 2^53 unseen.

use std::fmt;

/// Most tokens one operation may carry (`design.md` §3).
pub const MAX_OPERATION_TOKENS: u64 = 1_000_000_000_000;

/// Totals and sums stay at or below this: above 2^53 a Lua number loses digits.
pub const MAX_TOTAL_TOKENS: u64 = (1 << 53) - 1;

/// LLM tokens of one operation, 0 … 10^12.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tokens(u64);

impl Tokens {
    pub const ZERO: Self = Self(0);

    /// Takes 0 … 10^12.
    ///
    /// # Errors
    /// [`AmountError::OutOfRange`] above that.
    pub const fn new(tokens: u64) -> Result<Self, AmountError> {
        if tokens <= MAX_OPERATION_TOKENS { Ok(Self(tokens)) } else { Err(AmountError::OutOfRange) }
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    /// The sum, if it is still an amount one operation may carry.
    pub fn checked_add(self, other: Self) -> Result<Self, AmountError> {
        Self::new(self.0 + other.0)
    }
}

impl fmt::Display for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a number is no amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AmountError {
    /// Negative, fractional, in exponent form or no number at all.
    #[error("an amount is a whole number, 0 or more, written without fraction or exponent")]
    Invalid,
    /// Above what one operation may carry, or a sum at or above 2^53.
    #[error("an amount is at most 1000000000000 per operation, and a total stays below 2^53")]
    OutOfRange,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_carries_at_most_ten_to_the_twelfth() {
        assert_eq!(Tokens::new(MAX_OPERATION_TOKENS).map(Tokens::get), Ok(1_000_000_000_000));
        assert_eq!(Tokens::new(MAX_OPERATION_TOKENS + 1), Err(AmountError::OutOfRange));
        assert_eq!(Tokens::new(u64::MAX), Err(AmountError::OutOfRange));
    }

    #[test]
    fn sums_are_checked() {
        let most = Tokens::new(MAX_OPERATION_TOKENS).unwrap();
        assert_eq!(most.checked_add(Tokens::new(1).unwrap()), Err(AmountError::OutOfRange));
        assert_eq!(most.checked_add(Tokens::ZERO), Ok(most));
    }
}
