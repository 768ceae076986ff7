//! Auto-renewal over HTTP: set it, run low, pay, go on.

use cota::quota::UserId;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    service::{Answer, Service, send},
    world::until,
};

async fn put(service: &Service, user: UserId, tag: &str, body: &Value) -> Answer {
    let path = format!("/v1/users/{user}/auto-renewal");
    send(service.request(Method::PUT, &path, service.admin_jwt()).header("if-match", tag).json(body)).await
}

async fn confirm(service: &Service, user: UserId, id: &str, body: Option<Value>) -> Answer {
    let path = format!("/v1/users/{user}/renewals/{id}/confirm");
    let request = service.request(Method::POST, &path, service.admin_jwt());
    send(match body {
        Some(body) => request.json(&body),
        None => request,
    })
    .await
}

async fn renewals(service: &Service, user: UserId, query: &str) -> Vec<Value> {
    let path = format!("/v1/users/{user}/renewals?limit=10{query}");
    let page = service.get_as(&path, &service.user_jwt(user)).await.is(200);
    page["renewals"].as_array().unwrap().clone()
}

fn settings(mode: &str, tokens: u64, max_renewals: u64) -> Value {
    json!({"enabled": true, "threshold": 0.1, "tokens": tokens, "max_renewals": max_renewals, "mode": mode})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_that_runs_low_gets_tokens_by_itself() {
    let service = Service::start().await;
    let user = service.user(100).await;
    put(&service, user, "*", &settings("immediate", 1_000, 3)).await.is(200);
    service.reserve(user, "a", 95).await.is(201);
    service.settle(user, "a", 95).await.is(200);
    until("the renewal can be spent", async || service.balance(user).await["available"] == 1_005).await;
    let listed = renewals(&service, user, "").await;
    assert_eq!((&listed[0]["state"], &listed[0]["tokens"]), (&json!("granted"), &json!(1_000)));
    let credits = service.get_as(&format!("/v1/users/{user}/credits"), &service.user_jwt(user)).await.is(200);
    assert_eq!(credits["credits"][0]["kind"], "renewal");
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_paid_once_however_often_it_is_confirmed() {
    let service = Service::start().await;
    let user = service.user(100).await;
    put(&service, user, "*", &settings("on_payment", 1_000, 3)).await.is(200);
    service.reserve(user, "a", 95).await.is(201);
    service.settle(user, "a", 95).await.is(200);
    until("it is requested", async || renewals(&service, user, "&state=pending").await.len() == 1).await;
    assert_eq!(service.balance(user).await["available"], 5);
    let pending = renewals(&service, user, "").await.remove(0);
    let id = pending["id"].as_str().unwrap();

    let paid =
        json!({"payment_method": "pix", "amount": "9.90", "currency": "BRL", "provider_reference": "p-1"});
    let answers = join_all((0..20).map(|_| confirm(&service, user, id, Some(paid.clone())))).await;
    let made = answers.iter().filter(|answer| !answer.replayed()).count();
    assert_eq!(made, 1);
    let first = answers[0].clone().is(200);
    assert_eq!(
        (&first["renewal"]["state"], &first["grant"]["amount_paid"]),
        (&json!("granted"), &json!("9.90"))
    );
    assert_eq!(service.balance(user).await["available"], 1_005);
    assert!(confirm(&service, user, id, None).await.replayed());
    let other =
        json!({"payment_method": "pix", "amount": "9.91", "currency": "BRL", "provider_reference": "p-1"});
    confirm(&service, user, id, Some(other)).await.problem(409, "idempotency_mismatch");
    let part = json!({"provider_reference": "p-1"});
    confirm(&service, user, id, Some(part)).await.problem(422, "missing_field");
    let stranger = service.user(1).await;
    confirm(&service, stranger, id, None).await.problem(404, "renewal_not_found");
    confirm(&service, user, "x", None).await.problem(422, "invalid_renewal_id");
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_are_whole_and_change_under_their_tag() {
    let service = Service::start().await;
    let user = service.user(100).await;
    let path = format!("/v1/users/{user}/auto-renewal");
    let shown = service.get_as(&path, &service.user_jwt(user)).await;
    let tag = shown.header("etag").unwrap().to_owned();
    assert_eq!(shown.is(200)["auto_renewal"]["enabled"], false);
    let changed = put(&service, user, &tag, &settings("on_payment", 7, 2)).await;
    assert_eq!(changed.is(200)["auto_renewal"], settings("on_payment", 7, 2));
    put(&service, user, &tag, &settings("on_payment", 8, 2)).await.problem(412, "precondition_failed");
    let request =
        service.request(Method::PUT, &path, service.admin_jwt()).json(&settings("on_payment", 8, 2));
    send(request).await.problem(428, "precondition_required");

    for (name, value, code) in [
        ("enabled", Value::Null, "invalid_body"),
        ("enabled", json!("yes"), "invalid_body"),
        ("threshold", json!(1), "invalid_renewal"),
        ("threshold", json!(0), "invalid_alert_threshold"),
        ("tokens", json!(0), "invalid_amount"),
        ("tokens", json!(1_000_000_000_001_u64), "amount_out_of_range"),
        ("max_renewals", json!(101), "invalid_renewal"),
        ("max_renewals", json!(-1), "invalid_renewal"),
        ("max_renewals", json!("3"), "invalid_body"),
        ("mode", json!("later"), "invalid_renewal"),
    ] {
        let mut body = settings("immediate", 1, 1);
        body[name] = value;
        assert_eq!(put(&service, user, "*", &body).await.problem(422, code)["field"], name, "{body}");
    }
    for name in ["enabled", "threshold", "tokens", "max_renewals", "mode"] {
        let mut body = settings("immediate", 1, 1);
        body.as_object_mut().unwrap().remove(name);
        assert_eq!(put(&service, user, "*", &body).await.problem(422, "missing_field")["field"], name);
    }
    put(&service, UserId::generate(), "*", &settings("immediate", 1, 1)).await.problem(404, "user_not_found");
    let path = format!("/v1/users/{user}/renewals?state=lost");
    service.get_as(&path, service.admin_jwt()).await.problem(422, "invalid_query");
    service.finish().await;
}
