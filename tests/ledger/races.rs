//! Races, each by its name.

use cota::{
    ledger::Refusal,
    quota::{Charge, Entry, PartitionId},
};
use futures_util::{StreamExt, future::join_all, stream};

use crate::support::world::{World, deadline, id, tokens, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_tasks_at_the_last_tokens_of_one_account() {
    let world = World::start(3).await;
    let user = world.user(100).await;
    let tasks = (0..100).map(|n| {
        let world = &world;
        async move { world.reserve_on(n % 3, user, &format!("r{n}"), 10, 60).await }
    });
    let answers = join_all(tasks).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 10, "cases 1 and 3");
    assert!(answers.iter().all(|a| matches!(a, Ok(_) | Err(Refusal::Insufficient { .. }))), "{answers:?}");
    assert_eq!(world.balance(user).await, (0, 100, 0));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_calls_of_a_user_nobody_has_seen() {
    let world = World::start(3).await;
    let user = world.user(10).await;
    let tasks = (0..8).map(|n| {
        let world = &world;
        async move { world.reserve_on(n % 3, user, &format!("r{n}"), 10, 60).await }
    });
    let ok = join_all(tasks).await.into_iter().filter(Result::is_ok).count();
    assert_eq!(ok, 1, "case 2: load and hold are one decision");
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_id_from_every_side_at_once() {
    let world = World::start(3).await;
    let user = world.user(1_000).await;
    let reserves = join_all((0..60).map(|n| world.reserve_on(n % 3, user, "same", 10, 60))).await;
    assert!(reserves.iter().all(Result::is_ok));
    assert_eq!(reserves.iter().flatten().filter(|receipt| !receipt.replayed).count(), 1);
    let charge = Charge::Tokens(tokens(7));
    let settles = join_all((0..60).map(|n| world.settle_on(n % 3, user, "same", charge))).await;
    assert_eq!(settles.iter().flatten().filter(|receipt| !receipt.replayed).count(), 1);
    assert_eq!(world.balance(user).await, (993, 0, 7));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settle_against_the_sweeper() {
    let world = World::with(2, |config| config.ledger.sweep_interval_ms = 10).await;
    let user = world.user(10_000).await;
    let calls = (0..200).map(|n| {
        let world = &world;
        async move {
            let name = format!("r{n}");
            world.reserve_on(n % 2, user, &name, 10, 1).await.unwrap();
            until("it is about to expire", async || {
                let reservation = world.ledger().reservation(user, id(&name), deadline()).await.unwrap();
                reservation.state != cota::quota::State::Pending || n % 4 == 0
            })
            .await;
            world.settle_on((n + 1) % 2, user, &name, Charge::Tokens(tokens(4))).await.unwrap();
        }
    });
    join_all(calls).await;
    assert_eq!(
        world.balance(user).await,
        (9_200, 0, 800),
        "case 22: each charged once, nothing given back twice"
    );
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settle_against_a_release() {
    let world = World::start(2).await;
    let user = world.user(1_000).await;
    for n in 0..50 {
        let name = format!("r{n}");
        world.reserve(user, &name, 10).await.unwrap();
        let (settled, released) = tokio::join!(
            world.settle_on(1, user, &name, Charge::Tokens(tokens(10))),
            world.release(user, &name)
        );
        assert!(settled.is_ok() != released.is_ok(), "one terminal state: {settled:?} {released:?}");
    }
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_against_a_purchase() {
    let world = World::start(2).await;
    for n in 0..20 {
        let user = world.user(10).await;
        let name = format!("r{n}");
        let (_, first) =
            tokio::join!(world.credit(user, 5, "more"), world.reserve_on(n % 2, user, &name, 10, 60));
        first.unwrap();
        until("the purchase arrives, once", async || world.balance(user).await.0 == 5).await;
    }
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_flushers_book_each_row_once() {
    let world = World::start(4).await;
    let users = [world.user(1_000_000).await, world.user(1_000_000).await];
    let calls = (0..400).map(|n| {
        let world = &world;
        async move {
            let (user, name) = (users[n % 2], format!("r{n}"));
            world.reserve_on(n % 4, user, &name, 100, 60).await.unwrap();
            world.settle_on((n + 1) % 4, user, &name, Charge::Tokens(tokens(n as u64))).await.unwrap();
        }
    });
    join_all(calls).await;
    world.check().await;
    assert_eq!(world.store.dead_letter_count().await.unwrap(), 0, "cases 77 and 78");
}

/// A round reads the next page and acks the one before while a page is booked; here they are so small that all three are
/// always on their way, on several replicas, one of which is killed in the middle of it.
#[tokio::test(flavor = "multi_thread")]
async fn pages_on_their_way_are_booked_once_though_their_flusher_dies() {
    let world = World::with(3, |config| config.flusher.batch_rows = 2).await;
    let user = world.user(1_000_000).await;
    for round in 0..3 {
        let debits = (0..150).map(|n| {
            let world = &world;
            async move { world.debit(user, &format!("d{round}-{n}"), 1 + n).await.unwrap() }
        });
        join_all(debits).await;
        world.kill_replica();
        world.add_replica();
    }
    world.check().await;
    assert_eq!(world.store.dead_letter_count().await.unwrap(), 0);
}

/// Redis is asked for a thousand entries at a time, however many are booked together.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_page_is_read_in_pieces_each_entry_once() {
    let world = World::with(1, |config| config.ledger.partitions = 1).await;
    let users = [world.user(10_000).await, world.user(10_000).await];
    // Whoever has the row books; so nobody else does.
    let mut row = world.database.pool().begin().await.unwrap();
    sqlx::query("SELECT FROM partitions FOR UPDATE").execute(&mut *row).await.unwrap();
    let debits = (0..2_100_u64).map(|n| {
        let world = &world;
        async move { world.debit(users[n as usize % 2], &format!("d{n}"), 1).await.unwrap() }
    });
    stream::iter(debits).buffer_unordered(256).collect::<Vec<_>>().await;
    let ledger = world.ledger();
    for (limit, after_first, expected) in
        [(10, 0, 10), (1_000, 0, 1_000), (1_700, 0, 1_700), (5_000, 0, 2_100), (5_000, 1_050, 1_050)]
    {
        let whole = ledger.outbox().read(PartitionId(0), 10_000, None).await.unwrap();
        let after = (after_first > 0).then(|| whole.entries[after_first - 1].outbox_id);
        let page = ledger.outbox().read(PartitionId(0), limit, after).await.unwrap();
        let ids = |entries: &[Entry]| entries.iter().map(|entry| entry.outbox_id).collect::<Vec<_>>();
        assert_eq!(ids(&page.entries), ids(&whole.entries[after_first..after_first + expected]), "{limit}");
        assert!(page.entries.is_sorted_by_key(|entry| entry.outbox_id.sequence));
    }
    row.rollback().await.unwrap();
    world.check().await;
}

/// More pages than one round has, and the last one full.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_outbox_is_emptied_page_by_page_before_a_replica_stops() {
    let world = World::with(1, |config| {
        (config.flusher.batch_rows, config.flusher.interval_ms) = (2, 60_000);
    })
    .await;
    let user = world.user(1_000).await;
    for n in 0..80 {
        world.debit(user, &format!("d{n}"), 1).await.unwrap();
    }
    let replica = world.replicas.write().unwrap().remove(0);
    replica.stop().await;
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM token_transactions")
        .fetch_one(world.database.pool())
        .await
        .unwrap();
    assert_eq!(rows, 80);
    world.add_replica();
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_user_cannot_fill_a_lane() {
    let world = World::with(1, |config| config.ledger.reserves_per_user = 4).await;
    let (greedy, modest) = (world.user(1_000_000).await, world.user(10).await);
    let flood = (0..500).map(|n| {
        let world = &world;
        async move { world.reserve(greedy, &format!("r{n}"), 1).await }
    });
    let (answers, other) = tokio::join!(join_all(flood), world.reserve(modest, "mine", 10));
    assert!(answers.iter().any(|answer| matches!(answer, Err(Refusal::Overloaded))), "the flood is shed");
    other.unwrap();
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_leaves_holds_nothing_it_does_not_know_of() {
    let world = World::start(1).await;
    let user = world.user(100_000).await;
    for n in 0..200 {
        let name = format!("r{n}");
        let call = world.reserve(user, &name, 10);
        // Dropped at whatever await it has reached.
        let _ = tokio::time::timeout(std::time::Duration::from_micros(n * 7), call).await;
        let again = world.reserve(user, &name, 10).await.unwrap();
        assert_eq!(again.subject.tokens, 10);
        world.settle(user, &name, 1).await.unwrap();
    }
    assert_eq!(world.balance(user).await, (99_800, 0, 200));
    world.check().await;
}
