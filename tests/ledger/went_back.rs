//! Postgres goes back to an earlier state under a running service, as when a standby that lagged takes over.

use cota::{
    flusher::{Flusher, Round},
    ledger::{Ledger, Running},
    quota::{Charge, Debit, ReservationId, UserId},
};

use crate::support::world::{World, deadline, id, tokens, until};

/// Everything that was booked is gone, on both sides of the audit log's view of it.
const BOOKINGS_GONE: &str =
    "WITH rows AS (DELETE FROM token_transactions), sums AS (DELETE FROM usage_quarters),
     days AS (DELETE FROM usage_days), alerts AS (DELETE FROM user_alerts), accounts AS (UPDATE user_accounts SET used_tokens = 0)
     UPDATE partitions SET outbox_high_water = 0, high_water = 0";

/// The name in the tests for what a recovery has made up.
const MADE_UP: &str = "made up";

/// Waits until so many tokens are booked; gives whose and under which names, the largest first.
async fn booked(world: &World, total: i64) -> Vec<(UserId, String, i64)> {
    until("it is booked again", async || {
        let booked: i64 =
            sqlx::query_scalar("SELECT coalesce(sum(tokens_used), 0)::bigint FROM token_transactions")
                .fetch_one(world.database.pool())
                .await
                .unwrap();
        booked == total
    })
    .await;
    let rows: Vec<(uuid::Uuid, String, String, i64)> = sqlx::query_as(
        "SELECT user_id, reservation_id, kind, tokens_used FROM token_transactions ORDER BY tokens_used DESC",
    )
    .fetch_all(world.database.pool())
    .await
    .unwrap();
    let mut journal = world.journal.lock().unwrap();
    journal.acked.clear();
    let mut named = Vec::new();
    for (user, name, kind, tokens) in rows {
        assert_eq!(kind, "debit");
        let user = UserId(user);
        journal.asked.insert((user, ReservationId::new(&name).unwrap()));
        let name = if name.starts_with("cota-restored-") { MADE_UP.to_owned() } else { name };
        named.push((user, name, tokens));
    }
    named
}

#[tokio::test(flavor = "multi_thread")]
async fn what_postgres_lost_under_way_is_booked_as_one_debit_of_each_account() {
    let world = World::start(2).await;
    let (first, second) = (world.user(1_000).await, world.user(1_000).await);
    for (user, name, tokens) in [(first, "a", 30), (first, "b", 12), (second, "c", 7)] {
        world.debit(user, name, tokens).await.unwrap();
    }
    world.check().await;
    world.rewrite(BOOKINGS_GONE).await;
    let made_up = |user, tokens| (user, MADE_UP.to_owned(), tokens);
    assert_eq!(booked(&world, 49).await, [made_up(first, 42), made_up(second, 7)]);
    world.all_open().await;
    world.debit(first, "d", 1).await.unwrap();
    assert_eq!(world.balance(first).await, (957, 0, 43));
    world.check().await;
    let marked: i64 = sqlx::query_scalar("SELECT count(*) FROM partitions WHERE restored_at IS NOT NULL")
        .fetch_one(world.database.pool())
        .await
        .unwrap();
    assert_eq!(marked, 0, "what was made up for is not looked at again");
}

/// A flusher and a ledger on its own: nothing is flushed but by hand.
struct ByHand {
    ledger: Ledger,
    running: Running,
    flusher: Flusher,
}

impl ByHand {
    async fn start(world: &World) -> Self {
        let (ledger, background) = Ledger::new(&world.config, world.store.clone(), world.partitions).unwrap();
        let (outbox, config) = (ledger.outbox().clone(), world.config.flusher.clone());
        let flusher = Flusher::new(outbox, world.store.clone(), world.partitions, config);
        let running = background.start();
        until("every gate is open", async || ledger.closed_partitions().is_empty()).await;
        Self { ledger, running, flusher }
    }

    async fn debit(&self, world: &World, user: UserId, name: &str, n: u64) {
        let ask = Debit { id: id(name), charge: Charge::Tokens(tokens(n)), model: None, request_id: None };
        self.ledger.debit(user, ask, deadline()).await.unwrap();
        world.journal.lock().unwrap().asked.insert((user, id(name)));
    }

    async fn flush(&self, world: &World, user: UserId) -> Round {
        self.flusher.flush(world.partitions.of(user)).await.unwrap()
    }
}

/// What it booked would lift Postgres above all that was acked, and hide the loss.
#[tokio::test(flavor = "multi_thread")]
async fn a_flusher_that_comes_before_any_keeper_books_nothing() {
    let world = World::start(0).await;
    let replica = ByHand::start(&world).await;
    let user = world.user(1_000).await;
    replica.debit(&world, user, "lost", 30).await;
    assert_eq!(replica.flush(&world, user).await, Round::Flushed { entries: 1, more: false });
    replica.debit(&world, user, "left", 12).await;
    replica.running.stop().await;
    world.rewrite(BOOKINGS_GONE).await;
    let flusher = replica.flusher;
    assert_eq!(flusher.flush(world.partitions.of(user)).await.unwrap(), Round::Closed);
    world.add_replica();
    let rows = booked(&world, 42).await;
    assert_eq!(rows, [(user, MADE_UP.to_owned(), 30), (user, "left".to_owned(), 12)]);
    world.check().await;
}

/// A recovery that began for another reason must not take Postgres as it is either.
#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_finds_it_out_whatever_it_was_begun_for() {
    let world = World::start(0).await;
    let replica = ByHand::start(&world).await;
    let user = world.user(1_000).await;
    replica.debit(&world, user, "lost", 30).await;
    assert_eq!(replica.flush(&world, user).await, Round::Flushed { entries: 1, more: false });
    replica.running.stop().await;
    world.rewrite(BOOKINGS_GONE).await;
    world.store.begin_recovery(world.partitions.of(user), 0, 0).await.unwrap();
    world.add_replica();
    assert_eq!(booked(&world, 30).await, [(user, MADE_UP.to_owned(), 30)]);
    world.check().await;
}
