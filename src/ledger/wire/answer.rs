//! What `apply` and `peek` answer for one operation.

use super::{
    Record,
    bytes::{Malformed, Reader},
};
use crate::quota::Balance;

/// Status of one operation, with its number on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    Ok,
    Replay,
    Mismatch,
    Finished,
    Denied,
    Suspended,
    Stale,
    Cold,
    Full,
    Unknown,
    Released,
    Gone,
    Range,
    Unreadable,
    /// Not run, because the operation before it in its chain must be run again first.
    HeldBack,
}

impl Status {
    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Replay => "replay",
            Self::Mismatch => "mismatch",
            Self::Finished => "finished",
            Self::Denied => "denied",
            Self::Suspended => "suspended",
            Self::Stale => "stale",
            Self::Cold => "cold",
            Self::Full => "full",
            Self::Unknown => "unknown_id",
            Self::Released => "released",
            Self::Gone => "gone",
            Self::Range => "range",
            Self::Unreadable => "unreadable",
            Self::HeldBack => "held_back",
        }
    }

    const ALL: [Self; 15] = [
        Self::Ok,
        Self::Replay,
        Self::Mismatch,
        Self::Finished,
        Self::Denied,
        Self::Suspended,
        Self::Stale,
        Self::Cold,
        Self::Full,
        Self::Unknown,
        Self::Released,
        Self::Gone,
        Self::Range,
        Self::Unreadable,
        Self::HeldBack,
    ];
}

/// One operation's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: Status,
    /// Something in the partition is overdue: sweep, then ask again.
    pub due: bool,
    pub suspended: bool,
    pub balance: Balance,
    /// With `Denied`: (index of the line, requested, available).
    pub short: Vec<(usize, u64, i64)>,
    /// With `Stale`: the policy version Redis has.
    pub policy_version: u64,
    pub record: Option<Record>,
}

impl Answer {
    /// Stands in for an answer whose format this version does not know.
    pub fn unreadable() -> Self {
        Self {
            status: Status::Unreadable,
            due: false,
            suspended: false,
            balance: Balance::default(),
            short: Vec::new(),
            policy_version: 0,
            record: None,
        }
    }

    /// # Errors
    /// [`Malformed`] when it is no answer, or the record in it has an unknown format.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        let number = reader.u8()?;
        let status = *Status::ALL.get(usize::from(number).wrapping_sub(1)).ok_or(Malformed)?;
        let (due, suspended) = (reader.u8()? == 1, reader.u8()? == 1);
        let balance = Balance {
            total: reader.non_negative()?,
            used: reader.non_negative()?,
            reserved: reader.non_negative()?,
        };
        let mut answer = Self { status, due, suspended, balance, ..Self::unreadable() };
        match status {
            Status::Denied => answer.short = decode_short(&mut reader)?,
            Status::Stale => answer.policy_version = reader.unsigned(8)?,
            _ if !reader.0.is_empty() => answer.record = Some(Record::decode(reader.0)?),
            _ => {}
        }
        Ok(answer)
    }
}

fn decode_short(reader: &mut Reader<'_>) -> Result<Vec<(usize, u64, i64)>, Malformed> {
    let count = reader.u8()?;
    let short = |reader: &mut Reader<'_>| {
        let line = usize::from(reader.u8()?).checked_sub(1).ok_or(Malformed)?;
        Ok((line, reader.unsigned(8)?, reader.i64()?))
    };
    (0..count).map(|_| short(reader)).collect()
}
