//! What a deployment meets: replicas ended and killed, stores restarted, each under load with two replicas; then
//! nothing is lost, and nothing is there twice.

use cota::config::Secret;

use crate::{
    gateway::Gateways,
    replica::{Replica, gateway_jwt},
    support::world::World,
};

const WORKERS: usize = 16;
const SECRET: &str = "a secret of more than thirty-two bytes";

/// Two replicas and gateways that go on while something happens.
async fn under_load(world: World, fault: impl AsyncFnOnce(&World, &mut [Replica; 2], &Gateways<'_>)) {
    let config = &world.config;
    let mut replicas = [Replica::start(config).await, Replica::start(config).await];
    let mut users = Vec::new();
    for _ in 0..4 {
        users.push(world.user(1_000_000_000).await);
    }
    let urls = replicas.iter().map(|replica| replica.url.clone()).collect();
    let gateways = Gateways::new(&world, urls, gateway_jwt(config));
    tokio::join!(gateways.run(&users, WORKERS), async {
        gateways.progress(100).await;
        fault(&world, &mut replicas, &gateways).await;
        gateways.progress(100).await;
        gateways.stop();
    });
    world.check().await;
}

async fn world() -> World {
    World::with(0, |config| config.auth.hs256_secret = Secret::new(SECRET)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_ended_by_sigterm_answers_what_it_has_and_ends_well() {
    under_load(world().await, async |world, replicas, gateways| {
        replicas[0].signal("TERM");
        assert!(replicas[0].ended().await, "it drains and ends with success");
        gateways.progress(50).await;
        replicas[0] = Replica::start(&world.config).await;
        gateways.set_urls(replicas.iter().map(|replica| replica.url.clone()).collect());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_killed_loses_nothing_that_was_acked() {
    under_load(world().await, async |world, replicas, gateways| {
        for turn in 0..2 {
            replicas[turn].signal("KILL");
            assert!(!replicas[turn].ended().await);
            gateways.progress(30).await;
            replicas[turn] = Replica::start(&world.config).await;
            gateways.set_urls(replicas.iter().map(|replica| replica.url.clone()).collect());
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stood_still_is_harmless_when_it_wakes() {
    // A zombie: it missed a recovery, and wakes with an old gate and an old flusher.
    under_load(world().await, async |world, replicas, gateways| {
        gateways.set_urls(vec![replicas[1].url.clone()]);
        replicas[0].signal("STOP");
        let () = redis::cmd("FLUSHALL").query_async(&mut world.redis_connection().await).await.unwrap();
        gateways.progress(50).await;
        replicas[0].signal("CONT");
        replicas[0].ready().await;
        gateways.set_urls(replicas.iter().map(|replica| replica.url.clone()).collect());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_killed_and_restarted() {
    under_load(world().await, async |world, _, _| {
        let mut redis = world.redis.lock().await;
        redis.kill().await.unwrap();
        redis.restart().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_tell_of_what_was_done_and_of_no_user() {
    under_load(world().await, async |_, replicas, _| {
        let text = reqwest::get(&replicas[0].metrics_url).await.unwrap().text().await.unwrap();
        assert!(text.contains("cota_operations_total{verb=\"reserve\",outcome=\"ok\"}"), "{text}");
        assert!(!text.contains("@cota.test") && !text.contains("/v1/users/0"), "no user, no path as sent");
    })
    .await;
}
