//! Grants, suspensions and policies on their way to Redis.

use cota::{
    ledger::{Refusal, wire::StoredBudget},
    store::{User, UserStatus},
};
use futures_util::future::join_all;

use crate::support::world::{World, deadline, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_arrives_by_itself_and_counts_once_with_many_replicas() {
    let world = World::start(4).await;
    let user = world.user(100).await;
    world.reserve(user, "warm", 100).await.unwrap();
    for n in 0..10 {
        world.credit(user, 10, &format!("k{n}")).await;
        world.credit(user, 10, &format!("k{n}")).await;
    }
    until("all grants are in Redis", async || world.balance(user).await == (100, 100, 0)).await;
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_replicas_starting_at_once_count_a_grant_once() {
    let world = World::with(0, |config| config.postgres.max_connections = 4).await;
    let user = world.user(1_000).await;
    for _ in 0..20 {
        world.add_replica();
    }
    let calls = (0..20).map(|n| {
        let world = &world;
        async move {
            until("its first reserve is answered", async || {
                world.reserve_on(n, user, &format!("r{n}"), 100, 60).await.is_ok()
                    || world.balance(user).await.0 < 100
            })
            .await;
        }
    });
    join_all(calls).await;
    assert_eq!(world.balance(user).await, (0, 1_000, 0));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspension_binds_the_next_reserve_on_every_replica() {
    let world = World::start(2).await;
    let user = world.user(100).await;
    world.reserve(user, "before", 10).await.unwrap();
    let suspended: Option<User> = world.store.set_status(user, UserStatus::Suspended).await.unwrap();
    assert!(suspended.is_some());
    assert!(world.ledger().sync_now(user, deadline()).await);
    for replica in 0..2 {
        let refused = world.reserve_on(replica, user, &format!("r{replica}"), 1, 60).await.unwrap_err();
        assert_eq!(refused, Refusal::Suspended);
    }
    world.settle(user, "before", 5).await.unwrap();
    world.store.set_status(user, UserStatus::Active).await.unwrap();
    assert!(world.ledger().sync_now(user, deadline()).await);
    world.reserve(user, "after", 1).await.unwrap();
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_with_an_old_policy_admits_nothing_by_it() {
    // ◆ STALE: the version named with a reserve must be the one Redis has.
    let world = World::start(2).await;
    let user = world.user(100).await;
    world.reserve_on(0, user, "a", 10, 60).await.unwrap();
    world.reserve_on(1, user, "b", 10, 60).await.unwrap();
    world.sql("UPDATE user_accounts SET policy_version = 2, version = version + 1").await;
    assert!(world.ledger().sync_now(user, deadline()).await);
    world.reserve_on(1, user, "c", 10, 60).await.unwrap();
    let mut redis = world.redis_connection().await;
    let key = world.keys(user).budget(cota::quota::BudgetId::Balance(user));
    let bytes: Vec<u8> = redis::cmd("GET").arg(key).query_async(&mut redis).await.unwrap();
    assert_eq!(StoredBudget::decode(&bytes).unwrap().policy_version, 2);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn spend_not_yet_flushed_survives_a_purchase() {
    // Case 82: the state that arrives never carries spend.
    let world = World::with(1, |config| config.flusher.interval_ms = 2_000).await;
    let user = world.user(100).await;
    world.debit(user, "d", 40).await.unwrap();
    world.credit(user, 10, "more").await;
    assert!(world.ledger().sync_now(user, deadline()).await);
    assert_eq!(world.balance(user).await, (70, 0, 40));
    world.check().await;
}
