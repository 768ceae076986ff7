//! Hours out of a user's ordinary: found while they run, flagged once, told to their user.

use cota::{
    accounts::anomalies::Watch,
    config::UsageConfig,
    quota::UserId,
    store::{Anomaly, Task},
};
use jiff::Timestamp;

use crate::scratch::{Database, database};

/// A Wednesday, ten past two in the afternoon in UTC.
fn now() -> Timestamp {
    "2026-11-11T14:10:00Z".parse().unwrap()
}

fn watch(db: &Database) -> Watch {
    Watch::new(db.store.clone(), &UsageConfig { anomaly_min_tokens: 2_000, ..UsageConfig::default() })
}

impl Database {
    /// 1,000 tokens in each hour from 09:00 to 18:00 UTC on so many days before that of [`now`].
    async fn office_hours(&self, user: UserId, days: i32) {
        let sql = "INSERT INTO usage_quarters (user_id, quarter, model, tokens, requests)
                   SELECT $1, day + interval '1 hour' * hour, 'm', 1000, 10
                   FROM generate_series(timestamptz '2026-11-11Z' - interval '1 day' * $2,
                                        timestamptz '2026-11-10Z', interval '1 day') AS day,
                        generate_series(9, 17) AS hour";
        sqlx::query(sql).bind(user.0).bind(days).execute(&self.pool).await.unwrap();
    }

    async fn used_at(&self, user: UserId, quarter: &str, tokens: i64) {
        let sql = "INSERT INTO usage_quarters (user_id, quarter, model, tokens) VALUES ($1, $2::timestamptz, '', $3)";
        sqlx::query(sql).bind(user.0).bind(quarter).bind(tokens).execute(&self.pool).await.unwrap();
    }

    async fn flagged(&self, user: UserId) -> Vec<Anomaly> {
        self.store.anomalies_of(user, None, 10).await.unwrap()
    }

    async fn anomalies_told(&self, user: UserId) -> Vec<serde_json::Value> {
        let sql = "SELECT data FROM user_events WHERE user_id = $1 AND kind = 'anomaly.detected' ORDER BY id";
        sqlx::query_scalar(sql).bind(user.0).fetch_all(&self.pool).await.unwrap()
    }
}

#[tokio::test]
async fn an_odd_hour_is_flagged_once_with_its_numbers_and_its_user_is_told() {
    let db = database().await;
    let (odd, ordinary) = (db.user().await, db.user().await);
    for user in [odd, ordinary] {
        db.office_hours(user, 28).await;
    }
    // Two quarter hours of one hour; what was used before it is no part of it.
    db.used_at(odd, "2026-11-11T13:45Z", 900_000).await;
    db.used_at(odd, "2026-11-11T14:00Z", 2_400).await;
    db.used_at(ordinary, "2026-11-11T14:00Z", 2_500).await;
    let mut watch = watch(&db);
    assert_eq!(watch.look(now()).await.unwrap(), 0);
    sqlx::query(
        "UPDATE usage_quarters SET tokens = 2501 WHERE quarter = '2026-11-11T14:00Z' AND user_id = $1",
    )
    .bind(odd.0)
    .execute(&db.pool)
    .await
    .unwrap();
    assert_eq!(watch.look(now()).await.unwrap(), 1);
    let flagged = db.flagged(odd).await;
    let [anomaly] = flagged.as_slice() else { panic!("{flagged:?}") };
    assert_eq!((anomaly.hour, anomaly.tokens), ("2026-11-11T14:00:00Z".parse().unwrap(), 2_501));
    assert_eq!((anomaly.threshold, anomaly.median, anomaly.mad), (2_500, 1_000, 0));
    assert_eq!((anomaly.typical, anomaly.samples, &*anomaly.time_zone), (1_000, 84, "UTC"));
    let told = db.anomalies_told(odd).await;
    assert_eq!(
        (told.len(), &told[0]["tokens"], &told[0]["threshold_tokens"]),
        (1, &2_501.into(), &2_500.into())
    );
    // Neither it nor another replica flags the hour again.
    db.used_at(odd, "2026-11-11T14:15Z", 100_000).await;
    assert_eq!(watch.look(now()).await.unwrap(), 0);
    assert_eq!(self::watch(&db).look(now()).await.unwrap(), 0);
    assert_eq!((db.flagged(odd).await.len(), db.anomalies_told(odd).await.len()), (1, 1));
    assert_eq!(db.flagged(ordinary).await, []);
    assert_eq!(db.store.anomalies(None, 10).await.unwrap(), flagged);
}

#[tokio::test]
async fn the_last_use_of_an_hour_is_seen_after_its_end() {
    let db = database().await;
    let user = db.user().await;
    db.office_hours(user, 28).await;
    db.used_at(user, "2026-11-11T13:45Z", 50_000).await;
    // Ten minutes after, the hour is no longer looked at.
    assert_eq!(watch(&db).look(now()).await.unwrap(), 0);
    assert_eq!(watch(&db).look("2026-11-11T14:04:00Z".parse().unwrap()).await.unwrap(), 1);
    assert_eq!(db.flagged(user).await[0].hour, "2026-11-11T13:00:00Z".parse().unwrap());
}

#[tokio::test]
async fn hours_are_those_of_the_users_clock() {
    let db = database().await;
    let user = db.user().await;
    db.office_hours(user, 28).await;
    db.sql("UPDATE user_accounts SET time_zone = 'Asia/Kathmandu' WHERE id = $1", user).await;
    // There it is 19:55; the hour began at 13:15 in UTC.
    db.used_at(user, "2026-11-11T13:15Z", 30_000).await;
    assert_eq!(watch(&db).look(now()).await.unwrap(), 1);
    let flagged = db.flagged(user).await;
    assert_eq!(flagged[0].hour, "2026-11-11T13:15:00Z".parse().unwrap());
    assert_eq!(flagged[0].time_zone, "Asia/Kathmandu");
}

#[tokio::test]
async fn without_a_past_nothing_is_odd_and_little_never_is() {
    let db = database().await;
    let (new, week, little) = (db.user().await, db.user().await, db.user().await);
    db.office_hours(new, 6).await;
    db.office_hours(week, 7).await;
    db.office_hours(little, 28).await;
    db.used_at(new, "2026-11-11T14:00Z", 1_000_000).await;
    db.used_at(week, "2026-11-11T14:00Z", 1_000_000).await;
    // Unusual at three in the morning, but too little to speak of.
    db.used_at(little, "2026-11-11T14:00Z", 1_999).await;
    assert_eq!(watch(&db).look(now()).await.unwrap(), 1);
    assert_eq!(
        (db.flagged(new).await.len(), db.flagged(week).await.len(), db.flagged(little).await.len()),
        (0, 1, 0)
    );
}

#[tokio::test]
async fn users_of_many_rounds_are_all_looked_at() {
    let db = database().await;
    let mut users = Vec::new();
    for _ in 0..230 {
        let user = db.user().await;
        db.office_hours(user, 10).await;
        db.used_at(user, "2026-11-11T14:00Z", 77_000).await;
        users.push(user);
    }
    assert_eq!(watch(&db).look(now()).await.unwrap(), 230);
    for user in users {
        assert_eq!(db.flagged(user).await.len(), 1);
    }
    // In pages, newest first.
    let first = db.store.anomalies(None, 200).await.unwrap();
    let rest = db.store.anomalies(Some(first[199].id), 200).await.unwrap();
    assert_eq!((first.len(), rest.len()), (200, 30));
    assert!(first.iter().chain(&rest).map(|anomaly| anomaly.id).is_sorted_by(|a, b| a > b));
}

#[tokio::test]
async fn one_replica_at_a_time_does_a_task() {
    let db = database().await;
    let held = db.store.try_lock_task(Task::Anomalies).await.unwrap().unwrap();
    assert!(db.store.try_lock_task(Task::Anomalies).await.unwrap().is_none());
    let other = db.store.try_lock_task(Task::Reports).await.unwrap().unwrap();
    held.release().await;
    db.store.try_lock_task(Task::Anomalies).await.unwrap().unwrap().release().await;
    other.release().await;
}
