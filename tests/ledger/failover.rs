//! A Redis that is a master no more: what a lane does with READONLY and MASTERDOWN, under load with two replicas.

use std::{collections::BTreeSet, net::SocketAddr};

use cota::ledger::{Outcome, Refusal};
use redis::aio::MultiplexedConnection;

use super::faults::{ProxiedRedis, epochs, under_load};
use crate::support::{
    redis_with,
    world::{World, until},
};

async fn tell(redis: &mut MultiplexedConnection, command: &str) -> redis::Value {
    let mut words = command.split(' ');
    let mut asked = redis::cmd(words.next().unwrap());
    words.for_each(|word| {
        asked.arg(word);
    });
    asked.query_async(redis).await.unwrap()
}

/// The ids of all connections but this one.
async fn clients(redis: &mut MultiplexedConnection) -> BTreeSet<u64> {
    let own: u64 = redis::cmd("CLIENT").arg("ID").query_async(redis).await.unwrap();
    let list: String = redis::cmd("CLIENT").arg("LIST").query_async(redis).await.unwrap();
    let ids = list.lines().filter_map(|line| line.strip_prefix("id=")?.split(' ').next()?.parse().ok());
    ids.filter(|id| *id != own).collect()
}

/// Demotes the master for a while, without a new one: its answers are READONLY, or MASTERDOWN when it may not serve
/// what is stale.
async fn demoted_and_promoted_again(serve_stale: &str) {
    let world = World::start(2).await;
    let user = world.user(1_000).await;
    under_load(world, async |world, load| {
        let mut redis = world.redis_connection().await;
        tell(&mut redis, &format!("CONFIG SET replica-serve-stale-data {serve_stale}")).await;
        for round in 0..3 {
            let before = clients(&mut redis).await;
            // Port 1 is nobody's.
            tell(&mut redis, "REPLICAOF 127.0.0.1 1").await;
            until("callers are told that nothing was done", async || {
                let refused = world.reserve(user, &format!("r{round}"), 1).await;
                refused == Err(Refusal::Unavailable { outcome: Outcome::None })
            })
            .await;
            // Where not even reads are answered, nobody stays on the connection it had: it may lead nowhere for ever.
            until("every connection was left", async || {
                serve_stale == "yes" || clients(&mut redis).await.is_disjoint(&before)
            })
            .await;
            tell(&mut redis, "REPLICAOF NO ONE").await;
            load.progress(100).await;
        }
        for round in 0..3 {
            until("it serves again", async || world.reserve(user, &format!("r{round}"), 1).await.is_ok())
                .await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_master_that_serves_reads_is_left_and_comes_back() {
    demoted_and_promoted_again("yes").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_demoted_master_that_serves_nothing_is_left_and_comes_back() {
    demoted_and_promoted_again("no").await;
}

/// The old master lives on as a replica and keeps its connections: whoever stays on one hears READONLY for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_failover_leads_to_the_new_master() {
    let mut proxied = ProxiedRedis::start().await;
    let mut old = proxied.world.redis_connection().await;
    let old_port = proxied.world.redis.lock().await.port();
    tell(&mut old, "CONFIG SET repl-diskless-sync-delay 0").await;
    let successor = redis_with(&["--replicaof", "127.0.0.1", &old_port.to_string()]).await;
    let client = redis::Client::open(successor.url()).unwrap();
    let mut new = client.get_multiplexed_async_connection().await.unwrap();
    until("the replica has caught up", async || {
        let info: String = redis::cmd("INFO").arg("replication").query_async(&mut new).await.unwrap();
        info.contains("master_link_status:up")
    })
    .await;
    let before = epochs(&proxied.world).await;
    let proxy = proxied.proxy;
    // The invariants are held against the new master.
    proxied.world.redis_url = format!("redis://{}", proxy.address());
    under_load(proxied.world, async |world, _| {
        tell(&mut new, "REPLICAOF NO ONE").await;
        // From here on the old one still acks what the new one will not have.
        let port = successor.port();
        proxy.lead_to(SocketAddr::from(([127, 0, 0, 1], port)));
        tell(&mut old, &format!("REPLICAOF 127.0.0.1 {port}")).await;
        until("every partition has a new epoch", async || {
            epochs(world).await.iter().zip(&before).all(|(now, before)| now > before)
        })
        .await;
    })
    .await;
}
