//! extend: absolute and never downward.

use cota::{ledger::wire::Status, quota::State};

use crate::{
    case::Case,
    ops::{MOST, MOST_TOTAL, Tweak, debit, expire, extend, release, reserve, settle},
};

contract! {
    fn it_raises_the_hold_to_the_new_total(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        let answer = p.ok(extend(1, 50)).await;
        Case::assert_balance(&answer, 100, 0, 50);
        let record = answer.record.unwrap();
        assert_eq!((record.state, record.lines[0].amount), (State::Pending, 50));
        assert_eq!(p.rec(1).await, record);
    }

    fn it_raises_the_expiry_counted_from_now(p) {
        p.grant(100, 0).await;
        let before = p.ok(reserve(1, 30)).await.record.unwrap();
        let record = p.ok(extend(1, 30).ttl(120_000)).await.record.unwrap();
        assert!(record.expires_at_ms >= before.reserved_at_ms + 120_000);
        let key = p.keys.expiry();
        let index: Vec<(Vec<u8>, u64)> = redis::cmd("ZRANGE")
            .arg(key)
            .arg(0)
            .arg(-1)
            .arg("WITHSCORES")
            .query_async(&mut p.redis)
            .await
            .unwrap();
        assert_eq!(index[0].1, record.expires_at_ms);
    }

    fn it_reports_progress(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        let answer = p.ok(extend(1, 30).second(12)).await;
        Case::assert_balance(&answer, 100, 0, 30);
        assert_eq!(answer.record.unwrap().progress, 12);
        assert_eq!(p.outbox().await, []);
        assert_eq!(p.ttl(1).await, -1);
    }

    fn repeated_it_is_a_replay(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        let first = p.ok(extend(1, 50).second(12)).await;
        assert_eq!(p.unchanged(extend(1, 50).second(12), Status::Replay).await.record, first.record);
    }

    fn an_older_one_that_comes_late_changes_nothing(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(extend(1, 50).ttl(120_000).second(12)).await;
        p.unchanged(extend(1, 40).ttl(60_000).second(11), Status::Replay).await;
    }

    fn the_hold_is_never_lowered(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        let record = p.ok(extend(1, 10).second(5)).await.record.unwrap();
        assert_eq!((record.lines[0].amount, record.progress), (30, 5));
    }

    fn the_expiry_is_never_lowered(p) {
        p.grant(100, 0).await;
        let before = p.ok(reserve(1, 30)).await.record.unwrap();
        let record = p.ok(extend(1, 50).ttl(1)).await.record.unwrap();
        assert_eq!(record.expires_at_ms, before.expires_at_ms);
    }

    fn progress_is_never_lowered(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(extend(1, 30).second(20)).await;
        let record = p.ok(extend(1, 50).second(3)).await.record.unwrap();
        assert_eq!((record.lines[0].amount, record.progress), (50, 20));
    }

    fn no_room_is_denied_and_nothing_changes(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        let answer = p.unchanged(extend(1, 101).ttl(120_000).second(12), Status::Denied).await;
        assert_eq!(answer.short, [(0, 71, 70)]);
        Case::assert_balance(&answer, 100, 0, 30);
    }

    fn the_last_token_may_be_held(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        Case::assert_balance(&p.ok(extend(1, 100)).await, 100, 0, 100);
    }

    fn a_negative_balance_denies_a_raise_but_takes_progress(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(debit(2, 200)).await;
        assert_eq!(p.unchanged(extend(1, 31), Status::Denied).await.short, [(0, 1, -130)]);
        p.ok(extend(1, 30).second(1)).await;
    }

    fn a_denial_says_that_something_is_overdue(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.overdue(2, 60, 0).await;
        assert!(p.unchanged(extend(1, 60), Status::Denied).await.due);
    }

    fn every_line_is_raised(p) {
        p.grant(100, 0).await;
        p.load(1, 50, 0).await;
        p.ok(reserve(1, 30).also(1, 20)).await;
        p.ok(extend(1, 40).also(1, 50)).await;
        assert_eq!(p.balance_of(0).await[2], "40");
        assert_eq!(p.balance_of(1).await[2], "50");
    }

    fn a_lower_second_line_stays(p) {
        p.grant(100, 0).await;
        p.load(1, 50, 0).await;
        p.ok(reserve(1, 30).also(1, 20)).await;
        p.ok(extend(1, 40).also(1, 5)).await;
        assert_eq!(p.balance_of(1).await[2], "20");
    }

    fn one_short_line_raises_none(p) {
        p.grant(100, 0).await;
        p.load(1, 50, 0).await;
        p.ok(reserve(1, 30).also(1, 20)).await;
        let answer = p.unchanged(extend(1, 40).also(1, 51), Status::Denied).await;
        assert_eq!(answer.short, [(1, 31, 30)]);
    }

    fn a_raise_under_another_policy_is_stale(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.sync(0, 100, 2, 5, false).await;
        assert_eq!(p.unchanged(extend(1, 50), Status::Stale).await.policy_version, 5);
        p.ok(extend(1, 50).policy(5)).await;
    }

    fn what_raises_no_hold_needs_no_policy(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.sync(0, 100, 2, 5, false).await;
        p.ok(extend(1, 30).ttl(120_000).second(3)).await;
    }

    fn a_full_service_raises_no_hold(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        let full = p.full();
        p.unchanged_with(&full, extend(1, 50), Status::Full).await;
    }

    fn a_full_service_takes_time_and_progress(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        let full = p.full();
        let op = extend(1, 30).ttl(120_000).second(3);
        assert_eq!(p.apply_with(&full, &[op]).await.answers()[0].status, Status::Ok);
    }

    fn an_unknown_id_is_unknown(p) {
        p.grant(100, 0).await;
        assert_eq!(p.unchanged(extend(1, 50), Status::Unknown).await.record, None);
    }

    fn a_settled_one_is_finished(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(settle(1, 20)).await;
        assert_eq!(p.unchanged(extend(1, 50), Status::Finished).await.record.unwrap().state, State::Settled);
    }

    fn a_released_one_is_finished(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(release(1)).await;
        assert_eq!(p.unchanged(extend(1, 50), Status::Finished).await.record.unwrap().state, State::Released);
    }

    fn an_expired_one_is_finished(p) {
        p.grant(100, 0).await;
        p.overdue(1, 30, 0).await;
        p.ok(expire(1)).await;
        assert_eq!(p.unchanged(extend(1, 50), Status::Finished).await.record.unwrap().state, State::Expired);
    }

    fn a_due_one_is_finished_and_cannot_be_revived(p) {
        p.grant(100, 0).await;
        p.overdue(1, 30, 0).await;
        assert!(p.unchanged(extend(1, 50).ttl(60_000), Status::Finished).await.due);
        assert!(p.unchanged(extend(1, 30).ttl(60_000).second(5), Status::Finished).await.due);
    }

    fn a_hold_of_an_older_epoch_is_finished(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.recover(2).await;
        p.grant(100, 0).await;
        p.unchanged(extend(1, 50), Status::Finished).await;
    }

    fn an_account_nobody_loaded_is_cold(p) {
        p.unchanged(extend(1, 50), Status::Cold).await;
    }

    fn a_record_of_an_unknown_format_is_unreadable(p) {
        p.grant(100, 0).await;
        p.plant_unknown_format(1).await;
        p.unchanged(extend(1, 1), Status::Unreadable).await;
    }

    fn the_most_an_operation_may_carry_is_held_exactly(p) {
        p.grant(MOST_TOTAL, MOST_TOTAL - MOST).await;
        p.ok(reserve(1, 1)).await;
        let answer = p.ok(extend(1, MOST).second(MOST)).await;
        Case::assert_balance(&answer, MOST_TOTAL, MOST_TOTAL - MOST, MOST);
        assert_eq!(answer.record.unwrap().progress, MOST);
    }

    fn a_settle_after_it_gives_all_of_it_back(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(extend(1, 50).second(12)).await;
        let answer = p.ok(settle(1, 45)).await;
        Case::assert_balance(&answer, 100, 45, 0);
        assert_eq!(answer.record.unwrap().flags.0, 0);
    }

    fn a_reserve_repeated_after_it_is_still_a_replay(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(extend(1, 50)).await;
        assert_eq!(p.unchanged(reserve(1, 30), Status::Replay).await.record.unwrap().lines[0].amount, 50);
    }
}
