//! A start while Postgres is away.

use reqwest::Method;
use serde_json::json;

use crate::support::service::{Service, send};
use cota::quota::UserId;

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_waits_for_postgres_answers_and_says_so() {
    let service = Service::without_postgres().await;
    let user = UserId::generate();
    let healthy = send(service.bare(Method::GET, "/healthz")).await;
    assert_eq!((healthy.status, healthy.body), (200, json!({"status": "ok"})));
    let ready = send(service.bare(Method::GET, "/readyz")).await;
    let named = json!({"status": "not_ready", "not_ready": ["postgres"], "closed_partitions": []});
    assert_eq!((ready.status, ready.body), (503, named));
    for path in [format!("/v1/users/{user}/reservations"), format!("/api/users/{user}/debits")] {
        let refused = service.post(&path, &json!({"id": "a", "tokens": 1})).await.problem(503, "starting");
        assert_eq!(refused["outcome"], "none");
    }
    assert!(service.metrics().await.contains("cota_problems_total{code=\"starting\"} 2"));
    service.world.postgres.as_ref().unwrap().lock().await.restart().await.unwrap();
    service.is_ready().await;
    let user = service.user(100).await;
    service.reserve(user, "a", 10).await.is(201);
    service.settle(user, "a", 10).await.is(200);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_waits_for_postgres_can_be_stopped() {
    let service = Service::without_postgres().await;
    service.stop().await;
}
