//! What is measured, and what is never written anywhere.

use redis::AsyncCommands;
use serde_json::json;

use crate::support::{service::Service, world::until};
use reqwest::Method;

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_counted_on_their_own_port_and_nobody_is_named() {
    let service = Service::start().await;
    let user = service.user(1_000).await;
    service.reserve(user, "reservation-of-mine", 10).await.is(201);
    service.settle(user, "reservation-of-mine", 10).await.is(200);
    service.reserve(user, "too-much", 10_000).await.problem(402, "insufficient_tokens");
    let own = service.user_jwt(user);
    service.get_as(&format!("/v1/users/{user}/tokens"), &own).await.is(200);
    let wrong = service.bare(Method::GET, &format!("/v1/users/{user}/tokens")).bearer_auth("a.b.c");
    service.send(wrong).await.problem(401, "unauthenticated");
    service.get(&format!("/v1/users/{user}/no-such-route")).await.problem(404, "route_not_found");
    service.world.check().await;
    let mut text = String::new();
    until("the gauges are set", async || {
        text = service.metrics().await;
        text.contains("cota_partitions_open 2")
    })
    .await;
    for line in [
        "cota_operations_total{verb=\"reserve\",outcome=\"ok\"}",
        "cota_operations_total{verb=\"settle\",outcome=\"ok\"}",
        "cota_problems_total{code=\"insufficient_tokens\"}",
        "cota_auth_refusals_total{reason=",
        "cota_http_request_seconds_count{route=\"/v1/users/{id}/reservations\",status=\"2xx\"}",
        "cota_http_request_seconds_count{route=\"none\",status=\"4xx\"}",
        "cota_flushed_rows_total{result=\"inserted\"}",
        "cota_build_info{version=",
    ] {
        assert!(text.contains(line), "{line} is missing in\n{text}");
    }
    let secret = service.world.config.auth.hs256_secret.expose().to_owned();
    let private = [
        &user.to_string(),
        "@cota.test",
        "reservation-of-mine",
        "no-such-route",
        "Bearer",
        &own,
        service.gateway_jwt(),
        service.admin_jwt(),
        &secret,
    ];
    for word in private {
        assert!(!text.contains(word), "{word} stands in the metrics");
    }
    // The API's port has no metrics, and the metrics' port no API.
    service.get("/metrics").await.problem(404, "route_not_found");
    let url = format!("http://{}/v1/users", service.metrics);
    assert_eq!(reqwest::get(url).await.unwrap().status(), 404);
    service.finish().await;
}

/// Case 103: neither keys nor values in Redis hold what someone could sign in with.
#[tokio::test(flavor = "multi_thread")]
async fn no_jwt_no_secret_and_no_address_reaches_redis() {
    let service = Service::start().await;
    let user = service.user(1_000).await;
    service.reserve(user, "a", 10).await.is(201);
    service.reserve(user, "b", 10).await.is(201);
    service.settle(user, "a", 10).await.is(200);
    let path = format!("/v1/users/{user}/debits");
    service.post(&path, &json!({"id": "d", "tokens": 1, "request_id": "call-7"})).await.is(201);
    let mut redis = service.world.redis_connection().await;
    // A dump is read byte by byte below.
    let () =
        redis::cmd("CONFIG").arg(&["SET", "rdbcompression", "no"]).query_async(&mut redis).await.unwrap();
    let keys: Vec<Vec<u8>> = redis.keys("*").await.unwrap();
    assert!(keys.len() > 3, "{}", keys.len());
    let mut found = Vec::new();
    for key in keys {
        let dumped: Option<Vec<u8>> = redis::cmd("DUMP").arg(&key).query_async(&mut redis).await.unwrap();
        found.extend(key);
        found.extend(dumped.unwrap_or_default());
    }
    let auth = &service.world.config.auth;
    let signature = |jwt: &str| jwt.rsplit('.').next().unwrap().to_owned();
    for word in [
        "Bearer",
        "eyJ",
        "@cota.test",
        &signature(service.gateway_jwt()),
        &signature(service.admin_jwt()),
        auth.hs256_secret.expose(),
    ] {
        assert!(!found.windows(word.len()).any(|part| part == word.as_bytes()), "{word} is in Redis");
    }
    service.finish().await;
}
