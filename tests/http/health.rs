//! Alive, ready, and what happens while a store is away.

use serde_json::json;
use tokio::time::Instant;

use crate::support::{
    service::{Answer, Service, send},
    world::{PATIENCE, until},
};
use cota::quota::UserId;
use reqwest::Method;

async fn probe(service: &Service, path: &str) -> Answer {
    send(service.bare(Method::GET, path)).await
}

/// Reserves until Redis serves again, always with the same id.
async fn reserve_until_it_works(service: &Service, user: UserId, id: &str) -> Answer {
    let give_up = Instant::now() + PATIENCE;
    loop {
        let answer = service.reserve(user, id, 10).await;
        if answer.status != 503 {
            return answer;
        }
        assert!(Instant::now() < give_up, "{}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_every_answer_says_what_became_of_the_call() {
    let service = Service::start().await;
    let user = service.user(100).await;
    service.reserve(user, "held", 20).await.is(201);
    service.settle(user, "held", 5).await.is(200);
    service.reserve(user, "held2", 20).await.is(201);
    service.world.check().await;
    assert_eq!(probe(&service, "/healthz").await.is(200), json!({"status": "ok"}));
    let ready = json!({"status": "ready", "not_ready": [], "closed_partitions": []});
    assert_eq!(probe(&service, "/readyz").await.is(200), ready);

    service.world.redis.lock().await.stop().await.unwrap();
    service.asked(user, "a");
    let refused = service.reserve(user, "a", 10).await.problem(503, "ledger_unavailable");
    assert!(["none", "unknown"].contains(&refused["outcome"].as_str().unwrap()), "{refused}");
    assert_eq!(refused["reservation_id"], "a");
    let made = service.post(&format!("/v1/users/{user}/reservations"), &json!({"tokens": 10})).await;
    let made = made.problem(503, "ledger_unavailable");
    service.asked(user, made["reservation_id"].as_str().expect("the id that the server made"));
    let refused = service.settle(user, "held2", 7).await.problem(503, "ledger_unavailable");
    assert_eq!(refused["reservation_id"], "held2");
    for verb in ["/release", "/extend"] {
        let path = service.reservation(user, "held2", verb);
        let body = if verb == "/extend" { json!({"tokens": 21}) } else { json!({}) };
        let refused = service.post(&path, &body).await.problem(503, "ledger_unavailable");
        assert_eq!(refused["reservation_id"], "held2", "{verb}");
    }
    service.asked(user, "d");
    let debit = json!({"id": "d", "tokens": 1});
    let refused = service.post(&format!("/v1/users/{user}/debits"), &debit).await;
    assert_eq!(refused.problem(503, "ledger_unavailable")["reservation_id"], "d");
    service.get(&service.reservation(user, "held2", "")).await.problem(503, "ledger_unavailable");

    let stale = service.get(&format!("/v1/users/{user}/tokens")).await.is(200);
    assert_eq!((&stale["stale"], stale["as_of"].is_string()), (&json!(true), true));
    assert_eq!(stale["balance"], json!({"total": 100, "used": 5, "reserved": null, "available": 95}));
    let mut closed = json!(null);
    until("it says what is closed", async || {
        let answer = probe(&service, "/readyz").await;
        closed = answer.body["closed_partitions"].clone();
        answer.status == 503
            && answer.body["not_ready"] == json!(["redis", "partitions"])
            && closed == json!([0, 1])
    })
    .await;
    assert_eq!(probe(&service, "/healthz").await.status, 200);
    // Credits are Postgres' alone; Redis hears of them later.
    assert_eq!(service.credit(user, 50, "meanwhile").await.is(201)["effective"], false);

    service.world.redis.lock().await.restart().await.unwrap();
    let answer = reserve_until_it_works(&service, user, "a").await;
    assert!(answer.status == 201 || answer.replayed(), "{}", answer.text);
    service.is_ready().await;
    until("the credit has arrived", async || service.balance(user).await["total"] == 150).await;
    service.settle(user, "a", 3).await.is(200);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_postgres_the_hot_path_goes_on_and_the_rest_says_so() {
    let service = Service::with_own_postgres().await;
    let user = service.user(100).await;
    service.reserve(user, "a", 20).await.is(201);
    let postgres = service.world.postgres.as_ref().unwrap();
    postgres.lock().await.stop().await.unwrap();
    until("it says that it is degraded", async || {
        let answer = probe(&service, "/readyz").await;
        answer.status == 200
            && answer.body
                == json!({"status": "degraded", "not_ready": ["postgres"], "closed_partitions": []})
    })
    .await;
    service.settle(user, "a", 7).await.is(200);
    service.reserve(user, "b", 30).await.is(201);
    assert_eq!(service.balance(user).await["used"], 7);
    let refused = service.credit(user, 5, "k").await.problem(503, "store_unavailable");
    assert!(["none", "unknown"].contains(&refused["outcome"].as_str().unwrap()), "{refused}");
    let path = format!("/v1/users/{user}");
    service.get_as(&path, service.admin_jwt()).await.problem(503, "store_unavailable");
    // An account that Redis does not know cannot be loaded: refused, not invented.
    let stranger = service.reserve(UserId::generate(), "x", 1).await.problem(503, "ledger_unavailable");
    assert_eq!(stranger["outcome"], "none");
    postgres.lock().await.restart().await.unwrap();
    service.is_ready().await;
    service.settle(user, "b", 30).await.is(200);
    service.finish().await;
}
