//! A reservation's record, as `lua/shared/record.lua` packs it.

use super::{
    bytes::{Malformed, Reader},
    entry::decode_kind,
};
use crate::{
    ledger::keys::parse_budget_name,
    quota::{Flags, Kind, Line, Metadata, Model, OutboxId, Reservation, ReservationId, State},
};

/// An outbox entry a record has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Booked {
    pub kind: Kind,
    pub tokens: i64,
    pub outbox_id: OutboxId,
}

/// What Redis knows of a reservation or debit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub state: State,
    pub flags: Flags,
    /// Epoch in which its hold counts.
    pub epoch: u64,
    pub fingerprint: [u8; 8],
    pub reserved_at_ms: u64,
    pub expires_at_ms: u64,
    pub progress: u64,
    pub model: Option<Model>,
    pub metadata: Option<Metadata>,
    pub lines: Vec<Line>,
    pub settle_fingerprint: [u8; 8],
    pub charged_by_expiry: u64,
    pub charged: u64,
    pub finished_at_ms: u64,
    pub booked: Vec<Booked>,
}

impl Record {
    /// # Errors
    /// [`Malformed`] for an unknown format.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        if reader.u8()? != 1 {
            return Err(Malformed);
        }
        let mut record = Self {
            state: decode_state(reader.u8()?)?,
            flags: Flags(reader.u8()?),
            epoch: reader.unsigned(4)?,
            fingerprint: reader.array()?,
            reserved_at_ms: reader.unsigned(6)?,
            expires_at_ms: reader.unsigned(6)?,
            progress: reader.unsigned(6)?,
            model: reader.optional(1, Model::new)?,
            metadata: reader.optional(2, Metadata::new)?,
            lines: decode_lines(&mut reader)?,
            settle_fingerprint: [0; 8],
            charged_by_expiry: 0,
            charged: 0,
            finished_at_ms: 0,
            booked: Vec::new(),
        };
        if record.state != State::Pending {
            record.settle_fingerprint = reader.array()?;
            record.charged_by_expiry = reader.unsigned(6)?;
            record.charged = reader.unsigned(6)?;
            record.finished_at_ms = reader.unsigned(6)?;
            record.booked = decode_booked(&mut reader)?;
        }
        Ok(record)
    }

    /// What callers see of it. A pending one that is due by `now_ms`, or whose hold no budget of `epoch` counts, is
    /// expired, whether or not the sweeper ran.
    pub fn reservation(self, id: ReservationId, epoch: u64, now_ms: u64) -> Reservation {
        let due = self.state == State::Pending && (now_ms >= self.expires_at_ms || self.epoch != epoch);
        Reservation {
            id,
            state: if due { State::Expired } else { self.state },
            tokens: self.lines.first().map_or(0, |line| line.amount.unsigned_abs()),
            used_tokens: self.progress,
            charged_tokens: (!self.booked.is_empty() || self.charged > 0).then_some(self.charged),
            model: self.model,
            metadata: self.metadata,
            reserved_at_ms: self.reserved_at_ms,
            expires_at_ms: self.expires_at_ms,
        }
    }
}

fn decode_state(number: u8) -> Result<State, Malformed> {
    match number {
        1 => Ok(State::Pending),
        2 => Ok(State::Settled),
        3 => Ok(State::Released),
        4 => Ok(State::Expired),
        _ => Err(Malformed),
    }
}

fn decode_lines(reader: &mut Reader<'_>) -> Result<Vec<Line>, Malformed> {
    let count = reader.u8()?;
    let line = |reader: &mut Reader<'_>| {
        let budget = parse_budget_name(reader.prefixed(1)?).ok_or(Malformed)?;
        Ok(Line { budget, amount: reader.unsigned(6)? as i64 })
    };
    (0..count).map(|_| line(reader)).collect()
}

fn decode_booked(reader: &mut Reader<'_>) -> Result<Vec<Booked>, Malformed> {
    let count = reader.u8()?;
    let booked = |reader: &mut Reader<'_>| {
        let kind = decode_kind(reader.u8()?)?;
        let tokens = reader.i64()?;
        Ok(Booked { kind, tokens, outbox_id: reader.text(1)?.parse().map_err(|_| Malformed)? })
    };
    (0..count).map(|_| booked(reader)).collect()
}
