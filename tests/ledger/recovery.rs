//! What recovery owes to each kind of loss, one at a time and without luck. The flusher is kept away where a test needs
//! settles that Postgres does not have yet.

use std::time::Duration;

use cota::{
    ledger::{Refusal, keys::member},
    quota::{BudgetId, Charge, Extend, Flags, Kind, State, UserId},
};
use tokio::time::Instant;

use crate::support::world::{World, deadline, id, tokens, until};

/// Nothing reaches Postgres by itself in these.
const NEVER_MS: u64 = 3_600_000;

async fn flush_redis(world: &World) {
    let () = redis::cmd("FLUSHALL").query_async(&mut world.redis_connection().await).await.unwrap();
}

/// Waits until the partition of a user has left this epoch behind and serves again. Asks for the user meanwhile: where no
/// flusher reads, it takes a call to notice that Redis has lost its state.
async fn next_epoch(world: &World, user: UserId, before: u64) {
    until("the partition has recovered", async || {
        let _ = world.ledger().account(user, Instant::now() + Duration::from_millis(200)).await;
        world.epoch(user).await > before
    })
    .await;
    world.all_open().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_deployment_opens_by_itself() {
    let world = World::start(1).await;
    let user = world.user(1).await;
    assert_eq!(world.epoch(user).await, 1);
    let mut redis = world.redis_connection().await;
    let recovered: Option<String> =
        redis::cmd("HGET").arg(world.keys(user).meta()).arg("ra").query_async(&mut redis).await.unwrap();
    assert_eq!(recovered, None, "nothing was lost, so nothing unknown is charged");
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_start_on_the_same_redis_just_goes_on() {
    let world = World::start(1).await;
    let user = world.user(100).await;
    world.reserve(user, "a", 10).await.unwrap();
    let replica = world.replicas.write().unwrap().remove(0);
    replica.stop().await;
    world.add_replica();
    world.all_open().await;
    assert_eq!(world.epoch(user).await, 1);
    assert_eq!(world.balance(user).await, (90, 10, 0));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acked_settle_survives_the_loss_of_redis_in_the_ring() {
    let world = World::with(2, |config| config.flusher.interval_ms = NEVER_MS).await;
    let user = world.user(1_000).await;
    let before = world.epoch(user).await;
    world.reserve(user, "a", 100).await.unwrap();
    let acked = world.settle(user, "a", 70).await.unwrap();
    world.debit(user, "d", 5).await.unwrap();
    flush_redis(&world).await;
    next_epoch(&world, user, before).await;
    assert_eq!(world.balance(user).await, (925, 0, 75));
    let again = world.settle(user, "a", 70).await.unwrap();
    assert_eq!((again.replayed, again.subject.id), (true, acked.subject.id));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_is_witnessed_too() {
    // ◆ The replica that acked first is gone; the one that acked the repeat is the only witness.
    let world = World::with(2, |config| config.flusher.interval_ms = NEVER_MS).await;
    let user = world.user(1_000).await;
    world.reserve(user, "a", 100).await.unwrap();
    world.settle_on(0, user, "a", Charge::Tokens(tokens(70))).await.unwrap();
    assert!(world.settle_on(1, user, "a", Charge::Tokens(tokens(70))).await.unwrap().replayed);
    let before = world.epoch(user).await;
    world.kill_replica();
    flush_redis(&world).await;
    next_epoch(&world, user, before).await;
    assert_eq!(world.balance(user).await, (930, 0, 70));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_too_late_for_the_recovery_runs_its_settles_again() {
    // ◆ Ring entries that missed the window are charged as witnessed, although Redis knows nothing of them.
    let mut world = World::with(0, |config| {
        config.flusher.interval_ms = NEVER_MS;
        config.ledger.witness_wait_ms = 0;
    })
    .await;
    world.add_replica();
    world.config.ledger.poll_interval_ms = 2_500;
    world.add_replica();
    world.all_open().await;
    let user = world.user(1_000).await;
    world.reserve_on(1, user, "a", 100, 600).await.unwrap();
    world.settle_on(1, user, "a", Charge::Tokens(tokens(70))).await.unwrap();
    let before = world.epoch(user).await;
    flush_redis(&world).await;
    next_epoch(&world, user, before).await;
    until("the late witness has spoken", async || world.balance(user).await == (930, 0, 70)).await;
    // One that does flush.
    world.config.flusher.interval_ms = 25;
    world.add_replica();
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settle_of_a_reservation_that_redis_lost_is_charged_and_flagged() {
    // ◆ The reservation was acked and lost; real usage must not be free.
    let world = World::start(1).await;
    let user = world.user(1_000).await;
    world.reserve(user, "a", 100).await.unwrap();
    let before = world.epoch(user).await;
    flush_redis(&world).await;
    next_epoch(&world, user, before).await;
    let settled = world.settle(user, "a", 70).await.unwrap();
    assert!(settled.subject.flags.contains(Flags::RECOVERED));
    assert_eq!(world.balance(user).await, (930, 0, 70));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settle_that_redis_forgot_but_the_ledger_has_is_not_carried_over() {
    // ◆ Redis goes back to before a flushed settle: its record is pending again.
    let world = World::start(1).await;
    let user = world.user(1_000).await;
    let keys = world.keys(user);
    let (record, budget) = (keys.record(user, &id("a")), keys.budget(BudgetId::Balance(user)));
    world.reserve(user, "a", 100).await.unwrap();
    let mut redis = world.redis_connection().await;
    let mut saved = Vec::new();
    for key in [&record, &budget, &keys.expiry(), &keys.meta()] {
        let dump: Vec<u8> = redis::cmd("DUMP").arg(key).query_async(&mut redis).await.unwrap();
        saved.push((key.to_vec(), dump));
    }
    world.settle(user, "a", 70).await.unwrap();
    crate::support::invariants::settle_down(&world).await;
    let before = world.epoch(user).await;
    for (key, dump) in saved {
        let restore = redis::cmd("RESTORE").arg(key).arg(0).arg(dump).arg("REPLACE").to_owned();
        let () = restore.query_async(&mut redis).await.unwrap();
    }
    next_epoch(&world, user, before).await;
    assert_eq!(world.balance(user).await, (930, 0, 70), "nothing is held for it any more");
    assert!(world.settle(user, "a", 70).await.unwrap().replayed);
    assert_eq!(world.settle(user, "a", 71).await.unwrap_err(), Refusal::Mismatch);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pending_reservations_are_carried_over_with_their_holds() {
    // ◆ The budgets they hold are loaded in the recovery; an expiry then gives back what this life counts.
    let world = World::start(1).await;
    let user = world.user(1_000).await;
    world.reserve(user, "long", 100).await.unwrap();
    world.reserve_on(0, user, "short", 50, 3).await.unwrap();
    let ask = Extend { id: id("short"), tokens: None, ttl_seconds: None, used_tokens: Some(tokens(20)) };
    world.ledger().extend(user, ask, deadline()).await.unwrap();
    let before = world.epoch(user).await;
    let mut redis = world.redis_connection().await;
    let () = redis::cmd("DEL").arg(world.keys(user).meta()).query_async(&mut redis).await.unwrap();
    next_epoch(&world, user, before).await;
    until("the short one has expired, uncharged", async || world.balance(user).await == (900, 100, 0)).await;
    world.settle(user, "long", 100).await.unwrap();
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hold_that_recovery_never_met_gives_nothing_back() {
    let world = World::start(1).await;
    let user = world.user(1_000).await;
    world.reserve(user, "a", 100).await.unwrap();
    let before = world.epoch(user).await;
    let (keys, mut redis) = (world.keys(user), world.redis_connection().await);
    let () = redis::cmd("ZREM")
        .arg(keys.expiry())
        .arg(member(user, &id("a")))
        .query_async(&mut redis)
        .await
        .unwrap();
    let () = redis::cmd("DEL").arg(keys.meta()).query_async(&mut redis).await.unwrap();
    next_epoch(&world, user, before).await;
    assert_eq!(world.balance(user).await, (1_000, 0, 0));
    let settled = world.settle(user, "a", 70).await.unwrap();
    assert!(settled.subject.flags.contains(Flags::LATE));
    assert_eq!(world.balance(user).await, (930, 0, 70));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiry_that_only_postgres_remembers_is_corrected_by_the_settle() {
    // ◆ Only an expiry row: settle again with what it charged, and the script books the difference.
    let world = World::with(1, |config| config.ledger.expired_retention_seconds = 1).await;
    let user = world.user(1_000).await;
    world.reserve_on(0, user, "a", 100, 1).await.unwrap();
    let ask = Extend { id: id("a"), tokens: None, ttl_seconds: None, used_tokens: Some(tokens(60)) };
    world.ledger().extend(user, ask, deadline()).await.unwrap();
    let (key, mut redis) = (world.keys(user).record(user, &id("a")), world.redis_connection().await);
    until("Redis has forgotten it", async || {
        !redis::cmd("EXISTS").arg(&key).query_async::<bool>(&mut redis).await.unwrap()
    })
    .await;
    assert_eq!(world.balance(user).await, (940, 0, 60));
    let settled = world.settle(user, "a", 45).await.unwrap();
    assert_eq!((settled.subject.kind, settled.subject.tokens), (Kind::Correction, 45));
    assert_eq!(world.balance(user).await, (955, 0, 45));
    assert_eq!(world.ledger().reservation(user, id("a"), deadline()).await.unwrap().state, State::Settled);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_that_postgres_has_left_does_not_say_404() {
    // ◆ A stale master must not deny a reservation: rows count only with the partition's life.
    let world = World::with(1, |config| config.ledger.poll_interval_ms = 2_000).await;
    let user = world.user(1_000).await;
    world.balance(user).await;
    let before = world.epoch(user).await;
    let partition = world.partitions.of(user);
    world.store.begin_recovery(partition, before, 0).await.unwrap();
    let settled = world.settle(user, "nobody", 10).await.unwrap();
    assert!(settled.subject.flags.contains(Flags::RECOVERED), "the answer came from the life after");
    assert!(world.epoch(user).await > before + 1);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_lost_one_kind_at_a_time_never_give_more_quota() {
    for kind in ["m", "x", "o"] {
        let world = World::with(1, |config| config.flusher.interval_ms = NEVER_MS).await;
        let user = world.user(100).await;
        world.reserve(user, "a", 40).await.unwrap();
        world.debit(user, "d", 50).await.unwrap();
        let keys = world.keys(user);
        let key = match kind {
            "m" => keys.meta(),
            "x" => keys.expiry(),
            _ => keys.outbox(),
        };
        let mut redis = world.redis_connection().await;
        let () = redis::cmd("DEL").arg(key).query_async(&mut redis).await.unwrap();
        world.all_open().await;
        let refused = world.reserve(user, "b", 51).await.unwrap_err();
        assert!(matches!(refused, Refusal::Insufficient { .. }), "{kind}: {refused:?}");
    }
}
