//! Credits: once per key and user.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    service::{Answer, Service, send},
    world::until,
};
use cota::quota::UserId;

async fn credit(service: &Service, user: UserId, key: &str, body: Value) -> Answer {
    let path = format!("/v1/users/{user}/credits");
    let request = service.request(Method::POST, &path, service.admin_jwt());
    send(request.header("idempotency-key", key).json(&body)).await
}

fn purchase(tokens: u64, amount: &str, reference: &str) -> Value {
    json!({"tokens": tokens, "payment_method": "pix", "amount": amount, "currency": "BRL",
           "provider_reference": reference})
}

async fn adjust(service: &Service, user: UserId, key: &str, body: Value) -> Answer {
    let path = format!("/v1/users/{user}/adjustments");
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
    for other_body in [json!({"tokens": 51, "kind": "bonus", "reason": "Olá"}), purchase(50, "1", "p")] {
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
        (json!({"tokens": 1, "price": 1}), "unknown_field"),
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

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_records_its_payment_and_a_payment_counts_once() {
    let service = Service::start().await;
    let (user, other) = (service.user(0).await, service.user(0).await);
    let first = credit(&service, user, "k", purchase(100, "19.9", "p-1")).await.is(201);
    let grant = &first["grant"];
    let facts = ["kind", "payment_method", "amount_paid", "currency", "provider", "provider_reference"];
    assert_eq!(facts.map(|name| &grant[name]), ["purchase", "pix", "19.90", "BRL", "default", "p-1"]);
    assert_eq!(service.balance(user).await["available"], 100);

    // Case 57: the same attempt again; case 56: the provider's own report, five times.
    for key in ["k", "event-1", "event-2", "event-1", "event-3", "event-2"] {
        let again = credit(&service, user, key, purchase(100, "19.90", "p-1")).await;
        assert!(again.replayed(), "{key}");
        assert_eq!(again.is(200)["grant"], *grant);
    }
    credit(&service, user, "k", purchase(100, "20", "p-1")).await.problem(409, "idempotency_mismatch");
    let mismatch = credit(&service, user, "l", purchase(100, "20", "p-1")).await.problem(409, "payment_used");
    let elsewhere =
        credit(&service, other, "k", purchase(100, "19.9", "p-1")).await.problem(409, "payment_used");
    assert_eq!(mismatch, elsewhere, "nothing tells whose payment it was");
    assert!(!elsewhere.to_string().contains(&user.to_string()));
    assert_eq!(service.balance(user).await["total"], 100);
    assert_eq!(service.balance(other).await["total"], 0);
    let shown = service.get_as(&format!("/v1/users/{user}/credits"), &service.user_jwt(user)).await.is(200);
    assert_eq!(shown["credits"], json!([grant]));
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adjustment_reverses_a_transaction_up_to_its_amount() {
    let service = Service::start().await;
    let user = service.user(1_000).await;
    let path = format!("/v1/users/{user}/debits");
    let debit = service.post(&path, &json!({"id": "d", "tokens": 300})).await.is(201);
    let transaction = debit["transaction"]["id"].clone();
    until("it is in the ledger", async || {
        service.world.store.user(user).await.unwrap().unwrap().used_tokens == 300
    })
    .await;
    let reversal = |tokens: u64| json!({"direction": "up", "tokens": tokens, "reason": "priced wrong", "transaction_id": transaction});
    let refused = adjust(&service, user, "a", reversal(301)).await.problem(422, "adjustment_too_large");
    assert_eq!((&refused["limit"], &refused["field"]), (&json!(300), &json!("tokens")));
    let done = adjust(&service, user, "a", reversal(200)).await.is(201);
    assert_eq!((&done["grant"]["kind"], &done["grant"]["tokens"]), (&json!("adjustment"), &json!(200)));
    assert_eq!(done["grant"]["transaction_id"], transaction);
    assert!(adjust(&service, user, "a", reversal(200)).await.replayed());
    adjust(&service, user, "a", reversal(199)).await.problem(409, "idempotency_mismatch");
    adjust(&service, user, "b", reversal(101)).await.problem(422, "adjustment_too_large");
    let stranger =
        json!({"direction": "up", "tokens": 1, "reason": "r", "transaction_id": UserId::generate().0});
    adjust(&service, user, "b", stranger).await.problem(404, "transaction_not_found");

    // Down below what was used: a debt, as after an overage, and reserves wait for credit.
    let down = |tokens: u64| json!({"direction": "down", "tokens": tokens, "reason": "refund"});
    adjust(&service, user, "c", down(1_201)).await.problem(422, "adjustment_too_large");
    adjust(&service, user, "c", down(1_000)).await.is(201);
    assert_eq!(
        service.balance(user).await,
        json!({"total": 200, "used": 300, "reserved": 0, "available": -100})
    );
    service.reserve(user, "r", 1).await.problem(402, "insufficient_tokens");
    let list = service.get_as(&format!("/v1/users/{user}/credits"), service.admin_jwt()).await.is(200);
    let tokens: Vec<i64> =
        list["credits"].as_array().unwrap().iter().map(|one| one["tokens"].as_i64().unwrap()).collect();
    assert_eq!(tokens, [-1_000, 200, 1_000], "the history keeps all");
    service.finish().await;
}
