//! The losses a core must survive, each under load with two replicas, and the invariants after each.

use std::{path::PathBuf, sync::atomic::Ordering};

use cota::ledger::Refusal;

use crate::support::{
    load::Load,
    proxy::{Mode, Proxy},
    world::{World, id, until},
};

const WORKERS: usize = 24;

/// Runs a load on two replicas, does something to the world in the middle, lets the load go on, and checks.
pub(super) async fn under_load(world: World, fault: impl AsyncFnOnce(&World, &Load)) {
    let mut users = Vec::new();
    for _ in 0..6 {
        users.push(world.user(1_000_000_000).await);
    }
    let load = Load::default();
    tokio::join!(load.run(&world, &users, WORKERS), async {
        load.progress(300).await;
        fault(&world, &load).await;
        load.progress(300).await;
        load.stop();
    });
    assert!(load.acked.load(Ordering::SeqCst) >= 600);
    world.check().await;
}

pub(super) async fn epochs(world: &World) -> Vec<u64> {
    world.store.partitions().await.unwrap().into_iter().map(|row| row.epoch).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_restarted_cleanly() {
    let world = World::start(2).await;
    let before = epochs(&world).await;
    under_load(world, async |world, _| {
        let mut redis = world.redis.lock().await;
        redis.restart().await.unwrap();
        // ◆ A new run id always means a new epoch, also when nothing was lost.
        until("every partition has a new epoch", async || {
            epochs(world).await.iter().zip(&before).all(|(now, before)| now > before)
        })
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_killed_with_its_last_writes_cut_off() {
    for cut in [200, 5_000, 60_000] {
        under_load(World::start(2).await, async |world, _| {
            let mut redis = world.redis.lock().await;
            redis.kill().await.unwrap();
            cut_tail(redis.aof_dir(), cut);
            redis.restart().await.unwrap();
        })
        .await;
    }
}

/// Takes so many bytes off the end of the newest append-only file, as a crash of the machine might.
fn cut_tail(dir: PathBuf, bytes: u64) {
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let newest = files.filter(|path| path.to_string_lossy().ends_with(".incr.aof")).max().unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(newest).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length.saturating_sub(bytes)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_flushed() {
    under_load(World::start(2).await, async |world, load| {
        for _ in 0..3 {
            let mut redis = world.redis_connection().await;
            let () = redis::cmd("FLUSHALL").query_async(&mut redis).await.unwrap();
            load.progress(100).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_restarted() {
    under_load(World::with_own_postgres(2).await, async |world, load| {
        let mut postgres = world.postgres.as_ref().unwrap().lock().await;
        postgres.kill().await.unwrap();
        load.progress(300).await;
        postgres.restart().await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_killed() {
    under_load(World::start(2).await, async |world, load| {
        world.kill_replica();
        load.progress(100).await;
        world.add_replica();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_stopped_in_order_leaves_nothing_behind() {
    let world = World::with(1, |config| config.flusher.interval_ms = 60_000).await;
    let user = world.user(100).await;
    world.reserve(user, "a", 10).await.unwrap();
    world.settle(user, "a", 10).await.unwrap();
    let replica = world.replicas.write().unwrap().remove(0);
    replica.stop().await;
    let (rows, _) =
        world.store.transactions_of(world.partitions.of(user), user, &id("a")).await.unwrap().unwrap();
    assert_eq!(rows.len(), 1, "case 79: settled, stopped at once, and in Postgres");
    world.add_replica();
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_flushed_all_the_time() {
    under_load(World::start(2).await, async |world, load| {
        // Case 88.
        for _ in 0..20 {
            let mut redis = world.redis_connection().await;
            let () = redis::cmd("SCRIPT").arg("FLUSH").query_async(&mut redis).await.unwrap();
            load.progress(20).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_cut_off_after_the_script_ran() {
    // Cases 33 and 34: the effect is there, the reply is not; the repeat must find it.
    let proxied = ProxiedRedis::start().await;
    under_load(proxied.world, async |_, load| {
        for _ in 0..10 {
            proxied.proxy.set(Mode::CutReply);
            let cuts = proxied.proxy.cuts();
            until("a reply was cut", async || proxied.proxy.cuts() > cuts).await;
            proxied.proxy.set(Mode::Pass);
            load.progress(20).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_hangs_past_its_deadline_while_redis_is_black() {
    let proxied = ProxiedRedis::start().await;
    let world = proxied.world;
    let user = world.user(1_000).await;
    world.reserve(user, "before", 10).await.unwrap();
    proxied.proxy.set(Mode::BlackHole);
    let started = tokio::time::Instant::now();
    let reserve = world.reserve(user, "during", 10).await.unwrap_err();
    assert!(matches!(reserve, Refusal::Unavailable { .. }), "{reserve:?}");
    assert!(started.elapsed() < std::time::Duration::from_secs(6), "deadlines are kept");
    proxied.proxy.set(Mode::Pass);
    world.all_open().await;
    let balance = until_ok(&world, user).await;
    assert!(balance.1 == 10 || balance.1 == 20, "held once, or not at all: {balance:?}");
    world.settle(user, "before", 3).await.unwrap();
    world.reserve(user, "during", 10).await.unwrap();
    assert_eq!(world.balance(user).await.1, 10, "case 92: no ghost of the call that timed out");
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_away_a_reserve_says_that_nothing_was_held() {
    let world = World::start(1).await;
    let user = world.user(100).await;
    world.reserve(user, "before", 10).await.unwrap();
    let mut redis = world.redis.lock().await;
    redis.stop().await.unwrap();
    until("the lane knows", async || {
        let refused = world.reserve(user, "x", 1).await.unwrap_err();
        refused == Refusal::Unavailable { outcome: cota::ledger::Outcome::None }
    })
    .await;
    redis.restart().await.unwrap();
    drop(redis);
    world.all_open().await;
    assert_eq!(world.balance(user).await, (90, 10, 0));
    world.check().await;
}

async fn until_ok(world: &World, user: cota::quota::UserId) -> (i64, u64, u64) {
    let mut balance = None;
    until("the balance can be read", async || {
        let account = world.ledger().account(user, crate::support::world::deadline()).await;
        balance = account.ok().map(|a| (a.balance.available(), a.balance.reserved, a.balance.used));
        balance.is_some()
    })
    .await;
    balance.unwrap()
}

/// A world whose replica reaches Redis only through a proxy.
pub struct ProxiedRedis {
    pub world: World,
    pub proxy: Proxy,
}

impl ProxiedRedis {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut cota::config::Config)) -> Self {
        let world = World::with(0, change).await;
        let port = world.redis.lock().await.port();
        let proxy = Proxy::start(([127, 0, 0, 1], port).into()).await;
        let mut world = world;
        world.config.redis.url = cota::config::Secret::new(format!("redis://{}", proxy.address()));
        world.config.redis.response_timeout_ms = 300;
        world.config.redis.connect_timeout_ms = 300;
        world.add_replica();
        world.add_replica();
        world.all_open().await;
        Self { world, proxy }
    }
}
