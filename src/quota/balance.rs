//! What an account has: granted, settled, held.

/// `available = total − used − reserved`, derived, never stored. Tokens, each below 2^53.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Granted.
    pub total: u64,
    /// Settled.
    pub used: u64,
    /// Held by live reservations.
    pub reserved: u64,
}

impl Balance {
    /// What the next reserve may take. Below zero after an overage (`design.md` §4).
    pub fn available(&self) -> i64 {
        // Each part is below 2^53, so neither the casts nor the differences can overflow.
        self.total as i64 - self.used as i64 - self.reserved as i64
    }
}
