//! What becomes of an outbox entry, decided from what the ledger already has of its reservation. Pure.
//!
//! A reservation is charged at most once in all. Its rows are either one settle or debit, or an expiry with the
//! progress it charged and at most one correction that makes up the difference. A debit is a settle without a
//! reservation and follows the rules of a settle.
//!
//! | entry | the ledger has | becomes |
//! | --- | --- | --- |
//! | any | its outbox id, in whatever kind, or in the dead letters | nothing: a replay |
//! | settle, debit | nothing | a row |
//! | settle, debit | an expiry | a correction of the difference, and the expiry's amount a dead letter: Redis counts both |
//! | settle, debit | a settle, debit or correction, Σ equal | dead letter `late_replay` |
//! | settle, debit | a settle, debit or correction, Σ other | dead letter `id_reused` |
//! | expiry, correction | a settle or debit | dead letter `after_settle` |
//! | expiry, correction | the same kind, amount equal | dead letter `late_replay` |
//! | expiry, correction | the same kind, amount other | dead letter `id_reused` |
//! | expiry, correction | else | a row |

use std::collections::{HashMap, HashSet};

use crate::quota::{Entry, Flags, Kind, Line, OutboxId, ReservationId, UserId};
use crate::store::DeadReason;

/// A row of the ledger, as far as the rules look at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub kind: Kind,
    pub tokens: i64,
    pub outbox_id: OutboxId,
}

/// The ledger's rows by reservation.
pub(super) type KnownRows<'a> = HashMap<(UserId, &'a ReservationId), Vec<Known>>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision<'a> {
    Replay,
    Book(&'a Entry),
    /// `row` is the entry as a correction, under its own outbox id; `excess` is what the expiry had charged.
    Convert {
        entry: &'a Entry,
        row: Box<Entry>,
        excess: i64,
    },
    Bury(&'a Entry, DeadReason),
}

/// Decides entry by entry, in order: later ones see what earlier ones become. `buried` are outbox ids in the dead
/// letters.
pub(super) fn decide<'a>(
    entries: impl IntoIterator<Item = &'a Entry>,
    known: &mut KnownRows<'a>,
    buried: &HashSet<OutboxId>,
) -> Vec<Decision<'a>> {
    let mut buried = buried.clone();
    let decide_one = |entry: &'a Entry| {
        let rows = known.entry((entry.user, &entry.reservation)).or_default();
        let decision = if buried.contains(&entry.outbox_id) { Decision::Replay } else { rule(entry, rows) };
        match &decision {
            Decision::Replay => {}
            Decision::Book(row) => rows.push(known_from(row)),
            Decision::Convert { row, .. } => rows.push(known_from(row)),
            Decision::Bury(..) => {
                buried.insert(entry.outbox_id);
            }
        }
        decision
    };
    entries.into_iter().map(decide_one).collect()
}

fn known_from(entry: &Entry) -> Known {
    Known { kind: entry.kind, tokens: entry.tokens, outbox_id: entry.outbox_id }
}

fn rule<'a>(entry: &'a Entry, rows: &[Known]) -> Decision<'a> {
    if rows.iter().any(|row| row.outbox_id == entry.outbox_id) {
        return Decision::Replay;
    }
    let has = |kind| rows.iter().find(|row| row.kind == kind);
    let again = |charged: i64| match charged == entry.tokens {
        true => Decision::Bury(entry, DeadReason::LateReplay),
        false => Decision::Bury(entry, DeadReason::IdReused),
    };
    let settled = has(Kind::Settle).or(has(Kind::Debit));
    match entry.kind {
        Kind::Settle | Kind::Debit => match (settled.or(has(Kind::Correction)), has(Kind::Expiry)) {
            (Some(_), _) => again(rows.iter().fold(0, |sum, row| sum.saturating_add(row.tokens))),
            (None, Some(expiry)) => convert(entry, expiry.tokens),
            (None, None) => Decision::Book(entry),
        },
        Kind::Expiry | Kind::Correction => match (settled, has(entry.kind)) {
            (Some(_), _) => Decision::Bury(entry, DeadReason::AfterSettle),
            (None, Some(same)) => again(same.tokens),
            (None, None) => Decision::Book(entry),
        },
    }
}

/// The settle as the difference to what the expiry charged, on every line.
fn convert(entry: &Entry, charged: i64) -> Decision<'_> {
    let less = |amount: i64| amount.saturating_sub(charged);
    let row = Entry {
        kind: Kind::Correction,
        tokens: less(entry.tokens),
        flags: entry.flags.union(Flags::LATE),
        lines: entry.lines.iter().map(|line| Line { amount: less(line.amount), ..*line }).collect(),
        ..entry.clone()
    };
    Decision::Convert { entry, row: Box::new(row), excess: charged }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quota::BudgetId;
    use DeadReason::{AfterSettle, IdReused, LateReplay};
    use Kind::{Correction, Debit, Expiry, Settle};

    fn entry(user: UserId, kind: Kind, tokens: i64, sequence: u64) -> Entry {
        Entry {
            outbox_id: OutboxId { sequence, nonce: 7 },
            user,
            reservation: ReservationId::new("r").unwrap(),
            kind,
            tokens,
            flags: Flags::default(),
            at_ms: 1,
            model: None,
            request_id: None,
            input_tokens: None,
            output_tokens: None,
            cached_input_tokens: None,
            metadata: None,
            lines: vec![Line { budget: BudgetId::Balance(user), amount: tokens }],
        }
    }

    #[derive(Debug, PartialEq)]
    enum Fate {
        Replay,
        Row(Kind, i64),
        Converted(i64, i64),
        Dead(DeadReason),
    }
    use Fate::{Converted, Dead, Replay, Row};

    /// Entries are (kind, tokens, outbox sequence); the first `in_ledger` of them are there before the batch.
    fn fates(in_ledger: &[(Kind, i64, u64)], batch: &[(Kind, i64, u64)]) -> Vec<Fate> {
        let user = UserId::generate();
        let id = ReservationId::new("r").unwrap();
        let rows = in_ledger
            .iter()
            .map(|(kind, tokens, sequence)| Known {
                kind: *kind,
                tokens: *tokens,
                outbox_id: OutboxId { sequence: *sequence, nonce: 7 },
            })
            .collect();
        let mut known = KnownRows::from([((user, &id), rows)]);
        let entries: Vec<Entry> = batch.iter().map(|(k, t, s)| entry(user, *k, *t, *s)).collect();
        decide(&entries, &mut known, &HashSet::new())
            .iter()
            .map(|decision| match decision {
                Decision::Replay => Replay,
                Decision::Book(row) => Row(row.kind, row.tokens),
                Decision::Convert { row, excess, .. } => {
                    assert_eq!((row.kind, row.lines[0].amount), (Correction, row.tokens));
                    assert!(row.flags.contains(Flags::LATE));
                    Converted(row.tokens, *excess)
                }
                Decision::Bury(_, reason) => Dead(*reason),
            })
            .collect()
    }

    #[test]
    fn every_entry_against_every_ledger() {
        type Rows = &'static [(Kind, i64, u64)];
        let table: &[(Rows, (Kind, i64, u64), Fate)] = &[
            (&[], (Settle, 50, 1), Row(Settle, 50)),
            (&[], (Settle, 0, 1), Row(Settle, 0)),
            (&[], (Debit, 50, 1), Row(Debit, 50)),
            (&[], (Expiry, 50, 1), Row(Expiry, 50)),
            (&[], (Correction, -5, 1), Row(Correction, -5)),
            // The same outbox id, in its own kind or converted.
            (&[(Settle, 50, 1)], (Settle, 50, 1), Replay),
            (&[(Debit, 50, 1)], (Debit, 50, 1), Replay),
            (&[(Expiry, 20, 9), (Correction, 30, 1)], (Settle, 50, 1), Replay),
            (&[(Expiry, 20, 1), (Correction, 30, 2)], (Expiry, 20, 1), Replay),
            // A settle after an expiry.
            (&[(Expiry, 20, 1)], (Settle, 50, 2), Converted(30, 20)),
            (&[(Expiry, 20, 1)], (Settle, 5, 2), Converted(-15, 20)),
            (&[(Expiry, 20, 1)], (Settle, 20, 2), Converted(0, 20)),
            (&[(Expiry, 20, 1)], (Debit, 50, 2), Converted(30, 20)),
            (&[(Expiry, 20, 1)], (Correction, 30, 2), Row(Correction, 30)),
            (&[(Correction, 30, 2)], (Expiry, 20, 1), Row(Expiry, 20)),
            // The same charge, or the same id, once more.
            (&[(Settle, 50, 1)], (Settle, 50, 2), Dead(LateReplay)),
            (&[(Settle, 50, 1)], (Settle, 51, 2), Dead(IdReused)),
            (&[(Debit, 50, 1)], (Debit, 50, 2), Dead(LateReplay)),
            (&[(Debit, 50, 1)], (Settle, 51, 2), Dead(IdReused)),
            (&[(Settle, 50, 1)], (Debit, 50, 2), Dead(LateReplay)),
            (&[(Expiry, 20, 1)], (Expiry, 20, 2), Dead(LateReplay)),
            (&[(Expiry, 20, 1)], (Expiry, 21, 2), Dead(IdReused)),
            (&[(Expiry, 20, 1), (Correction, 30, 2)], (Correction, 30, 3), Dead(LateReplay)),
            (&[(Expiry, 20, 1), (Correction, 30, 2)], (Correction, 31, 3), Dead(IdReused)),
            (&[(Expiry, 20, 1), (Correction, 30, 2)], (Settle, 50, 3), Dead(LateReplay)),
            (&[(Expiry, 20, 1), (Correction, 30, 2)], (Settle, 30, 3), Dead(IdReused)),
            // Too late after a settle.
            (&[(Settle, 50, 1)], (Expiry, 20, 2), Dead(AfterSettle)),
            (&[(Settle, 50, 1)], (Correction, 30, 2), Dead(AfterSettle)),
            (&[(Debit, 50, 1)], (Expiry, 20, 2), Dead(AfterSettle)),
        ];
        for (ledger, entry, fate) in table {
            assert_eq!(fates(ledger, &[*entry])[0], *fate, "{entry:?} after {ledger:?}");
        }
    }

    #[test]
    fn later_entries_see_what_earlier_ones_become() {
        assert_eq!(
            fates(
                &[],
                &[(Expiry, 20, 1), (Settle, 50, 2), (Settle, 50, 2), (Settle, 50, 3), (Correction, 30, 4)]
            ),
            [Row(Expiry, 20), Converted(30, 20), Replay, Dead(LateReplay), Dead(LateReplay)]
        );
        assert_eq!(
            fates(&[], &[(Settle, 50, 1), (Expiry, 20, 2), (Expiry, 20, 2)]),
            [Row(Settle, 50), Dead(AfterSettle), Replay]
        );
    }

    #[test]
    fn what_is_buried_stays_buried() {
        let entry = entry(UserId::generate(), Settle, 50, 1);
        let buried = HashSet::from([entry.outbox_id]);
        assert_eq!(decide([&entry], &mut KnownRows::new(), &buried), [Decision::Replay]);
    }

    #[test]
    fn users_do_not_share_ids() {
        let (one, other) =
            (entry(UserId::generate(), Settle, 50, 1), entry(UserId::generate(), Settle, 50, 2));
        assert_eq!(
            decide([&one, &other], &mut KnownRows::new(), &HashSet::new()),
            [Decision::Book(&one), Decision::Book(&other)]
        );
    }
}
