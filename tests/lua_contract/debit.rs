//! debit: a settle without a reservation, once by id.

use cota::{
    ledger::wire::{Facts, Operation, Status},
    quota::{Kind, State},
};

use crate::{
    case::Case,
    ops::{MOST, MOST_TOTAL, Tweak, debit, expire, extend, release, reserve, settle},
    support::partition::user,
};

contract! {
    fn it_charges_at_once(p) {
        p.grant(100, 5).await;
        let answer = p.ok(debit(1, 30)).await;
        Case::assert_balance(&answer, 100, 35, 0);
        let record = answer.record.unwrap();
        assert_eq!(
            (record.state, record.charged, record.flags.0, record.lines[0].amount),
            (State::Settled, 30, 0, 0)
        );
        assert_eq!(p.index().await.len(), 0);
    }

    fn its_outbox_entry_has_every_fact(p) {
        p.grant(100, 0).await;
        let facts = Facts { input_tokens: Some(1), output_tokens: Some(2), ..Facts::default() };
        let op = Operation { facts, ..debit(1, 30).model("m").metadata(r#"{"k":[1]}"#) };
        p.ok(op.clone()).await;
        let entry = p.entry().await;
        assert_eq!(
            (entry.user, &entry.reservation, entry.kind, entry.tokens),
            (user(0), &op.id, Kind::Debit, 30)
        );
        assert_eq!((entry.model, entry.metadata, entry.lines), (op.model, op.metadata, op.lines));
        assert_eq!(
            (entry.input_tokens, entry.output_tokens, entry.cached_input_tokens),
            (Some(1), Some(2), None)
        );
        assert_eq!(p.rec(1).await.booked[0].outbox_id, entry.outbox_id);
    }

    fn it_may_take_the_balance_below_zero(p) {
        p.grant(10, 10).await;
        let answer = p.ok(debit(1, 30)).await;
        Case::assert_balance(&answer, 10, 40, 0);
    }

    fn zero_is_recorded(p) {
        p.grant(0, 0).await;
        p.ok(debit(1, 0)).await;
        assert_eq!((p.entry().await.kind, p.entry().await.tokens), (Kind::Debit, 0));
    }

    fn repeated_it_is_a_replay(p) {
        p.grant(100, 0).await;
        let first = p.ok(debit(1, 30)).await;
        let again = p.unchanged(debit(1, 30), Status::Replay).await;
        assert_eq!(again.record, first.record);
    }

    fn other_numbers_are_a_mismatch(p) {
        p.grant(100, 0).await;
        p.ok(debit(1, 30)).await;
        p.unchanged(debit(1, 31), Status::Mismatch).await;
        p.unchanged(debit(1, 30).model("x"), Status::Mismatch).await;
    }

    fn the_id_of_a_pending_reservation_is_a_mismatch(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.unchanged(debit(1, 30), Status::Mismatch).await;
    }

    fn the_id_of_a_settled_reservation_is_a_mismatch(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(settle(1, 30)).await;
        p.unchanged(debit(1, 30), Status::Mismatch).await;
    }

    fn the_id_of_a_released_one_or_a_tombstone_is_a_mismatch(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(release(1)).await;
        p.unchanged(debit(1, 30), Status::Mismatch).await;
        p.ok(release(2)).await;
        p.unchanged(debit(2, 30), Status::Mismatch).await;
    }

    fn the_id_of_an_expired_one_is_a_mismatch(p) {
        p.grant(100, 0).await;
        p.overdue(1, 30, 0).await;
        p.unchanged(debit(1, 30), Status::Mismatch).await;
        p.ok(expire(1)).await;
        p.unchanged(debit(1, 30), Status::Mismatch).await;
    }

    fn nothing_else_may_use_its_id(p) {
        p.grant(100, 0).await;
        p.ok(debit(1, 30)).await;
        p.unchanged(reserve(1, 30), Status::Finished).await;
        p.unchanged(release(1), Status::Finished).await;
        p.unchanged(extend(1, 40), Status::Finished).await;
        p.unchanged(expire(1), Status::Gone).await;
    }

    fn it_has_no_ttl_until_postgres_has_it(p) {
        p.grant(100, 0).await;
        p.ok(debit(1, 30)).await;
        assert_eq!(p.ttl(1).await, -1);
        p.flush_all().await;
        p.assert_ttl(1, 1_800_000).await;
    }

    fn an_account_nobody_loaded_is_cold(p) {
        p.unchanged(debit(1, 30), Status::Cold).await;
    }

    fn a_record_of_an_unknown_format_is_unreadable(p) {
        p.grant(100, 0).await;
        p.plant_unknown_format(1).await;
        p.unchanged(debit(1, 1), Status::Unreadable).await;
    }

    fn neither_full_nor_suspension_nor_policy_stop_it(p) {
        let args = p.load_args(0, 1, 9, true, 0);
        p.load_with(0, &args).await;
        let full = p.full();
        assert_eq!(p.apply_with(&full, &[debit(1, 30)]).await.answers()[0].status, Status::Ok);
    }

    fn the_spend_may_reach_2_to_the_53_less_one_exactly(p) {
        p.grant(MOST_TOTAL, MOST_TOTAL - MOST).await;
        p.ok(debit(1, MOST)).await;
        assert_eq!(p.balance().await[1], "9007199254740991");
    }

    fn a_spend_one_past_it_is_out_of_range(p) {
        p.grant(MOST_TOTAL, MOST_TOTAL - MOST + 1).await;
        let answer = p.unchanged(debit(1, MOST), Status::Range).await;
        assert_eq!(answer.record, None);
        p.ok(debit(1, MOST - 1)).await;
        assert_eq!(p.balance().await[1], "9007199254740991");
    }

    fn every_line_is_charged(p) {
        p.grant(100, 0).await;
        p.load(1, 50, 0).await;
        p.ok(debit(1, 30).also(1, 7)).await;
        assert_eq!(p.balance_of(0).await, ["100", "30", "0"]);
        assert_eq!(p.balance_of(1).await, ["50", "7", "0"]);
    }
}
