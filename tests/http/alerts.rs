//! Alerts and their thresholds over HTTP, and what a user is told when everything is used.

use cota::quota::UserId;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    service::{Answer, Service, TOP_UP_URL, send},
    world::until,
};

async fn put(service: &Service, user: UserId, jwt: &str, tag: Option<&str>, body: &Value) -> Answer {
    let request = service.request(Method::PUT, &format!("/v1/users/{user}/alert-config"), jwt).json(body);
    send(match tag {
        Some(tag) => request.header("if-match", tag),
        None => request,
    })
    .await
}

async fn alerts(service: &Service, user: UserId, query: &str) -> Vec<Value> {
    let path = format!("/v1/users/{user}/alerts?limit=10{query}");
    let page = service.get_as(&path, &service.user_jwt(user)).await.is(200);
    page["alerts"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_uses_everything_is_told_and_a_purchase_lets_it_go_on() {
    let service = Service::start().await;
    let user = service.user(100).await;
    service.reserve(user, "a", 100).await.is(201);
    service.settle(user, "a", 100).await.is(200);
    until("all three alerts are there", async || alerts(&service, user, "&open=true").await.len() == 3).await;
    let listed = alerts(&service, user, "").await;
    let levels: Vec<&Value> = listed.iter().map(|alert| &alert["level"]).collect();
    assert_eq!(levels, ["blocked", "critical", "warning"]);
    assert_eq!((&listed[2]["threshold"], &listed[2]["used_tokens"]), (&json!(0.8), &json!(100)));

    let refused = service.reserve(user, "b", 1).await.problem(402, "insufficient_tokens");
    assert_eq!(refused["top_up_url"], TOP_UP_URL);
    assert!(refused["instructions"].as_str().unwrap().contains("Buy tokens"));
    let path = format!("/v1/users/{user}/reservations");
    let request = service.request(Method::POST, &path, service.gateway_jwt());
    let request = request.header("accept-language", "pt-BR").json(&json!({"id": "b", "tokens": 1}));
    let refused = service.send(request).await.problem(402, "insufficient_tokens");
    assert!(refused["instructions"].as_str().unwrap().contains("Compre tokens"));

    service.credit(user, 100, "more").await.is(201);
    assert_eq!(alerts(&service, user, "&open=true").await, Vec::<Value>::new());
    let resolved = alerts(&service, user, "&open=false").await;
    assert!(resolved.iter().all(|alert| alert["resolved_by"] == "bonus" && alert["resolved_at"].is_string()));
    service.reserve(user, "b", 1).await.is(201);

    let path = format!("/v1/users/{user}/alerts?limit=2");
    let page = service.get_as(&path, service.admin_jwt()).await.is(200);
    let next = page["next"].as_str().unwrap();
    let rest = service.get_as(&format!("{path}&before={next}"), service.admin_jwt()).await.is(200);
    assert_eq!((rest["alerts"].as_array().unwrap().len(), &rest["next"]), (1, &Value::Null));
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thresholds_are_the_users_to_set_under_their_tag() {
    let service = Service::start().await;
    let user = service.user(100).await;
    let (own, path) = (service.user_jwt(user), format!("/v1/users/{user}/alert-config"));
    let shown = service.get_as(&path, &own).await;
    let tag = shown.header("etag").unwrap().to_owned();
    assert_eq!(shown.is(200), json!({"alert_config": {"warning": 0.8, "critical": 0.95, "blocked": 1.0}}));

    let body = json!({"warning": 0.5, "critical": 0.9});
    put(&service, user, &own, None, &body).await.problem(428, "precondition_required");
    let changed = put(&service, user, &own, Some(&tag), &body).await;
    let next = changed.header("etag").unwrap().to_owned();
    assert_eq!(changed.is(200), json!({"alert_config": {"warning": 0.5, "critical": 0.9, "blocked": 1.0}}));
    put(&service, user, &own, Some(&tag), &body).await.problem(412, "precondition_failed");
    let again = send(service.request(Method::GET, &path, &own).header("if-none-match", &next)).await;
    assert_eq!(again.status, 304);

    for (body, code, field) in [
        (json!({"warning": 0.5}), "missing_field", "critical"),
        (json!({"critical": 0.5}), "missing_field", "warning"),
        (json!({"warning": 0.9, "critical": 0.5}), "invalid_alert_threshold", "warning"),
        (json!({"warning": 0, "critical": 0.5}), "invalid_alert_threshold", "warning"),
        (json!({"warning": 0.5, "critical": 1.1}), "invalid_alert_threshold", "critical"),
        (json!({"warning": 0.5, "critical": 0.9, "blocked": 0.99}), "invalid_alert_threshold", "blocked"),
        (json!({"warning": "0.5", "critical": 0.9}), "invalid_body", "warning"),
        (json!({"warning": 0.5, "critical": 0.9, "level": 1}), "unknown_field", "level"),
    ] {
        assert_eq!(
            put(&service, user, &own, Some("*"), &body).await.problem(422, code)["field"],
            field,
            "{body}"
        );
    }
    // The account shows the same threshold, whichever way it was set.
    let account = service.get_as(&format!("/v1/users/{user}"), &own).await.is(200);
    assert_eq!(account["user"]["alert_threshold"], 0.5);
    let nobody = UserId::generate();
    service
        .get_as(&format!("/v1/users/{nobody}/alert-config"), service.admin_jwt())
        .await
        .problem(404, "user_not_found");
    put(&service, nobody, service.admin_jwt(), Some("*"), &json!({"warning": 0.5, "critical": 0.9}))
        .await
        .problem(404, "user_not_found");
    let path = format!("/v1/users/{user}/alerts?open=maybe");
    service.get_as(&path, &own).await.problem(422, "invalid_query");
    service.finish().await;
}
