//! Postgres goes back to an earlier state under a running service, as when a standby that lagged takes over.

use cota::quota::ReservationId;

use crate::support::world::{World, until};

/// Everything that was booked is gone, on both sides of the audit log's view of it.
const BOOKINGS_GONE: &str =
    "WITH rows AS (DELETE FROM token_transactions), sums AS (DELETE FROM usage_quarters),
     days AS (DELETE FROM usage_days), alerts AS (DELETE FROM user_alerts), accounts AS (UPDATE user_accounts SET used_tokens = 0)
     UPDATE partitions SET outbox_high_water = 0, high_water = 0";

#[tokio::test(flavor = "multi_thread")]
async fn what_postgres_lost_under_way_is_booked_as_one_debit_of_each_account() {
    let world = World::start(2).await;
    let (first, second) = (world.user(1_000).await, world.user(1_000).await);
    for (user, name, tokens) in [(first, "a", 30), (first, "b", 12), (second, "c", 7)] {
        world.debit(user, name, tokens).await.unwrap();
    }
    world.check().await;
    world.rewrite(BOOKINGS_GONE).await;
    until("it is booked again", async || {
        let booked: i64 =
            sqlx::query_scalar("SELECT coalesce(sum(tokens_used), 0)::bigint FROM token_transactions")
                .fetch_one(world.database.pool())
                .await
                .unwrap();
        booked == 49
    })
    .await;
    let rows: Vec<(uuid::Uuid, String, String, i64)> = sqlx::query_as(
        "SELECT user_id, reservation_id, kind, tokens_used FROM token_transactions ORDER BY tokens_used DESC",
    )
    .fetch_all(world.database.pool())
    .await
    .unwrap();
    {
        let mut journal = world.journal.lock().unwrap();
        journal.acked.clear();
        for (user, name, kind, _) in &rows {
            assert!(name.starts_with("cota-restored-") && kind == "debit", "{name} {kind}");
            journal.asked.insert((cota::quota::UserId(*user), ReservationId::new(name).unwrap()));
        }
    }
    let amounts: Vec<_> = rows.iter().map(|row| (row.0, row.3)).collect();
    assert_eq!(amounts, [(first.0, 42), (second.0, 7)]);
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
