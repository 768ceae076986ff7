//! Alerts: each level once per crossing, in order, decided with the rows that caused it.

use cota::{
    quota::{AlertThreshold, Entry, Kind, Level, PartitionId, Thresholds, UserId},
    store::{
        AlertConfigUpdate, Booker, Booking, Credit, CreditOutcome, Expected, GrantKind, ProfileChange, Update,
    },
};
use serde_json::Value;
use uuid::Uuid;

use crate::scratch::{Database, P0, RUN, database, entry};

const WARNING: (Level, bool) = (Level::Warning, true);
const CRITICAL: (Level, bool) = (Level::Critical, true);
const BLOCKED: (Level, bool) = (Level::Blocked, true);

fn resolved((level, _): (Level, bool)) -> (Level, bool) {
    (level, false)
}

fn thresholds(warning: &str, critical: &str) -> Thresholds {
    let share = |text: &str| text.parse::<AlertThreshold>().unwrap();
    Thresholds::new(share(warning), share(critical)).unwrap()
}

impl Database {
    /// Level, and whether it is open; oldest first.
    async fn alerts(&self, user: UserId) -> Vec<(Level, bool)> {
        let alerts = self.store.alerts(user, None, None, 100).await.unwrap();
        alerts.iter().rev().map(|alert| (alert.level, alert.resolved.is_none())).collect()
    }

    async fn grant(&self, user: UserId, tokens: i64) {
        let kind = if tokens < 0 { GrantKind::Adjustment } else { GrantKind::Bonus };
        let credit = Credit::new(kind, tokens, Uuid::new_v4().to_string());
        let outcome = self.store.credit(user, &credit).await.unwrap();
        assert!(matches!(outcome, CreditOutcome::Granted { .. }), "{outcome:?}");
    }

    /// What was told of the user's alerts: kind and facts, oldest first.
    async fn told(&self, user: UserId) -> Vec<(String, Value)> {
        sqlx::query_as(
            "SELECT kind, data::jsonb FROM user_events WHERE user_id = $1 AND kind LIKE 'alert.%' ORDER BY id",
        )
        .bind(user.0)
        .fetch_all(&self.pool)
        .await
        .unwrap()
    }

    async fn set(&self, user: UserId, thresholds: Thresholds) {
        let done = self.store.set_thresholds(user, &Expected::Any, thresholds).await.unwrap();
        assert!(matches!(done, AlertConfigUpdate::Updated(_)), "{done:?}");
    }
}

/// Books usage one settle at a time, with outbox positions of its own.
struct Spender<'a> {
    db: &'a Database,
    epoch: u64,
    user: UserId,
    sequence: u64,
}

impl<'a> Spender<'a> {
    async fn new(db: &'a Database, total: i64) -> Self {
        let user = db.user().await;
        let epoch = db.open(P0).await;
        if total > 0 {
            db.grant(user, total).await;
        }
        Self { db, epoch, user, sequence: 0 }
    }

    async fn spend(&mut self, tokens: i64) {
        self.sequence += 1;
        let name = format!("r{}", self.sequence);
        let settle = entry(self.user, &name, Kind::Settle, tokens, self.sequence);
        self.db.flush(self.epoch, &[settle]).await;
    }

    async fn alerts(&self) -> Vec<(Level, bool)> {
        self.db.alerts(self.user).await
    }
}

#[tokio::test]
async fn a_threshold_is_told_of_where_it_is_reached_and_once() {
    // Case 108: landing exactly on it.
    let db = database().await;
    let mut user = Spender::new(&db, 10_000).await;
    user.spend(7_999).await;
    assert_eq!(user.alerts().await, []);
    user.spend(1).await;
    assert_eq!(user.alerts().await, [WARNING]);
    for _ in 0..5 {
        user.spend(10).await;
    }
    assert_eq!(user.alerts().await, [WARNING], "case 107: once");

    let alert = db.store.alerts(user.user, Some(true), None, 1).await.unwrap().remove(0);
    assert_eq!((alert.used_tokens, alert.total_tokens), (8_000, 10_000));
    assert_eq!(alert.threshold.as_f64(), 0.8);
    assert_eq!(db.store.alerts(user.user, Some(false), None, 1).await.unwrap(), []);
    assert_eq!(db.store.alerts(user.user, None, Some(alert.id), 1).await.unwrap(), []);
}

#[tokio::test]
async fn a_jump_tells_of_each_level_in_order_and_a_top_up_arms_them_again() {
    // Case 108: 70 → 100, then a top-up to 50 %, then 85 %.
    let db = database().await;
    let mut user = Spender::new(&db, 100).await;
    user.spend(70).await;
    user.spend(30).await;
    assert_eq!(user.alerts().await, [WARNING, CRITICAL, BLOCKED]);
    let told = db.told(user.user).await;
    let kinds: Vec<&str> = told.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["alert.warning", "alert.critical", "alert.blocked"]);
    // Case 109: every fact, and the right side of the threshold.
    let (_, facts) = &told[1];
    assert_eq!(
        (&facts["spent"], &facts["limit"], &facts["remaining"]),
        (&100.into(), &100.into(), &0.into())
    );
    assert_eq!((&facts["percent"], &facts["threshold"]), (&100.0.into(), &0.95.into()));
    assert!(facts["alert_id"].is_string());

    db.grant(user.user, 100).await;
    assert_eq!(user.alerts().await, [WARNING, CRITICAL, BLOCKED].map(resolved));
    let (kind, facts) = db.told(user.user).await.pop().unwrap();
    assert_eq!(kind, "alert.recovered");
    assert_eq!((&facts["from"], &facts["level"]), (&"blocked".into(), &Value::Null));
    assert_eq!((&facts["percent"], &facts["resolved_by"]), (&50.0.into(), &"bonus".into()));
    assert_eq!(facts["alert_ids"].as_array().unwrap().len(), 3);

    user.spend(70).await;
    let mut all = [WARNING, CRITICAL, BLOCKED].map(resolved).to_vec();
    all.push(WARNING);
    assert_eq!(user.alerts().await, all);
}

#[tokio::test]
async fn a_top_up_resolves_only_the_levels_above_where_it_leads() {
    let db = database().await;
    let mut user = Spender::new(&db, 100).await;
    user.spend(100).await;
    // 100 of 110: above 80 %, below 95 %.
    db.grant(user.user, 10).await;
    assert_eq!(user.alerts().await, [WARNING, resolved(CRITICAL), resolved(BLOCKED)]);
    // What is taken away leads up again.
    db.grant(user.user, -6).await;
    assert_eq!(user.alerts().await, [WARNING, resolved(CRITICAL), resolved(BLOCKED), CRITICAL]);
}

#[tokio::test]
async fn five_hundred_settles_over_three_replicas_tell_once() {
    // Case 107.
    let db = database().await;
    let user = db.user().await;
    db.grant(user, 1_000_000).await;
    let mut flushes = Vec::new();
    for replica in 0..3_u16 {
        let partition = PartitionId(replica);
        let (store, epoch) = (db.store.clone(), db.open(partition).await);
        flushes.push(tokio::spawn(async move {
            let mut settles: Vec<Entry> = Vec::new();
            for n in 0..500_u64 {
                settles.push(entry(user, &format!("{replica}-{n}"), Kind::Settle, 600, n + 1));
            }
            for batch in settles.chunks(7) {
                let by = Booker::Flusher { run_id: RUN, acked_up_to: 0 };
                let booking = store.book(partition, epoch, by, batch, 0).await.unwrap();
                assert!(matches!(booking, Booking::Booked(_)), "{booking:?}");
            }
        }));
    }
    for flush in flushes {
        flush.await.unwrap();
    }
    assert_eq!(db.used(user).await, 900_000);
    assert_eq!(db.alerts(user).await, [WARNING]);
    assert_eq!(db.told(user).await.len(), 1);
    db.assert_no_drift().await;
}

#[tokio::test]
async fn many_users_in_one_batch_are_each_told_of_their_own() {
    let db = database().await;
    let epoch = db.open(P0).await;
    let mut users = Vec::new();
    for n in 0..20 {
        let user = db.user().await;
        db.grant(user, 100).await;
        users.push((user, n * 10));
    }
    let settles: Vec<Entry> = users
        .iter()
        .zip(1..)
        .map(|((user, tokens), sequence)| entry(*user, "r", Kind::Settle, *tokens, sequence))
        .collect();
    db.flush(epoch, &settles).await;
    for (user, tokens) in users {
        let all = [WARNING, CRITICAL, BLOCKED];
        let expected = match tokens {
            0..80 => &all[..0],
            80..95 => &all[..1],
            95..100 => &all[..2],
            _ => &all[..],
        };
        assert_eq!(db.alerts(user).await, expected, "{tokens}");
    }
}

#[tokio::test]
async fn a_correction_that_leads_below_recovers() {
    let db = database().await;
    let mut user = Spender::new(&db, 100).await;
    user.spend(70).await;
    let (id, epoch) = (user.user, user.epoch);
    db.flush(epoch, &[entry(id, "x", Kind::Expiry, 15, 50)]).await;
    assert_eq!(user.alerts().await, [WARNING]);
    db.flush(epoch, &[entry(id, "x", Kind::Settle, 5, 51)]).await;
    assert_eq!(user.alerts().await, [resolved(WARNING)]);
    let alert = db.store.alerts(id, None, None, 1).await.unwrap().remove(0);
    assert_eq!(alert.resolved.unwrap().1, "correction");
}

#[tokio::test]
async fn with_nothing_granted_there_is_no_alert() {
    let db = database().await;
    let mut user = Spender::new(&db, 0).await;
    user.spend(50).await;
    assert_eq!(user.alerts().await, []);
    // 50 of 60.
    db.grant(user.user, 60).await;
    assert_eq!(user.alerts().await, [WARNING]);
    db.grant(user.user, -60).await;
    assert_eq!(user.alerts().await, [resolved(WARNING)]);
    let told = db.told(user.user).await;
    assert_eq!(told.len(), 1, "nobody has recovered who has nothing: {told:?}");
}

#[tokio::test]
async fn other_thresholds_judge_anew_and_tell_nothing_twice() {
    let db = database().await;
    let mut user = Spender::new(&db, 100).await;
    user.spend(85).await;
    assert_eq!(user.alerts().await, [WARNING]);
    db.set(user.user, thresholds("0.7", "0.95")).await;
    assert_eq!(user.alerts().await, [WARNING], "it holds, and was told");
    db.set(user.user, thresholds("0.7", "0.85")).await;
    assert_eq!(user.alerts().await, [WARNING, CRITICAL], "reached by the new one");
    db.set(user.user, thresholds("0.9", "1")).await;
    assert_eq!(user.alerts().await, [WARNING, CRITICAL].map(resolved));
    user.spend(5).await;
    assert_eq!(user.alerts().await, [resolved(WARNING), resolved(CRITICAL), WARNING]);
    let config = db.store.alert_config(user.user).await.unwrap().unwrap();
    assert_eq!(config.thresholds, thresholds("0.9", "1"));

    let stale = Expected::OneOf(vec![config.version - 1]);
    let refused = db.store.set_thresholds(user.user, &stale, thresholds("0.1", "0.2")).await.unwrap();
    assert_eq!(refused, AlertConfigUpdate::Stale);
    let nobody = UserId::generate();
    let refused = db.store.set_thresholds(nobody, &Expected::Any, thresholds("0.1", "0.2")).await.unwrap();
    assert_eq!(refused, AlertConfigUpdate::UserNotFound);
    assert_eq!(db.store.alert_config(nobody).await.unwrap(), None);
}

#[tokio::test]
async fn the_users_own_threshold_is_the_warnings() {
    let db = database().await;
    let mut user = Spender::new(&db, 100).await;
    user.spend(60).await;
    let patch = async |share: &str| {
        let change =
            ProfileChange { alert_threshold: Some(share.parse().unwrap()), ..ProfileChange::default() };
        let done = db.store.update_user(user.user, &Expected::Any, &change).await.unwrap();
        assert!(matches!(done, Update::Updated(_)), "{done:?}");
    };
    patch("0.5").await;
    assert_eq!(user.alerts().await, [WARNING], "moved at once");
    patch("0.98").await;
    assert_eq!(user.alerts().await, [resolved(WARNING)]);
    let config = db.store.alert_config(user.user).await.unwrap().unwrap();
    assert_eq!(config.thresholds, thresholds("0.98", "0.98"), "the critical one moves along");
}
