//! reserve: hold on every line, or on none.

use cota::{ledger::wire::Status, quota::State};

use crate::{
    case::Case,
    ops::{MOST, MOST_TOTAL, Tweak, debit, expire, release, reserve, settle},
    support::partition::{RUN_ID, rid, text, user},
};

contract! {
    fn a_first_reserve_holds_and_answers_the_balance(p) {
        p.grant(100, 7).await;
        let answer = p.ok(reserve(1, 30)).await;
        Case::assert_balance(&answer, 100, 7, 30);
        assert!(!answer.due && !answer.suspended);
        assert_eq!(p.balance().await, ["100", "7", "30"]);
    }

    fn its_record_has_every_fact(p) {
        p.grant(100, 0).await;
        let op = reserve(1, 30).model("gpt-5").metadata(r#"{"a":1}"#);
        let answer = p.ok(op.clone()).await;
        let record = p.rec(1).await;
        assert_eq!(answer.record.as_ref(), Some(&record));
        assert_eq!((record.state, record.flags.0, record.epoch), (State::Pending, 0, 1));
        assert_eq!(
            (record.fingerprint, &record.model, &record.metadata),
            (op.fingerprint, &op.model, &op.metadata)
        );
        assert_eq!((record.lines, record.progress, record.booked.len()), (op.lines, 0, 0));
        assert_eq!(record.expires_at_ms - record.reserved_at_ms, 60_000);
    }

    fn it_writes_nothing_to_the_outbox_and_gets_no_ttl(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        assert_eq!(p.outbox().await, []);
        assert_eq!(p.ttl(1).await, -1);
    }

    fn its_expiry_is_indexed_at_its_time(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30).ttl(86_400_000)).await;
        let (key, record) = (p.keys.expiry(), p.rec(1).await);
        let index: Vec<(Vec<u8>, u64)> = redis::cmd("ZRANGE")
            .arg(key)
            .arg(0)
            .arg(-1)
            .arg("WITHSCORES")
            .query_async(&mut p.redis)
            .await
            .unwrap();
        assert_eq!(index, [(cota::ledger::keys::member(user(0), &rid(1)), record.expires_at_ms)]);
        assert_eq!(record.expires_at_ms - record.reserved_at_ms, 86_400_000);
    }

    fn the_last_token_may_be_held(p) {
        p.grant(100, 40).await;
        p.ok(reserve(1, 59)).await;
        let answer = p.ok(reserve(2, 1)).await;
        assert_eq!(answer.balance.reserved, 60);
    }

    fn one_token_more_than_available_is_denied(p) {
        p.grant(100, 40).await;
        p.ok(reserve(1, 10)).await;
        let answer = p.unchanged(reserve(2, 51), Status::Denied).await;
        assert_eq!(answer.short, [(0, 51, 50)]);
        Case::assert_balance(&answer, 100, 40, 10);
    }

    fn a_denial_is_not_remembered(p) {
        p.grant(100, 100).await;
        p.unchanged(reserve(1, 1), Status::Denied).await;
        p.sync(0, 101, 2, 1, false).await;
        p.ok(reserve(1, 1)).await;
    }

    fn a_denial_says_how_far_below_zero_the_balance_is(p) {
        p.grant(100, 130).await;
        let answer = p.unchanged(reserve(1, 1), Status::Denied).await;
        assert_eq!(answer.short, [(0, 1, -30)]);
    }

    fn a_denial_says_that_something_is_overdue(p) {
        p.grant(100, 0).await;
        assert!(!p.unchanged(reserve(2, 101), Status::Denied).await.due);
        p.overdue(1, 60, 0).await;
        assert!(p.unchanged(reserve(2, 60), Status::Denied).await.due);
        p.ok(expire(1)).await;
        p.ok(reserve(2, 60)).await;
    }

    fn nothing_granted_denies_everything_but_zero(p) {
        p.grant(0, 0).await;
        p.unchanged(reserve(1, 1), Status::Denied).await;
        let answer = p.ok(reserve(1, 0)).await;
        Case::assert_balance(&answer, 0, 0, 0);
    }

    fn zero_tokens_fit_an_empty_balance(p) {
        p.grant(100, 100).await;
        p.ok(reserve(1, 0)).await;
    }

    fn zero_tokens_fit_a_negative_balance(p) {
        p.grant(100, 500).await;
        p.ok(reserve(1, 0)).await;
    }

    fn all_lines_are_held(p) {
        p.grant(100, 0).await;
        p.load(1, 50, 0).await;
        p.ok(reserve(1, 30).also(1, 50)).await;
        assert_eq!(p.balance_of(0).await, ["100", "0", "30"]);
        assert_eq!(p.balance_of(1).await, ["50", "0", "50"]);
    }

    fn one_short_line_holds_none(p) {
        p.grant(100, 0).await;
        p.load(1, 50, 0).await;
        let answer = p.unchanged(reserve(1, 30).also(1, 51), Status::Denied).await;
        assert_eq!(answer.short, [(1, 51, 50)]);
    }

    fn every_short_line_is_named(p) {
        p.grant(10, 0).await;
        p.load(1, 20, 5).await;
        p.load(2, 90, 0).await;
        let answer = p.unchanged(reserve(1, 30).also(1, 40).also(2, 50), Status::Denied).await;
        assert_eq!(answer.short, [(0, 30, 10), (1, 40, 15)]);
    }

    fn a_cold_second_line_makes_it_cold(p) {
        p.grant(100, 0).await;
        p.unchanged(reserve(1, 30).also(1, 1), Status::Cold).await;
    }

    fn repeated_it_is_a_replay_with_the_first_facts(p) {
        p.grant(100, 0).await;
        let first = p.ok(reserve(1, 30)).await;
        p.ok(reserve(2, 5)).await;
        let again = p.unchanged(reserve(1, 30), Status::Replay).await;
        assert_eq!(again.record, first.record);
        Case::assert_balance(&again, 100, 0, 35);
    }

    fn ttl_and_metadata_do_not_make_it_another_call(p) {
        p.grant(100, 0).await;
        let first = p.ok(reserve(1, 30).metadata(r#"{"a":1}"#)).await;
        let again = p.unchanged(reserve(1, 30).ttl(5).metadata(r#"{"a":2}"#), Status::Replay).await;
        assert_eq!(again.record, first.record);
    }

    fn other_tokens_are_a_mismatch(p) {
        p.grant(100, 0).await;
        let first = p.ok(reserve(1, 30)).await;
        let other = p.unchanged(reserve(1, 31), Status::Mismatch).await;
        assert_eq!(other.record, first.record);
    }

    fn another_model_is_a_mismatch(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30).model("a")).await;
        p.unchanged(reserve(1, 30).model("b"), Status::Mismatch).await;
    }

    fn a_replay_needs_no_room(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 100)).await;
        let full = p.full();
        p.unchanged_with(&full, reserve(1, 100), Status::Replay).await;
        p.sync(0, 1, 2, 9, true).await;
        p.unchanged(reserve(1, 100), Status::Replay).await;
    }

    fn after_its_settle_it_is_finished(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(settle(1, 20)).await;
        let answer = p.unchanged(reserve(1, 30), Status::Finished).await;
        assert_eq!(answer.record.unwrap().state, State::Settled);
        p.unchanged(reserve(1, 31), Status::Mismatch).await;
    }

    fn after_its_release_it_is_finished(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(release(1)).await;
        let answer = p.unchanged(reserve(1, 30), Status::Finished).await;
        assert_eq!(answer.record.unwrap().state, State::Released);
        p.unchanged(reserve(1, 31), Status::Mismatch).await;
    }

    fn after_its_expiry_it_is_finished(p) {
        p.grant(100, 0).await;
        p.overdue(1, 30, 0).await;
        p.ok(expire(1)).await;
        let answer = p.unchanged(reserve(1, 30), Status::Finished).await;
        assert_eq!(answer.record.unwrap().state, State::Expired);
        assert!(!answer.due);
    }

    fn due_but_unswept_it_is_finished_too(p) {
        p.grant(100, 0).await;
        p.overdue(1, 30, 0).await;
        let answer = p.unchanged(reserve(1, 30), Status::Finished).await;
        assert!(answer.due, "the caller has to sweep");
        p.unchanged(reserve(1, 31), Status::Mismatch).await;
    }

    fn after_a_tombstone_it_is_finished_whatever_its_numbers(p) {
        p.grant(100, 0).await;
        p.ok(release(1)).await;
        p.unchanged(reserve(1, 30), Status::Finished).await;
        p.unchanged(reserve(1, 31), Status::Finished).await;
    }

    fn after_a_debit_of_its_id_it_is_finished(p) {
        p.grant(100, 0).await;
        p.ok(debit(1, 30)).await;
        let answer = p.unchanged(reserve(1, 30), Status::Finished).await;
        assert_eq!(answer.record.unwrap().state, State::Settled);
    }

    fn a_suspended_account_reserves_nothing(p) {
        let args = p.load_args(100, 1, 1, true, 0);
        p.load_with(0, &args).await;
        let answer = p.unchanged(reserve(1, 0), Status::Suspended).await;
        assert!(answer.suspended);
        Case::assert_balance(&answer, 100, 0, 0);
    }

    fn suspension_is_said_before_a_stale_policy(p) {
        let args = p.load_args(100, 1, 2, true, 0);
        p.load_with(0, &args).await;
        p.unchanged(reserve(1, 1).policy(1), Status::Suspended).await;
    }

    fn an_older_policy_is_stale_and_learns_the_new_one(p) {
        let args = p.load_args(100, 1, 7, false, 0);
        p.load_with(0, &args).await;
        let answer = p.unchanged(reserve(1, 1).policy(6), Status::Stale).await;
        assert_eq!(answer.policy_version, 7);
        p.ok(reserve(1, 1).policy(7)).await;
    }

    fn a_newer_policy_than_redis_has_is_stale_too(p) {
        p.grant(100, 0).await;
        assert_eq!(p.unchanged(reserve(1, 1).policy(2), Status::Stale).await.policy_version, 1);
    }

    fn a_stale_policy_is_said_before_full_and_denied(p) {
        p.grant(0, 0).await;
        let full = p.full();
        p.unchanged_with(&full, reserve(1, 1).policy(2), Status::Stale).await;
    }

    fn a_full_service_reserves_nothing(p) {
        p.grant(100, 0).await;
        let full = p.full();
        let answer = p.unchanged_with(&full, reserve(1, 0), Status::Full).await;
        Case::assert_balance(&answer, 100, 0, 0);
    }

    fn full_is_said_before_denied(p) {
        p.grant(0, 0).await;
        let full = p.full();
        p.unchanged_with(&full, reserve(1, 1), Status::Full).await;
    }

    fn an_account_nobody_loaded_is_cold(p) {
        let answer = p.unchanged(reserve(1, 1), Status::Cold).await;
        Case::assert_balance(&answer, 0, 0, 0);
        assert_eq!(answer.record, None);
    }

    fn an_account_of_another_epoch_is_cold(p) {
        p.grant(100, 0).await;
        p.recover(2).await;
        p.unchanged(reserve(1, 1), Status::Cold).await;
        p.grant(100, 0).await;
        p.ok(reserve(1, 1)).await;
    }

    fn a_record_of_an_unknown_format_is_unreadable(p) {
        p.grant(100, 0).await;
        p.plant_unknown_format(1).await;
        p.unchanged(reserve(1, 1), Status::Unreadable).await;
        p.ok(reserve(2, 1)).await;
    }

    fn an_id_belongs_to_its_account(p) {
        p.grant(100, 0).await;
        p.load(1, 100, 0).await;
        p.ok(reserve(1, 10)).await;
        p.ok(reserve(1, 20).of(1)).await;
        assert_eq!(p.balance_of(0).await[2], "10");
        assert_eq!(p.balance_of(1).await[2], "20");
    }

    fn a_ttl_of_zero_is_due_at_once(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 10).ttl(0)).await;
        assert_eq!(p.due(64).await.2.len(), 1);
        p.ok(expire(1)).await;
    }

    fn the_most_an_operation_may_carry_is_held_exactly(p) {
        p.grant(MOST_TOTAL, 0).await;
        p.ok(reserve(1, MOST)).await;
        assert_eq!(p.balance().await[2], "1000000000000");
        assert_eq!(p.rec(1).await.lines[0].amount, 1_000_000_000_000);
    }

    fn digits_are_exact_just_below_2_to_the_53(p) {
        p.grant(MOST_TOTAL, MOST_TOTAL - 10).await;
        let answer = p.unchanged(reserve(1, 11), Status::Denied).await;
        assert_eq!(answer.short, [(0, 11, 10)]);
        let answer = p.ok(reserve(1, 10)).await;
        Case::assert_balance(&answer, 9_007_199_254_740_991, 9_007_199_254_740_981, 10);
    }

    fn a_lowered_grant_denies_but_keeps_what_is_held(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 60)).await;
        p.sync(0, 50, 2, 1, false).await;
        assert_eq!(p.unchanged(reserve(2, 1), Status::Denied).await.short, [(0, 1, -10)]);
        p.unchanged(reserve(1, 60), Status::Replay).await;
    }

    fn a_budget_reloaded_under_the_same_epoch_keeps_its_holds(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 60)).await;
        let mut args = p.load_args(500, 9, 1, false, 0);
        args[2] = text(RUN_ID);
        assert_eq!(p.load_with(0, &args).await[2], 2);
        assert_eq!(p.balance().await, ["100", "0", "60"]);
    }
}
