//! One entry of a witness ring: what a replica remembers of a settle it acked.

use super::wire::{Answer, Booked, Operation, Options, Record};
use crate::quota::{Entry, Flags, Kind, Line};

/// One acked settle or debit that Postgres may not have yet.
#[derive(Clone, Debug)]
pub struct Witnessed {
    /// To run it again, should it have missed a recovery.
    pub operation: Operation,
    /// Its outbox entries: one, or an expiry and its correction.
    pub entries: Vec<Entry>,
    /// The life in which it was acked.
    pub epoch: u64,
}

impl Witnessed {
    /// What to remember of an operation and its answer; `None` when its record made no outbox entry.
    pub fn of(operation: &Operation, answer: &Answer, epoch: u64) -> Option<Self> {
        let record = answer.record.as_ref()?;
        if record.booked.is_empty() {
            return None;
        }
        let entries = record.booked.iter().map(|booked| entry(operation, record, booked)).collect();
        let mut operation = operation.clone();
        operation.options = Options::WITNESSED;
        operation.tokens = record.charged;
        operation.second = 0;
        for line in &mut operation.lines {
            line.amount = record.charged as i64;
        }
        Some(Self { operation, entries, epoch })
    }
}

/// An outbox entry of a record, as the script wrote it.
fn entry(operation: &Operation, record: &Record, booked: &Booked) -> Entry {
    Entry {
        outbox_id: booked.outbox_id,
        user: operation.user,
        reservation: operation.id.clone(),
        kind: booked.kind,
        tokens: booked.tokens,
        flags: if booked.kind == Kind::Expiry { Flags::ESTIMATED } else { record.flags },
        at_ms: record.finished_at_ms,
        model: record.model.clone(),
        request_id: operation.facts.request_id.clone(),
        input_tokens: operation.facts.input_tokens,
        output_tokens: operation.facts.output_tokens,
        cached_input_tokens: operation.facts.cached_input_tokens,
        metadata: record.metadata.clone(),
        lines: operation.lines.iter().map(|l| Line { budget: l.budget, amount: booked.tokens }).collect(),
    }
}
