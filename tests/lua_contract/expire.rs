//! expire: gives back what is overdue, and charges reported progress.

use cota::{
    ledger::{keys::member, scripts, wire::Status},
    quota::{Flags, Kind, State},
};

use crate::{
    case::Case,
    ops::{MOST_TOTAL, Tweak, debit, expire, extend, release, reserve, settle},
    support::partition::{rid, user},
};

contract! {
    fn it_gives_the_hold_back(p) {
        p.grant(100, 0).await;
        p.ok(reserve(2, 5)).await;
        p.overdue(1, 30, 0).await;
        let answer = p.ok(expire(1)).await;
        Case::assert_balance(&answer, 100, 0, 5);
        let record = answer.record.unwrap();
        assert_eq!((record.state, record.charged, record.flags.0), (State::Expired, 0, 0));
        assert_eq!(p.outbox().await, []);
    }

    fn without_progress_it_ages_for_the_long_retention(p) {
        p.grant(100, 0).await;
        p.overdue(1, 30, 0).await;
        p.ok(expire(1)).await;
        p.assert_ttl(1, 86_400_000).await;
    }

    fn progress_is_charged_and_flagged(p) {
        p.grant(100, 0).await;
        p.overdue(1, 30, 15).await;
        let answer = p.ok(expire(1)).await;
        Case::assert_balance(&answer, 100, 15, 0);
        let record = answer.record.unwrap();
        assert_eq!((record.state, record.charged, record.charged_by_expiry), (State::Expired, 15, 15));
        let entry = p.entry().await;
        assert_eq!((entry.kind, entry.tokens, entry.flags), (Kind::Expiry, 15, Flags::ESTIMATED));
        assert_eq!(record.booked[0].outbox_id, entry.outbox_id);
    }

    fn with_progress_it_ages_only_after_the_ack(p) {
        p.grant(100, 0).await;
        p.overdue(1, 30, 15).await;
        p.ok(expire(1)).await;
        assert_eq!(p.ttl(1).await, -1);
        p.flush_all().await;
        p.assert_ttl(1, 86_400_000).await;
    }

    fn progress_above_the_hold_is_overage(p) {
        p.grant(100, 0).await;
        p.overdue(1, 30, 31).await;
        Case::assert_balance(&p.ok(expire(1)).await, 100, 31, 0);
        assert_eq!(p.entry().await.flags, Flags::ESTIMATED.union(Flags::OVERAGE));
    }

    fn progress_is_charged_on_every_line(p) {
        p.grant(100, 0).await;
        p.load(1, 50, 0).await;
        let ops = [reserve(1, 30).also(1, 20).ttl(1), extend(1, 30).also(1, 20).second(15)];
        assert_eq!(p.statuses(&ops).await, [Status::Ok, Status::Ok]);
        p.wait_due(1).await;
        p.unchanged(expire(1), Status::Unreadable).await;
        p.ok(expire(1).also(1, 0)).await;
        assert_eq!(p.balance_of(0).await, ["100", "15", "0"]);
        assert_eq!(p.balance_of(1).await, ["50", "15", "0"]);
    }

    fn what_is_not_due_stays(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        let answer = p.unchanged(expire(1), Status::Gone).await;
        assert_eq!(answer.record, None);
        Case::assert_balance(&answer, 100, 0, 30);
    }

    fn what_was_extended_in_time_stays(p) {
        p.grant(100, 0).await;
        let ops = [reserve(1, 30).ttl(1), extend(1, 30).ttl(60_000)];
        assert_eq!(p.statuses(&ops).await, [Status::Ok, Status::Ok]);
        p.overdue(2, 1, 0).await;
        p.unchanged(expire(1), Status::Gone).await;
        p.ok(expire(2)).await;
    }

    fn twice_is_gone(p) {
        p.grant(100, 0).await;
        p.overdue(1, 30, 15).await;
        p.ok(expire(1)).await;
        p.unchanged(expire(1), Status::Gone).await;
    }

    fn settled_released_and_unknown_are_gone(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(settle(1, 20)).await;
        p.unchanged(expire(1), Status::Gone).await;
        p.ok(release(2)).await;
        p.unchanged(expire(2), Status::Gone).await;
        p.unchanged(expire(3), Status::Gone).await;
        p.ok(debit(4, 5)).await;
        p.unchanged(expire(4), Status::Gone).await;
    }

    fn an_index_entry_without_a_record_is_removed(p) {
        p.grant(100, 0).await;
        let (key, ghost) = (p.keys.expiry(), member(user(0), &rid(1)));
        p.command(&[b"ZADD", &key, b"1", &ghost]).await;
        p.gives(expire(1), Status::Gone).await;
        assert_eq!(p.index().await.len(), 0);
    }

    fn an_index_entry_of_a_settled_one_is_removed(p) {
        p.grant(100, 0).await;
        p.ok(debit(1, 5)).await;
        let (key, ghost) = (p.keys.expiry(), member(user(0), &rid(1)));
        p.command(&[b"ZADD", &key, b"1", &ghost]).await;
        p.gives(expire(1), Status::Gone).await;
        assert_eq!(p.index().await.len(), 0);
    }

    fn without_progress_it_needs_no_loaded_account(p) {
        p.grant(100, 0).await;
        p.overdue(1, 30, 0).await;
        p.recover(2).await;
        let answer = p.ok(expire(1)).await;
        Case::assert_balance(&answer, 0, 0, 0);
        assert_eq!(answer.record.unwrap().state, State::Expired);
        p.assert_ttl(1, 86_400_000).await;
    }

    fn with_progress_a_cold_account_must_be_loaded_first(p) {
        p.grant(100, 0).await;
        p.overdue(1, 30, 15).await;
        p.recover(2).await;
        p.unchanged(expire(1), Status::Cold).await;
        p.grant(100, 0).await;
        Case::assert_balance(&p.ok(expire(1)).await, 100, 15, 0);
    }

    fn a_hold_of_an_older_epoch_is_expired_and_gives_nothing_back(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.recover(2).await;
        p.grant(100, 0).await;
        p.ok(reserve(2, 7)).await;
        Case::assert_balance(&p.ok(expire(1)).await, 100, 0, 7);
    }

    fn progress_that_does_not_fit_is_out_of_range(p) {
        p.grant(MOST_TOTAL, MOST_TOTAL - 30).await;
        p.overdue(1, 30, 15).await;
        p.ok(debit(2, 16)).await;
        p.unchanged(expire(1), Status::Range).await;
    }

    fn progress_that_just_fits_is_charged_exactly(p) {
        p.grant(MOST_TOTAL, MOST_TOTAL - 30).await;
        p.overdue(1, 30, 15).await;
        p.ok(debit(2, 15)).await;
        p.ok(expire(1)).await;
        assert_eq!(p.balance().await[1], "9007199254740991");
    }

    fn a_record_of_an_unknown_format_is_unreadable(p) {
        p.grant(100, 0).await;
        p.plant_unknown_format(1).await;
        let (key, planted) = (p.keys.expiry(), member(user(0), &rid(1)));
        p.command(&[b"ZADD", &key, b"1", &planted]).await;
        p.unchanged(expire(1), Status::Unreadable).await;
    }

    fn full_does_not_stop_an_expiry(p) {
        p.grant(100, 0).await;
        p.overdue(1, 30, 15).await;
        let full = p.full();
        assert_eq!(p.apply_with(&full, &[expire(1)]).await.answers()[0].status, Status::Ok);
    }

    fn the_model_and_metadata_of_the_reserve_are_charged(p) {
        p.grant(100, 0).await;
        let op = reserve(1, 30).model("m").metadata(r#"{"a":1}"#).ttl(1);
        assert_eq!(p.statuses(&[op.clone(), extend(1, 30).second(15)]).await, [Status::Ok, Status::Ok]);
        p.wait_due(1).await;
        p.ok(expire(1)).await;
        let entry = p.entry().await;
        assert_eq!((entry.model, entry.metadata), (op.model, op.metadata));
    }

    fn a_sweep_by_the_index_finds_it(p) {
        p.grant(100, 0).await;
        p.overdue(1, 30, 0).await;
        let keys = [p.keys.expiry()];
        let before = p.due(64).await.2;
        assert_eq!(before, [member(user(0), &rid(1))]);
        p.ok(expire(1)).await;
        assert_eq!(p.due(64).await.2.len(), 0);
        let reply = p.numbers(&scripts::DUE, &keys, &[b"64".to_vec()]).await;
        assert_eq!(reply[1], 0, "nothing is overdue");
    }
}
