//! settle of an id that Redis does not know: charged only with a reason.

use cota::{
    ledger::wire::{Options, Status},
    quota::{Flags, Kind, State},
};

use crate::{
    case::Case,
    ops::{MOST, MOST_TOTAL, Tweak, debit, release, reserve, settle, settle_unknown_usage},
};

const NO_ROW: Options = Options::NO_ROW;
const WITNESSED: Options = Options::WITNESSED;

/// The recovery window that `Partition::apply_args` names.
const WINDOW_MS: u64 = 86_400_000;

/// Recovered that long ago.
async fn recovered(p: &mut Case, ago_ms: u64) {
    p.recover(2).await;
    p.grant(100, 0).await;
    let at: u64 = p.meta("ra").await.unwrap().parse().unwrap();
    p.set_meta("ra", at - ago_ms).await;
}

contract! {
    fn without_a_reason_it_is_unknown(p) {
        p.grant(100, 0).await;
        let answer = p.unchanged(settle(1, 20), Status::Unknown).await;
        assert_eq!(answer.record, None);
        Case::assert_balance(&answer, 100, 0, 0);
    }

    fn unknown_usage_is_unknown(p) {
        p.grant(100, 0).await;
        p.unchanged(settle_unknown_usage(1), Status::Unknown).await;
    }

    fn without_a_recovery_no_row_is_no_reason(p) {
        p.grant(100, 0).await;
        p.unchanged(settle(1, 20).options(NO_ROW), Status::Unknown).await;
    }

    fn a_first_opening_is_no_recovery(p) {
        p.begin_recovery(2).await;
        p.open(2, 10, false).await;
        p.grant(100, 0).await;
        assert_eq!(p.meta("ra").await, None);
        p.unchanged(settle(1, 20).options(NO_ROW), Status::Unknown).await;
    }

    fn after_a_recovery_no_row_charges_without_a_hold(p) {
        recovered(p, 0).await;
        let answer = p.ok(settle(1, 20).options(NO_ROW)).await;
        Case::assert_balance(&answer, 100, 20, 0);
        let entry = p.entry().await;
        assert_eq!((entry.kind, entry.tokens, entry.flags), (Kind::Settle, 20, Flags::RECOVERED));
        let record = p.rec(1).await;
        assert_eq!((record.state, record.charged, record.lines[0].amount), (State::Settled, 20, 0));
        p.unchanged(settle(1, 20).options(NO_ROW), Status::Replay).await;
        p.unchanged(settle(1, 21).options(NO_ROW), Status::Mismatch).await;
    }

    fn postgres_must_have_been_asked(p) {
        recovered(p, 0).await;
        p.unchanged(settle(1, 20), Status::Unknown).await;
    }

    fn just_within_the_window(p) {
        recovered(p, WINDOW_MS - 120_000).await;
        p.ok(settle(1, 20).options(NO_ROW)).await;
    }

    fn past_the_window(p) {
        recovered(p, WINDOW_MS + 1).await;
        p.unchanged(settle(1, 20).options(NO_ROW), Status::Unknown).await;
    }

    fn unknown_usage_has_no_hold_to_charge(p) {
        recovered(p, 0).await;
        p.unchanged(settle_unknown_usage(1).options(NO_ROW), Status::Unknown).await;
        p.unchanged(settle_unknown_usage(1).options(WITNESSED), Status::Unknown).await;
        p.unchanged(settle_unknown_usage(1).second(5), Status::Unknown).await;
    }

    fn an_expiry_row_is_corrected_upward(p) {
        p.grant(100, 15).await;
        let answer = p.ok(settle(1, 20).second(15)).await;
        Case::assert_balance(&answer, 100, 20, 0);
        let entry = p.entry().await;
        assert_eq!((entry.kind, entry.tokens, entry.flags), (Kind::Correction, 5, Flags::LATE));
        let record = p.rec(1).await;
        assert_eq!((record.charged, record.charged_by_expiry), (20, 15));
        p.unchanged(settle(1, 20).second(15), Status::Replay).await;
        p.unchanged(settle(1, 20), Status::Replay).await;
    }

    fn an_expiry_row_is_corrected_downward(p) {
        p.grant(100, 15).await;
        let answer = p.ok(settle(1, 4).second(15)).await;
        Case::assert_balance(&answer, 100, 4, 0);
        assert_eq!((p.entry().await.kind, p.entry().await.tokens), (Kind::Correction, -11));
    }

    fn an_expiry_row_of_the_same_amount_is_corrected_by_zero(p) {
        p.grant(100, 15).await;
        p.ok(settle(1, 15).second(15)).await;
        assert_eq!((p.entry().await.kind, p.entry().await.tokens), (Kind::Correction, 0));
    }

    fn an_expiry_row_is_a_reason_without_any_recovery(p) {
        p.grant(100, 1).await;
        assert_eq!(p.meta("ra").await, None);
        p.ok(settle(1, 2).second(1)).await;
    }

    fn a_witness_charges_it(p) {
        p.grant(100, 0).await;
        p.ok(settle(1, 20).options(WITNESSED)).await;
        let entry = p.entry().await;
        assert_eq!((entry.kind, entry.tokens, entry.flags), (Kind::Settle, 20, Flags::RECOVERED));
    }

    fn a_witness_charges_past_the_window(p) {
        recovered(p, WINDOW_MS + 1).await;
        p.ok(settle(1, 20).options(WITNESSED)).await;
    }

    fn a_witness_charges_a_released_one(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(release(1)).await;
        let answer = p.ok(settle(1, 20).options(WITNESSED)).await;
        Case::assert_balance(&answer, 100, 20, 0);
        assert_eq!(p.entry().await.flags, Flags::RECOVERED);
        assert_eq!(p.ttl(1).await, -1);
        p.unchanged(settle(1, 20).options(WITNESSED), Status::Replay).await;
    }

    fn a_witness_charges_a_tombstone(p) {
        p.grant(100, 0).await;
        p.ok(release(1)).await;
        p.ok(settle(1, 20).options(WITNESSED)).await;
        p.unchanged(release(1), Status::Finished).await;
    }

    fn a_witness_of_a_settled_one_compares_what_was_charged(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(settle_unknown_usage(1)).await;
        p.unchanged(settle(1, 30).options(WITNESSED), Status::Replay).await;
        p.unchanged(settle(1, 29).options(WITNESSED), Status::Mismatch).await;
    }

    fn a_witness_of_a_pending_one_is_an_ordinary_settle(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        let answer = p.ok(settle(1, 20).options(WITNESSED)).await;
        Case::assert_balance(&answer, 100, 20, 0);
        assert_eq!(answer.record.unwrap().flags.0, 0);
    }

    fn without_a_hold_nothing_is_overage(p) {
        p.grant(0, 0).await;
        p.ok(settle(1, 20).options(WITNESSED)).await;
        assert_eq!(p.entry().await.flags, Flags::RECOVERED);
    }

    fn every_line_is_charged(p) {
        p.grant(100, 0).await;
        p.load(1, 50, 0).await;
        p.ok(settle(1, 20).also(1, 3).options(WITNESSED)).await;
        assert_eq!(p.balance_of(0).await, ["100", "20", "0"]);
        assert_eq!(p.balance_of(1).await, ["50", "3", "0"]);
    }

    fn out_of_range_charges_nothing(p) {
        p.grant(MOST_TOTAL, MOST_TOTAL - MOST + 1).await;
        p.unchanged(settle(1, MOST).options(WITNESSED), Status::Range).await;
        p.ok(settle(1, MOST - 1).options(WITNESSED)).await;
    }

    fn the_id_is_taken_from_then_on(p) {
        p.grant(100, 0).await;
        p.ok(settle(1, 20).options(WITNESSED)).await;
        p.unchanged(reserve(1, 20), Status::Finished).await;
        p.unchanged(debit(1, 20), Status::Mismatch).await;
        p.unchanged(release(1), Status::Finished).await;
    }
}
