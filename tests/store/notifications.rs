//! The queue of notifications: each event once per receiver, whoever works it off; rests, ends and the log.

use std::{collections::BTreeSet, time::Duration};

use cota::{
    quota::{EventKind, UserId},
    store::{
        Attempt, DeliveryState, DisabledReason, EndpointChange, EndpointCreation, Expected, NewEndpoint,
        Resend, Verdict, WebhookClaim, WebhookEndpoint,
    },
};
use futures_util::future::join_all;
use uuid::Uuid;

use crate::scratch::{Database, database};

const LEASE: Duration = Duration::from_secs(60);

impl Database {
    async fn endpoint(&self, user: UserId, name: &str, kinds: Option<Vec<EventKind>>) -> WebhookEndpoint {
        let url = format!("https://hooks.example.com/{name}");
        let new = NewEndpoint { id: Uuid::now_v7(), url, kinds, secret: vec![7; 32] };
        match self.store.create_webhook(user, &new, 10).await.unwrap() {
            EndpointCreation::Created(endpoint) => endpoint,
            other => panic!("{other:?}"),
        }
    }

    /// Events as whoever changes the account writes them.
    async fn events(&self, user: UserId, kind: &str, count: i64) {
        sqlx::query(
            "INSERT INTO user_events (user_id, kind, data) SELECT $1, $2, jsonb_build_object('n', n)
             FROM generate_series(1, $3) n",
        )
        .bind(user.0)
        .bind(kind)
        .bind(count)
        .execute(&self.pool)
        .await
        .unwrap();
    }

    async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.unwrap()
    }

    async fn run(&self, sql: &'static str) {
        sqlx::query(sql).execute(&self.pool).await.unwrap();
    }

    async fn claim(&self, limit: u32) -> Vec<WebhookClaim> {
        self.store.claim_webhooks(limit, LEASE).await.unwrap()
    }

    async fn finish(&self, claim: &WebhookClaim, verdict: Verdict) -> bool {
        let attempt = Attempt { status: Some(500), error: None, verdict };
        self.store.finish_webhook(claim, attempt).await.unwrap()
    }
}

fn retry(seconds: u64) -> Verdict {
    let after = Duration::from_secs(seconds);
    Verdict::Retry { after, pause: after }
}

#[tokio::test]
async fn an_event_is_queued_once_for_each_endpoint_that_wants_it() {
    let db = database().await;
    let (user, other, nobody) = (db.user().await, db.user().await, db.user().await);
    db.endpoint(user, "all", None).await;
    db.endpoint(user, "alerts", Some(vec![EventKind::AlertWarning, EventKind::AlertBlocked])).await;
    let off = db.endpoint(user, "off", None).await;
    let disable = EndpointChange { enabled: Some(false), ..EndpointChange::default() };
    db.store.update_webhook(user, off.id, &Expected::Any, &disable).await.unwrap();
    db.endpoint(other, "other", None).await;
    for (user, kind, count) in [
        (user, "alert.warning", 300),
        (user, "credit.granted", 200),
        (other, "alert.warning", 100),
        (nobody, "alert.warning", 50),
    ] {
        db.events(user, kind, count).await;
    }
    // Many replicas at once, each as often as there is something.
    let taken = join_all((0..8).map(async |_| {
        let mut taken = 0;
        loop {
            match db.store.fan_out(40, false).await.unwrap() {
                0 => return taken,
                events => taken += events,
            }
        }
    }))
    .await;
    assert_eq!(taken.iter().sum::<u64>(), 650);
    for (name, expected) in [("all", 500), ("alerts", 300), ("off", 0), ("other", 100)] {
        let url = format!("https://hooks.example.com/{name}");
        let sql = "SELECT count(*) FROM notifications n JOIN webhook_endpoints e ON e.id = n.endpoint_id WHERE e.url = $1";
        let found: i64 = sqlx::query_scalar(sql).bind(url).fetch_one(&db.pool).await.unwrap();
        assert_eq!(found, expected, "{name}");
    }
    assert_eq!(db.count("SELECT count(*) FROM user_events WHERE fanned_out_at IS NULL").await, 0);
    let backlogs = db.store.notification_backlogs().await.unwrap();
    assert_eq!((backlogs.events.pending, backlogs.webhooks.pending), (0, 900));
    // The mark lost, as if the commit had been: the same rows.
    db.run("UPDATE user_events SET fanned_out_at = NULL").await;
    assert_eq!(db.store.fan_out(1_000, false).await.unwrap(), 650);
    assert_eq!(db.count("SELECT count(*) FROM notifications").await, 900);
}

#[tokio::test]
async fn what_one_has_taken_on_nobody_else_has() {
    let db = database().await;
    for n in 0..40 {
        let user = db.user().await;
        db.endpoint(user, &format!("{n}"), None).await;
        db.events(user, "alert.warning", 3).await;
    }
    db.store.fan_out(1_000, false).await.unwrap();
    let rounds = join_all((0..10).map(async |_| {
        let mut mine = Vec::new();
        for _ in 0..10 {
            mine.extend(db.claim(5).await);
        }
        mine
    }))
    .await;
    let taken: Vec<i64> = rounds.iter().flatten().map(|claim| claim.notification).collect();
    assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), taken.len(), "one was taken on twice");
    // Passed-over rows are left for the next look.
    let rest = db.claim(1_000).await;
    assert_eq!(taken.len() + rest.len(), 120);
    assert!(rounds.iter().flatten().chain(&rest).all(|claim| claim.attempts == 1));
    assert!(db.claim(1_000).await.is_empty());
}

#[tokio::test]
async fn whoever_comes_back_after_its_lease_notes_nothing() {
    let db = database().await;
    let user = db.user().await;
    db.endpoint(user, "a", None).await;
    db.events(user, "alert.warning", 1).await;
    db.store.fan_out(10, false).await.unwrap();
    let first = db.claim(10).await.pop().unwrap();
    assert_eq!(first.secrets, Ok(vec![vec![7; 32]]));
    assert!(db.claim(10).await.is_empty(), "its lease lasts");
    db.run("UPDATE notifications SET next_attempt_at = now() - interval '1 second'").await;
    let second = db.claim(10).await.pop().unwrap();
    assert_eq!((second.notification, second.attempts), (first.notification, 2));
    for verdict in [Verdict::Delivered, retry(1), Verdict::Disable(DisabledReason::Gone)] {
        assert!(!db.finish(&first, verdict).await, "{verdict:?}");
    }
    let endpoint = db.store.webhook(user, second.endpoint).await.unwrap().unwrap();
    assert_eq!((endpoint.disabled, endpoint.failing_since), (None, None));
    assert!(db.finish(&second, Verdict::Delivered).await);
    assert!(!db.finish(&second, Verdict::Delivered).await, "it is noted once");
    let log = db.store.deliveries(user, second.endpoint, None, None, 10).await.unwrap().unwrap();
    assert_eq!((log.len(), log[0].state, log[0].attempts), (1, DeliveryState::Delivered, 2));
}

#[tokio::test]
async fn an_endpoint_that_fails_rests_and_holds_nobody_up() {
    let db = database().await;
    let (user, other) = (db.user().await, db.user().await);
    let failing = db.endpoint(user, "failing", None).await.id;
    db.endpoint(other, "well", None).await;
    db.events(user, "alert.warning", 20).await;
    db.store.fan_out(100, false).await.unwrap();
    db.events(other, "alert.warning", 1).await;
    db.store.fan_out(100, false).await.unwrap();
    // Not all of the room, although it has waited longest.
    let claims = db.claim(100).await;
    let of =
        |claims: &[WebhookClaim], endpoint| claims.iter().filter(|claim| claim.endpoint == endpoint).count();
    assert_eq!((claims.len(), of(&claims, failing)), (5, 4));
    assert!(db.claim(100).await.is_empty(), "four at a time");
    for claim in claims.iter().filter(|claim| claim.endpoint == failing) {
        assert!(db.finish(claim, retry(600)).await);
    }
    let endpoint = db.store.webhook(user, failing).await.unwrap().unwrap();
    assert!(endpoint.failing_since.is_some());
    assert!(db.claim(100).await.is_empty(), "what was never tried rests too");
    db.events(user, "alert.warning", 1).await;
    db.store.fan_out(100, false).await.unwrap();
    assert!(db.claim(100).await.is_empty(), "and so does what is new");
    // Once it has rested, one is tried, and a success lets the others follow.
    db.run("UPDATE notifications SET next_attempt_at = now() WHERE state = 'pending'").await;
    let probe = db.claim(100).await;
    assert_eq!((of(&probe, failing), probe[0].failures), (1, 4));
    assert!(db.finish(&probe[0], Verdict::Delivered).await);
    assert_eq!(db.claim(100).await.len(), 4);
    let endpoint = db.store.webhook(user, failing).await.unwrap().unwrap();
    assert_eq!(endpoint.failing_since, None);
}

#[tokio::test]
async fn a_disabled_endpoint_is_told_of_once_and_its_queue_ends() {
    let db = database().await;
    let user = db.user().await;
    let gone = db.endpoint(user, "gone", None).await.id;
    db.events(user, "alert.warning", 6).await;
    db.store.fan_out(100, false).await.unwrap();
    for claim in db.claim(4).await {
        assert!(db.finish(&claim, Verdict::Disable(DisabledReason::Gone)).await);
    }
    let endpoint = db.store.webhook(user, gone).await.unwrap().unwrap();
    assert_eq!(endpoint.disabled.unwrap().1, DisabledReason::Gone);
    let told = "SELECT count(*) FROM user_events WHERE kind = 'webhook.disabled'
                AND data = jsonb_build_object('webhook_id', (SELECT id FROM webhook_endpoints), 'reason', 'gone')";
    assert_eq!(db.count(told).await, 1);
    assert!(db.claim(100).await.is_empty());
    assert_eq!(db.store.fail_disabled_webhooks(100).await.unwrap(), 2);
    let failed =
        db.store.deliveries(user, gone, None, Some(DeliveryState::Failed), 10).await.unwrap().unwrap();
    assert_eq!(failed.len(), 6);
    assert_eq!(db.store.resend(user, gone, failed[0].id).await.unwrap(), Resend::Disabled);
    // On again, by hand.
    let enable = EndpointChange { enabled: Some(true), ..EndpointChange::default() };
    db.store.update_webhook(user, gone, &Expected::Any, &enable).await.unwrap();
    let Resend::Queued(again) = db.store.resend(user, gone, failed[0].id).await.unwrap() else { panic!() };
    assert_eq!((again.state, again.attempts), (DeliveryState::Pending, 0));
    let claims = db.claim(100).await;
    assert_eq!((claims.len(), claims[0].notification, claims[0].attempts), (1, failed[0].id, 1));
    // What is just being sent is left as it is.
    assert!(
        matches!(db.store.resend(user, gone, failed[0].id).await.unwrap(), Resend::Queued(d) if d.attempts == 1)
    );
    assert!(db.finish(&claims[0], Verdict::Delivered).await);
}

#[tokio::test]
async fn the_log_is_paged_and_another_users_endpoint_is_nobodys() {
    let db = database().await;
    let (user, other) = (db.user().await, db.user().await);
    let endpoint = db.endpoint(user, "a", None).await.id;
    db.events(user, "alert.warning", 25).await;
    db.store.fan_out(100, false).await.unwrap();
    let (mut seen, mut before) = (Vec::new(), None);
    loop {
        let page = db.store.deliveries(user, endpoint, before, None, 10).await.unwrap().unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.id);
        seen.extend(page.iter().map(|delivery| delivery.id));
    }
    assert_eq!(seen.len(), 25);
    assert!(seen.is_sorted_by(|a, b| a > b), "newest first, none twice");
    let delivered = Some(DeliveryState::Delivered);
    assert_eq!(db.store.deliveries(user, endpoint, None, delivered, 10).await.unwrap(), Some(vec![]));
    assert_eq!(db.store.deliveries(other, endpoint, None, None, 10).await.unwrap(), None);
    assert_eq!(db.store.resend(other, endpoint, seen[0]).await.unwrap(), Resend::NotFound);
    let second = db.endpoint(user, "b", None).await.id;
    assert_eq!(db.store.resend(user, second, seen[0]).await.unwrap(), Resend::NotFound);
    assert!(!db.store.delete_webhook(other, endpoint).await.unwrap());
    assert!(db.store.delete_webhook(user, endpoint).await.unwrap());
    assert_eq!(db.count("SELECT count(*) FROM notifications").await, 0);
}

#[tokio::test]
async fn old_notifications_are_forgotten_pending_ones_never() {
    let db = database().await;
    let user = db.user().await;
    db.endpoint(user, "a", None).await;
    db.events(user, "alert.warning", 3).await;
    db.store.fan_out(100, false).await.unwrap();
    let claims = db.claim(3).await;
    db.finish(&claims[0], Verdict::Delivered).await;
    db.finish(&claims[1], Verdict::Failed { pause: Duration::ZERO }).await;
    let day = Duration::from_secs(86_400);
    assert_eq!(db.store.forget_notifications(day, 10).await.unwrap(), 0);
    db.run(
        "UPDATE notifications SET created_at = now() - interval '9 days',
            finished_at = finished_at - interval '9 days'",
    )
    .await;
    assert_eq!(db.store.forget_notifications(day, 1).await.unwrap(), 1);
    assert_eq!(db.store.forget_notifications(day, 10).await.unwrap(), 1);
    assert_eq!(db.count("SELECT count(*) FROM notifications WHERE state = 'pending'").await, 1);
}
