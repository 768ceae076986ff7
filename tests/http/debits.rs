//! Settling without a reservation.

use reqwest::Method;
use serde_json::json;

use crate::support::service::Service;

#[tokio::test(flavor = "multi_thread")]
async fn a_debit_is_charged_once_by_id_under_both_prefixes() {
    let service = Service::start().await;
    let user = service.user(100).await;
    for (prefix, id, left) in [("/v1", "d1", 70), ("/api", "d2", 40)] {
        let path = format!("{prefix}/users/{user}/debits");
        let debit = json!({"id": id, "tokens": 30, "model": "gpt"});
        let first = service.post(&path, &debit).await;
        assert!(!first.replayed());
        let first = first.is(201);
        assert_eq!(first["balance"]["available"], left);
        assert_eq!(first["transaction"]["tokens"], 30);
        assert_eq!(first["transaction"]["model"], "gpt");
        let again = service.post(&path, &debit).await;
        assert!(again.replayed());
        assert_eq!(again.is(200), first);
        let other = json!({"id": id, "tokens": 31, "model": "gpt"});
        service.post(&path, &other).await.problem(409, "idempotency_mismatch");
    }
    assert_eq!(service.balance(user).await["used"], 60);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debit_takes_its_id_from_the_header_too_and_never_goes_without() {
    let service = Service::start().await;
    let user = service.user(100).await;
    let path = format!("/v1/users/{user}/debits");
    let usage = json!({"usage": {"input_tokens": 100, "output_tokens": 20}});
    let request = || {
        let request = service.request(Method::POST, &path, service.gateway_jwt());
        request.header("idempotency-key", "k").json(&usage)
    };
    let first = service.send(request()).await.is(201);
    // It has no reservation to exceed.
    assert_eq!(first["transaction"]["flags"], json!([]));
    assert_eq!(first["balance"]["available"], -20);
    assert!(service.send(request()).await.replayed());
    let refused = service.post(&path, &usage).await.problem(422, "missing_field");
    assert_eq!(refused["field"], "id");
    service.post(&path, &json!({"id": "d", "usage": "unknown"})).await.problem(422, "invalid_body");
    assert_eq!(service.balance(user).await["used"], 120);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_debit_does_not_settle_a_reservation_of_its_id() {
    let service = Service::start().await;
    let user = service.user(100).await;
    service.reserve(user, "a", 50).await.is(201);
    let path = format!("/v1/users/{user}/debits");
    service.post(&path, &json!({"id": "a", "tokens": 10})).await.problem(409, "idempotency_mismatch");
    assert_eq!(
        service.balance(user).await,
        json!({"total": 100, "used": 0, "reserved": 50, "available": 50})
    );
    service.finish().await;
}
