//! Accounts Redis does not know.

use std::time::Duration;

use cota::{ledger::Refusal, quota::UserId};
use futures_util::future::join_all;
use tokio::time::Instant;

use crate::support::world::{World, deadline, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_account_loads_itself_on_first_use() {
    let world = World::start(1).await;
    let user = world.user(100).await;
    assert_eq!(world.balance(user).await, (100, 0, 0));
    world.reserve(user, "a", 10).await.unwrap();
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_user_is_not_found_by_any_verb() {
    let world = World::start(1).await;
    let nobody = UserId::generate();
    assert_eq!(world.reserve(nobody, "a", 1).await.unwrap_err(), Refusal::UserNotFound);
    assert_eq!(world.settle(nobody, "a", 1).await.unwrap_err(), Refusal::UserNotFound);
    assert_eq!(world.debit(nobody, "a", 1).await.unwrap_err(), Refusal::UserNotFound);
    assert_eq!(world.release(nobody, "a").await.unwrap_err(), Refusal::UserNotFound);
    assert_eq!(world.ledger().account(nobody, deadline()).await.unwrap_err(), Refusal::UserNotFound);
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_redis_lost_is_never_a_new_one_with_full_quota() {
    // ◆ Case 83: a balance key deleted by hand. The account was loaded in this epoch, so its absence is a loss.
    let world = World::start(2).await;
    let user = world.user(100).await;
    world.reserve(user, "pending", 30).await.unwrap();
    world.debit(user, "d", 50).await.unwrap();
    let mut redis = world.redis_connection().await;
    let key = world.keys(user).budget(cota::quota::BudgetId::Balance(user));
    // Handed over long ago: nobody can be carrying it any more.
    world.sql("UPDATE user_accounts SET loaded_at = loaded_at - interval '1 hour'").await;
    let () = redis::cmd("DEL").arg(key).query_async(&mut redis).await.unwrap();
    until("the loss is noticed and repaired", async || {
        world.ledger().account(user, deadline()).await.is_ok_and(|account| account.balance.used == 50)
    })
    .await;
    assert_eq!(world.balance(user).await, (20, 30, 50));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_whose_first_caller_left_while_it_was_loaded_is_not_taken_for_a_lost_one() {
    let world = World::start(2).await;
    let mut users = Vec::new();
    for _ in 0..300 {
        users.push(world.user(100).await);
    }
    let epoch = world.epoch(users[0]).await;
    // They leave at every moment of a load.
    let hurried = users.iter().enumerate().map(|(n, user)| {
        let (ledger, leaves) = (world.ledger_at(n), Instant::now() + Duration::from_micros(100 * n as u64));
        async move { ledger.account(*user, leaves).await }
    });
    join_all(hurried).await;
    for balance in join_all(users.iter().map(|user| world.balance(*user))).await {
        assert_eq!(balance, (100, 0, 0));
    }
    assert_eq!(world.epoch(users[0]).await, epoch, "nothing was lost, so nothing had to recover");
    world.check().await;
}
