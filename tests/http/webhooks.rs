//! Webhooks: endpoints over the API, and what their receivers get.

use std::{collections::BTreeSet, time::Duration};

use cota::quota::UserId;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    receiver::{self, Received, Receiver, Reply},
    service::{Answer, Service, send},
    world::until,
};

async fn start() -> (Service, Receiver) {
    (Service::with(|config| receiver::configure(&mut config.notify)).await, Receiver::start().await)
}

fn hooks(user: UserId) -> String {
    format!("/v1/users/{user}/webhooks")
}

async fn call(service: &Service, method: Method, path: &str, jwt: &str, body: Value) -> Answer {
    let request = service.request(method, path, jwt);
    send(if body.is_null() { request } else { request.json(&body) }).await
}

/// An endpoint of the user, made by itself: its id and its secret.
async fn create(service: &Service, user: UserId, url: &str, events: Value) -> (String, String) {
    let body = if events.is_null() { json!({"url": url}) } else { json!({"url": url, "events": events}) };
    let made = call(service, Method::POST, &hooks(user), &service.user_jwt(user), body).await.is(201);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    (text(&made["webhook"]["id"]), text(&made["secret"]))
}

/// An event, as whoever changes the account writes it; its id.
async fn event(service: &Service, user: UserId, kind: &str) -> i64 {
    sqlx::query_scalar("INSERT INTO user_events (user_id, kind, data) VALUES ($1, $2, $3) RETURNING id")
        .bind(user.0)
        .bind(kind)
        .bind(json!({"percent": 80, "note": "é"}))
        .fetch_one(service.world.database.pool())
        .await
        .unwrap()
}

async fn deliveries(service: &Service, user: UserId, webhook: &str) -> Vec<Value> {
    let path = format!("{}/{webhook}/deliveries", hooks(user));
    service.get_as(&path, &service.user_jwt(user)).await.is(200)["deliveries"].as_array().unwrap().clone()
}

/// Brings what waits forward, as time would.
async fn make_due(service: &Service) {
    let world = &service.world;
    world.sql("UPDATE webhook_endpoints SET paused_until = NULL").await;
    world
        .sql("UPDATE notifications SET next_attempt_at = now() WHERE state = 'pending' AND lease IS NULL")
        .await;
}

fn ids(received: &[Received]) -> BTreeSet<String> {
    received.iter().map(|webhook| webhook.id().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_is_made_shown_changed_and_deleted() {
    let service = Service::start().await;
    let user = service.user(0).await;
    let own = service.user_jwt(user);
    let new = json!({"url": "https://HOOKS.example.com/a", "events": ["alert.blocked", "alert.warning"]});
    let made = call(&service, Method::POST, &hooks(user), &own, new).await;
    let tag = made.header("etag").unwrap().to_owned();
    let made = made.is(201);
    let webhook = &made["webhook"];
    assert_eq!((&webhook["url"], &webhook["enabled"]), (&json!("https://hooks.example.com/a"), &json!(true)));
    assert_eq!(webhook["events"], json!(["alert.warning", "alert.blocked"]));
    let path = format!("{}/{}", hooks(user), webhook["id"].as_str().unwrap());
    for jwt in [&own, service.admin_jwt()] {
        let shown = service.get_as(&path, jwt).await;
        assert_eq!(shown.header("etag"), Some(&*tag));
        assert_eq!(shown.is(200), json!({"webhook": webhook}), "never its secret");
        assert_eq!(service.get_as(&hooks(user), jwt).await.is(200), json!({"webhooks": [webhook]}));
    }
    let known = service.request(Method::GET, &path, &own).header("if-none-match", &tag);
    assert_eq!(send(known).await.status, 304);
    let patch = async |tag: Option<&str>, change: Value| {
        let request = service.request(Method::PATCH, &path, &own).json(&change);
        send(match tag {
            Some(tag) => request.header("if-match", tag),
            None => request,
        })
        .await
    };
    patch(None, json!({"enabled": false})).await.problem(428, "precondition_required");
    let changed = patch(Some(&tag), json!({"enabled": false, "events": null})).await.is(200);
    assert_eq!(
        (
            &changed["webhook"]["enabled"],
            &changed["webhook"]["disabled_reason"],
            &changed["webhook"]["events"]
        ),
        (&json!(false), &json!("asked"), &Value::Null)
    );
    patch(Some(&tag), json!({"enabled": true})).await.problem(412, "precondition_failed");
    let enabled =
        patch(Some("*"), json!({"enabled": true, "url": "https://hooks.example.com/b"})).await.is(200);
    assert_eq!(enabled["webhook"]["disabled_at"], Value::Null);
    let request = service.request(Method::DELETE, &path, &own);
    assert_eq!(send(request).await.status, 204);
    for method in [Method::GET, Method::DELETE] {
        call(&service, method, &path, &own, Value::Null).await.problem(404, "webhook_not_found");
    }
    // Each change is on record, and who made it.
    let audit = service.get_as(&format!("/v1/users/{user}/audit"), &own).await.is(200);
    let rows =
        audit["rows"].as_array().unwrap().iter().filter(|row| row["action"] == "configuration.changed");
    let rows: Vec<_> = rows.map(|row| (row["data"]["what"].as_str().unwrap(), &row["actor"])).collect();
    let actor = json!(user.to_string());
    let deleted = ("webhook.deleted", &actor);
    let changed = ("webhook.changed", &actor);
    assert_eq!(rows, [deleted, changed, changed, ("webhook.created", &actor)]);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_changes_nothing() {
    let service = Service::with(|config| config.notify.max_webhooks_per_user = 2).await;
    let (user, other) = (service.user(0).await, service.user(0).await);
    let own = service.user_jwt(user);
    let (id, _) = create(&service, user, "https://a.example/", Value::Null).await;
    let before = service.get_as(&hooks(user), &own).await.is(200);
    for (body, status, code) in [
        (json!({}), 422, "missing_field"),
        (json!({"url": 7}), 422, "invalid_body"),
        (json!({"url": "http://a.example/x"}), 422, "invalid_webhook_url"),
        (json!({"url": "https://169.254.169.254/latest"}), 422, "invalid_webhook_url"),
        (json!({"url": "https://localhost/"}), 422, "invalid_webhook_url"),
        (json!({"url": "https://u:p@a.example/"}), 422, "invalid_webhook_url"),
        (json!({"url": "https://a.example:22/"}), 422, "invalid_webhook_url"),
        (json!({"url": "https://b.example/", "events": []}), 422, "invalid_events"),
        (json!({"url": "https://b.example/", "events": ["alert.warning", "alert.*"]}), 422, "invalid_events"),
        (json!({"url": "https://b.example/", "events": null}), 422, "invalid_body"),
        (json!({"url": "https://b.example/", "events": "alert.warning"}), 422, "invalid_body"),
        (json!({"url": "https://b.example/", "secret": "x"}), 422, "unknown_field"),
        (json!({"url": "https://A.example"}), 409, "webhook_url_taken"),
    ] {
        call(&service, Method::POST, &hooks(user), &own, body).await.problem(status, code);
    }
    let path = format!("{}/{id}", hooks(user));
    let request =
        |change: Value| service.request(Method::PATCH, &path, &own).header("if-match", "*").json(&change);
    for (change, code) in [
        (json!({}), "missing_field"),
        (json!({"url": "https://[::1]/"}), "invalid_webhook_url"),
        (json!({"events": []}), "invalid_events"),
        (json!({"enabled": "no"}), "invalid_body"),
    ] {
        send(request(change)).await.problem(422, code);
    }
    let rotate = format!("{path}/rotate-secret");
    for overlap in [json!(-1), json!(604_801), json!(1.5)] {
        let answer = call(&service, Method::POST, &rotate, &own, json!({"overlap_seconds": overlap})).await;
        assert_eq!(answer.problem(422, "invalid_overlap")["limit"], 604_800);
    }
    assert_eq!(service.get_as(&hooks(user), &own).await.is(200), before);
    create(&service, user, "https://b.example/", Value::Null).await;
    let third = call(&service, Method::POST, &hooks(user), &own, json!({"url": "https://c.example/"})).await;
    assert_eq!(third.problem(409, "too_many_webhooks")["limit"], 2);
    // Another user's endpoint is nobody's, under whichever name it is asked for.
    let foreign = format!("{}/{id}", hooks(other));
    let jwt = service.user_jwt(other);
    for path in [&foreign, &format!("{}/x", hooks(other)), &format!("{}/%FF", hooks(other))] {
        service.get_as(path, &jwt).await.problem(404, "webhook_not_found");
    }
    service.get_as(&path, &jwt).await.problem(403, "forbidden");
    service.get_as(&path, service.gateway_jwt()).await.problem(403, "forbidden");
    let nobody = hooks(UserId::generate());
    let answer =
        call(&service, Method::POST, &nobody, service.admin_jwt(), json!({"url": "https://a.example/"}))
            .await;
    answer.problem(404, "user_not_found");
    service.get_as(&format!("{path}/deliveries?state=lost"), &own).await.problem(422, "invalid_query");
    let resend = format!("{path}/deliveries/7/resend");
    call(&service, Method::POST, &resend, &own, Value::Null).await.problem(404, "delivery_not_found");
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receivers_get_what_they_asked_for_signed() {
    let (service, receiver) = start().await;
    let user = service.user(0).await;
    let (webhook, secret) = create(&service, user, &receiver.url("/hook"), json!(["alert.warning"])).await;
    event(&service, user, "credit.granted").await;
    let id = event(&service, user, "alert.warning").await;
    let received = receiver.has(1).await;
    let [got] = received.as_slice() else { panic!("{received:?}") };
    assert_eq!((got.path.as_str(), got.id()), ("/hook", &*format!("evt_{id}")));
    assert_eq!(got.signed_by(&secret), (1, vec![0]));
    assert_eq!(got.header("content-type"), "application/json");
    let age = jiff::Timestamp::now().as_second() - got.header("webhook-timestamp").parse::<i64>().unwrap();
    assert!((0..60).contains(&age), "{age}");
    assert_eq!(got.body["type"], "alert.warning");
    assert_eq!(got.body["user_id"], user.to_string());
    assert_eq!(got.body["data"], json!({"percent": 80, "note": "é"}));
    assert!(got.body["timestamp"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    until("it is noted", async || {
        deliveries(&service, user, &webhook).await.first().is_some_and(|first| first["state"] == "delivered")
    })
    .await;
    let log = deliveries(&service, user, &webhook).await;
    assert_eq!(log.len(), 1);
    assert_eq!((&log[0]["attempts"], &log[0]["last_status"]), (&json!(1), &json!(204)));
    assert_eq!((&log[0]["event_id"], &log[0]["type"]), (&json!(got.id()), &json!("alert.warning")));
    assert!(
        service
            .metrics()
            .await
            .contains("cota_notification_attempts_total{channel=\"webhook\",outcome=\"delivered\"}")
    );
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_secret_is_changed_both_sign() {
    let (service, receiver) = start().await;
    let user = service.user(0).await;
    let (webhook, old) = create(&service, user, &receiver.url("/"), Value::Null).await;
    let rotate = async |body| {
        let path = format!("{}/{webhook}/rotate-secret", hooks(user));
        let rotated = call(&service, Method::POST, &path, &service.user_jwt(user), body).await.is(200);
        let until = rotated["webhook"]["previous_secret_until"].is_string();
        (rotated["secret"].as_str().unwrap().to_owned(), until)
    };
    let (new, overlaps) = rotate(json!({})).await;
    assert!(overlaps && new != old);
    event(&service, user, "alert.warning").await;
    let received = receiver.has(1).await;
    assert_eq!((received[0].signed_by(&new), received[0].signed_by(&old)), ((2, vec![0]), (2, vec![1])));
    let (newest, overlaps) = rotate(json!({"overlap_seconds": 0})).await;
    assert!(!overlaps);
    event(&service, user, "alert.warning").await;
    let received = receiver.has(2).await;
    assert_eq!((received[1].signed_by(&newest), received[1].signed_by(&new)), ((1, vec![0]), (1, vec![])));
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_is_tried_again_under_the_same_id() {
    let (service, receiver) = start().await;
    let user = service.user(0).await;
    let (webhook, secret) = create(&service, user, &receiver.url("/"), Value::Null).await;
    let hang = Reply { after: Duration::from_secs(5), ..Reply::status(204) };
    let busy = Reply { retry_after: Some("3600"), ..Reply::status(429) };
    receiver.next(&[busy, Reply::status(500), Reply::status(301), hang]);
    event(&service, user, "alert.warning").await;
    // The schedule, give or take a fifth; and the wait that was asked for.
    for (attempt, status, error, waits) in [
        (1, json!(429), Value::Null, 3_500..=3_600),
        (2, json!(500), Value::Null, 230..=360),
        (3, json!(301), Value::Null, 1_430..=2_160),
        (4, Value::Null, json!("there was no answer in time"), 5_750..=8_640),
    ] {
        until("the attempt is noted", async || {
            let log = deliveries(&service, user, &webhook).await;
            let noted = |noted: &Value| noted["last_status"] == status && noted["last_error"] == error;
            log.first().is_some_and(|first| noted(first) && first["attempts"] == attempt)
        })
        .await;
        let log = deliveries(&service, user, &webhook).await;
        assert_eq!(log[0]["state"], "pending");
        let wait = log[0]["next_attempt_at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        let wait = wait.duration_since(jiff::Timestamp::now()).as_secs();
        assert!(waits.contains(&wait), "{attempt}: {wait}");
        make_due(&service).await;
    }
    until("it has come", async || {
        deliveries(&service, user, &webhook).await.first().is_some_and(|first| first["state"] == "delivered")
    })
    .await;
    let received = receiver.received();
    assert_eq!((received.len(), ids(&received).len()), (5, 1));
    assert!(received.iter().all(|webhook| webhook.signed_by(&secret).1 == [0]));
    let shown = service.get_as(&format!("{}/{webhook}", hooks(user)), &service.user_jwt(user)).await.is(200);
    assert_eq!(shown["webhook"]["failing_since"], Value::Null);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_wants_no_more_gets_no_more_and_its_user_hears_of_it() {
    let (service, receiver) = start().await;
    let (user, other) = (service.user(0).await, Receiver::start().await);
    let (gone, _) = create(&service, user, &receiver.url("/"), Value::Null).await;
    let (well, secret) = create(&service, user, &other.url("/"), json!(["webhook.disabled"])).await;
    receiver.always(Reply::status(410));
    event(&service, user, "alert.warning").await;
    let told = other.has(1).await;
    assert_eq!(told[0].body["type"], "webhook.disabled");
    assert_eq!(told[0].body["data"], json!({"webhook_id": gone, "reason": "gone"}));
    assert_eq!(told[0].signed_by(&secret).1, [0]);
    let path = format!("{}/{gone}", hooks(user));
    let shown = service.get_as(&path, &service.user_jwt(user)).await.is(200);
    assert_eq!(
        (&shown["webhook"]["enabled"], &shown["webhook"]["disabled_reason"]),
        (&json!(false), &json!("gone"))
    );
    let second = event(&service, user, "alert.warning").await;
    until("it is fanned out", async || {
        let sql = "SELECT fanned_out_at IS NOT NULL FROM user_events WHERE id = $1";
        let row = sqlx::query_scalar(sql).bind(second);
        row.fetch_one(service.world.database.pool()).await.unwrap()
    })
    .await;
    assert_eq!(deliveries(&service, user, &gone).await.len(), 1, "nothing new is queued for it");
    // What was lost can be had again.
    let lost = deliveries(&service, user, &gone).await[0].clone();
    let resend = format!("{path}/deliveries/{}/resend", lost["id"]);
    let own = service.user_jwt(user);
    call(&service, Method::POST, &resend, &own, Value::Null).await.problem(409, "webhook_disabled");
    let enable = service.request(Method::PATCH, &path, &own).header("if-match", "*");
    send(enable.json(&json!({"enabled": true}))).await.is(200);
    receiver.always(Reply::status(200));
    let queued = call(&service, Method::POST, &resend, &own, Value::Null).await.is(202);
    assert_eq!(queued["delivery"]["state"], "pending");
    let received = receiver.has(2).await;
    assert_eq!(ids(&received).len(), 1, "the same event under the same id");
    assert!(deliveries(&service, user, &well).await.len() == 1);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_fails_for_days_is_disabled() {
    let (service, receiver) = start().await;
    let user = service.user(0).await;
    let (webhook, _) = create(&service, user, &receiver.url("/"), Value::Null).await;
    receiver.always(Reply::status(503));
    event(&service, user, "alert.warning").await;
    let shown = async || {
        let path = format!("{}/{webhook}", hooks(user));
        service.get_as(&path, &service.user_jwt(user)).await.is(200)["webhook"].take()
    };
    until("it failed", async || shown().await["failing_since"].is_string()).await;
    service
        .world
        .sql("UPDATE webhook_endpoints SET failing_since = failing_since - interval '119 hours'")
        .await;
    make_due(&service).await;
    receiver.has(2).await;
    until("it is noted", async || deliveries(&service, user, &webhook).await[0]["attempts"] == 2).await;
    assert_eq!(shown().await["enabled"], true);
    service
        .world
        .sql("UPDATE webhook_endpoints SET failing_since = failing_since - interval '2 hours'")
        .await;
    until("it is disabled", async || {
        make_due(&service).await;
        shown().await["disabled_reason"] == "failing"
    })
    .await;
    assert_eq!(deliveries(&service, user, &webhook).await[0]["state"], "failed");
    service.finish().await;
}
