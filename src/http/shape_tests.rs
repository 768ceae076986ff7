//! The bad-input table: each body with the code it gets and the member it names.

use axum::{
    body::Body,
    http::{Method, Request},
};

use super::{assert_problem, harness};
use crate::quota::UserId;

pub(super) async fn refuse(call: &str, table: &[(&str, u16, &str, Option<&str>)]) {
    let harness = harness();
    let admin = harness.admin();
    let path = format!("/v1/users/{}/{call}", UserId::generate());
    for (body, status, code, field) in table {
        let request = Request::post(&path)
            .header("authorization", format!("Bearer {admin}"))
            .header("content-type", "application/json");
        // Credits need one, and for the others an id in the body would have to agree with it.
        let request = if ["credits", "adjustments"].contains(&call) {
            request.header("idempotency-key", "k")
        } else {
            request
        };
        let answer = harness.send(request.body(Body::from(body.to_string())).unwrap()).await;
        let about = format!("{call} {body}");
        assert_problem(&answer, *status, code, &about);
        assert_eq!(answer.body["field"].as_str(), *field, "{about}");
    }
}

/// What every amount is refused for, under the name of its member.
async fn refuse_amounts(call: &str, body: impl Fn(&str) -> String, field: &str) {
    for (number, status, code) in [
        ("-1", 422, "invalid_amount"),
        ("-0", 422, "invalid_amount"),
        ("1.5", 422, "invalid_amount"),
        ("1.0", 422, "invalid_amount"),
        ("1e3", 422, "invalid_amount"),
        ("1e400", 422, "invalid_amount"),
        ("1000000000001", 422, "amount_out_of_range"),
        ("9007199254740993", 422, "amount_out_of_range"),
        ("99999999999999999999", 422, "amount_out_of_range"),
        ("\"1\"", 422, "invalid_body"),
        ("\"1e400\"", 422, "invalid_body"),
        ("true", 422, "invalid_body"),
        ("null", 422, "invalid_body"),
        ("[]", 422, "invalid_body"),
    ] {
        refuse(call, &[(&body(number), status, code, Some(field))]).await;
    }
    for number in ["NaN", "Infinity", "-Infinity", "0x10", "01", "+1", ""] {
        refuse(call, &[(&body(number), 400, "malformed_json", None)]).await;
    }
}

#[tokio::test]
async fn amounts_everywhere() {
    for call in ["reservations", "reservations/r/settle", "reservations/r/extend", "debits", "credits"] {
        let id = if call == "debits" { "\"id\":\"d\"," } else { "" };
        refuse_amounts(call, |number| format!("{{{id}\"tokens\":{number}}}"), "tokens").await;
    }
    refuse_amounts(
        "reservations",
        |n| format!("{{\"estimate\":{{\"model\":\"m\",\"input_tokens\":{n},\"max_output_tokens\":1}}}}"),
        "input_tokens",
    )
    .await;
    refuse_amounts(
        "reservations",
        |n| format!("{{\"estimate\":{{\"model\":\"m\",\"input_tokens\":1,\"max_output_tokens\":{n}}}}}"),
        "max_output_tokens",
    )
    .await;
    for call in ["reservations/r/settle", "debits"] {
        let id = if call == "debits" { "\"id\":\"d\"," } else { "" };
        for (name, rest) in [
            ("input_tokens", "\"output_tokens\":1"),
            ("output_tokens", "\"input_tokens\":1"),
            ("cached_input_tokens", "\"input_tokens\":1,\"output_tokens\":1"),
        ] {
            refuse_amounts(call, |n| format!("{{{id}\"usage\":{{{rest},\"{name}\":{n}}}}}"), name).await;
        }
    }
    refuse_amounts("reservations/r/extend", |n| format!("{{\"used_tokens\":{n}}}"), "used_tokens").await;
}

#[tokio::test]
async fn reserves() {
    let model = "m".repeat(101);
    let id = "x".repeat(129);
    refuse(
        "reservations",
        &[
            ("", 400, "malformed_json", None),
            ("{\"tokens\":1", 400, "malformed_json", None),
            ("[]", 422, "invalid_body", None),
            ("{}", 422, "missing_field", Some("tokens")),
            ("{\"token\":1}", 422, "unknown_field", Some("token")),
            ("{\"tokens\":1,\"budget\":5}", 422, "unknown_field", Some("budget")),
            ("{\"tokens\":1,\"user_id\":\"x\"}", 422, "unknown_field", Some("user_id")),
            ("{\"tokens\":1,\"tokens\":2}", 422, "duplicate_field", Some("tokens")),
            (
                "{\"tokens\":1,\"estimate\":{\"model\":\"m\",\"input_tokens\":1,\"max_output_tokens\":1}}",
                422,
                "conflicting_fields",
                Some("estimate"),
            ),
            ("{\"estimate\":{}}", 422, "missing_field", Some("model")),
            ("{\"estimate\":{\"model\":\"m\"}}", 422, "missing_field", Some("input_tokens")),
            (
                "{\"estimate\":{\"model\":\"m\",\"input_tokens\":1}}",
                422,
                "missing_field",
                Some("max_output_tokens"),
            ),
            ("{\"estimate\":{\"output_tokens\":1}}", 422, "unknown_field", Some("output_tokens")),
            ("{\"estimate\":5}", 422, "invalid_body", None),
            ("{\"estimate\":null,\"tokens\":1}", 422, "invalid_body", None),
            (
                "{\"estimate\":{\"model\":\"m\",\"input_tokens\":1000000000000,\"max_output_tokens\":1}}",
                422,
                "amount_out_of_range",
                Some("estimate"),
            ),
            (
                "{\"model\":\"n\",\"estimate\":{\"model\":\"m\",\"input_tokens\":1,\"max_output_tokens\":1}}",
                422,
                "conflicting_fields",
                Some("model"),
            ),
            ("{\"id\":\"\",\"tokens\":1}", 422, "invalid_reservation_id", Some("id")),
            ("{\"id\":\"a b\",\"tokens\":1}", 422, "invalid_reservation_id", Some("id")),
            ("{\"id\":\"{x}\",\"tokens\":1}", 422, "invalid_reservation_id", Some("id")),
            ("{\"id\":\"a:b\",\"tokens\":1}", 422, "invalid_reservation_id", Some("id")),
            ("{\"id\":\"a\\u0000\",\"tokens\":1}", 422, "invalid_reservation_id", Some("id")),
            ("{\"id\":\"a\\n\",\"tokens\":1}", 422, "invalid_reservation_id", Some("id")),
            (&format!("{{\"id\":\"{id}\",\"tokens\":1}}"), 422, "invalid_reservation_id", Some("id")),
            ("{\"id\":7,\"tokens\":1}", 422, "invalid_body", Some("id")),
            ("{\"id\":null,\"tokens\":1}", 422, "invalid_body", Some("id")),
            ("{\"tokens\":1,\"ttl_seconds\":0}", 422, "invalid_ttl", Some("ttl_seconds")),
            ("{\"tokens\":1,\"ttl_seconds\":86401}", 422, "invalid_ttl", Some("ttl_seconds")),
            ("{\"tokens\":1,\"ttl_seconds\":1.5}", 422, "invalid_ttl", Some("ttl_seconds")),
            ("{\"tokens\":1,\"ttl_seconds\":\"60\"}", 422, "invalid_body", Some("ttl_seconds")),
            ("{\"tokens\":1,\"model\":\"\"}", 422, "invalid_model", Some("model")),
            (&format!("{{\"tokens\":1,\"model\":\"{model}\"}}"), 422, "invalid_model", Some("model")),
            ("{\"tokens\":1,\"model\":5}", 422, "invalid_body", Some("model")),
            ("{\"tokens\":1,\"metadata\":[]}", 422, "invalid_body", Some("metadata")),
            ("{\"tokens\":1,\"metadata\":\"{}\"}", 422, "invalid_body", Some("metadata")),
        ],
    )
    .await;
}

#[tokio::test]
async fn settles_debits_and_extends() {
    let usage = "\"usage\":{\"input_tokens\":1,\"output_tokens\":1}";
    let request_id = "x".repeat(256);
    let charges: Vec<(String, u16, &str, Option<&str>)> = [
        ("", 422, "missing_field", Some("tokens")),
        (&format!("\"tokens\":1,{usage}") as &str, 422, "conflicting_fields", Some("usage")),
        ("\"tokens\":1,\"usage\":\"unknown\"", 422, "conflicting_fields", Some("usage")),
        ("\"usage\":\"known\"", 422, "invalid_body", Some("usage")),
        ("\"usage\":\"Unknown\"", 422, "invalid_body", Some("usage")),
        ("\"usage\":null", 422, "invalid_body", None),
        ("\"usage\":7", 422, "invalid_body", None),
        ("\"usage\":{}", 422, "missing_field", Some("input_tokens")),
        ("\"usage\":{\"input_tokens\":1}", 422, "missing_field", Some("output_tokens")),
        ("\"usage\":{\"input_tokens\":1,\"output\":1}", 422, "unknown_field", Some("output")),
        (
            "\"usage\":{\"input_tokens\":1,\"output_tokens\":1,\"cached_input_tokens\":2}",
            422,
            "invalid_amount",
            Some("cached_input_tokens"),
        ),
        (
            "\"usage\":{\"input_tokens\":1000000000000,\"output_tokens\":1}",
            422,
            "amount_out_of_range",
            Some("usage"),
        ),
        (
            "\"model\":\"a\",\"usage\":{\"model\":\"b\",\"input_tokens\":1,\"output_tokens\":1}",
            422,
            "conflicting_fields",
            Some("model"),
        ),
        ("\"tokens\":1,\"cost\":1", 422, "unknown_field", Some("cost")),
        ("\"tokens\":1,\"request_id\":\"\"", 422, "invalid_request_id", Some("request_id")),
        (
            &format!("\"tokens\":1,\"request_id\":\"{request_id}\""),
            422,
            "invalid_request_id",
            Some("request_id"),
        ),
    ]
    .map(|(members, status, code, field)| (members.to_owned(), status, code, field))
    .to_vec();
    for (members, status, code, field) in &charges {
        let row = |body: String| (body, *status, *code, *field);
        let (body, status, code, field) = row(format!("{{{members}}}"));
        refuse("reservations/r/settle", &[(&body, status, code, field)]).await;
        let comma = if members.is_empty() { "" } else { "," };
        let (body, status, code, field) = row(format!("{{\"id\":\"d\"{comma}{members}}}"));
        refuse("debits", &[(&body, status, code, field)]).await;
    }
    refuse(
        "debits",
        &[
            ("{\"tokens\":1}", 422, "missing_field", Some("id")),
            ("{\"id\":\"\",\"tokens\":1}", 422, "invalid_reservation_id", Some("id")),
            ("{\"id\":\"d\",\"usage\":\"unknown\"}", 422, "invalid_body", Some("usage")),
        ],
    )
    .await;
    refuse(
        "reservations/r/extend",
        &[
            ("{}", 422, "missing_field", Some("tokens")),
            ("{\"ttl_seconds\":0}", 422, "invalid_ttl", Some("ttl_seconds")),
            ("{\"ttl\":60}", 422, "unknown_field", Some("ttl")),
        ],
    )
    .await;
    for call in ["reservations/r/release", "suspend", "resume"] {
        refuse(
            call,
            &[
                ("{\"a\":1}", 422, "unknown_field", Some("a")),
                ("[]", 422, "invalid_body", None),
                ("null", 422, "invalid_body", None),
                ("{", 400, "malformed_json", None),
            ],
        )
        .await;
    }
}

#[tokio::test]
async fn ids_in_the_header() {
    let harness = harness();
    for call in ["reservations", "debits"] {
        let path = format!("/v1/users/{}/{call}", UserId::generate());
        for (keys, body, code) in [
            (&["b"][..], "{\"id\":\"a\",\"tokens\":1}", "conflicting_fields"),
            (&["a", "a"], "{\"tokens\":1}", "invalid_reservation_id"),
            (&[""], "{\"tokens\":1}", "invalid_reservation_id"),
            (&["{a}"], "{\"tokens\":1}", "invalid_reservation_id"),
            (&["é"], "{\"tokens\":1}", "invalid_reservation_id"),
        ] {
            let mut request = Request::post(&path)
                .header("authorization", format!("Bearer {}", harness.gateway()))
                .header("content-type", "application/json");
            for key in keys {
                request = request.header("idempotency-key", *key);
            }
            let answer = harness.send(request.body(Body::from(body)).unwrap()).await;
            assert_problem(&answer, 422, code, &format!("{call} {keys:?}"));
        }
    }
}

#[tokio::test]
async fn users() {
    let harness = harness();
    let admin = harness.admin();
    for (body, code, field) in [
        ("{}", "missing_field", "email"),
        ("{\"email\":\"a\"}", "invalid_email", "email"),
        ("{\"email\":7}", "invalid_body", "email"),
        ("{\"email\":\"a@b.co\",\"id\":\"x\"}", "invalid_user_id", "id"),
        ("{\"email\":\"a@b.co\",\"external_id\":\"\"}", "invalid_external_id", "external_id"),
        ("{\"email\":\"a@b.co\",\"locale\":\"pt_BR\"}", "invalid_locale", "locale"),
        ("{\"email\":\"a@b.co\",\"time_zone\":\"Mars/Olympus\"}", "invalid_time_zone", "time_zone"),
        ("{\"email\":\"a@b.co\",\"role\":\"admin\"}", "unknown_field", "role"),
        ("{\"email\":\"a@b.co\",\"total_tokens\":1}", "unknown_field", "total_tokens"),
    ] {
        let answer = harness.post("/v1/users", &admin, body).await;
        assert_problem(&answer, 422, code, body);
        assert_eq!(answer.body["field"], field, "{body}");
    }
    let id = UserId::generate();
    for (path, field) in [
        ("/v1/users?limit=0".to_owned(), "limit"),
        ("/v1/users?limit=501".to_owned(), "limit"),
        ("/v1/users?limit=-1".to_owned(), "limit"),
        ("/v1/users?limit=%2B1".to_owned(), "limit"),
        ("/v1/users?limit=".to_owned(), "limit"),
        ("/v1/users?after=x".to_owned(), "after"),
        ("/v1/users?limit=1&limit=2".to_owned(), "limit"),
        ("/v1/users?external_id=%00".to_owned(), "external_id"),
        (format!("/v1/users/{id}/credits?before=x"), "before"),
        (format!("/v1/users/{id}/reservations?state=settled"), "state"),
        (format!("/v1/users/{id}/reservations?after=a%20b"), "after"),
        (format!("/v1/users/{id}/reservations?limit=1e3"), "limit"),
    ] {
        let answer = harness.call(&Method::GET, &path, Some(&admin), "").await;
        assert_problem(&answer, 422, "invalid_query", &path);
        assert_eq!(answer.body["field"], field, "{path}");
    }
}

/// Postgres is away here: the answer says so, and whether it may have done something.
#[tokio::test]
async fn a_store_that_is_away_is_a_503() {
    let harness = harness();
    let admin = harness.admin();
    for (method, path, body) in [
        (Method::GET, format!("/v1/users/{}", UserId::generate()), ""),
        (Method::GET, "/v1/users".to_owned(), ""),
        (Method::POST, "/v1/users".to_owned(), "{\"email\":\"a@b.co\"}"),
    ] {
        let answer = harness.call(&method, &path, Some(&admin), body).await;
        assert_problem(&answer, 503, "store_unavailable", &path);
        assert_eq!(answer.body["outcome"], "none", "{path}");
        assert_eq!(answer.headers["retry-after"], "1");
        assert!(!answer.body.to_string().contains("127.0.0.1"), "{answer:?}");
    }
}
