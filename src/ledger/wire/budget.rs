//! A budget as Redis keeps it.

use super::bytes::{Malformed, Reader};

/// Format this version reads and writes.
const FORMAT: u8 = 1;

/// One budget; see `lua/shared/budget.lua` for its layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBudget {
    pub suspended: bool,
    /// The life it was loaded in; in any other it counts as absent.
    pub epoch: u64,
    pub granted: u64,
    /// Of `granted`, policy and suspension: the newest state of Postgres that is known here.
    pub version: u64,
    pub policy_version: u64,
    pub spent: u64,
    pub held: u64,
}

impl StoredBudget {
    /// # Errors
    /// [`Malformed`] when it is none, or of an unknown format.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        if reader.u8()? != FORMAT {
            return Err(Malformed);
        }
        let budget = Self {
            suspended: reader.u8()? == 1,
            epoch: reader.unsigned(4)?,
            granted: reader.non_negative()?,
            version: reader.non_negative()?,
            policy_version: reader.non_negative()?,
            spent: reader.non_negative()?,
            held: reader.non_negative()?,
        };
        if reader.0.is_empty() { Ok(budget) } else { Err(Malformed) }
    }
}
