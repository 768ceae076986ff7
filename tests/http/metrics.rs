//! What is measured, and what is never written anywhere.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use redis::AsyncCommands;
use serde_json::json;

use crate::support::{invariants::settle_down, service::Service, world::until};
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

/// The busiest users have a page of their own, by id and nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn who_uses_most_is_told_by_id_alone() {
    let service = Service::start().await;
    let (first, second) = (service.user(1_000).await, service.user(1_000).await);
    service.reserve(first, "reservation-of-mine", 10).await.is(201);
    service.settle(first, "reservation-of-mine", 7).await.is(200);
    for (user, id, tokens) in [(first, "a", 3), (second, "b", 500)] {
        let debit = json!({"id": id, "tokens": tokens, "model": "model-of-mine"});
        service.post(&format!("/v1/users/{user}/debits"), &debit).await.is(201);
    }
    service.world.check().await;
    let mut page = String::new();
    until("both are on the page", async || {
        page = service.metrics_page("/metrics/users").await;
        [(first, 10), (second, 500)].iter().all(|(user, tokens)| {
            page.contains(&format!("cota_user_settled_tokens_total{{user_id=\"{user}\"}} {tokens}\n"))
        })
    })
    .await;
    assert!(page.contains("cota_user_settled_tokens_total{user_id=\"_other\"} 0\n"), "{page}");
    assert!(page.contains(&format!("cota_user_transactions_total{{user_id=\"{first}\"}} 2\n")), "{page}");
    let place = |user| page.find(&format!("{user}")).unwrap();
    assert!(place(second) < place(first), "the busiest first");
    for word in ["@cota.test", "reservation-of-mine", "model-of-mine"] {
        assert!(!page.contains(word), "{word} stands on the page of users");
    }
    service.finish().await;
}

/// All samples: name and labels, and value.
fn series(page: &str) -> BTreeMap<&str, &str> {
    page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' ')).collect()
}

const CROWD: usize = 100_000;
/// Operations of one batch call.
const BATCH: usize = 250;

/// One debit of each of a batch's users, with a model of its own; and paths that nobody else asks for.
async fn visit(service: &Service, first: usize) {
    let user = |n: usize| format!("00000000-0000-4000-8000-{n:012x}");
    let debit =
        |n| json!({"op": "debit", "user_id": user(n), "id": "d", "tokens": 1, "model": format!("m{n}")});
    let operations: Vec<_> = (first..first + BATCH).map(debit).collect();
    // A busy machine may be too slow for some of them; a repeat is a replay.
    until("each was charged", async || {
        let answers = service.batch(&operations).await;
        answers.iter().all(|answer| answer["status"] == 201 || answer["status"] == 200)
    })
    .await;
    for path in [format!("/v{first}"), format!("/v1/users/{}/{first}", user(first))] {
        service.get(&path).await.problem(404, "route_not_found");
    }
    assert_eq!(service.get(&format!("/v1/users/{first}/tokens")).await.status, 422);
}

/// Case 105: what callers can make up freely, and as many users as there are, add no series.
#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_of_users_paths_and_models_adds_no_series() {
    let service = Service::start().await;
    sqlx::query(
        "INSERT INTO user_accounts (id, email)
         SELECT ('00000000-0000-4000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, n || '@cota.test'
         FROM generate_series(0, $1 - 1) AS n",
    )
    .bind(CROWD as i32)
    .execute(service.world.database.pool())
    .await
    .unwrap();
    visit(&service, 0).await;
    settle_down(&service.world).await;
    until("the gauges are set", async || service.metrics().await.contains("cota_partitions_open 2")).await;
    let before = service.metrics().await;
    let firsts: Vec<usize> = (BATCH..CROWD).step_by(BATCH).collect();
    for some in firsts.chunks(4) {
        join_all(some.iter().map(|first| visit(&service, *first))).await;
    }
    settle_down(&service.world).await;
    let (after, users) = (service.metrics().await, service.metrics_page("/metrics/users").await);
    let (before, after, users) = (series(&before), series(&after), series(&users));
    // Other tests of the process may have made a few.
    let new: Vec<_> = after.keys().filter(|name| !before.contains_key(*name)).collect();
    assert!(new.len() < 50, "{} new series, such as {:#?}", new.len(), &new[..50]);
    assert!(users.len() <= 3 * 201, "{}", users.len());
    let tokens = users.iter().filter(|(name, _)| name.starts_with("cota_user_settled_tokens_total"));
    let written: f64 = tokens.map(|(_, value)| value.parse::<f64>().unwrap()).sum();
    assert!(written > 0.0 && written <= CROWD as f64, "{written}");
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
