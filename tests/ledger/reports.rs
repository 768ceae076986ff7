//! A month is told once the outbox has been booked beyond its end, and not before.

use cota::{
    accounts::reports::Reporter,
    config::UsageConfig,
    quota::{UserId, period::Month},
};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use sqlx::Connection;

use crate::support::{
    invariants::settle_down,
    world::{World, until},
};

fn reporter(world: &World) -> Reporter {
    Reporter::new(world.store.clone(), &world.ledger(), world.partitions, &UsageConfig::default())
}

/// An hour after the running month has ended in UTC.
fn month_after() -> Timestamp {
    let end = Month::at(Timestamp::now(), &TimeZone::UTC).end(&TimeZone::UTC);
    end + SignedDuration::from_hours(1)
}

async fn told(world: &World, user: UserId) -> Vec<i64> {
    let reports = world.store.monthly_reports(user, None, 10).await.unwrap();
    reports.iter().map(|report| report.sums.tokens).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_month_waits_for_what_is_still_in_the_outbox() {
    let world = World::start(1).await;
    let user = world.user(1_000).await;
    let idle = world.user(0).await;
    let now = month_after();
    assert_eq!(reporter(&world).look(Timestamp::now()).await.unwrap(), 0, "the month runs");
    // The flusher cannot book while somebody holds the partitions.
    let mut blocker = sqlx::PgConnection::connect(world.database.url()).await.unwrap();
    let mut held = blocker.begin().await.unwrap();
    sqlx::query("SELECT id FROM partitions FOR UPDATE").execute(&mut *held).await.unwrap();
    world.debit(user, "last", 70).await.unwrap();
    reporter(&world).look(now).await.unwrap();
    assert_eq!(told(&world, user).await, Vec::<i64>::new(), "it is still in the outbox");
    held.rollback().await.unwrap();
    settle_down(&world).await;
    until("both months are told", async || {
        reporter(&world).look(now).await.unwrap();
        told(&world, user).await == [70] && told(&world, idle).await == [0]
    })
    .await;
    assert_eq!(reporter(&world).look(now).await.unwrap(), 0, "told once");
    // What comes later belongs to the month by its time, and is late in the next.
    world.debit(user, "later", 5).await.unwrap();
    settle_down(&world).await;
    assert_eq!(reporter(&world).look(now + SignedDuration::from_hours(24 * 32)).await.unwrap(), 2);
    let next = world.store.monthly_reports(user, None, 1).await.unwrap().remove(0);
    assert_eq!((next.sums.tokens, next.late_tokens, next.closing_used), (0, 5, 75));
    world.check().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn months_that_were_missed_are_told_one_after_the_other() {
    let world = World::start(1).await;
    let user = world.user(1_000).await;
    world.debit(user, "a", 70).await.unwrap();
    settle_down(&world).await;
    let now = month_after() + SignedDuration::from_hours(24 * 62);
    assert_eq!(reporter(&world).look(now).await.unwrap(), 3);
    assert_eq!(told(&world, user).await, [0, 0, 70]);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_redis_is_away_nothing_is_told() {
    let world = World::start(1).await;
    let user = world.user(1_000).await;
    world.redis.lock().await.kill().await.unwrap();
    assert_eq!(reporter(&world).look(month_after()).await.unwrap(), 0);
    assert_eq!(told(&world, user).await, Vec::<i64>::new());
}
