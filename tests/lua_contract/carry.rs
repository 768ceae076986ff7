//! carry: what recovery makes of reservations that Redis still has.

use cota::{
    ledger::{
        keys::member,
        wire::{Status, StoredBudget},
    },
    quota::{Flags, Kind, State},
};

use crate::{
    case::Case,
    ops::{Tweak, expire, extend, release, reserve, settle},
    support::partition::{rid, user},
};

const CARRIED_OVER: u8 = 0;
const SETTLED: u8 = 1;
const EXPIRED: u8 = 2;
const LOST: i64 = 5;

/// One reservation of 30 with progress 12, in a partition that recovers under epoch 2; its account is loaded.
async fn recovering(p: &mut Case) {
    p.grant(100, 0).await;
    p.ok(reserve(1, 30)).await;
    p.ok(extend(1, 30).second(12)).await;
    p.begin_recovery(2).await;
    assert_eq!(p.load_recovering(0, 100, 0).await[2], 1);
}

async fn open(p: &mut Case) {
    assert_eq!(p.open(2, 1_000_000, true).await[0], 0);
}

contract! {
    fn a_hold_is_counted_in_the_new_epoch(p) {
        recovering(p).await;
        assert_eq!(p.carry(&[(CARRIED_OVER, 0, 1)]).await, [0, 1]);
        let record = p.rec(1).await;
        assert_eq!((record.state, record.epoch, record.lines[0].amount), (State::Pending, 2, 30));
        assert_eq!(p.balance().await, ["100", "0", "30"]);
        assert_eq!(p.ttl(1).await, -1);
    }

    fn repeated_it_counts_once(p) {
        recovering(p).await;
        for _ in 0..3 {
            assert_eq!(p.carry(&[(CARRIED_OVER, 0, 1)]).await, [0, 1]);
        }
        assert_eq!(p.carry(&[(CARRIED_OVER, 0, 1), (CARRIED_OVER, 0, 1)]).await, [0, 2]);
        assert_eq!(p.balance().await[2], "30");
    }

    fn its_time_stays_and_its_progress_is_dropped(p) {
        recovering(p).await;
        let before = p.rec(1).await;
        p.carry(&[(CARRIED_OVER, 0, 1)]).await;
        let after = p.rec(1).await;
        assert_eq!(
            (after.expires_at_ms, after.reserved_at_ms),
            (before.expires_at_ms, before.reserved_at_ms)
        );
        assert_eq!((before.progress, after.progress), (12, 0));
        assert_eq!((after.fingerprint, after.metadata), (before.fingerprint, before.metadata));
    }

    fn carried_over_it_settles_like_any_other(p) {
        recovering(p).await;
        p.carry(&[(CARRIED_OVER, 0, 1)]).await;
        open(p).await;
        p.unchanged(reserve(1, 30), Status::Replay).await;
        let answer = p.ok(settle(1, 20)).await;
        Case::assert_balance(&answer, 100, 20, 0);
        assert_eq!(answer.record.unwrap().flags.0, 0);
    }

    fn carried_over_it_releases_like_any_other(p) {
        recovering(p).await;
        p.carry(&[(CARRIED_OVER, 0, 1)]).await;
        open(p).await;
        Case::assert_balance(&p.ok(release(1)).await, 100, 0, 0);
    }

    fn carried_over_it_expires_as_released(p) {
        p.grant(100, 0).await;
        p.overdue(1, 30, 12).await;
        p.begin_recovery(2).await;
        p.load_recovering(0, 100, 0).await;
        p.carry(&[(CARRIED_OVER, 0, 1)]).await;
        open(p).await;
        Case::assert_balance(&p.ok(expire(1)).await, 100, 0, 0);
        assert_eq!(p.outbox().await, []);
    }

    fn settled_in_the_ledger(p) {
        recovering(p).await;
        assert_eq!(p.carry(&[(SETTLED, 20, 1)]).await, [0, 0]);
        let record = p.rec(1).await;
        assert_eq!((record.state, record.charged, record.charged_by_expiry), (State::Settled, 20, 0));
        assert_eq!(p.index().await.len(), 0);
        assert_eq!(p.balance().await, ["100", "0", "0"]);
        p.assert_ttl(1, 1_800_000).await;
        open(p).await;
        p.unchanged(settle(1, 20), Status::Replay).await;
        p.unchanged(settle(1, 21), Status::Mismatch).await;
        p.unchanged(release(1), Status::Finished).await;
    }

    fn expired_in_the_ledger_is_corrected_by_a_late_settle(p) {
        recovering(p).await;
        assert_eq!(p.carry(&[(EXPIRED, 12, 1)]).await, [0, 0]);
        let record = p.rec(1).await;
        assert_eq!((record.state, record.charged, record.charged_by_expiry), (State::Expired, 12, 12));
        p.assert_ttl(1, 86_400_000).await;
        open(p).await;
        p.flushed.insert(user(0), 12);
        let budget = p.budget(user(0)).await.unwrap();
        p.set_budget(user(0), &StoredBudget { spent: 12, ..budget }).await;
        Case::assert_balance(&p.ok(settle(1, 20)).await, 100, 20, 0);
        let entry = p.entry().await;
        assert_eq!((entry.kind, entry.tokens, entry.flags), (Kind::Correction, 8, Flags::LATE));
    }

    fn a_verdict_repeated_is_the_same(p) {
        recovering(p).await;
        p.carry(&[(SETTLED, 20, 1)]).await;
        let before = p.dump().await;
        assert_eq!(p.carry(&[(SETTLED, 20, 1)]).await, [0, 0]);
        assert_eq!(p.carry(&[(CARRIED_OVER, 0, 1)]).await, [0, 0]);
        assert_eq!(p.dump().await, before);
    }

    fn a_missing_record_leaves_the_index(p) {
        recovering(p).await;
        let (index, ghost) = (p.keys.expiry(), member(user(0), &rid(9)));
        p.command(&[b"ZADD", &index, b"1", &ghost]).await;
        assert_eq!(p.carry(&[(CARRIED_OVER, 0, 9), (CARRIED_OVER, 0, 1)]).await, [0, 1]);
        assert_eq!(p.index().await, [member(user(0), &rid(1))]);
        assert_eq!(p.balance().await[2], "30");
    }

    fn a_finished_record_leaves_the_index_and_stays_as_it_is(p) {
        p.grant(100, 0).await;
        p.ok(reserve(1, 30)).await;
        p.ok(settle(1, 20)).await;
        p.begin_recovery(2).await;
        p.load_recovering(0, 100, 0).await;
        let (index, ghost, before) = (p.keys.expiry(), member(user(0), &rid(1)), p.rec(1).await);
        p.command(&[b"ZADD", &index, b"1", &ghost]).await;
        assert_eq!(p.carry(&[(CARRIED_OVER, 0, 1)]).await, [0, 0]);
        assert_eq!((p.index().await.len(), p.rec(1).await), (0, before));
        p.flushed.insert(user(0), -20);
    }

    fn a_record_of_an_unknown_format_is_left_alone(p) {
        recovering(p).await;
        p.plant_unknown_format(2).await;
        let (index, planted) = (p.keys.expiry(), member(user(0), &rid(2)));
        p.command(&[b"ZADD", &index, b"1", &planted]).await;
        assert_eq!(p.carry(&[(SETTLED, 5, 2), (CARRIED_OVER, 0, 1)]).await, [0, 1]);
        assert!(p.index().await.contains(&planted));
        assert_eq!(p.ttl(2).await, -1);
    }

    fn overtaken_it_is_lost(p) {
        recovering(p).await;
        p.fence(3).await;
        let before = p.dump().await;
        assert_eq!(p.carry(&[(CARRIED_OVER, 0, 1)]).await, [LOST]);
        assert_eq!(p.dump().await, before);
    }

    fn once_open_it_is_lost(p) {
        recovering(p).await;
        p.carry(&[(CARRIED_OVER, 0, 1)]).await;
        open(p).await;
        let before = p.dump().await;
        assert_eq!(p.carry(&[(SETTLED, 20, 1)]).await, [LOST]);
        assert_eq!(p.dump().await, before);
    }

    fn without_a_meta_hash_it_is_lost(p) {
        p.command(&[b"FLUSHALL"]).await;
        assert_eq!(p.carry(&[(CARRIED_OVER, 0, 1)]).await, [LOST]);
        assert_eq!(p.dump().await, []);
    }

    fn carried_by_an_overtaken_attempt_it_is_carried_again(p) {
        recovering(p).await;
        p.carry(&[(CARRIED_OVER, 0, 1)]).await;
        p.begin_recovery(3).await;
        assert_eq!(p.load_recovering(0, 100, 0).await[2], 1);
        assert_eq!(p.balance().await[2], "0");
        assert_eq!(p.carry(&[(CARRIED_OVER, 0, 1)]).await, [0, 1]);
        assert_eq!((p.balance().await[2].as_str(), p.rec(1).await.epoch), ("30", 3));
    }

    fn several_verdicts_in_one_call(p) {
        p.grant(100, 0).await;
        for id in 1..=4 {
            p.ok(reserve(id, 10)).await;
        }
        p.begin_recovery(2).await;
        p.load_recovering(0, 100, 12).await;
        let verdicts = [(CARRIED_OVER, 0, 1), (SETTLED, 8, 2), (EXPIRED, 4, 3), (CARRIED_OVER, 0, 4)];
        assert_eq!(p.carry(&verdicts).await, [0, 2]);
        assert_eq!(p.balance().await, ["100", "12", "20"]);
        let mut states = Vec::new();
        for id in 1..=4 {
            states.push(p.rec(id).await.state);
        }
        assert_eq!(states, [State::Pending, State::Settled, State::Expired, State::Pending]);
    }

    fn what_was_not_carried_counts_as_expired_and_gives_nothing_back(p) {
        recovering(p).await;
        open(p).await;
        p.ok(reserve(2, 7)).await;
        p.unchanged(reserve(1, 30), Status::Finished).await;
        p.unchanged(extend(1, 40), Status::Finished).await;
        let answer = p.ok(settle(1, 20)).await;
        Case::assert_balance(&answer, 100, 20, 7);
        assert_eq!(answer.record.unwrap().flags, Flags::LATE);
    }
}
