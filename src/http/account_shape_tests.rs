//! The bad-input table of what concerns accounts: credits and adjustments.

use axum::{body::Body, http::Request};
use serde_json::{Value, json};

use super::{assert_problem, harness, shapes::refuse};
use crate::quota::UserId;

#[tokio::test]
async fn credits() {
    let reason = format!("{{\"tokens\":1,\"reason\":\"{}\"}}", "x".repeat(1_001));
    refuse(
        "credits",
        &[
            ("{}", 422, "missing_field", Some("tokens")),
            ("{\"tokens\":0}", 422, "invalid_amount", Some("tokens")),
            ("{\"tokens\":1,\"kind\":\"renewal\"}", 422, "invalid_kind", Some("kind")),
            ("{\"tokens\":1,\"kind\":\"adjustment\"}", 422, "invalid_kind", Some("kind")),
            ("{\"tokens\":1,\"kind\":7}", 422, "invalid_body", Some("kind")),
            ("{\"tokens\":1,\"reason\":\"\"}", 422, "invalid_reason", Some("reason")),
            (&reason, 422, "invalid_reason", Some("reason")),
            ("{\"tokens\":1,\"price\":1}", 422, "unknown_field", Some("price")),
            ("{\"tokens\":1,\"kind\":\"purchase\"}", 422, "missing_field", Some("payment_method")),
            ("{\"tokens\":1,\"amount\":1}", 422, "missing_field", Some("payment_method")),
            ("{\"tokens\":1,\"provider_reference\":\"r\"}", 422, "missing_field", Some("payment_method")),
        ],
    )
    .await;
    let harness = harness();
    let path = format!("/v1/users/{}/credits", UserId::generate());
    let answer = harness.post(&path, &harness.admin(), "{\"tokens\":1}").await;
    assert_problem(&answer, 422, "missing_idempotency_key", "no key");
    for keys in [&[""][..], &["a", "a"], &["é"], &[&"k".repeat(256)]] {
        let mut request = Request::post(&path)
            .header("authorization", format!("Bearer {}", harness.admin()))
            .header("content-type", "application/json");
        for key in keys {
            request = request.header("idempotency-key", *key);
        }
        let answer = harness.send(request.body(Body::from("{\"tokens\":1}")).unwrap()).await;
        assert_problem(&answer, 422, "invalid_idempotency_key", &format!("{keys:?}"));
    }
}

/// A purchase with one member changed.
fn purchase(name: &str, value: Value) -> String {
    let mut body = json!({"tokens": 1, "payment_method": "pix", "amount": "9.90", "currency": "BRL"});
    match value {
        Value::Null => _ = body.as_object_mut().unwrap().remove(name),
        value => body[name] = value,
    }
    body.to_string()
}

#[tokio::test]
async fn payments() {
    for (name, value, code) in [
        ("payment_method", Value::Null, "missing_field"),
        ("amount", Value::Null, "missing_field"),
        ("currency", Value::Null, "missing_field"),
        ("payment_method", json!(""), "invalid_payment"),
        ("payment_method", json!("x".repeat(101)), "invalid_payment"),
        ("payment_method", json!("a\u{0}b"), "invalid_payment"),
        ("provider", json!("a\nb"), "invalid_payment"),
        ("provider", json!(""), "invalid_payment"),
        ("provider_reference", json!(""), "invalid_payment"),
        ("provider_reference", json!("x".repeat(256)), "invalid_payment"),
        ("currency", json!("brl"), "invalid_payment"),
        ("currency", json!("R$"), "invalid_payment"),
        ("amount", json!(""), "invalid_payment"),
        ("amount", json!("-1"), "invalid_payment"),
        ("amount", json!("1e3"), "invalid_payment"),
        ("amount", json!("NaN"), "invalid_payment"),
        ("amount", json!("1.0000000001"), "invalid_payment"),
        ("amount", json!("1000000000"), "invalid_payment"),
        ("amount", json!("1,50"), "invalid_payment"),
        ("amount", json!(9.9), "invalid_body"),
        ("payment_method", json!(7), "invalid_body"),
    ] {
        let body = purchase(name, value);
        refuse("credits", &[(&body, 422, code, Some(name))]).await;
    }
    refuse("credits", &[(&purchase("kind", json!("bonus")), 422, "conflicting_fields", Some("kind"))]).await;
}

#[tokio::test]
async fn adjustments() {
    let reason = json!({"direction": "up", "tokens": 1, "reason": "x".repeat(1_001)}).to_string();
    let transaction =
        |id: &str| json!({"direction": "up", "tokens": 1, "reason": "r", "transaction_id": id}).to_string();
    refuse(
        "adjustments",
        &[
            ("{}", 422, "missing_field", Some("direction")),
            ("{\"direction\":\"up\",\"reason\":\"r\"}", 422, "missing_field", Some("tokens")),
            ("{\"direction\":\"up\",\"tokens\":1}", 422, "missing_field", Some("reason")),
            (
                "{\"direction\":\"left\",\"tokens\":1,\"reason\":\"r\"}",
                422,
                "invalid_direction",
                Some("direction"),
            ),
            ("{\"direction\":\"up\",\"tokens\":0,\"reason\":\"r\"}", 422, "invalid_amount", Some("tokens")),
            (
                "{\"direction\":\"down\",\"tokens\":-1,\"reason\":\"r\"}",
                422,
                "invalid_amount",
                Some("tokens"),
            ),
            ("{\"direction\":\"up\",\"tokens\":1,\"reason\":\"\"}", 422, "invalid_reason", Some("reason")),
            (&reason, 422, "invalid_reason", Some("reason")),
            (&transaction("x"), 422, "invalid_transaction_id", Some("transaction_id")),
            (
                &transaction("3f1c2a4e5b6d5e8f9a0b1c2d3e4f5a6b"),
                422,
                "invalid_transaction_id",
                Some("transaction_id"),
            ),
        ],
    )
    .await;
    let harness = harness();
    let path = format!("/v1/users/{}/adjustments", UserId::generate());
    let body = "{\"direction\":\"up\",\"tokens\":1,\"reason\":\"r\"}";
    let answer = harness.post(&path, &harness.admin(), body).await;
    assert_problem(&answer, 422, "missing_idempotency_key", "no key");
}

/// The service's own keys are nobody else's to use: a renewal could not be granted under one that is taken.
#[tokio::test]
async fn keys_of_the_service() {
    let harness = harness();
    for (call, body) in [
        ("credits", "{\"tokens\":1}"),
        ("adjustments", "{\"direction\":\"up\",\"tokens\":1,\"reason\":\"r\"}"),
    ] {
        let request = Request::post(format!("/v1/users/{}/{call}", UserId::generate()))
            .header("authorization", format!("Bearer {}", harness.admin()))
            .header("content-type", "application/json")
            .header("idempotency-key", "renewal:1");
        let answer = harness.send(request.body(Body::from(body)).unwrap()).await;
        assert_problem(&answer, 422, "invalid_idempotency_key", call);
    }
}
