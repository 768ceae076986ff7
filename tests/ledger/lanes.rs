//! How a lane sends what waits for it, seen while Redis keeps it waiting.

use std::sync::Arc;

use cota::ledger::LaneLoad;
use tokio::task::JoinSet;

use crate::support::world::{PATIENCE, World, until};

/// As many make up for what a call costs.
const WORTH_A_CALL: usize = 16;

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
async fn beside_one_batch_only_what_is_worth_a_call_sets_out() {
    let world = Arc::new(
        World::with(1, |config| {
            config.ledger.partitions = 1;
            config.redis.response_timeout_ms = PATIENCE.as_millis() as u64;
        })
        .await,
    );
    let user = world.user(1_000_000).await;
    world.reserve(user, "warm", 1).await.unwrap();
    until("nothing is with Redis", async || load(&world).in_flight == 0).await;
    let (mut callers, mut asked) = (JoinSet::new(), 0);
    let mut ask = |count: usize| {
        for _ in 0..count {
            asked += 1;
            let (world, name) = (world.clone(), format!("r-{asked}"));
            callers.spawn(async move { world.reserve(user, &name, 1).await.is_ok() });
        }
    };
    let stand = async |waiting: usize, in_flight: usize| {
        until("so many wait and are with Redis", async || {
            let load = load(&world);
            (load.reserves, load.in_flight) == (waiting, in_flight)
        })
        .await;
    };
    hold_up(&world).await;
    ask(1);
    stand(0, 1).await;
    ask(WORTH_A_CALL - 1);
    stand(WORTH_A_CALL - 1, 1).await;
    ask(1);
    stand(0, 1 + WORTH_A_CALL).await;
    ask(WORTH_A_CALL);
    // Of callers that come together some may be on their way into the queue yet.
    until("a third is with Redis", async || load(&world).in_flight > 1 + WORTH_A_CALL).await;
    let in_flight = load(&world).in_flight;
    // Three are the most.
    ask(2 * WORTH_A_CALL);
    stand(1 + 4 * WORTH_A_CALL - in_flight, in_flight).await;
    go_on(&world).await;
    let answered = callers.join_all().await;
    assert!(answered.len() == 1 + 4 * WORTH_A_CALL && answered.into_iter().all(|ok| ok));
    assert_eq!(world.balance(user).await, (1_000_000 - 66, 66, 0));
    world.check().await;
}
