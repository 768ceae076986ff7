//! Networks that fail to authenticate.

use cota::{http::jwt, quota::UserId};
use reqwest::Method;
use serde_json::json;

use crate::support::service::{Answer, Service, send};

const FAILURES: u32 = 5;

async fn service(trusted: &[&str]) -> Service {
    let trusted = trusted.iter().map(|network| network.parse().unwrap()).collect();
    Service::with(|config| {
        config.http.auth_failures_per_minute = FAILURES;
        config.http.trusted_proxies = trusted;
    })
    .await
}

/// A JWT that the service has not seen.
fn fresh(service: &Service, role: jwt::Role, subject: &str) -> String {
    jwt::mint(&service.world.config.auth, subject, role, 3_600).unwrap()
}

fn waits(answer: Answer) {
    let seconds: u32 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60 / FAILURES + 1).contains(&seconds), "{seconds}");
    answer.problem(429, "too_many_requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_guesses_has_to_wait_and_its_neighbours_do_not() {
    let service = service(&[]).await;
    let user = service.user(100).await;
    service.reserve(user, "held", 10).await.is(201);
    service.reserve(user, "held2", 10).await.is(201);
    let tokens = format!("/v1/users/{user}/tokens");
    for _ in 0..FAILURES {
        service.get_as(&tokens, "a.b.c").await.problem(401, "unauthenticated");
    }
    waits(service.get_as(&tokens, "a.b.c").await);
    waits(send(service.bare(Method::GET, &tokens)).await);
    // One that is valid and was never seen would have to be checked; one that was seen goes on.
    let unseen = fresh(&service, jwt::Role::User, &user.to_string());
    waits(service.get_as(&tokens, &unseen).await);
    service.reserve(user, "more", 10).await.is(201);
    service.get(&tokens).await.is(200);
    // A refused settle would lose usage: its JWT is checked, whatever was seen before.
    let unseen = fresh(&service, jwt::Role::Gateway, "another gateway");
    let post = |path: String, jwt: &str, body| service.request(Method::POST, &path, jwt).json(&body);
    let settle = service.reservation(user, "held", "/settle");
    let guess = service.send(post(settle.clone(), "a.b.c", json!({"tokens": 7}))).await;
    guess.problem(401, "unauthenticated");
    service.send(post(settle, &unseen, json!({"tokens": 7}))).await.is(200);
    let unseen = fresh(&service, jwt::Role::Gateway, "a third gateway");
    let release = service.reservation(user, "held2", "/release");
    service.send(post(release, &unseen, json!({}))).await.is(200);
    let unseen = fresh(&service, jwt::Role::Gateway, "a fourth gateway");
    let debit = post(format!("/v1/users/{user}/debits"), &unseen, json!({"id": "d", "tokens": 1}));
    service.send(debit).await.is(201);
    assert!(service.metrics().await.contains("cota_limited_total{limiter=\"networks\"} 3"));
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_trusted_proxy_it_is_the_network_that_the_proxy_saw() {
    let trusting = service(&["127.0.0.0/8"]).await;
    let ask = async |service: &Service, forwarded: &str| {
        let request = service.bare(Method::GET, &format!("/v1/users/{}", UserId::generate()));
        send(request.header("x-forwarded-for", forwarded)).await
    };
    for _ in 0..FAILURES {
        ask(&trusting, "198.51.100.7, 192.0.2.1").await.problem(401, "unauthenticated");
    }
    waits(ask(&trusting, "203.0.113.9, 192.0.2.254").await);
    ask(&trusting, "192.0.2.1, 198.51.100.7").await.problem(401, "unauthenticated");
    trusting.finish().await;
    // Without trust the header is the client's own claim, and no way out.
    let service = service(&[]).await;
    for n in 0..FAILURES {
        ask(&service, &format!("192.0.{n}.1")).await.problem(401, "unauthenticated");
    }
    waits(ask(&service, "198.51.100.7").await);
    service.finish().await;
}
