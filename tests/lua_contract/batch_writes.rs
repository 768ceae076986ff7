//! A batch is written at its end: until then later operations must see what earlier ones did, and of several writes to
//! one name the last must win.

use cota::{
    ledger::{
        scripts,
        wire::{Answer, Operation, Record, Status},
    },
    quota::{Flags, Kind, Line, OutboxId},
};

use crate::{
    case::Case,
    ops::{MOST_TOTAL, Tweak, debit, expire, extend, release, reserve, settle, settle_unknown_usage},
    support::partition::{Partition, rid, text, user},
};

use Status::{Denied, Gone, Ok, Range};

/// Every way to touch reservation 1.
fn kinds() -> Vec<Operation> {
    vec![
        reserve(1, 30),
        reserve(1, 30).ttl(0),
        settle(1, 20),
        settle_unknown_usage(1),
        debit(1, 20),
        release(1),
        // Shorter than what is left: a longer one would count from each call's own time, and so differ.
        extend(1, 40).ttl(1),
        extend(1, 30).second(7),
        expire(1),
    ]
}

fn timeless(mut record: Record) -> Record {
    (record.reserved_at_ms, record.expires_at_ms, record.finished_at_ms) = (0, 0, 0);
    record
}

/// What must be the same, however the operations came: answers, and all that Redis holds, but for the clock.
#[derive(Debug, PartialEq)]
struct Outcome {
    answers: Vec<Answer>,
    entries: Vec<(OutboxId, Kind, i64, Flags, Vec<Line>)>,
    record: Option<Record>,
    ages: bool,
    balance: [String; 3],
    index: Vec<Vec<u8>>,
}

async fn outcome(p: &mut Case, ops: &[Operation], together: bool) -> Outcome {
    p.reset().await;
    p.grant(100, 0).await;
    let mut answers = Vec::new();
    if together {
        answers = p.apply(ops).await.answers();
    } else {
        for op in ops {
            answers.push(p.one(op.clone()).await);
        }
    }
    let answers: Vec<Answer> =
        answers.into_iter().map(|answer| Answer { record: answer.record.map(timeless), ..answer }).collect();
    let entries: Vec<_> =
        p.outbox().await.into_iter().map(|e| (e.outbox_id, e.kind, e.tokens, e.flags, e.lines)).collect();
    let record = p.record(user(0), &rid(1)).await.map(timeless);
    let ages = p.ttl(1).await > 0;
    Outcome { answers, entries, record, ages, balance: p.balance().await, index: p.index().await }
}

async fn last_is_due(p: &mut Case, ops: &[Operation]) -> bool {
    let answer = p.apply(ops).await.answers().pop().unwrap();
    assert_eq!(answer.status, Denied);
    answer.due
}

contract! {
    fn one_id_three_times_in_every_combination_of_verbs(p) {
        for first in kinds() {
            for second in kinds() {
                for third in kinds() {
                    let ops = [first.clone(), second.clone(), third];
                    let alone = outcome(p, &ops, false).await;
                    assert_eq!(outcome(p, &ops, true).await, alone, "{ops:?}");
                }
            }
        }
    }

    fn an_extension_in_the_call_of_its_reserve_moves_its_expiry(p) {
        p.grant(100, 0).await;
        assert_eq!(p.statuses(&[reserve(1, 30), extend(1, 40).ttl(90_000)]).await, [Ok, Ok]);
        let record = p.record(user(0), &rid(1)).await.unwrap();
        assert_eq!(record.expires_at_ms - record.reserved_at_ms, 90_000);
        assert_eq!((record.lines[0].amount, p.index().await.len()), (40, 1));
    }

    fn a_denial_after_a_settle_counts_what_it_charged(p) {
        p.grant(100, 0).await;
        let ops = [reserve(1, 100), settle(1, 70), reserve(2, 31), reserve(3, 30), reserve(4, 1)];
        let answers = p.apply(&ops).await.answers();
        assert_eq!(answers.iter().map(|a| a.status).collect::<Vec<_>>(), [Ok, Ok, Denied, Ok, Denied]);
        assert_eq!((answers[2].short[0], answers[4].short[0]), ((0, 31, 30), (0, 1, 0)));
        assert_eq!(p.balance().await, ["100", "70", "30"]);
    }

    fn the_sum_of_a_batch_reaches_the_range(p) {
        p.grant(MOST_TOTAL, MOST_TOTAL - 30).await;
        p.ok(reserve(1, 20)).await;
        assert_eq!(p.statuses(&[debit(2, 11), settle(1, 20), debit(3, 19), debit(4, 1)]).await, [Ok, Range, Ok, Range]);
        assert_eq!(p.balance().await, [MOST_TOTAL.to_string(), MOST_TOTAL.to_string(), "20".to_owned()]);
        assert_eq!(p.outbox().await.len(), 2);
    }

    fn accounts_interleaved_keep_their_own_sums(p) {
        for n in 0..4 {
            p.load(n, 1_000, 0).await;
        }
        let ops: Vec<Operation> = (0..32)
            .flat_map(|id| [reserve(id, 10 + id as u64).of(id % 4), settle(id / 2, 5).of(id / 2 % 4)])
            .collect();
        p.apply(&ops).await.answers();
        for n in 0..4_u64 {
            let settled = (0..16).filter(|id| id % 4 == n).count() as u64;
            let held: u64 = (16..32).filter(|id| id % 4 == n).map(|id| 10 + id).sum();
            let expected = [1_000, 5 * settled, held].map(|n| n.to_string());
            assert_eq!(p.balance_of(n as usize).await, expected, "of {n}");
        }
    }

    fn a_denial_sees_what_comes_due_and_goes_in_its_batch(p) {
        p.grant(100, 0).await;
        assert!(last_is_due(p, &[reserve(1, 10).ttl(0), reserve(2, 101)]).await, "made in the batch");
        assert!(last_is_due(p, &[reserve(3, 101)]).await, "made before");
        assert!(!last_is_due(p, &[expire(1), reserve(4, 101)]).await, "made before, gone in the batch");
        p.overdue(5, 1, 0).await;
        p.overdue(6, 1, 0).await;
        assert!(last_is_due(p, &[expire(5), reserve(7, 101)]).await, "one of two is left");
        assert!(!last_is_due(p, &[release(6), reserve(8, 101)]).await);
        assert!(!last_is_due(p, &[reserve(9, 101), reserve(10, 1).ttl(0), expire(10), reserve(11, 101)]).await);
    }

    fn a_sweep_of_nothing_does_not_undo_a_reserve_after_it(p) {
        p.grant(100, 0).await;
        assert_eq!(p.statuses(&[expire(1), reserve(1, 10), expire(1)]).await, [Gone, Ok, Gone]);
        assert_eq!(p.index().await.len(), 1);
    }

    fn a_malformed_last_operation_leaves_nothing_of_the_others(p) {
        p.grant(100, 0).await;
        let ops = [reserve(1, 10), debit(2, 5), settle(1, 3)];
        let (keys, mut args) = (p.apply_keys(&ops), Partition::apply_args(&p.head(), &ops));
        args.last_mut().unwrap().truncate(40);
        let before = (p.dump().await, p.all_meta().await);
        p.try_call(&scripts::APPLY, &keys, &args).await.unwrap_err();
        assert_eq!((p.dump().await, p.all_meta().await), before);
    }

    fn more_than_sixty_four_operations_are_refused(p) {
        p.grant(1_000, 0).await;
        let ops: Vec<Operation> = (0..65).map(|id| reserve(id, 1)).collect();
        let (keys, args) = (p.apply_keys(&ops), Partition::apply_args(&p.head(), &ops));
        let error = p.try_call(&scripts::APPLY, &keys, &args).await.unwrap_err();
        assert!(error.to_string().contains("wrong number of keys or arguments"), "{error}");
        assert_eq!(p.balance().await, ["1000", "0", "0"]);
    }

    fn a_retention_redis_would_refuse_is_refused_before_any_write(p) {
        p.grant(100, 0).await;
        for retention in [text("soon"), text(u64::MAX), Vec::new()] {
            for place in [5, 6] {
                let (keys, mut args) = (p.apply_keys(&[release(1)]), Partition::apply_args(&p.head(), &[release(1)]));
                args[place] = retention.clone();
                let before = (p.dump().await, p.all_meta().await);
                p.try_call(&scripts::APPLY, &keys, &args).await.unwrap_err();
                assert_eq!((p.dump().await, p.all_meta().await), before);
            }
        }
    }
}
