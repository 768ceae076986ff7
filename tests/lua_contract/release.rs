//! release: everything back, nothing charged.

use cota::{
    ledger::wire::Status,
    quota::{Kind, State},
};

use crate::{
    case::Case,
    ops::{MOST_TOTAL, Tweak, debit, expire, extend, release, reserve, settle},
};

contract! {
    fn it_gives_the_hold_back(p) {
        p.grant(100, 0).await;
        p.ok(reserve(2, 5)).await;
        p.ok(reserve(1, 30)).await;
        let answer = p.ok(release(1)).await;
        Case::assert_balance(&answer, 100, 0, 5);
        assert_eq!(answer.record.unwrap().state, State::Released);
        assert_eq!(p.outbox().await, []);
        assert_eq!(p.index().await.len(), 1);
    }

    fn it_ages_from_then_on(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(release(1)).await;
        p.assert_ttl(1, 1_800_000).await;
    }

    fn repeated_it_is_a_replay(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        let first = p.ok(release(1)).await;
        assert_eq!(p.unchanged(release(1), Status::Replay).await.record, first.record);
    }

    fn an_unknown_id_leaves_a_tombstone(p) {
        p.grant(100, 0).await;
        let record = p.ok(release(1)).await.record.unwrap();
        assert_eq!((record.state, record.lines.len(), record.fingerprint), (State::Released, 0, [0; 8]));
        assert_eq!(p.balance().await, ["100", "0", "0"]);
        p.assert_ttl(1, 1_800_000).await;
        p.unchanged(release(1), Status::Replay).await;
    }

    fn a_settled_one_is_finished(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(settle(1, 20)).await;
        let answer = p.unchanged(release(1), Status::Finished).await;
        assert_eq!(answer.record.unwrap().state, State::Settled);
    }

    fn a_debited_one_is_finished(p) {
        p.grant(100, 0).await;
        p.ok(debit(1, 30)).await;
        p.unchanged(release(1), Status::Finished).await;
    }

    fn an_expired_one_is_finished(p) {
        p.grant(100, 0).await;
        p.overdue(1, 30, 0).await;
        p.ok(expire(1)).await;
        assert_eq!(p.unchanged(release(1), Status::Finished).await.record.unwrap().state, State::Expired);
    }

    fn a_due_one_is_expired_on_the_way(p) {
        p.grant(100, 0).await;
        p.overdue(1, 30, 0).await;
        let answer = p.gives(release(1), Status::Finished).await;
        Case::assert_balance(&answer, 100, 0, 0);
        assert_eq!(answer.record.unwrap().state, State::Expired);
        p.assert_ttl(1, 86_400_000).await;
    }

    fn a_due_one_is_charged_its_progress(p) {
        p.grant(100, 0).await;
        p.overdue(1, 30, 15).await;
        let answer = p.gives(release(1), Status::Finished).await;
        Case::assert_balance(&answer, 100, 15, 0);
        assert_eq!((p.entry().await.kind, p.entry().await.tokens), (Kind::Expiry, 15));
    }

    fn a_due_one_whose_progress_does_not_fit_is_out_of_range(p) {
        p.grant(MOST_TOTAL, MOST_TOTAL - 30).await;
        p.overdue(1, 30, 15).await;
        p.ok(debit(2, 16)).await;
        p.unchanged(release(1), Status::Range).await;
    }

    fn every_line_is_given_back(p) {
        p.grant(100, 0).await;
        p.load(1, 50, 0).await;
        p.ok(reserve(1, 30).also(1, 20)).await;
        p.unchanged(release(1), Status::Unreadable).await;
        p.ok(release(1).also(1, 0)).await;
        assert_eq!(p.balance_of(0).await[2], "0");
        assert_eq!(p.balance_of(1).await[2], "0");
    }

    fn what_an_extend_raised_is_given_back_too(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(extend(1, 80)).await;
        Case::assert_balance(&p.ok(release(1)).await, 100, 0, 0);
    }

    fn progress_is_not_charged_in_time(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(extend(1, 30).second(15)).await;
        Case::assert_balance(&p.ok(release(1)).await, 100, 0, 0);
        assert_eq!(p.outbox().await, []);
    }

    fn a_hold_of_an_older_epoch_gives_nothing_back(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.recover(2).await;
        p.grant(100, 0).await;
        p.ok(reserve(2, 7)).await;
        let answer = p.gives(release(1), Status::Finished).await;
        Case::assert_balance(&answer, 100, 0, 7);
        assert_eq!(answer.record.unwrap().state, State::Expired);
    }

    fn an_account_nobody_loaded_is_cold(p) {
        p.unchanged(release(1), Status::Cold).await;
    }

    fn a_record_of_an_unknown_format_is_unreadable(p) {
        p.grant(100, 0).await;
        p.plant_unknown_format(1).await;
        p.unchanged(release(1), Status::Unreadable).await;
    }

    fn full_does_not_stop_a_release(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        let full = p.full();
        assert_eq!(p.apply_with(&full, &[release(1)]).await.answers()[0].status, Status::Ok);
    }
}
