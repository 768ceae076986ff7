//! A batch is equal to running its operations one by one, in order.

use cota::ledger::wire::{Answer, Operation, Status};

use crate::{
    case::Case,
    ops::{Tweak, debit, expire, extend, release, reserve, settle},
    support::partition::{Applied, Head, rid, user},
};

use Status::{
    Cold, Denied, Finished, Full, Gone, HeldBack, Mismatch, Ok, Released, Replay, Stale, Unknown, Unreadable,
};

/// What does not depend on the clock.
fn timeless(mut answer: Answer) -> Answer {
    if let Some(record) = &mut answer.record {
        (record.reserved_at_ms, record.expires_at_ms, record.finished_at_ms) = (0, 0, 0);
    }
    answer
}

contract! {
    fn the_same_reserve_twice(p) {
        p.grant(100, 0).await;
        assert_eq!(p.statuses(&[reserve(1, 30), reserve(1, 30)]).await, [Ok, Replay]);
        assert_eq!(p.balance().await, ["100", "0", "30"]);
    }

    fn the_same_id_with_other_numbers(p) {
        p.grant(100, 0).await;
        assert_eq!(p.statuses(&[reserve(1, 30), reserve(1, 31)]).await, [Ok, Mismatch]);
        assert_eq!(p.balance().await, ["100", "0", "30"]);
    }

    fn reserve_then_settle(p) {
        p.grant(100, 0).await;
        assert_eq!(p.statuses(&[reserve(1, 30), settle(1, 20)]).await, [Ok, Ok]);
        assert_eq!(p.balance().await, ["100", "20", "0"]);
        assert_eq!(p.entry().await.outbox_id.sequence, 2);
    }

    fn the_same_settle_twice(p) {
        p.grant(100, 0).await;
        assert_eq!(
            p.statuses(&[reserve(1, 30), settle(1, 20), settle(1, 20), settle(1, 9)]).await,
            [Ok, Ok, Replay, Mismatch]
        );
        assert_eq!(p.outbox().await.len(), 1);
    }

    fn the_same_debit_twice(p) {
        p.grant(100, 0).await;
        assert_eq!(p.statuses(&[debit(1, 30), debit(1, 30)]).await, [Ok, Replay]);
        assert_eq!(p.balance().await, ["100", "30", "0"]);
    }

    fn a_release_makes_room_for_the_next(p) {
        p.grant(100, 0).await;
        assert_eq!(
            p.statuses(&[reserve(1, 100), reserve(2, 1), release(1), reserve(3, 100)]).await,
            [Ok, Denied, Ok, Ok]
        );
        assert_eq!(p.balance().await, ["100", "0", "100"]);
    }

    fn reserve_release_reserve_of_one_id(p) {
        p.grant(100, 0).await;
        assert_eq!(p.statuses(&[reserve(1, 30), release(1), reserve(1, 30)]).await, [Ok, Ok, Finished]);
        assert_eq!(p.balance().await, ["100", "0", "0"]);
    }

    fn an_extend_takes_room_from_the_next(p) {
        p.grant(100, 0).await;
        assert_eq!(
            p.statuses(&[reserve(1, 30), extend(1, 60), reserve(2, 41), reserve(3, 40)]).await,
            [Ok, Ok, Denied, Ok]
        );
    }

    fn an_expiry_makes_room_for_the_next(p) {
        p.grant(100, 0).await;
        assert_eq!(
            p.statuses(&[reserve(1, 100).ttl(0), expire(1), expire(1), reserve(2, 100)]).await,
            [Ok, Ok, Gone, Ok]
        );
    }

    fn two_accounts_do_not_touch_each_other(p) {
        p.grant(100, 0).await;
        p.load(1, 50, 0).await;
        let ops =
            [reserve(1, 100), reserve(1, 50).of(1), reserve(2, 1), reserve(2, 1).of(1), settle(1, 7).of(1)];
        assert_eq!(p.statuses(&ops).await, [Ok, Ok, Denied, Denied, Ok]);
        assert_eq!(p.balance_of(0).await, ["100", "0", "100"]);
        assert_eq!(p.balance_of(1).await, ["50", "7", "0"]);
        assert_eq!(p.entry().await.user, user(1));
    }

    fn a_cold_account_does_not_stop_the_others(p) {
        p.grant(100, 0).await;
        assert_eq!(
            p.statuses(&[reserve(1, 1).of(1), reserve(1, 1), debit(2, 1).of(1)]).await,
            [Cold, Ok, Cold]
        );
        assert_eq!(p.record(user(1), &rid(1)).await, None);
    }

    fn an_unreadable_record_does_not_stop_the_others(p) {
        p.grant(100, 0).await;
        p.plant_unknown_format(1).await;
        assert_eq!(p.statuses(&[settle(1, 1), reserve(2, 1)]).await, [Unreadable, Ok]);
    }

    fn full_stops_only_what_takes_room(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        let full = p.full();
        let ops = [reserve(2, 1), extend(1, 31), debit(3, 1), settle(1, 5), release(4)];
        let answers = p.apply_with(&full, &ops).await.answers();
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [Full, Full, Ok, Ok, Ok]);
    }

    fn what_follows_an_account_that_is_cold_is_held_back(p) {
        let ops = [reserve(1, 1), settle(1, 1).follows(), release(2).follows()];
        assert_eq!(p.statuses(&ops).await, [Cold, HeldBack, HeldBack]);
        p.grant(100, 0).await;
        assert_eq!(p.statuses(&ops).await, [Ok; 3]);
    }

    fn what_follows_a_stale_policy_is_held_back_and_changes_nothing(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 10)).await;
        let before = p.dump().await;
        let ops = [
            reserve(2, 10).policy(9),
            settle(1, 1).follows(),
            debit(3, 1).follows(),
            extend(1, 20).follows(),
            release(1).follows(),
            expire(1).follows(),
        ];
        let answers = p.apply(&ops).await.answers();
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        assert_eq!(statuses, [Stale, HeldBack, HeldBack, HeldBack, HeldBack, HeldBack]);
        assert_eq!(p.dump().await, before);
        Case::assert_balance(&answers[1], 100, 0, 10);
        assert_eq!(p.statuses(&[extend(1, 20).policy(9), settle(1, 1).follows()]).await, [Stale, HeldBack]);
    }

    fn what_follows_an_id_that_postgres_must_be_asked_for_is_held_back(p) {
        p.grant(100, 0).await;
        assert_eq!(p.statuses(&[settle(1, 1), reserve(1, 1).follows()]).await, [Unknown, HeldBack]);
        assert_eq!(p.statuses(&[extend(1, 1), reserve(1, 1).follows()]).await, [Unknown, HeldBack]);
    }

    fn what_follows_a_denial_is_held_back_while_something_is_overdue(p) {
        p.grant(100, 0).await;
        assert_eq!(p.statuses(&[reserve(1, 101), reserve(2, 1).follows()]).await, [Denied, Ok]);
        p.ok(reserve(3, 50).ttl(0)).await;
        assert_eq!(p.statuses(&[reserve(4, 90), reserve(5, 1).follows()]).await, [Denied, HeldBack]);
        assert_eq!(p.statuses(&[expire(3), reserve(4, 90), reserve(5, 1).follows()]).await, [Ok; 3]);
    }

    fn a_definite_answer_holds_nothing_back(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 10)).await;
        p.ok(release(2)).await;
        for (first, status) in [
            (reserve(1, 10), Replay),
            (reserve(1, 11), Mismatch),
            (reserve(2, 1), Finished),
            (settle(2, 1), Released),
            (debit(1, 1), Mismatch),
            (expire(1), Gone),
            (reserve(3, 1_000), Denied),
        ] {
            let second = extend(1, 0).second(0).follows();
            assert_eq!(p.statuses(&[first, second]).await, [status, Replay]);
        }
    }

    fn what_does_not_follow_is_not_held_back_and_the_first_of_a_call_follows_nothing(p) {
        p.grant(100, 0).await;
        let ops = [reserve(1, 1).follows(), reserve(2, 1).of(1), reserve(3, 1), reserve(4, 1).of(1).follows()];
        assert_eq!(p.statuses(&ops).await, [Ok, Cold, Ok, Cold]);
    }

    fn each_answer_has_the_balance_of_its_moment(p) {
        p.grant(100, 0).await;
        let answers = p.apply(&[reserve(1, 30), settle(1, 10), debit(2, 5)]).await.answers();
        Case::assert_balance(&answers[0], 100, 0, 30);
        Case::assert_balance(&answers[1], 100, 10, 0);
        Case::assert_balance(&answers[2], 100, 15, 0);
    }

    fn sixty_four_operations(p) {
        p.grant(1_000, 0).await;
        let ops: Vec<Operation> = (0..32).flat_map(|id| [reserve(id, 10), settle(id, 9)]).collect();
        assert_eq!(p.statuses(&ops).await, [Ok; 64]);
        assert_eq!(p.balance().await, ["1000", "288", "0"]);
        let sequences: Vec<u64> = p.outbox().await.iter().map(|entry| entry.outbox_id.sequence).collect();
        assert_eq!(sequences, (1..=32).map(|n| 2 * n).collect::<Vec<_>>());
    }

    fn every_operation_counts_once_in_sq_and_oq(p) {
        p.grant(100, 0).await;
        let loaded: u64 = p.meta("sq").await.unwrap().parse().unwrap();
        let Applied::Done { sq, .. } =
            p.apply(&[reserve(1, 1), reserve(1, 1), settle(9, 1), debit(2, 3)]).await
        else {
            panic!()
        };
        assert_eq!(sq, loaded + 4);
        assert_eq!((p.meta("sq").await, p.meta("oq").await), (Some(sq.to_string()), Some("4".to_owned())));
        assert_eq!(
            p.entry().await.outbox_id.sequence,
            4,
            "its place in the batch, used by the others or not"
        );
    }

    fn outbox_ids_rise_strictly_from_batch_to_batch(p) {
        p.grant(100, 0).await;
        for (batch, nonce) in [9, 8, 1].into_iter().enumerate() {
            let head = Head { nonce, ..p.head() };
            p.apply_with(&head, &[debit(10 * batch, 1), debit(10 * batch + 1, 1)]).await.answers();
        }
        let ids: Vec<_> =
            p.outbox().await.iter().map(|e| (e.outbox_id.sequence, e.outbox_id.nonce)).collect();
        assert_eq!(ids, [(1, 9), (2, 9), (3, 8), (4, 8), (5, 1), (6, 1)]);
    }

    fn it_equals_the_same_operations_one_by_one(p) {
        let ops = [
            reserve(1, 30),
            reserve(1, 30),
            reserve(2, 50).of(1),
            extend(1, 45).second(7),
            extend(1, 101),
            debit(3, 11),
            settle(1, 60),
            settle(1, 60),
            reserve(1, 30),
            release(2).of(1),
            release(2).of(1),
            settle(2, 3).of(1),
            reserve(4, 5).ttl(0),
            expire(4),
            settle(4, 5),
            release(5),
            reserve(5, 1),
            settle(6, 1),
            reserve(7, 99),
            expire(9),
        ];
        p.grant(100, 0).await;
        p.load(1, 60, 0).await;
        let together: Vec<Answer> = p.apply(&ops).await.answers().into_iter().map(timeless).collect();
        let balances = [p.balance_of(0).await, p.balance_of(1).await];
        let entries: Vec<_> =
            p.outbox().await.iter().map(|e| (e.outbox_id, e.kind, e.tokens, e.flags)).collect();
        p.reset().await;
        p.grant(100, 0).await;
        p.load(1, 60, 0).await;
        for (op, expected) in ops.into_iter().zip(together) {
            assert_eq!(timeless(p.one(op).await), expected);
        }
        assert_eq!([p.balance_of(0).await, p.balance_of(1).await], balances);
        let again: Vec<_> =
            p.outbox().await.iter().map(|e| (e.outbox_id, e.kind, e.tokens, e.flags)).collect();
        assert_eq!(again, entries);
    }
}
