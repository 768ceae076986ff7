//! When Redis is out of memory: what reports what has happened must still run, and the outbox must drain.

use cota::{
    ledger::{
        scripts,
        wire::{Operation, Status},
    },
    quota::State,
};

use crate::{
    case::Case,
    ops::{Tweak, debit, expire, extend, release, reserve, settle, settle_unknown_usage},
};

/// Less than is used already, and nothing may be evicted. The client's own buffers do not matter.
async fn exhaust(p: &mut Case) {
    p.command(&[b"CONFIG", b"SET", b"maxmemory-policy", b"noeviction"]).await;
    p.command(&[b"CONFIG", b"SET", b"maxmemory", b"1"]).await;
    let plain: redis::RedisResult<()> = redis::cmd("SET").arg("k").arg("v").query_async(&mut p.redis).await;
    assert!(plain.unwrap_err().to_string().contains("OOM"), "the premise: Redis refuses writes");
}

/// One pending, one overdue with progress, one in the outbox.
async fn exhausted(p: &mut Case) {
    p.grant(100, 0).await;
    p.ok(reserve(1, 30)).await;
    p.ok(debit(2, 5)).await;
    p.overdue(3, 10, 4).await;
    exhaust(p).await;
}

async fn runs(p: &mut Case, op: Operation) {
    p.ok(op).await;
}

contract! {
    fn settle_runs(p) {
        exhausted(p).await;
        runs(p, settle(1, 20)).await;
        assert_eq!(p.outbox().await.len(), 2);
    }

    fn settle_of_unknown_usage_runs(p) {
        exhausted(p).await;
        runs(p, settle_unknown_usage(1)).await;
    }

    fn debit_runs(p) {
        exhausted(p).await;
        runs(p, debit(9, 20)).await;
    }

    fn release_runs_and_leaves_tombstones(p) {
        exhausted(p).await;
        runs(p, release(1)).await;
        runs(p, release(9)).await;
    }

    fn expire_runs_and_charges_progress(p) {
        exhausted(p).await;
        runs(p, expire(3)).await;
        assert_eq!(p.rec(3).await.state, State::Expired);
    }

    fn reserve_and_extend_run_unless_the_service_says_full(p) {
        exhausted(p).await;
        let full = p.full();
        p.unchanged_with(&full, reserve(9, 1), Status::Full).await;
        p.unchanged_with(&full, extend(1, 31), Status::Full).await;
        runs(p, reserve(9, 1)).await;
        runs(p, extend(1, 31)).await;
    }

    fn ack_runs_and_the_outbox_drains(p) {
        exhausted(p).await;
        assert_eq!(p.flush_all().await, 1);
        assert_eq!(p.outbox().await, []);
        p.assert_ttl(2, 1_800_000).await;
    }

    fn sync_and_load_run(p) {
        exhausted(p).await;
        assert_eq!(p.sync(0, 200, 2, 1, false).await[2], 1);
        p.load(1, 50, 0).await;
    }

    fn reads_run(p) {
        exhausted(p).await;
        assert_eq!(p.due(64).await.2.len(), 1);
        let keys = [p.keys.meta(), p.keys.expiry(), p.budget_keys(0)[1].clone()];
        let args = p.load_args(0, 0, 0, false, 0);
        p.call(&scripts::PEEK, &keys, &args[..3]).await;
    }

    fn a_whole_recovery_runs(p) {
        exhausted(p).await;
        p.begin_recovery(2).await;
        p.flush_all().await;
        assert_eq!(p.load_recovering(0, 100, 5).await[2], 1);
        assert_eq!(p.carry(&[(0, 0, 1), (0, 0, 3)]).await, [0, 2]);
        assert_eq!(p.open(2, 1_000, true).await[0], 0);
        runs(p, settle(1, 20)).await;
        assert_eq!(p.balance().await, ["100", "25", "10"]);
    }

    fn a_mixed_batch_runs_whole(p) {
        exhausted(p).await;
        let ops = [settle(1, 20), reserve(9, 5).ttl(1_000), release(9), expire(3), debit(8, 1)];
        assert_eq!(p.statuses(&ops).await, [Status::Ok; 5]);
    }
}
