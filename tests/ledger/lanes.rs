//! How a lane sends what waits for it, seen while Redis keeps it waiting.

use cota::ledger::LaneLoad;
use tokio::task::JoinSet;

use crate::support::world::{PATIENCE, World, until};

const FULL: usize = 64;

async fn hold_up(world: &World) {
    // Scripts that only read, and the keeper's questions, go on.
    let () = redis::cmd("CLIENT")
        .arg(&["PAUSE", "600000", "WRITE"])
        .query_async(&mut world.redis_connection().await)
        .await
        .unwrap();
}

async fn go_on(world: &World) {
    let () =
        redis::cmd("CLIENT").arg("UNPAUSE").query_async(&mut world.redis_connection().await).await.unwrap();
}

fn load(world: &World) -> LaneLoad {
    world.ledger().lane_loads().next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn beside_one_batch_only_full_ones_set_out_and_few() {
    let world = std::sync::Arc::new(
        World::with(1, |config| config.redis.response_timeout_ms = PATIENCE.as_millis() as u64).await,
    );
    let user = world.user(1_000_000).await;
    world.reserve(user, "warm", 1).await.unwrap();
    until("nothing is with Redis", async || load(&world).in_flight == 0).await;
    let mut callers = JoinSet::new();
    let ask = |callers: &mut JoinSet<bool>, name: String| {
        let world = world.clone();
        callers.spawn(async move { world.reserve(user, &name, 1).await.is_ok() });
    };
    hold_up(&world).await;
    ask(&mut callers, "first".into());
    until("the first is with Redis", async || load(&world).in_flight == 1).await;
    for n in 1..FULL {
        ask(&mut callers, format!("second-{n}"));
    }
    until("not enough wait for a full batch", async || load(&world).reserves == FULL - 1).await;
    assert_eq!(load(&world).in_flight, 1);
    for n in 0..2 * FULL {
        ask(&mut callers, format!("third-{n}"));
    }
    until("two full ones are there, too", async || load(&world).in_flight == 1 + 2 * FULL).await;
    until("the rest waits", async || load(&world).reserves == FULL - 1).await;
    go_on(&world).await;
    let answered = callers.join_all().await;
    assert!(answered.len() == 3 * FULL && answered.into_iter().all(|ok| ok));
    assert_eq!(world.balance(user).await, (1_000_000 - 193, 193, 0));
    world.check().await;
}
