//! Outbox entries, and the facts of a transaction that scripts copy unread.

use super::bytes::{Malformed, Reader, put, put_prefixed};
use crate::{
    ledger::keys::{parse_budget_name, parse_id},
    quota::{Entry, Flags, Kind, Line, Metadata, Model, OutboxId, RequestId, UserId},
};

/// What the ledger row keeps beside the amounts. Packed:
/// `u8+n request id · u8 bits of what follows · u48 input · u48 output · u48 cached input tokens`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    pub request_id: Option<RequestId>,
    pub input_tokens: Option<u64>,
    pub output_tokens: Option<u64>,
    pub cached_input_tokens: Option<u64>,
}

impl Facts {
    pub fn encode(&self) -> Vec<u8> {
        let counts = [self.input_tokens, self.output_tokens, self.cached_input_tokens];
        let mut out = Vec::with_capacity(20);
        put_prefixed(&mut out, 1, self.request_id.as_ref().map_or("", RequestId::as_str).as_bytes());
        put(
            &mut out,
            1,
            counts.iter().enumerate().map(|(bit, count)| u64::from(count.is_some()) << bit).sum(),
        );
        counts.iter().flatten().for_each(|count| put(&mut out, 6, *count));
        out
    }

    /// # Errors
    /// [`Malformed`] when the bytes are none of [`Facts::encode`]'s.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        let request_id = reader.optional(1, RequestId::new)?;
        let present = reader.u8()?;
        let mut count = |bit: u8| {
            if present & (1 << bit) == 0 { Ok(None) } else { reader.unsigned(6).map(Some) }
        };
        Ok(Self {
            request_id,
            input_tokens: count(0)?,
            output_tokens: count(1)?,
            cached_input_tokens: count(2)?,
        })
    }
}

/// Numbers of the kinds on the wire.
pub fn decode_kind(number: u8) -> Result<Kind, Malformed> {
    match number {
        1 => Ok(Kind::Settle),
        2 => Ok(Kind::Debit),
        3 => Ok(Kind::Expiry),
        4 => Ok(Kind::Correction),
        _ => Err(Malformed),
    }
}

/// Reads an entry as `book` in `lua/apply/write.lua` packs it.
///
/// # Errors
/// [`Malformed`]: the entry stays in the outbox, for a version that knows its format.
pub fn decode_entry(outbox_id: OutboxId, payload: &[u8]) -> Result<Entry, Malformed> {
    let mut reader = Reader(payload);
    if reader.u8()? != 1 {
        return Err(Malformed);
    }
    let user = UserId(uuid::Uuid::from_bytes(reader.array()?));
    let reservation = parse_id(reader.prefixed(1)?).ok_or(Malformed)?;
    let kind = decode_kind(reader.u8()?)?;
    let tokens = reader.i64()?;
    let flags = Flags(reader.u8()?);
    let at_ms = reader.unsigned(6)?;
    let model = reader.optional(1, Model::new)?;
    let metadata = reader.optional(2, Metadata::new)?;
    let facts = Facts::decode(reader.prefixed(2)?)?;
    let count = reader.u8()?;
    let mut lines = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let budget = parse_budget_name(reader.prefixed(1)?).ok_or(Malformed)?;
        lines.push(Line { budget, amount: reader.i64()? });
    }
    Ok(Entry {
        outbox_id,
        user,
        reservation,
        kind,
        tokens,
        flags,
        at_ms,
        model,
        request_id: facts.request_id,
        input_tokens: facts.input_tokens,
        output_tokens: facts.output_tokens,
        cached_input_tokens: facts.cached_input_tokens,
        metadata,
        lines,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_survive_the_wire() {
        let facts = Facts {
            request_id: Some(RequestId::new("req-1").unwrap()),
            input_tokens: Some(0),
            output_tokens: None,
            cached_input_tokens: Some(1_000_000_000_000),
        };
        assert_eq!(Facts::decode(&facts.encode()), Ok(facts));
        assert_eq!(Facts::decode(&Facts::default().encode()), Ok(Facts::default()));
        assert_eq!(Facts::decode(&[]), Err(Malformed));
    }
}
