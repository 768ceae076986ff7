//! Calls per second, by caller.

use reqwest::Method;
use serde_json::json;

use crate::support::{
    service::{Answer, Service},
    world::until,
};

fn limited(answer: Answer) {
    let seconds: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!(seconds >= 1, "{seconds}");
    answer.problem(429, "rate_limited");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_calls_too_often_has_to_wait_and_settles_never_do() {
    let service = Service::with(|config| {
        (config.http.gateway_calls_per_second, config.http.gateway_burst) = (1, 6);
        (config.http.user_calls_per_second, config.http.user_burst) = (1, 2);
    })
    .await;
    let (user, other) = (service.user(1_000).await, service.user(1_000).await);
    for n in 0..6 {
        service.reserve(user, &format!("r{n}"), 10).await.is(201);
    }
    limited(service.reserve(user, "one too many", 10).await);
    limited(service.get(&format!("/v1/users/{user}/tokens")).await);
    // Whatever ends a reservation, or reports what was used, goes through however often it is asked.
    for n in 0..4 {
        service.settle(user, &format!("r{n}"), 5).await.is(200);
        let debit = json!({"id": format!("d{n}"), "tokens": 1});
        service.post(&format!("/v1/users/{user}/debits"), &debit).await.is(201);
    }
    for n in 4..6 {
        service.post(&service.reservation(user, &format!("r{n}"), "/release"), &json!({})).await.is(200);
    }
    limited(service.post(&service.reservation(user, "r0", "/extend"), &json!({"tokens": 20})).await);
    // Users and gateways have budgets of their own, and so has each user.
    for someone in [user, other] {
        let (jwt, path) = (service.user_jwt(someone), format!("/v1/users/{someone}/tokens"));
        for _ in 0..2 {
            service.get_as(&path, &jwt).await.is(200);
        }
        limited(service.get_as(&path, &jwt).await);
    }
    until("it may call again", async || service.reserve(user, "later", 10).await.status == 201).await;
    assert!(service.metrics().await.contains("cota_limited_total{limiter=\"callers\"}"));
    let refused = service.request(Method::GET, &format!("/v1/users/{user}/tokens"), service.gateway_jwt());
    service.send(refused.header("accept-language", "pt-BR")).await.problem(429, "rate_limited");
    service.finish().await;
}
