//! Reserve, settle, release, extend, and reading reservations.

use reqwest::{Method, header::HeaderMap};
use serde_json::{Value, json};

use crate::support::{
    service::{Service, TOP_UP_URL},
    world::until,
};

/// The milliseconds between two times of an answer.
fn milliseconds(from: &Value, to: &Value) -> i64 {
    let at = |time: &Value| time.as_str().unwrap().parse::<jiff::Timestamp>().unwrap().as_millisecond();
    at(to) - at(from)
}

/// Takes the members out whose value is not known beforehand.
fn without(mut object: Value, names: &[&str]) -> Value {
    for name in names {
        let value = object.as_object_mut().unwrap().remove(*name);
        assert!(value.is_some_and(|value| value.is_string()), "{name} is missing or no text");
    }
    object
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hot_path_answers_as_documented_under_both_prefixes() {
    let service = Service::start().await;
    for prefix in ["/v1", "/api"] {
        let user = service.user(1_000).await;
        let base = format!("{prefix}/users/{user}");
        let reserve = json!({"id": "a", "tokens": 100, "model": "gpt"});
        let first = service.post(&format!("{base}/reservations"), &reserve).await;
        assert!(!first.replayed());
        let first = first.is(201);
        let at = &first["reservation"];
        assert_eq!(milliseconds(&at["reserved_at"], &at["expires_at"]), 600_000);
        let balance = json!({"total": 1000, "used": 0, "reserved": 100, "available": 900});
        assert_eq!(first["balance"], balance);
        assert_eq!(
            without(at.clone(), &["reserved_at", "expires_at"]),
            json!({"id": "a", "state": "pending", "tokens": 100, "used_tokens": 0, "charged_tokens": null,
                   "model": "gpt"})
        );
        let again = service.post(&format!("{base}/reservations"), &reserve).await;
        assert!(again.replayed());
        assert_eq!(again.is(200), first);

        let extend = json!({"tokens": 150, "ttl_seconds": 1200, "used_tokens": 20});
        let path = format!("{base}/reservations/a/extend");
        let extended = service.post(&path, &extend).await.is(200);
        assert_eq!(extended["reservation"]["tokens"], 150);
        assert_eq!(extended["reservation"]["used_tokens"], 20);
        assert!(milliseconds(&at["expires_at"], &extended["reservation"]["expires_at"]) >= 600_000);
        assert_eq!(extended["balance"]["reserved"], 150);
        let got = service.get(&format!("{base}/reservations/a")).await.is(200);
        assert_eq!(got, json!({"reservation": extended["reservation"]}));

        let path = format!("{base}/reservations/a/settle");
        let settle = json!({"tokens": 40, "model": "gpt", "request_id": "call-1"});
        let settled = service.post(&path, &settle).await;
        assert!(!settled.replayed());
        let settled = settled.is(200);
        assert_eq!(settled["balance"], json!({"total": 1000, "used": 40, "reserved": 0, "available": 960}));
        assert_eq!(
            without(settled["transaction"].clone(), &["id", "settled_at"]),
            json!({"tokens": 40, "cost_usd": null, "model": "gpt", "flags": []})
        );
        let again = service.post(&path, &settle).await;
        assert!(again.replayed());
        assert_eq!(again.is(200), settled);

        service.post(&format!("{base}/reservations"), &json!({"id": "b", "tokens": 1})).await.is(201);
        let path = format!("{base}/reservations/b/release");
        let released =
            service.send(service.request(Method::POST, &path, service.gateway_jwt())).await.is(200);
        assert_eq!(released["reservation"]["state"], "released");
        assert_eq!(released["balance"]["available"], 960);
        let again = service.post(&path, &json!({})).await;
        assert!(again.replayed());
        again.is(200);
    }
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_reserved_may_be_an_estimate_and_what_is_charged_a_usage() {
    let service = Service::start().await;
    let user = service.user(1_000).await;
    let path = format!("/v1/users/{user}/reservations");
    let estimate = json!({"model": "gpt", "input_tokens": 30, "max_output_tokens": 70});
    let held = service.post(&path, &json!({"id": "e", "estimate": estimate})).await.is(201);
    assert_eq!(held["reservation"]["tokens"], 100);
    assert_eq!(held["reservation"]["model"], "gpt");
    let usage = json!({"model": "gpt", "input_tokens": 30, "output_tokens": 12, "cached_input_tokens": 5});
    let settled = service.post(&service.reservation(user, "e", "/settle"), &json!({"usage": usage})).await;
    assert_eq!(settled.is(200)["transaction"]["tokens"], 42);
    service.reserve(user, "u", 50).await.is(201);
    let path = service.reservation(user, "u", "/settle");
    let settled = service.post(&path, &json!({"usage": "unknown"})).await.is(200);
    assert_eq!(settled["transaction"]["tokens"], 50);
    assert_eq!(settled["transaction"]["flags"], json!(["estimated"]));
    assert_eq!(settled["balance"]["available"], 1_000 - 42 - 50);
    let column: (Option<i64>, Option<i64>, Option<i64>) = {
        service.world.check().await;
        let sql = "SELECT input_tokens, output_tokens, cached_tokens FROM token_transactions
                   WHERE reservation_id = 'e'";
        sqlx::query_as(sql).fetch_one(service.world.database.pool()).await.unwrap()
    };
    assert_eq!(column, (Some(30), Some(12), Some(5)));
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_comes_from_the_body_the_header_or_the_server() {
    let service = Service::start().await;
    let user = service.user(1_000).await;
    let path = format!("/v1/users/{user}/reservations");
    let with_key = |key: &'static str, body: Value| {
        let request = service.request(Method::POST, &path, service.gateway_jwt());
        service.send(request.header("idempotency-key", key).json(&body))
    };
    assert_eq!(with_key("k1", json!({"tokens": 1})).await.is(201)["reservation"]["id"], "k1");
    let again = with_key("k1", json!({"id": "k1", "tokens": 1})).await;
    assert!(again.replayed());
    again.is(200);
    with_key("k1", json!({"id": "other", "tokens": 1})).await.problem(422, "conflicting_fields");
    with_key("a:b", json!({"tokens": 1})).await.problem(422, "invalid_reservation_id");
    let mut made = Vec::new();
    for _ in 0..2 {
        let answer = service.post(&path, &json!({"tokens": 1})).await.is(201);
        let id = answer["reservation"]["id"].as_str().unwrap().to_owned();
        assert_eq!(id.parse::<uuid::Uuid>().unwrap().get_version_num(), 7);
        service.settle(user, &id, 1).await.is(200);
        made.push(id);
    }
    assert_ne!(made[0], made[1]);
    // Scoped to the user: the same id of another is another reservation.
    let other = service.user(5).await;
    service.reserve(other, "k1", 5).await.is(201);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn metadata_is_kept_as_sent_and_returned() {
    let service = Service::start().await;
    let user = service.user(1_000).await;
    let sent = r#"{"b":[1, 2.50],"a":{"é":"\u0000"}}"#;
    let body = format!(r#"{{"id":"m","tokens":1,"metadata":{sent}}}"#);
    let request =
        service.request(Method::POST, &format!("/v1/users/{user}/reservations"), service.gateway_jwt());
    let answer = service.send(request.header("content-type", "application/json").body(body)).await;
    assert!(answer.text.contains(sent), "{}", answer.text);
    let got = service.get(&service.reservation(user, "m", "")).await;
    assert!(got.text.contains(sent), "{}", got.text);
    assert_eq!(answer.body["reservation"], got.body["reservation"], "what was answered is what is kept");
    answer.is(201);
    let listed = service.get(&format!("/v1/users/{user}/reservations")).await;
    assert!(listed.text.contains(sent), "{}", listed.text);
    service.settle(user, "m", 1).await.is(200);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pending_reservations_are_listed_in_pages_and_finished_ones_are_not() {
    let service = Service::start().await;
    let (user, other) = (service.user(1_000).await, service.user(10).await);
    for n in 0..7 {
        service.reserve(user, &format!("r{n}"), 1).await.is(201);
    }
    service.reserve(other, "r99", 1).await.is(201);
    service.settle(user, "r3", 1).await.is(200);
    service.post(&service.reservation(user, "r5", "/release"), &json!({})).await.is(200);
    let (mut ids, mut after, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let path = format!("/v1/users/{user}/reservations?state=pending&limit=2{after}");
        let page = service.get(&path).await.is(200);
        let found = page["reservations"].as_array().unwrap();
        assert!(found.len() <= 2 && found.iter().all(|one| one["state"] == "pending"));
        ids.extend(found.iter().map(|one| one["id"].as_str().unwrap().to_owned()));
        pages += 1;
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!((ids, pages), (["r0", "r1", "r2", "r4", "r6"].map(String::from).to_vec(), 3));
    let settled = service.get(&service.reservation(user, "r3", "")).await.is(200);
    assert_eq!(settled["reservation"]["state"], "settled");
    assert_eq!(settled["reservation"]["charged_tokens"], 1);
    for query in
        ["limit=0", "limit=501", "limit=x", "state=settled", "after=a%3Ab", "foo=1", "limit=1&limit=2"]
    {
        let path = format!("/v1/users/{user}/reservations?{query}");
        service.get(&path).await.problem(422, "invalid_query");
    }
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn overage_then_402_with_its_facts_then_a_credit_helps_at_once() {
    let service = Service::start().await;
    let user = service.user(100).await;
    service.reserve(user, "a", 60).await.is(201);
    let refused = service.reserve(user, "b", 41).await.problem(402, "insufficient_tokens");
    assert_eq!(refused["available"], 40);
    assert_eq!(refused["requested"], 41);
    assert_eq!(refused["top_up_url"], TOP_UP_URL);
    assert_eq!(refused["short"], json!([{"budget": "balance", "available": 40, "requested": 41}]));
    let settled = service.settle(user, "a", 160).await.is(200);
    assert_eq!(settled["transaction"]["flags"], json!(["overage"]));
    assert_eq!(settled["balance"], json!({"total": 100, "used": 160, "reserved": 0, "available": -60}));
    let refused = service.reserve(user, "b", 1).await.problem(402, "insufficient_tokens");
    assert_eq!((&refused["available"], &refused["requested"]), (&json!(-60), &json!(1)));
    let credited = service.credit(user, 61, "more").await.is(201);
    assert_eq!(credited["effective"], true);
    assert_eq!(service.reserve(user, "b", 1).await.is(201)["balance"]["available"], 0);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_held_for_free_models_even_by_the_broke() {
    let service = Service::start().await;
    let user = service.user(0).await;
    service.reserve(user, "one", 1).await.problem(402, "insufficient_tokens");
    service.reserve(user, "free", 0).await.is(201);
    let settled = service.settle(user, "free", 0).await.is(200);
    assert_eq!((&settled["transaction"]["tokens"], &settled["balance"]["available"]), (&json!(0), &json!(0)));
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn amounts_reach_ten_to_the_twelfth_and_no_further() {
    let service = Service::start().await;
    let user = service.user(1_000_000_000_000).await;
    let most = 1_000_000_000_000_u64;
    let path = format!("/v1/users/{user}/reservations");
    for too_much in [most + 1, (1 << 53) - 1, 1 << 53, u64::MAX] {
        let refused = service.reserve(user, "x", too_much).await.problem(422, "amount_out_of_range");
        assert_eq!((&refused["field"], &refused["limit"]), (&json!("tokens"), &json!(most)));
    }
    let estimate = json!({"model": "m", "input_tokens": most, "max_output_tokens": 1});
    let refused = service.post(&path, &json!({"id": "x", "estimate": estimate})).await;
    refused.problem(422, "amount_out_of_range");
    let balance = service.reserve(user, "all", most).await.is(201)["balance"].take();
    assert_eq!(balance["available"], 0);
    service.settle(user, "all", most + 1).await.problem(422, "amount_out_of_range");
    let usage = json!({"usage": {"input_tokens": most, "output_tokens": 1}});
    let refused = service.post(&service.reservation(user, "all", "/settle"), &usage).await;
    refused.problem(422, "amount_out_of_range");
    let settled = service.settle(user, "all", most).await.is(200);
    assert_eq!(settled["balance"], json!({"total": most, "used": most, "reserved": 0, "available": 0}));
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_with_other_numbers_and_calls_on_what_is_finished_are_409() {
    let service = Service::start().await;
    let user = service.user(1_000).await;
    service.reserve(user, "a", 100).await.is(201);
    service.reserve(user, "a", 99).await.problem(409, "idempotency_mismatch");
    service.settle(user, "a", 10).await.is(200);
    service.settle(user, "a", 11).await.problem(409, "idempotency_mismatch");
    let verb = |id: &str, verb: &str| service.reservation(user, id, verb);
    let finished = service.reserve(user, "a", 100).await.problem(409, "reservation_finished");
    assert_eq!((&finished["state"], &finished["reservation_id"]), (&json!("settled"), &json!("a")));
    for (path, body) in [("/release", json!({})), ("/extend", json!({"tokens": 200}))] {
        let finished = service.post(&verb("a", path), &body).await.problem(409, "reservation_finished");
        assert_eq!(finished["state"], "settled", "{path}");
    }
    service.reserve(user, "b", 10).await.is(201);
    service.post(&verb("b", "/release"), &json!({})).await.is(200);
    let finished = service.settle(user, "b", 1).await.problem(409, "reservation_finished");
    assert_eq!(finished["state"], "released");
    // A release that overtook its reserve.
    service.post(&verb("late", "/release"), &json!({})).await.is(200);
    service.reserve(user, "late", 1).await.problem(409, "reservation_finished");
    assert_eq!(service.balance(user).await["available"], 990);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_settle_is_charged_once_and_progress_is_charged_by_itself() {
    let service = Service::start().await;
    let user = service.user(100).await;
    let path = format!("/v1/users/{user}/reservations");
    service.post(&path, &json!({"id": "late", "tokens": 60, "ttl_seconds": 1})).await.is(201);
    service.post(&path, &json!({"id": "lost", "tokens": 40, "ttl_seconds": 1})).await.is(201);
    let progress = json!({"used_tokens": 7});
    service.post(&service.reservation(user, "lost", "/extend"), &progress).await.is(200);
    until("both have expired", async || {
        service.balance(user).await == json!({"total": 100, "used": 7, "reserved": 0, "available": 93})
    })
    .await;
    let got = service.get(&service.reservation(user, "lost", "")).await.is(200);
    assert_eq!(got["reservation"]["state"], "expired");
    assert_eq!(got["reservation"]["charged_tokens"], 7);
    service.reserve(user, "late", 61).await.problem(409, "idempotency_mismatch");
    let again = json!({"id": "late", "tokens": 60, "ttl_seconds": 1});
    assert_eq!(service.post(&path, &again).await.problem(409, "reservation_finished")["state"], "expired");
    for replayed in [false, true, true] {
        let settled = service.settle(user, "late", 50).await;
        assert_eq!(settled.replayed(), replayed);
        let settled = settled.is(200);
        assert_eq!(settled["transaction"]["flags"], json!(["late"]));
        assert_eq!(settled["balance"]["available"], 43);
    }
    let corrected = service.settle(user, "lost", 5).await.is(200);
    assert_eq!(corrected["balance"], json!({"total": 100, "used": 55, "reserved": 0, "available": 45}));
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_knows_is_404() {
    let service = Service::start().await;
    let user = service.user(100).await;
    let nobody = cota::quota::UserId::generate();
    for user in [user, nobody] {
        let code = if user == nobody { "user_not_found" } else { "reservation_not_found" };
        service.settle(user, "no", 1).await.problem(404, code);
        service.get(&service.reservation(user, "no", "")).await.problem(404, code);
        let extend = service.reservation(user, "no", "/extend");
        service.post(&extend, &json!({"tokens": 1})).await.problem(404, code);
    }
    service.reserve(nobody, "a", 0).await.problem(404, "user_not_found");
    service.get(&format!("/v1/users/{nobody}/reservations")).await.problem(404, "user_not_found");
    for path in ["/", "/v1", "/v1/", "/v2/users", "/v1/user", "/healthz/x", "/metrics"] {
        service.get(path).await.problem(404, "route_not_found");
    }
    let wrong = service.send(service.request(Method::DELETE, "/v1/users", service.admin_jwt())).await;
    assert_eq!(allowed(&wrong.headers), ["GET", "HEAD", "POST"]);
    wrong.problem(405, "method_not_allowed");
    service.finish().await;
}

fn allowed(headers: &HeaderMap) -> Vec<&str> {
    let mut methods: Vec<&str> = headers["allow"].to_str().unwrap().split(',').map(str::trim).collect();
    methods.sort_unstable();
    methods
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_at_once_never_get_more_than_there_is() {
    let service = Service::start().await;
    let user = service.user(100).await;
    let ids: Vec<String> = (0..50).map(|n| format!("r{n}")).collect();
    let answers = futures_util::future::join_all(ids.iter().map(|id| service.reserve(user, id, 10))).await;
    let held = answers.iter().filter(|answer| answer.status == 201).count();
    let denied = answers.iter().filter(|answer| answer.status == 402).count();
    assert_eq!((held, denied), (10, 40), "case 1");
    assert_eq!(service.balance(user).await["available"], 0);
    service.finish().await;
}
