//! JWTs of an identity provider, through the whole service.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use cota::config::{IssuerConfig, PublicKeyAlgorithm, Role};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{
    identity::{ED25519_1, JwksServer, P256_1, RSA_1, Reply, TestKey, claims},
    service::{Answer, Service, send},
    world::until,
};

const PROVIDER: &str = "https://login.example/";

fn provider(server: &JwksServer) -> IssuerConfig {
    IssuerConfig {
        issuer: PROVIDER.into(),
        audience: "cota".into(),
        jwks_file: None,
        jwks_url: Some(server.url.clone().try_into().unwrap()),
        algorithms: vec![PublicKeyAlgorithm::RS256, PublicKeyAlgorithm::ES256],
        roles: vec![Role::User, Role::Gateway],
    }
}

async fn service(server: &JwksServer) -> Service {
    Service::with(|config| config.auth.issuers = vec![provider(server)]).await
}

async fn list(service: &Service, jwt: &str) -> Answer {
    let path = format!("/v1/users/{}/tokens", cota::quota::UserId::generate());
    send(service.request(Method::GET, &path, jwt)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_speaks_for_users_and_gateways_as_far_as_it_may() {
    let server = JwksServer::start(&[RSA_1, P256_1, ED25519_1]).await;
    let service = service(&server).await;
    let (user, other) = (service.user(100).await, service.user(100).await);
    let call = |jwt: String, id: cota::quota::UserId, method: Method, rest: &str, body: Value| {
        let path = format!("/v1/users/{id}{rest}");
        send(service.request(method, &path, &jwt).json(&body))
    };
    for key in [RSA_1, P256_1] {
        let own = key.sign(&claims(PROVIDER, &user.to_string(), "user"));
        call(own.clone(), user, Method::GET, "/tokens", json!({})).await.is(200);
        call(own, other, Method::GET, "/tokens", json!({})).await.problem(403, "forbidden");
        let gateway = key.sign(&claims(PROVIDER, "gateway-1", "gateway"));
        let body = json!({"id": key.kid, "tokens": 10});
        call(gateway, user, Method::POST, "/reservations", body).await.is(201);
        service.asked(user, key.kid);
    }
    for refused in [
        // No role, no algorithm and no name but those that were given to it.
        RSA_1.sign(&claims(PROVIDER, "a", "admin")),
        ED25519_1.sign(&claims(PROVIDER, "a", "gateway")),
        RSA_1.sign(&claims("cota", "a", "gateway")),
        RSA_1.sign(&claims("https://evil.example/", "a", "gateway")),
    ] {
        list(&service, &refused).await.problem(401, "unauthenticated");
    }
    let metrics = service.metrics().await;
    for line in [
        "cota_jwks_keys{issuer=\"https://login.example/\"} 2",
        "cota_jwks_refreshes_total{issuer=\"https://login.example/\",outcome=\"changed\"} 1",
        "cota_jwks_age_seconds{issuer=\"https://login.example/\"}",
        "cota_auth_refusals_total{reason=\"role\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    service.finish().await;
}

/// Eight callers, half of them with a JWT of the key that came while they called.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_comes_under_load_costs_no_caller_a_401() {
    let server = JwksServer::start(&[RSA_1]).await;
    let service = Arc::new(service(&server).await);
    let user = service.user(0).await;
    let jwt = |key: TestKey| key.sign(&claims(PROVIDER, &user.to_string(), "user"));
    let path = format!("/v1/users/{user}/tokens");
    let (rotated, stop) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let calls = Arc::new(AtomicUsize::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        let (old, new, path) = (jwt(RSA_1), jwt(P256_1), path.clone());
        let (service, rotated, stop, calls) = (service.clone(), rotated.clone(), stop.clone(), calls.clone());
        callers.spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                send(service.request(Method::GET, &path, &old)).await.is(200);
                if rotated.load(Ordering::SeqCst) {
                    send(service.request(Method::GET, &path, &new)).await.is(200);
                }
                calls.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    until("calls", async || calls.load(Ordering::SeqCst) > 50).await;
    assert_eq!(server.hits(), 1);
    server.publish(&[RSA_1, P256_1]);
    rotated.store(true, Ordering::SeqCst);
    let before = calls.load(Ordering::SeqCst);
    until("calls with both keys", async || {
        callers.try_join_next().map(Result::unwrap);
        calls.load(Ordering::SeqCst) > before + 100
    })
    .await;
    stop.store(true, Ordering::SeqCst);
    callers.join_all().await;
    assert_eq!(server.hits(), 2);
    Arc::into_inner(service).unwrap().finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_down_stops_nobody_else_and_hears_little_of_unknown_kids() {
    let server = JwksServer::start(&[RSA_1]).await;
    server.answer(Reply::text(503, ""));
    let service = service(&server).await;
    let jwt = RSA_1.sign(&claims(PROVIDER, "gateway-1", "gateway"));
    for n in 0..200 {
        let stranger = TestKey { kid: format!("kid-{n}").leak(), ..RSA_1 };
        let stranger = stranger.sign(&claims(PROVIDER, "gateway-1", "gateway"));
        list(&service, &stranger).await.problem(401, "unauthenticated");
    }
    list(&service, &jwt).await.problem(401, "unauthenticated");
    let user = service.user(100).await;
    service.reserve(user, "a", 10).await.is(201);
    // One at the start, one for the first stranger; the next try is half a minute away.
    assert!(server.hits() <= 2, "{}", server.hits());
    let metrics = service.metrics().await;
    assert!(metrics.contains("cota_auth_refusals_total{reason=\"no_keys\"} 201"), "{metrics}");
    assert!(metrics.contains("cota_jwks_keys{issuer=\"https://login.example/\"} 0"), "{metrics}");
    service.finish().await;
}
