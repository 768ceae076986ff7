//! A start while Postgres is away.

use reqwest::Method;
use serde_json::json;

use crate::support::{
    contract,
    service::{Service, send},
};
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
    let mut refused = Vec::new();
    for path in [format!("/v1/users/{user}/reservations"), format!("/api/users/{user}/debits")] {
        let answer = service.post(&path, &json!({"id": "a", "tokens": 1})).await;
        assert_eq!(answer.clone().problem(503, "starting")["outcome"], "none");
        refused.push((Method::POST, path, answer));
    }
    for path in ["/openapi.json", "/docs"] {
        let answer = send(service.bare(Method::GET, path)).await;
        answer.clone().problem(503, "starting");
        refused.push((Method::GET, path.to_owned(), answer));
    }
    assert!(service.metrics().await.contains("cota_problems_total{code=\"starting\"} 4"));
    service.world.postgres.as_ref().unwrap().lock().await.restart().await.unwrap();
    service.is_ready().await;
    service.is_described().await;
    for (method, path, answer) in refused.into_iter().filter(|(_, path, _)| path != "/docs") {
        contract::check(&method, &path, &answer);
    }
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
