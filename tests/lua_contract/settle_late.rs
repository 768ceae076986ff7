//! settle after the reservation's time: charged late, and what its expiry charged is corrected.

use cota::{
    ledger::wire::{Answer, Options, Status},
    quota::{Flags, Kind, State},
};

use crate::{
    case::Case,
    ops::{MOST, MOST_TOTAL, Tweak, debit, expire, release, reserve, settle, settle_unknown_usage},
};

/// Expired with progress charged; then settled. Two entries are in the outbox.
async fn corrected(p: &mut Case, hold: u64, progress: u64, used: u64) -> Answer {
    p.grant(100, 0).await;
    p.overdue(1, hold, progress).await;
    p.ok(expire(1)).await;
    p.ok(settle(1, used)).await
}

async fn assert_correction(p: &mut Case, difference: i64, charged: u64, flags: Flags) {
    let entries = p.outbox().await;
    let kinds: Vec<Kind> = entries.iter().map(|entry| entry.kind).collect();
    assert_eq!(kinds, [Kind::Expiry, Kind::Correction]);
    assert_eq!((entries[1].tokens, entries[1].lines[0].amount), (difference, difference));
    assert_eq!(entries[1].flags, flags);
    let record = p.rec(1).await;
    assert_eq!((record.state, record.charged, record.flags), (State::Settled, charged, flags));
}

contract! {
    fn due_but_unswept_it_is_late_and_gives_the_hold_back(p) {
        p.grant(100, 0).await;
        p.overdue(1, 30, 0).await;
        let answer = p.ok(settle(1, 20)).await;
        Case::assert_balance(&answer, 100, 20, 0);
        let entry = p.entry().await;
        assert_eq!((entry.kind, entry.tokens, entry.flags), (Kind::Settle, 20, Flags::LATE));
    }

    fn due_but_unswept_progress_is_not_charged_besides(p) {
        p.grant(100, 0).await;
        p.overdue(1, 30, 15).await;
        let answer = p.ok(settle(1, 20)).await;
        Case::assert_balance(&answer, 100, 20, 0);
        assert_eq!(p.entry().await.kind, Kind::Settle);
    }

    fn expired_without_progress_it_is_charged_late(p) {
        p.grant(100, 0).await;
        p.overdue(1, 30, 0).await;
        p.ok(expire(1)).await;
        let answer = p.ok(settle(1, 20)).await;
        Case::assert_balance(&answer, 100, 20, 0);
        let entry = p.entry().await;
        assert_eq!((entry.kind, entry.tokens, entry.flags), (Kind::Settle, 20, Flags::LATE));
    }

    fn expired_it_loses_its_ttl_until_the_ack(p) {
        p.grant(100, 0).await;
        p.overdue(1, 30, 0).await;
        p.ok(expire(1)).await;
        p.assert_ttl(1, 86_400_000).await;
        p.ok(settle(1, 20)).await;
        assert_eq!(p.ttl(1).await, -1);
        p.flush_all().await;
        p.assert_ttl(1, 1_800_000).await;
    }

    fn late_and_above_the_hold_has_both_flags(p) {
        p.grant(100, 0).await;
        p.overdue(1, 30, 0).await;
        p.ok(expire(1)).await;
        p.ok(settle(1, 31)).await;
        assert_eq!(p.entry().await.flags, Flags::LATE.union(Flags::OVERAGE));
    }

    fn late_with_unknown_usage_charges_the_hold(p) {
        p.grant(100, 0).await;
        p.overdue(1, 30, 0).await;
        p.ok(expire(1)).await;
        p.ok(settle_unknown_usage(1)).await;
        let entry = p.entry().await;
        assert_eq!((entry.tokens, entry.flags), (30, Flags::LATE.union(Flags::ESTIMATED)));
    }

    fn a_correction_upward(p) {
        let answer = corrected(p, 30, 15, 20).await;
        Case::assert_balance(&answer, 100, 20, 0);
        assert_correction(p, 5, 20, Flags::LATE).await;
    }

    fn a_correction_downward(p) {
        let answer = corrected(p, 30, 15, 4).await;
        Case::assert_balance(&answer, 100, 4, 0);
        assert_correction(p, -11, 4, Flags::LATE).await;
    }

    fn a_correction_to_nothing(p) {
        let answer = corrected(p, 30, 15, 0).await;
        Case::assert_balance(&answer, 100, 0, 0);
        assert_correction(p, -15, 0, Flags::LATE).await;
    }

    fn a_correction_of_zero_is_recorded(p) {
        let answer = corrected(p, 30, 15, 15).await;
        Case::assert_balance(&answer, 100, 15, 0);
        assert_correction(p, 0, 15, Flags::LATE).await;
    }

    fn a_correction_above_the_hold_is_overage(p) {
        let answer = corrected(p, 30, 15, 31).await;
        Case::assert_balance(&answer, 100, 31, 0);
        assert_correction(p, 16, 31, Flags::LATE.union(Flags::OVERAGE)).await;
    }

    fn a_correction_of_unknown_usage_charges_the_hold(p) {
        p.grant(100, 0).await;
        p.overdue(1, 30, 15).await;
        p.ok(expire(1)).await;
        p.ok(settle_unknown_usage(1)).await;
        assert_correction(p, 15, 30, Flags::LATE.union(Flags::ESTIMATED)).await;
    }

    fn a_correction_counts_on_every_line(p) {
        p.grant(100, 0).await;
        p.load(1, 50, 0).await;
        let ops = [reserve(1, 30).also(1, 20).ttl(1), crate::ops::extend(1, 30).also(1, 20).second(15)];
        assert_eq!(p.statuses(&ops).await, [Status::Ok, Status::Ok]);
        p.wait_due(1).await;
        p.ok(expire(1).also(1, 0)).await;
        assert_eq!(p.balance_of(1).await, ["50", "15", "0"]);
        p.ok(settle(1, 20).also(1, 3)).await;
        assert_eq!(p.balance_of(0).await, ["100", "20", "0"]);
        assert_eq!(p.balance_of(1).await, ["50", "3", "0"]);
    }

    fn a_correction_is_booked_once(p) {
        corrected(p, 30, 15, 20).await;
        p.unchanged(settle(1, 20), Status::Replay).await;
        p.unchanged(settle(1, 21), Status::Mismatch).await;
        p.unchanged(settle_unknown_usage(1), Status::Mismatch).await;
    }

    fn the_first_of_two_acks_starts_no_retention(p) {
        corrected(p, 30, 15, 20).await;
        let entries = p.outbox().await;
        assert_eq!(p.flush(&entries[..1]).await, 1);
        assert_eq!(p.ttl(1).await, -1);
        assert_eq!(p.flush(&entries[1..]).await, 1);
        p.assert_ttl(1, 1_800_000).await;
    }

    fn nor_does_the_second_when_it_comes_first(p) {
        corrected(p, 30, 15, 20).await;
        let entries = p.outbox().await;
        assert_eq!(p.flush(&entries[1..]).await, 1);
        assert_eq!(p.ttl(1).await, -1);
        assert_eq!(p.flush(&entries[..1]).await, 1);
        p.assert_ttl(1, 1_800_000).await;
    }

    fn both_in_one_ack_start_it(p) {
        corrected(p, 30, 15, 20).await;
        assert_eq!(p.flush_all().await, 2);
        p.assert_ttl(1, 1_800_000).await;
    }

    fn an_expiry_acked_before_the_settle_is_still_corrected(p) {
        p.grant(100, 0).await;
        p.overdue(1, 30, 15).await;
        p.ok(expire(1)).await;
        p.flush_all().await;
        p.assert_ttl(1, 86_400_000).await;
        p.ok(settle(1, 20)).await;
        assert_eq!(p.ttl(1).await, -1);
        let entry = p.entry().await;
        assert_eq!((entry.kind, entry.tokens), (Kind::Correction, 5));
    }

    fn a_correction_past_2_to_the_53_is_out_of_range(p) {
        p.grant(MOST_TOTAL, MOST_TOTAL - MOST).await;
        p.overdue(1, 30, 15).await;
        p.ok(expire(1)).await;
        p.ok(debit(2, MOST - 16)).await;
        p.unchanged(settle(1, 17), Status::Range).await;
        p.ok(settle(1, 16)).await;
        assert_eq!(p.balance().await[1], "9007199254740991");
    }

    fn a_witness_of_an_expired_one_corrects_it(p) {
        p.grant(100, 0).await;
        p.overdue(1, 30, 15).await;
        p.ok(expire(1)).await;
        p.ok(settle(1, 20).options(Options::WITNESSED)).await;
        assert_correction(p, 5, 20, Flags::LATE).await;
    }

    fn a_late_settle_keeps_what_others_hold(p) {
        p.grant(100, 0).await;
        p.ok(reserve(2, 7)).await;
        p.overdue(1, 30, 0).await;
        p.ok(settle(1, 20)).await;
        assert_eq!(p.balance().await, ["100", "20", "7"]);
        p.ok(release(2)).await;
    }

    fn a_hold_of_an_older_epoch_gives_nothing_back(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.recover(2).await;
        p.grant(100, 0).await;
        p.ok(reserve(2, 7)).await;
        let answer = p.ok(settle(1, 20)).await;
        Case::assert_balance(&answer, 100, 20, 7);
        assert_eq!(answer.record.unwrap().flags, Flags::LATE);
    }
}
