//! A service on a database that was restored: with the Redis it had, and with an empty one.

use std::collections::BTreeMap;

use cota::{
    config::Secret,
    crypto::Keyring,
    quota::{ReservationId, UserId},
    store::Store,
};
use serde_json::json;
use uuid::Uuid;

use super::{backup, restore, with_password, world};
use crate::{
    gateway::Gateways,
    replica::{Replica, gateway_jwt},
    support::{
        TempFolder, TestDatabase, empty_database, invariants,
        world::{World, until},
    },
};

const WORKERS: usize = 8;

/// What is to be found again.
struct Before {
    /// Acked by user.
    acked: BTreeMap<UserId, u64>,
    users: Vec<UserId>,
}

/// Backs up under load, goes on for a while, then loses both replicas and the database; gives the restored one.
async fn lose_and_restore(world: &mut World) -> Before {
    let folder = TempFolder::new();
    let mut users = Vec::new();
    for _ in 0..3 {
        users.push(world.user(1_000_000_000).await);
    }
    let config = world.config.clone();
    let mut replicas = [Replica::start(&config).await, Replica::start(&config).await];
    let urls: Vec<String> = replicas.iter().map(|replica| replica.url.clone()).collect();
    let url = urls[0].clone();
    let gateways = Gateways::new(world, urls, gateway_jwt(&config));
    let (_, made) = tokio::join!(gateways.run(&users, WORKERS), async {
        gateways.progress(100).await;
        let made = backup(config.postgres.url.expose(), &folder).await;
        gateways.progress(100).await;
        gateways.stop();
        made
    });
    // One that is under way; it must be carried over.
    let path = format!("{url}/v1/users/{}/reservations", users[0]);
    post(&path, &gateway_jwt(&config), &json!({"id": "under-way", "tokens": 500})).await;
    for replica in &mut replicas {
        replica.signal("KILL");
        replica.ended().await;
    }
    let mut acked: BTreeMap<UserId, u64> = BTreeMap::new();
    for ((user, _), tokens) in &world.journal.lock().unwrap().acked {
        *acked.entry(*user).or_default() += tokens;
    }
    move_to(world, empty_database().await, &made).await;
    assert!(total(&used(&world.database).await) < total(&acked), "something is missing in the backup");
    Before { acked, users }
}

async fn move_to(world: &mut World, database: TestDatabase, made: &std::path::Path) {
    let url = with_password(database.url());
    let said = restore(&url, made).await.done();
    assert!(said.contains("The audit log is sound"), "{said}");
    world.config.postgres.url = Secret::new(&url);
    world.store =
        Store::connect(&world.config.postgres, &Keyring::of(&world.config.keys).unwrap()).await.unwrap();
    world.database = database;
}

async fn post(url: &str, jwt: &str, body: &serde_json::Value) {
    let answer = reqwest::Client::new().post(url).bearer_auth(jwt).json(body).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
}

fn total(by_user: &BTreeMap<UserId, u64>) -> u64 {
    by_user.values().sum()
}

async fn used(database: &TestDatabase) -> BTreeMap<UserId, u64> {
    let rows: Vec<(Uuid, i64)> =
        sqlx::query_as("SELECT id, used_tokens FROM user_accounts").fetch_all(database.pool()).await.unwrap();
    rows.into_iter().map(|(id, used)| (UserId(id), used as u64)).collect()
}

/// The journal as far as the restored ledger can have it: rows that are lost are in the debits that make up for them.
async fn rewrite_journal(world: &World) -> usize {
    let rows: Vec<(Uuid, String)> = sqlx::query_as("SELECT user_id, reservation_id FROM token_transactions")
        .fetch_all(world.database.pool())
        .await
        .unwrap();
    let names: Vec<_> =
        rows.into_iter().map(|(user, id)| (UserId(user), ReservationId::new(&id).unwrap())).collect();
    let mut journal = world.journal.lock().unwrap();
    journal.acked.retain(|name, _| names.contains(name));
    let made_up: Vec<_> =
        names.into_iter().filter(|(_, id)| id.as_str().starts_with("cota-restored-")).collect();
    journal.asked.extend(made_up.iter().cloned());
    made_up.len()
}

/// It serves again: what was reserved before can be settled, and new calls are taken.
async fn goes_on(world: &World, replica: &Replica, user: UserId, reserved: &str) {
    let jwt = gateway_jwt(&world.config);
    let reservations = format!("{}/v1/users/{user}/reservations", replica.url);
    if reserved == "new" {
        post(&reservations, &jwt, &json!({"id": reserved, "tokens": 500})).await;
    }
    post(&format!("{reservations}/{reserved}/settle"), &jwt, &json!({"tokens": 77})).await;
    let mut journal = world.journal.lock().unwrap();
    let name = (user, ReservationId::new(reserved).unwrap());
    journal.asked.insert(name.clone());
    journal.acked.insert(name, 77);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_redis_it_had_nothing_that_was_used_is_free() {
    let mut world = world().await;
    let before = lose_and_restore(&mut world).await;
    let replica = Replica::start(&world.config).await;
    invariants::settle_down(&world).await;
    assert_eq!(used(&world.database).await, before.acked, "what Redis knew is booked");
    assert!(rewrite_journal(&world).await > 0);
    goes_on(&world, &replica, before.users[0], "under-way").await;
    invariants::settle_down(&world).await;
    invariants::check(&world).await;
    let metrics = reqwest::get(&replica.metrics_url).await.unwrap().text().await.unwrap();
    let gauge = |line: &&str| line.starts_with("cota_postgres_went_back_timestamp_seconds ");
    let alarm = metrics.lines().find(gauge).unwrap();
    assert!(!alarm.ends_with(" 0"), "{alarm}");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_an_empty_redis_everything_is_as_in_the_backup() {
    let mut world = world().await;
    let before = lose_and_restore(&mut world).await;
    let restored = used(&world.database).await;
    let () = redis::cmd("FLUSHALL").query_async(&mut world.redis_connection().await).await.unwrap();
    let replica = Replica::start(&world.config).await;
    assert_eq!(used(&world.database).await, restored);
    assert_eq!(rewrite_journal(&world).await, 0);
    goes_on(&world, &replica, before.users[0], "new").await;
    invariants::settle_down(&world).await;
    invariants::check(&world).await;
}

/// Somebody restored it by other means, so that nothing is marked; or a standby that lagged has taken over.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_went_back_without_a_word_is_found_out() {
    let mut world = world().await;
    let partitions = world.store.partitions().await.unwrap().len();
    let before = lose_and_restore(&mut world).await;
    let mut redis = world.redis_connection().await;
    for partition in world.partitions.iter() {
        let key = cota::ledger::keys::Keys::of(partition, world.partitions).meta();
        let (epoch, run_id): (i64, String) =
            redis::cmd("HMGET").arg(key).arg("ep").arg("ri").query_async(&mut redis).await.unwrap();
        sqlx::query(
            "UPDATE partitions SET state = 'open', step = 7, restored_at = NULL, epoch = $2, run_id = $3 WHERE id = $1",
        )
        .bind(partition.0 as i16)
        .bind(epoch)
        .bind(run_id)
        .execute(world.database.pool())
        .await
        .unwrap();
    }
    assert_eq!(partitions, 2);
    let _replica = Replica::start(&world.config).await;
    until("what was lost is booked", async || used(&world.database).await == before.acked).await;
    rewrite_journal(&world).await;
    invariants::settle_down(&world).await;
    invariants::check(&world).await;
}
