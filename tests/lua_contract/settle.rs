//! settle of a reservation that is pending: charge what was used, give back the rest.

use cota::{
    ledger::wire::{Facts, Operation, Options, Status},
    quota::{Flags, Kind, RequestId, State},
};

use crate::{
    case::Case,
    ops::{MOST, MOST_TOTAL, Tweak, debit, release, reserve, settle, settle_unknown_usage},
    support::partition::{Head, user},
};

contract! {
    fn less_than_held_is_charged_and_the_rest_given_back(p) {
        p.grant(100, 5).await;
        p.ok(reserve(1, 30)).await;
        let answer = p.ok(settle(1, 20)).await;
        Case::assert_balance(&answer, 100, 25, 0);
        let record = answer.record.unwrap();
        assert_eq!((record.state, record.charged, record.flags.0), (State::Settled, 20, 0));
        assert_eq!(p.balance().await, ["100", "25", "0"]);
        assert_eq!(p.index().await.len(), 0);
    }

    fn exactly_what_was_held(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        let record = p.ok(settle(1, 30)).await.record.unwrap();
        assert_eq!((record.charged, record.flags.0), (30, 0));
    }

    fn more_than_held_is_charged_in_full_and_flagged(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 100)).await;
        let answer = p.ok(settle(1, 130)).await;
        Case::assert_balance(&answer, 100, 130, 0);
        assert_eq!(answer.record.unwrap().flags, Flags::OVERAGE);
        assert_eq!(p.entry().await.flags, Flags::OVERAGE);
        assert_eq!(p.unchanged(reserve(2, 1), Status::Denied).await.short, [(0, 1, -30)]);
    }

    fn zero_charges_nothing_and_is_recorded(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        let answer = p.ok(settle(1, 0)).await;
        Case::assert_balance(&answer, 100, 0, 0);
        let entry = p.entry().await;
        assert_eq!((entry.kind, entry.tokens, entry.flags.0), (Kind::Settle, 0, 0));
    }

    fn any_usage_of_a_zero_hold_is_overage(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 0)).await;
        assert_eq!(p.ok(settle(1, 1)).await.record.unwrap().flags, Flags::OVERAGE);
    }

    fn its_outbox_entry_has_every_fact(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30).model("asked").metadata(r#"{"team":"x"}"#)).await;
        let facts = Facts {
            request_id: Some(RequestId::new("req-9").unwrap()),
            input_tokens: Some(12),
            output_tokens: Some(8),
            cached_input_tokens: Some(0),
        };
        let op = Operation { facts, ..settle(1, 20).model("answered") };
        let record = p.ok(op.clone()).await.record.unwrap();
        let entry = p.entry().await;
        assert_eq!(
            (entry.user, &entry.reservation, entry.kind, entry.tokens),
            (user(0), &op.id, Kind::Settle, 20)
        );
        assert_eq!((&entry.model, entry.metadata.as_ref().unwrap().as_str()), (&op.model, r#"{"team":"x"}"#));
        assert_eq!(
            (entry.request_id, entry.input_tokens, entry.output_tokens),
            (op.facts.request_id, Some(12), Some(8))
        );
        assert_eq!(
            (entry.cached_input_tokens, entry.at_ms, entry.lines),
            (Some(0), record.finished_at_ms, op.lines)
        );
    }

    fn the_reserved_model_stands_when_the_settle_names_none(p) {
        p.grant(100, 0).await;
        let op = reserve(1, 30).model("asked");
        p.ok(op.clone()).await;
        assert_eq!(p.ok(settle(1, 20)).await.record.unwrap().model, op.model);
        assert_eq!(p.entry().await.model, op.model);
    }

    fn record_and_outbox_name_the_same_entry(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(settle(1, 20)).await;
        let (entry, record) = (p.entry().await, p.rec(1).await);
        assert_eq!(record.booked.len(), 1);
        let booked = record.booked[0];
        assert_eq!((booked.kind, booked.tokens, booked.outbox_id), (Kind::Settle, 20, entry.outbox_id));
    }

    fn it_has_no_ttl_until_postgres_has_it(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(settle(1, 20)).await;
        assert_eq!(p.ttl(1).await, -1);
        assert_eq!(p.flush_all().await, 1);
        p.assert_ttl(1, 1_800_000).await;
    }

    fn repeated_it_is_a_replay_with_the_current_balance(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        let first = p.ok(settle(1, 20)).await;
        p.ok(reserve(2, 9)).await;
        let again = p.unchanged(settle(1, 20), Status::Replay).await;
        assert_eq!(again.record, first.record);
        Case::assert_balance(&again, 100, 20, 9);
    }

    fn repeated_after_its_ack_it_is_still_a_replay(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(settle(1, 20)).await;
        p.flush_all().await;
        p.unchanged(settle(1, 20), Status::Replay).await;
        p.assert_ttl(1, 1_800_000).await;
    }

    fn other_numbers_are_a_mismatch(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        let first = p.ok(settle(1, 20)).await;
        assert_eq!(p.unchanged(settle(1, 21), Status::Mismatch).await.record, first.record);
    }

    fn unknown_usage_charges_what_was_held(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        let record = p.ok(settle_unknown_usage(1)).await.record.unwrap();
        assert_eq!((record.charged, record.flags), (30, Flags::ESTIMATED));
        assert_eq!((p.entry().await.tokens, p.entry().await.lines[0].amount), (30, 30));
    }

    fn unknown_usage_repeated_is_a_replay(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(settle_unknown_usage(1)).await;
        p.unchanged(settle_unknown_usage(1), Status::Replay).await;
        p.unchanged(settle(1, 30), Status::Mismatch).await;
    }

    fn unknown_usage_charges_every_line_what_it_held(p) {
        p.grant(100, 0).await;
        p.load(1, 50, 0).await;
        p.ok(reserve(1, 30).also(1, 20)).await;
        p.ok(settle_unknown_usage(1).also(1, 0)).await;
        assert_eq!(p.balance_of(0).await, ["100", "30", "0"]);
        assert_eq!(p.balance_of(1).await, ["50", "20", "0"]);
    }

    fn every_line_is_given_back_and_charged(p) {
        p.grant(100, 0).await;
        p.load(1, 50, 0).await;
        p.ok(reserve(1, 30).also(1, 20)).await;
        p.ok(settle(1, 10).also(1, 5)).await;
        assert_eq!(p.balance_of(0).await, ["100", "10", "0"]);
        assert_eq!(p.balance_of(1).await, ["50", "5", "0"]);
    }

    fn the_order_of_the_lines_does_not_matter(p) {
        p.grant(100, 0).await;
        p.load(1, 50, 0).await;
        p.load(2, 50, 0).await;
        p.ok(reserve(1, 30).also(1, 20).also(2, 10)).await;
        p.ok(settle(1, 9).also(2, 8).also(1, 7)).await;
        assert_eq!(p.balance_of(1).await, ["50", "7", "0"]);
        assert_eq!(p.balance_of(2).await, ["50", "8", "0"]);
    }

    fn a_call_that_does_not_name_every_budget_held_is_unreadable(p) {
        p.grant(100, 0).await;
        p.load(1, 50, 0).await;
        p.ok(reserve(1, 30).also(1, 20)).await;
        p.unchanged(settle(1, 10), Status::Unreadable).await;
        p.ok(settle(1, 10).also(1, 20)).await;
    }

    fn the_hold_goes_back_by_the_record_and_not_by_the_call(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(reserve(2, 5)).await;
        p.ok(settle(1, 99)).await;
        assert_eq!(p.balance().await, ["100", "99", "5"]);
    }

    fn a_released_reservation_stays_released(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(release(1)).await;
        let answer = p.unchanged(settle(1, 20), Status::Released).await;
        assert_eq!(answer.record.unwrap().state, State::Released);
        p.unchanged(settle_unknown_usage(1), Status::Released).await;
    }

    fn a_tombstone_stays_released(p) {
        p.grant(100, 0).await;
        p.ok(release(1)).await;
        p.unchanged(settle(1, 20), Status::Released).await;
    }

    fn no_row_does_not_charge_a_released_one(p) {
        p.recover(2).await;
        p.grant(100, 0).await;
        p.ok(release(1)).await;
        p.unchanged(settle(1, 20).options(Options::NO_ROW), Status::Released).await;
    }

    fn a_debit_of_its_id_is_a_mismatch(p) {
        p.grant(100, 0).await;
        p.ok(debit(1, 20)).await;
        p.unchanged(settle(1, 20), Status::Mismatch).await;
        p.unchanged(settle_unknown_usage(1), Status::Mismatch).await;
    }

    fn a_witness_of_a_debit_replays(p) {
        p.grant(100, 0).await;
        p.ok(debit(1, 20)).await;
        p.unchanged(settle(1, 20).options(Options::WITNESSED), Status::Replay).await;
        p.unchanged(settle(1, 21).options(Options::WITNESSED), Status::Mismatch).await;
    }

    fn an_account_nobody_loaded_is_cold(p) {
        p.unchanged(settle(1, 20), Status::Cold).await;
    }

    fn cold_after_a_recovery_and_then_charged(p) {
        p.grant(100, 0).await;
        p.recover(2).await;
        p.unchanged(settle(1, 20).options(Options::NO_ROW), Status::Cold).await;
        p.grant(100, 0).await;
        p.ok(settle(1, 20).options(Options::NO_ROW)).await;
    }

    fn a_record_of_an_unknown_format_is_unreadable(p) {
        p.grant(100, 0).await;
        p.plant_unknown_format(1).await;
        p.unchanged(settle(1, 1), Status::Unreadable).await;
        p.unchanged(settle(1, 1).options(Options::WITNESSED), Status::Unreadable).await;
    }

    fn full_does_not_stop_a_settle(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        let full = p.full();
        assert_eq!(p.apply_with(&full, &[settle(1, 20)]).await.answers()[0].status, Status::Ok);
    }

    fn neither_suspension_nor_a_new_policy_stops_a_settle(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.sync(0, 0, 2, 9, true).await;
        let answer = p.ok(settle(1, 20)).await;
        assert!(answer.suspended);
        Case::assert_balance(&answer, 0, 20, 0);
    }

    fn the_spend_may_reach_2_to_the_53_less_one_exactly(p) {
        p.grant(MOST_TOTAL, MOST_TOTAL - MOST).await;
        p.ok(reserve(1, MOST)).await;
        let answer = p.ok(settle(1, MOST)).await;
        Case::assert_balance(&answer, MOST_TOTAL, 9_007_199_254_740_991, 0);
        assert_eq!(p.balance().await[1], "9007199254740991");
        assert_eq!(p.entry().await.tokens, 1_000_000_000_000);
    }

    fn a_spend_one_past_2_to_the_53_is_out_of_range(p) {
        p.grant(MOST_TOTAL, MOST_TOTAL - MOST + 1).await;
        p.ok(reserve(1, 5)).await;
        p.unchanged(settle(1, MOST), Status::Range).await;
        p.ok(settle(1, MOST - 1)).await;
        assert_eq!(p.balance().await[1], "9007199254740991");
    }

    fn a_second_line_out_of_range_charges_none(p) {
        p.grant(100, 0).await;
        p.load(1, MOST_TOTAL, MOST_TOTAL).await;
        p.ok(reserve(1, 5).also(1, 0)).await;
        p.unchanged(settle(1, 5).also(1, 1), Status::Range).await;
        p.ok(settle(1, 5).also(1, 0)).await;
    }

    fn the_nonce_of_the_call_is_in_the_outbox_id(p) {
        p.grant(100, 0).await;
        let nonce = (1 << 62) - 1;
        let head = Head { nonce, ..p.head() };
        p.apply_with(&head, &[reserve(1, 5), settle(1, 5)]).await.answers();
        let id = p.entry().await.outbox_id;
        assert_eq!((id.sequence, id.nonce), (2, 4_611_686_018_427_387_903));
    }
}
