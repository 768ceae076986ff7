//! Credits: once per key and user.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::service::{Answer, Service, send};
use cota::quota::UserId;

async fn credit(service: &Service, user: UserId, key: &str, body: Value) -> Answer {
    let path = format!("/v1/users/{user}/credits");
    let request = service.request(Method::POST, &path, service.admin_jwt());
    send(request.header("idempotency-key", key).json(&body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_credit_is_given_once_per_key_and_user() {
    let service = Service::start().await;
    let (user, other) = (service.user(0).await, service.user(0).await);
    let body = json!({"tokens": 50, "kind": "bonus", "reason": "Olá"});
    let first = credit(&service, user, "k 1", body.clone()).await;
    assert!(!first.replayed());
    let first = first.is(201);
    let grant = &first["grant"];
    assert_eq!(
        (&grant["kind"], &grant["tokens"], &grant["reason"]),
        (&json!("bonus"), &json!(50), &json!("Olá"))
    );
    assert_eq!(grant["idempotency_key"], "k 1");
    assert_eq!((&first["account"]["total_tokens"], &first["effective"]), (&json!(50), &json!(true)));
    assert_eq!(service.balance(user).await["available"], 50);
    let again = credit(&service, user, "k 1", body.clone()).await;
    assert!(again.replayed());
    assert_eq!(again.is(200)["grant"], first["grant"]);
    for other_body in [json!({"tokens": 51, "kind": "bonus", "reason": "Olá"}), json!({"tokens": 50})] {
        credit(&service, user, "k 1", other_body).await.problem(409, "idempotency_mismatch");
    }
    credit(&service, other, "k 1", json!({"tokens": 7})).await.is(201);
    assert_eq!(service.balance(user).await["total"], 50);
    assert_eq!(service.balance(other).await["total"], 7);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_credits_at_once_under_one_key_are_one() {
    let service = Service::start().await;
    let user = service.user(0).await;
    let answers = join_all((0..20).map(|_| credit(&service, user, "k", json!({"tokens": 5})))).await;
    let made = answers.iter().filter(|answer| answer.status == 201).count();
    let replayed = answers.iter().filter(|answer| answer.status == 200 && answer.replayed()).count();
    assert_eq!((made, replayed), (1, 19), "{answers:?}");
    assert!(answers.iter().all(|answer| answer.body["grant"] == answers[0].body["grant"]));
    assert_eq!(service.balance(user).await["total"], 5);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credits_are_listed_newest_first_in_pages_for_their_user() {
    let service = Service::start().await;
    let user = service.user(0).await;
    for n in 1..=5 {
        credit(&service, user, &format!("k{n}"), json!({"tokens": n})).await.is(201);
    }
    let own = service.user_jwt(user);
    let (mut tokens, mut before) = (Vec::new(), String::new());
    loop {
        let path = format!("/api/users/{user}/credits?limit=2{before}");
        let page = service.get_as(&path, &own).await.is(200);
        tokens.extend(page["credits"].as_array().unwrap().iter().map(|one| one["tokens"].as_i64().unwrap()));
        match page["next"].as_str() {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    assert_eq!(tokens, [5, 4, 3, 2, 1]);
    let path = format!("/v1/users/{}/credits", UserId::generate());
    service.get_as(&path, service.admin_jwt()).await.problem(404, "user_not_found");
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_credit_changes_nothing() {
    let service = Service::start().await;
    let user = service.user(9).await;
    for (body, code) in [
        (json!({"tokens": 0}), "invalid_amount"),
        (json!({"tokens": -1}), "invalid_amount"),
        (json!({"tokens": 1.5}), "invalid_amount"),
        (json!({"tokens": 1_000_000_000_001_u64}), "amount_out_of_range"),
        (json!({}), "missing_field"),
        (json!({"tokens": 1, "amount": 1}), "unknown_field"),
        (json!({"tokens": 1, "kind": "adjustment"}), "invalid_kind"),
        (json!({"tokens": 1, "reason": ""}), "invalid_reason"),
        (json!({"tokens": 1, "reason": "a\u{0}b"}), "invalid_reason"),
        (json!({"tokens": 1, "reason": "x".repeat(1_001)}), "invalid_reason"),
    ] {
        credit(&service, user, "k", body).await.problem(422, code);
    }
    let path = format!("/v1/users/{user}/credits");
    let without = service.admin_post(&path, &json!({"tokens": 1})).await;
    without.problem(422, "missing_idempotency_key");
    credit(&service, user, &"k".repeat(256), json!({"tokens": 1}))
        .await
        .problem(422, "invalid_idempotency_key");
    credit(&service, UserId::generate(), "k", json!({"tokens": 1})).await.problem(404, "user_not_found");
    assert_eq!(service.balance(user).await["total"], 9);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_total_stays_below_two_to_the_fifty_third() {
    let service = Service::start().await;
    let user = service.user(0).await;
    let sql = "INSERT INTO grants (id, user_id, kind, tokens, idempotency_key)
               SELECT gen_random_uuid(), $1, 'purchase', 1000000000000, 'seed-' || n FROM generate_series(1, 9007) n";
    sqlx::query(sql).bind(user.0).execute(service.world.database.pool()).await.unwrap();
    let sql = "UPDATE user_accounts SET total_tokens = 9007000000000000, version = version + 1 WHERE id = $1";
    sqlx::query(sql).bind(user.0).execute(service.world.database.pool()).await.unwrap();
    let room = (1_u64 << 53) - 1 - 9_007_000_000_000_000;
    credit(&service, user, "over", json!({"tokens": room + 1})).await.problem(422, "amount_out_of_range");
    let full = credit(&service, user, "full", json!({"tokens": room})).await.is(201);
    assert_eq!(full["account"]["total_tokens"], (1_u64 << 53) - 1);
    credit(&service, user, "one", json!({"tokens": 1})).await.problem(422, "amount_out_of_range");
    // Not held against the invariants: grants that were put in by hand have no act in the audit log.
    service.stop().await;
}
