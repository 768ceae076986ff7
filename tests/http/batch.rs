//! Many operations in one call: what each answers, what is refused as a whole, and that nothing spoils another.

use cota::quota::UserId;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::service::{Answer, Service, TOP_UP_URL, send};

fn op(op: &str, user: UserId, rest: Value) -> Value {
    let mut operation = json!({"op": op, "user_id": user.to_string()});
    operation.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
    operation
}

fn statuses(results: &[Value]) -> Vec<u64> {
    results.iter().map(|result| result["status"].as_u64().unwrap()).collect()
}

/// Sends this text as it stands.
async fn raw(service: &Service, body: impl Into<reqwest::Body>) -> Answer {
    let request = service.request(Method::POST, "/v1/batch", service.gateway_jwt());
    send(request.header("content-type", "application/json").body(body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verb_answers_as_its_single_call_in_order() {
    let service = Service::start().await;
    let (user, other) = (service.user(1_000).await, service.user(10).await);
    let operations = [
        op("reserve", user, json!({"id": "a", "tokens": 100, "model": "m", "metadata": {"b": 1}})),
        op("reserve", other, json!({"id": "a", "tokens": 11})),
        op("extend", user, json!({"id": "a", "tokens": 150, "used_tokens": 7})),
        op("settle", user, json!({"id": "a", "usage": {"input_tokens": 20, "output_tokens": 22}})),
        op("settle", user, json!({"id": "a", "usage": {"input_tokens": 20, "output_tokens": 22}})),
        op("reserve", user, json!({"tokens": 5})),
        op("debit", other, json!({"id": "d", "tokens": 4})),
        op("release", user, json!({"id": "b"})),
        op("reserve", user, json!({"id": "b", "tokens": 1})),
        op("settle", user, json!({"id": "nobody's", "tokens": 1})),
        op("settle", user, json!({"id": "nobody", "tokens": 1})),
    ];
    for prefix in ["/v1", "/api"] {
        let path = format!("{prefix}/batch");
        let answer = service.post(&path, &json!({"operations": operations})).await;
        assert_eq!(answer.header("vary"), Some("accept-language"));
        let results = answer.is(200)["results"].as_array().unwrap().clone();
        if prefix == "/api" {
            // Again: what was done is replayed, what was refused is refused.
            assert_eq!(statuses(&results), [409, 402, 409, 200, 200, 201, 200, 200, 409, 422, 404]);
            let replayed: Vec<bool> = results.iter().map(|result| result["replayed"] == true).collect();
            let expected = [3, 4, 6, 7].map(|place| replayed[place]);
            assert_eq!((expected, replayed.iter().filter(|yes| **yes).count()), ([true; 4], 4));
            continue;
        }
        assert_eq!(statuses(&results), [201, 402, 200, 200, 200, 201, 201, 200, 409, 422, 404]);
        assert_eq!(results[0]["body"]["reservation"]["metadata"], json!({"b": 1}));
        let balance = json!({"total": 1000, "used": 0, "reserved": 100, "available": 900});
        assert_eq!(results[0]["body"]["balance"], balance);
        assert_eq!(results[1]["body"]["top_up_url"], TOP_UP_URL);
        assert_eq!(
            (&results[1]["body"]["available"], &results[1]["body"]["reservation_id"]),
            (&json!(10), &json!("a"))
        );
        assert_eq!(results[2]["body"]["reservation"]["tokens"], 150);
        assert_eq!(results[3]["body"]["transaction"]["tokens"], 42);
        assert!(results[3].get("replayed").is_none() && results[3].get("retry_after").is_none());
        assert_eq!((&results[4]["replayed"], &results[4]["body"]), (&json!(true), &results[3]["body"]));
        let made = results[5]["body"]["reservation"]["id"].as_str().unwrap();
        assert_eq!(made.parse::<uuid::Uuid>().unwrap().get_version_num(), 7);
        assert_eq!(results[8]["body"]["state"], "released");
        assert_eq!(results[9]["body"]["code"], "invalid_reservation_id");
        assert_eq!(results[10]["body"]["code"], "reservation_not_found");
        // What a single call says of the same reservation.
        let single = service.settle(user, "a", 42).await;
        single.problem(409, "idempotency_mismatch");
        let usage = json!({"usage": {"input_tokens": 20, "output_tokens": 22}});
        let single = service.post(&service.reservation(user, "a", "/settle"), &usage).await;
        assert!(single.replayed());
        assert_eq!(single.is(200)["transaction"], results[3]["body"]["transaction"]);
    }
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_operation_gets_its_own_answer_and_spoils_no_other() {
    let service = Service::start().await;
    let user = service.user(1_000).await;
    let nobody = UserId::generate();
    let bad = [
        (json!(7), "invalid_body", None),
        (json!([]), "invalid_body", None),
        (json!(null), "invalid_body", None),
        (json!({}), "missing_field", Some("op")),
        (json!({"op": 7}), "invalid_body", Some("op")),
        (json!({"op": "grant", "user_id": user.to_string()}), "unknown_operation", Some("op")),
        (json!({"op": "reserve", "tokens": 1}), "missing_field", Some("user_id")),
        (json!({"op": "reserve", "user_id": 7, "tokens": 1}), "invalid_body", Some("user_id")),
        (json!({"op": "reserve", "user_id": "ana", "tokens": 1}), "invalid_user_id", Some("user_id")),
        (op("reserve", user, json!({})), "missing_field", Some("tokens")),
        (op("reserve", user, json!({"tokens": -1})), "invalid_amount", Some("tokens")),
        (op("reserve", user, json!({"tokens": 1, "used_tokens": 1})), "unknown_field", Some("used_tokens")),
        (op("reserve", user, json!({"tokens": 1, "id": "a b"})), "invalid_reservation_id", Some("id")),
        (op("reserve", user, json!({"tokens": 1, "ttl_seconds": 0})), "invalid_ttl", Some("ttl_seconds")),
        (op("settle", user, json!({"tokens": 1})), "missing_field", Some("id")),
        (op("settle", user, json!({"id": "a"})), "missing_field", Some("tokens")),
        (
            op("settle", user, json!({"id": "a", "tokens": 1, "usage": "unknown"})),
            "conflicting_fields",
            Some("usage"),
        ),
        (op("release", user, json!({})), "missing_field", Some("id")),
        (op("release", user, json!({"id": "a", "tokens": 1})), "unknown_field", Some("tokens")),
        (op("extend", user, json!({"id": "a"})), "missing_field", Some("tokens")),
        (op("extend", user, json!({"id": "a", "metadata": {}})), "unknown_field", Some("metadata")),
        (op("debit", user, json!({"tokens": 1})), "missing_field", Some("id")),
        (op("debit", user, json!({"id": "a", "usage": "unknown"})), "invalid_body", Some("usage")),
        (
            op("debit", user, json!({"id": "a", "tokens": 1_000_000_000_001_u64})),
            "amount_out_of_range",
            Some("tokens"),
        ),
    ];
    let mut operations = Vec::new();
    for (n, (operation, ..)) in bad.iter().enumerate() {
        operations.push(op("debit", user, json!({"id": format!("d{n}"), "tokens": 1})));
        operations.push(operation.clone());
    }
    operations.push(op("debit", nobody, json!({"id": "x", "tokens": 1})));
    let results = service.batch(&operations).await;
    for (pair, (operation, code, field)) in results.chunks(2).zip(&bad) {
        assert_eq!(pair[0]["status"], 201, "{operation}");
        assert_eq!(
            (&pair[1]["status"], &pair[1]["body"]["code"]),
            (&json!(422), &json!(code)),
            "{operation}"
        );
        assert_eq!(pair[1]["body"]["status"], 422);
        assert_eq!(pair[1]["body"]["field"].as_str(), *field, "{operation}");
    }
    let last = results.last().unwrap();
    assert_eq!((&last["status"], &last["body"]["code"]), (&json!(404), &json!("user_not_found")));
    assert_eq!(service.balance(user).await["used"], bad.len());
    // Twice the same member is told too, wherever it stands.
    let text = format!(
        "{{\"operations\":[{{\"op\":\"release\",\"user_id\":\"{user}\",\"id\":\"a\",\"id\":\"b\"}},\
        {{\"op\":\"release\",\"op\":\"release\",\"user_id\":\"{user}\",\"id\":\"a\"}}]}}"
    );
    for result in raw(&service, text).await.is(200)["results"].as_array().unwrap() {
        assert_eq!(result["body"]["code"], "duplicate_field");
    }
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_batch_is_refused_whole_and_changes_nothing() {
    let service = Service::start().await;
    let user = service.user(1_000).await;
    let debit = op("debit", user, json!({"id": "d", "tokens": 1}));
    for (body, status, code) in [
        (String::new(), 400, "malformed_json"),
        (format!("{{\"operations\":[{debit}"), 400, "malformed_json"),
        (format!("{{\"operations\":[{debit},{{\"op\"}}]}}"), 400, "malformed_json"),
        (format!("{{\"operations\":[{debit}]}}x"), 400, "malformed_json"),
        (format!("[{debit}]"), 422, "invalid_body"),
        ("null".into(), 422, "invalid_body"),
        ("{}".into(), 422, "missing_field"),
        ("{\"operations\":null}".into(), 422, "invalid_body"),
        (format!("{{\"operations\":{debit}}}"), 422, "invalid_body"),
        (format!("{{\"operations\":\"[{user}]\"}}"), 422, "invalid_body"),
        ("{\"operations\":[]}".into(), 422, "invalid_batch"),
        (format!("{{\"operations\":[{debit}],\"atomic\":true}}"), 422, "unknown_field"),
        (format!("{{\"operations\":[{debit}],\"operations\":[{debit}]}}"), 422, "duplicate_field"),
    ] {
        raw(&service, body).await.problem(status, code);
    }
    let text = service.request(Method::POST, "/v1/batch", service.gateway_jwt()).body("operations");
    send(text).await.problem(415, "unsupported_media_type");
    for (jwt, status, code) in
        [(&*service.user_jwt(user), 403, "forbidden"), ("not.a.jwt", 401, "unauthenticated")]
    {
        // Also for its own account, and before the body is looked at.
        for body in [json!({"operations": [debit]}), json!({})] {
            let request = service.request(Method::POST, "/v1/batch", jwt).json(&body);
            send(request).await.problem(status, code);
        }
    }
    send(service.request(Method::GET, "/v1/batch", service.gateway_jwt()))
        .await
        .problem(405, "method_not_allowed");
    let untouched = json!({"total": 1000, "used": 0, "reserved": 0, "available": 1000});
    assert_eq!(service.balance(user).await, untouched);
    let admin = service.admin_post("/v1/batch", &json!({"operations": [debit]})).await.is(200);
    assert_eq!(admin["results"][0]["status"], 201);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_to_256_operations_in_up_to_512_kib() {
    let service = Service::start().await;
    let user = service.user(1_000).await;
    let debits = |from: usize, count: usize| -> Vec<Value> {
        (from..from + count).map(|n| op("debit", user, json!({"id": format!("d{n}"), "tokens": 1}))).collect()
    };
    assert_eq!(statuses(&service.batch(&debits(0, 1)).await), [201]);
    assert_eq!(statuses(&service.batch(&debits(1, 255)).await), [201; 255]);
    assert_eq!(statuses(&service.batch(&debits(256, 256)).await), [201; 256]);
    let many = service.post("/v1/batch", &json!({"operations": debits(600, 257)})).await;
    assert_eq!(many.problem(422, "invalid_batch")["limit"], 256);
    assert_eq!(service.balance(user).await["used"], 512);
    // Blanks up to a length: far beyond what other calls may have.
    let padded = |bytes: usize, first: usize| {
        let body = json!({"operations": debits(first, 1)}).to_string();
        format!("{body}{}", " ".repeat(bytes - body.len()))
    };
    raw(&service, padded(524_288, 1_000)).await.is(200);
    let large = raw(&service, padded(524_289, 1_001)).await.problem(413, "body_too_large");
    assert_eq!(large["limit"], 524_288);
    // Without a length there is only what arrives to go by.
    let frame = hyper::body::Frame::data(bytes::Bytes::from(padded(524_289, 1_001)));
    let chunked =
        http_body_util::StreamBody::new(futures_util::stream::iter([Ok::<_, std::io::Error>(frame)]));
    raw(&service, reqwest::Body::wrap(chunked)).await.problem(413, "body_too_large");
    let path = format!("/v1/users/{user}/debits");
    let single = service.request(Method::POST, &path, service.gateway_jwt());
    let single = single.header("content-type", "application/json").body(padded(100_000, 1_002));
    assert_eq!(send(single).await.problem(413, "body_too_large")["limit"], 65_536);
    assert_eq!(service.balance(user).await["used"], 513);
    service.asked(user, "d1000");
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_cold_suspended_or_unknown_in_the_middle() {
    let service = Service::start().await;
    // Nobody has used these yet: Redis does not have them.
    let users = [service.user(10).await, service.user(10).await, service.user(10).await];
    let suspended = users[1];
    service.admin_post(&format!("/v1/users/{suspended}/suspend"), &json!({})).await.is(200);
    let nobody = UserId::generate();
    let mut operations = Vec::new();
    for user in [users[0], suspended, nobody, users[2]] {
        operations.push(op("reserve", user, json!({"id": "a", "tokens": 6})));
        operations.push(op("reserve", user, json!({"id": "b", "tokens": 6})));
        operations.push(op("settle", user, json!({"id": "a", "tokens": 4})));
        operations.push(op("reserve", user, json!({"id": "c", "tokens": 6})));
    }
    let results = service.batch(&operations).await;
    let of = |n: usize| statuses(&results[4 * n..4 * n + 4]);
    assert_eq!(of(0), [201, 402, 200, 201]);
    assert_eq!(of(1), [403, 403, 404, 403]);
    assert_eq!(of(2), [404; 4]);
    assert_eq!(of(3), of(0));
    assert_eq!(results[4]["body"]["code"], "user_suspended");
    assert_eq!(results[6]["body"]["code"], "reservation_not_found");
    assert_eq!(results[8]["body"]["code"], "user_not_found");
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn problems_are_in_the_callers_language_and_are_counted() {
    let service = Service::start().await;
    let user = service.user(1).await;
    let body = json!({"operations": [op("reserve", user, json!({"id": "a", "tokens": 2}))]});
    let request = service.request(Method::POST, "/v1/batch", service.gateway_jwt());
    let answer = service.send(request.header("accept-language", "pt-BR").json(&body)).await.is(200);
    assert_eq!(answer["results"][0]["body"]["title"], "Tokens insuficientes");
    let metrics = service.metrics().await;
    assert!(metrics.contains("cota_problems_total{code=\"insufficient_tokens\"} 1"), "{metrics}");
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_redis_each_operation_says_what_became_of_it() {
    let service = Service::with(|config| config.http.request_deadline_ms = 500).await;
    let user = service.user(100).await;
    service.reserve(user, "a", 10).await.is(201);
    let mut redis = service.world.redis.lock().await;
    redis.stop().await.unwrap();
    let operations = [
        op("reserve", user, json!({"id": "b", "tokens": 1})),
        op("reserve", user, json!({"tokens": 1})),
        op("settle", user, json!({"id": "a", "tokens": 4})),
        op("release", user, json!({"tokens": 4})),
    ];
    let results = service.batch(&operations).await;
    assert_eq!(statuses(&results), [503, 503, 503, 422]);
    for result in &results[..3] {
        assert_eq!(
            (&result["retry_after"], &result["body"]["code"]),
            (&json!(1), &json!("ledger_unavailable"))
        );
        assert!(result["body"]["outcome"].is_string() && result["body"]["reservation_id"].is_string());
    }
    redis.restart().await.unwrap();
    drop(redis);
    service.is_ready().await;
    // As the answers say: again, with the same ids.
    let again: Vec<Value> = [&operations[0], &operations[2]].into_iter().cloned().collect();
    let done = service.batch(&again).await;
    assert!(statuses(&done).iter().all(|status| *status < 300), "{done:?}");
    let balance = service.balance(user).await;
    assert_eq!((&balance["used"], &balance["reserved"]), (&json!(4), &json!(1)));
    service.finish().await;
}
