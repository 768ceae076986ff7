//! What is wrong gets a stable code and changes nothing: balances, reservations and ledger are the same after the whole
//! table as before.

use cota::quota::UserId;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::service::{Answer, Service, send};

/// A user with something pending and something settled, and what is known of it.
struct Subject {
    service: Service,
    user: UserId,
    before: Value,
}

impl Subject {
    async fn new() -> Self {
        let service = Service::start().await;
        let user = service.user(1_000).await;
        service.reserve(user, "held", 100).await.is(201);
        service.reserve(user, "done", 100).await.is(201);
        service.settle(user, "done", 60).await.is(200);
        service.world.check().await;
        let mut subject = Self { service, user, before: Value::Null };
        subject.before = subject.facts().await;
        subject
    }

    /// Everything a bad call could have changed.
    async fn facts(&self) -> Value {
        let pool = self.service.world.database.pool();
        let counted: (i64, i64, i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM token_transactions), (SELECT coalesce(sum(tokens_used), 0)::bigint FROM
             token_transactions), (SELECT count(*) FROM grants), (SELECT count(*) FROM user_accounts)",
        )
        .fetch_one(pool)
        .await
        .unwrap();
        let path = format!("/v1/users/{}/reservations", self.user);
        json!({
            "balance": self.service.balance(self.user).await,
            "pending": self.service.get(&path).await.is(200),
            "stored": [counted.0, counted.1, counted.2, counted.3],
        })
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1/users/{}{rest}", self.user)
    }

    /// Sends this text as it stands.
    async fn raw(&self, rest: &str, body: impl Into<reqwest::Body>) -> Answer {
        let request = self.service.request(Method::POST, &self.path(rest), self.service.gateway_jwt());
        send(request.header("content-type", "application/json").body(body)).await
    }

    async fn unchanged(self) {
        self.service.world.check().await;
        assert_eq!(self.facts().await, self.before);
        self.service.finish().await;
    }
}

const RESERVE: &str = "/reservations";
const SETTLE: &str = "/reservations/held/settle";
const EXTEND: &str = "/reservations/held/extend";
const RELEASE: &str = "/reservations/held/release";
const DEBIT: &str = "/debits";

/// What follows the user's path, body, status, code.
const BAD_BODIES: &[(&str, &str, u16, &str)] = &[
    (RESERVE, "", 400, "malformed_json"),
    (RESERVE, "{", 400, "malformed_json"),
    (RESERVE, r#"{"id":"x","tokens":1"#, 400, "malformed_json"),
    (RESERVE, r#"{"id":"x","tokens":1}}"#, 400, "malformed_json"),
    (RESERVE, r#"{"id":"x","tokens":1}{"id":"y","tokens":1}"#, 400, "malformed_json"),
    (RESERVE, r#"{id:"x",tokens:1}"#, 400, "malformed_json"),
    (RESERVE, r#"{'id':'x','tokens':1}"#, 400, "malformed_json"),
    (RESERVE, "[]", 422, "invalid_body"),
    (RESERVE, "null", 422, "invalid_body"),
    (RESERVE, "\"tokens\"", 422, "invalid_body"),
    (RESERVE, "{}", 422, "missing_field"),
    (RESERVE, r#"{"id":"x"}"#, 422, "missing_field"),
    (RESERVE, r#"{"id":"x","tokens":1,"tokens":2}"#, 422, "duplicate_field"),
    (RESERVE, r#"{"id":"x","tokens":1,"amount":2}"#, 422, "unknown_field"),
    (RESERVE, r#"{"id":"x","Tokens":1}"#, 422, "unknown_field"),
    (RESERVE, r#"{"id":"x","tokens":1,"user_id":"someone"}"#, 422, "unknown_field"),
    (RESERVE, r#"{"id":"x","tokens":1,"estimate":{}}"#, 422, "conflicting_fields"),
    (RESERVE, r#"{"id":"x","estimate":{"input_tokens":1,"max_output_tokens":1}}"#, 422, "missing_field"),
    (
        RESERVE,
        r#"{"id":"x","estimate":{"model":"m","input_tokens":1,"output_tokens":1}}"#,
        422,
        "unknown_field",
    ),
    (RESERVE, r#"{"id":"x","estimate":7}"#, 422, "invalid_body"),
    (RESERVE, r#"{"id":7,"tokens":1}"#, 422, "invalid_body"),
    (RESERVE, r#"{"id":null,"tokens":1}"#, 422, "invalid_body"),
    (RESERVE, r#"{"id":"x","tokens":1,"model":""}"#, 422, "invalid_model"),
    (RESERVE, r#"{"id":"x","tokens":1,"model":"a\nb"}"#, 422, "invalid_model"),
    (RESERVE, r#"{"id":"x","tokens":1,"model":7}"#, 422, "invalid_body"),
    (RESERVE, r#"{"id":"x","tokens":1,"ttl_seconds":0}"#, 422, "invalid_ttl"),
    (RESERVE, r#"{"id":"x","tokens":1,"ttl_seconds":86401}"#, 422, "invalid_ttl"),
    (RESERVE, r#"{"id":"x","tokens":1,"ttl_seconds":-1}"#, 422, "invalid_ttl"),
    (RESERVE, r#"{"id":"x","tokens":1,"ttl_seconds":"60"}"#, 422, "invalid_body"),
    (RESERVE, r#"{"id":"x","tokens":1,"metadata":[]}"#, 422, "invalid_body"),
    (SETTLE, "{}", 422, "missing_field"),
    (SETTLE, "", 400, "malformed_json"),
    (SETTLE, r#"{"tokens":1,"usage":"unknown"}"#, 422, "conflicting_fields"),
    (SETTLE, r#"{"usage":"known"}"#, 422, "invalid_body"),
    (SETTLE, r#"{"usage":null}"#, 422, "invalid_body"),
    (SETTLE, r#"{"usage":{}}"#, 422, "missing_field"),
    (SETTLE, r#"{"usage":{"input_tokens":1}}"#, 422, "missing_field"),
    (
        SETTLE,
        r#"{"usage":{"input_tokens":1,"output_tokens":1,"cached_input_tokens":2}}"#,
        422,
        "invalid_amount",
    ),
    (SETTLE, r#"{"usage":{"input_tokens":1,"output_tokens":1,"total_tokens":2}}"#, 422, "unknown_field"),
    (
        SETTLE,
        r#"{"usage":{"model":"a","input_tokens":1,"output_tokens":1},"model":"b"}"#,
        422,
        "conflicting_fields",
    ),
    (SETTLE, r#"{"tokens":1,"request_id":""}"#, 422, "invalid_request_id"),
    (SETTLE, r#"{"tokens":1,"id":"held"}"#, 422, "unknown_field"),
    (EXTEND, "{}", 422, "missing_field"),
    (EXTEND, r#"{"ttl_seconds":0}"#, 422, "invalid_ttl"),
    (EXTEND, r#"{"tokens":200,"used":1}"#, 422, "unknown_field"),
    (RELEASE, r#"{"tokens":1}"#, 422, "unknown_field"),
    (RELEASE, "[", 400, "malformed_json"),
    (DEBIT, r#"{"tokens":1}"#, 422, "missing_field"),
    (DEBIT, r#"{"id":"x"}"#, 422, "missing_field"),
    (DEBIT, r#"{"id":"x","tokens":1,"ttl_seconds":1}"#, 422, "unknown_field"),
];

#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_the_wrong_form() {
    let subject = Subject::new().await;
    for (rest, body, status, code) in BAD_BODIES {
        let answer = subject.raw(rest, *body).await;
        assert_eq!((answer.status, &answer.body["code"]), (*status, &json!(code)), "{rest} {body}");
        answer.problem(*status, code);
    }
    let invalid_utf8 = b"{\"id\":\"x\",\"tokens\":1,\"model\":\"\xff\"}".as_slice();
    subject.raw(RESERVE, invalid_utf8).await.problem(400, "malformed_json");
    let long = format!(r#"{{"id":"x","tokens":1,"metadata":{{"a":"{}"}}}}"#, "x".repeat(1_024));
    subject.raw(RESERVE, long).await.problem(422, "invalid_metadata");
    subject.unchanged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn amounts_of_the_wrong_form() {
    let subject = Subject::new().await;
    for (amount, status, code) in [
        ("-1", 422, "invalid_amount"),
        ("-0", 422, "invalid_amount"),
        ("1.5", 422, "invalid_amount"),
        ("1.0", 422, "invalid_amount"),
        ("1e3", 422, "invalid_amount"),
        ("1E400", 422, "invalid_amount"),
        ("1000000000001", 422, "amount_out_of_range"),
        ("9007199254740993", 422, "amount_out_of_range"),
        ("18446744073709551617", 422, "amount_out_of_range"),
        ("99999999999999999999999999999999999999999", 422, "amount_out_of_range"),
        ("\"1\"", 422, "invalid_body"),
        ("\"NaN\"", 422, "invalid_body"),
        ("null", 422, "invalid_body"),
        ("true", 422, "invalid_body"),
        ("[1]", 422, "invalid_body"),
        ("{}", 422, "invalid_body"),
        ("NaN", 400, "malformed_json"),
        ("Infinity", 400, "malformed_json"),
        ("-Infinity", 400, "malformed_json"),
        ("0x10", 400, "malformed_json"),
        ("01", 400, "malformed_json"),
        ("+1", 400, "malformed_json"),
        ("1_000", 400, "malformed_json"),
    ] {
        for (rest, body) in [
            (RESERVE, format!(r#"{{"id":"x","tokens":{amount}}}"#)),
            (
                RESERVE,
                format!(
                    r#"{{"id":"x","estimate":{{"model":"m","input_tokens":{amount},"max_output_tokens":1}}}}"#
                ),
            ),
            (SETTLE, format!(r#"{{"tokens":{amount}}}"#)),
            (SETTLE, format!(r#"{{"usage":{{"input_tokens":1,"output_tokens":{amount}}}}}"#)),
            (EXTEND, format!(r#"{{"tokens":{amount}}}"#)),
            (EXTEND, format!(r#"{{"used_tokens":{amount}}}"#)),
            (DEBIT, format!(r#"{{"id":"x","tokens":{amount}}}"#)),
        ] {
            let answer = subject.raw(rest, body.clone()).await;
            assert_eq!((answer.status, &answer.body["code"]), (status, &json!(code)), "{rest} {body}");
        }
    }
    subject.unchanged().await;
}

/// Ids of the wrong form in paths, percent-encoded; case 102.
const BAD_IDS: [&str; 15] = [
    "%7Bx%7D",
    "a:b",
    "a%7Db%7Bc",
    "*",
    "a%0Ab",
    "%0A",
    "a%00b",
    "%00",
    "a%20b",
    "%F0%9F%98%80",
    "e%CC%81",
    "%ff",
    "a%2Fb",
    "..%2F..",
    "a'--",
];

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_the_wrong_form() {
    let subject = Subject::new().await;
    let long = "x".repeat(1_024);
    let tokens = json!({"tokens": 1});
    for id in BAD_IDS.into_iter().chain([&*long]) {
        for verb in ["settle", "extend", "release"] {
            let path = subject.path(&format!("/reservations/{id}/{verb}"));
            let body = if verb == "release" { json!({}) } else { tokens.clone() };
            subject.service.post(&path, &body).await.problem(422, "invalid_reservation_id");
        }
        let path = subject.path(&format!("/reservations/{id}"));
        subject.service.get(&path).await.problem(422, "invalid_reservation_id");
        for rest in ["/tokens", "/reservations", "/reservations/held"] {
            subject.service.get(&format!("/v1/users/{id}{rest}")).await.problem(422, "invalid_user_id");
        }
        let path = format!("/v1/users/{id}/debits");
        subject.service.post(&path, &json!({"id": "x", "tokens": 1})).await.problem(422, "invalid_user_id");
    }
    for id in [
        "",
        "{x}",
        "a:b",
        "a}b{c",
        "*",
        "a\nb",
        "\n",
        "a\0b",
        "\0",
        "a b",
        "é",
        "😀",
        "a/b",
        &long,
        &"x".repeat(129),
    ] {
        let body = json!({"id": id, "tokens": 1});
        subject.service.post(&subject.path(RESERVE), &body).await.problem(422, "invalid_reservation_id");
        subject.service.post(&subject.path(DEBIT), &body).await.problem(422, "invalid_reservation_id");
    }
    let empty = subject.path("/reservations//settle");
    subject.service.post(&empty, &tokens).await.problem(422, "invalid_reservation_id");
    // Other spellings of a known id are not it.
    for spelling in [
        subject.user.0.simple().to_string(),
        subject.user.0.urn().to_string(),
        subject.user.0.braced().to_string(),
    ] {
        let path = format!("/v1/users/{spelling}/tokens");
        subject.service.get(&path).await.problem(422, "invalid_user_id");
    }
    let nil = json!({"id": uuid::Uuid::nil(), "email": "nil@b.co"});
    subject.service.admin_post("/v1/users", &nil).await.problem(422, "invalid_user_id");
    subject.unchanged().await;
}

/// Ids that look alike are different reservations.
#[tokio::test(flavor = "multi_thread")]
async fn ids_are_compared_byte_by_byte() {
    let service = Service::start().await;
    let user = service.user(100).await;
    let ids = ["a", "A", "a.", ".a", "a_", "a-", "-", "_", "."];
    for id in ids {
        service.reserve(user, id, 1).await.is(201);
    }
    let longest = "x".repeat(128);
    service.reserve(user, &longest, 1).await.is(201);
    assert_eq!(service.balance(user).await["reserved"], ids.len() + 1);
    service.settle(user, "A", 5).await.is(200);
    let got = service.get(&service.reservation(user, "a", "")).await.is(200);
    assert_eq!(got["reservation"]["state"], "pending");
    service.settle(user, &longest, 1).await.is(200);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_too_large_or_of_another_type() {
    let subject = Subject::new().await;
    let limit = subject.service.world.config.http.max_body_bytes;
    for rest in [RESERVE, SETTLE, EXTEND, RELEASE, DEBIT] {
        let large = format!(r#"{{"id":"x","tokens":1}}{}"#, " ".repeat(limit));
        let refused = subject.raw(rest, large).await.problem(413, "body_too_large");
        assert_eq!(refused["limit"], limit, "{rest}");
    }
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "application/problem+json", ""] {
        let path = subject.path(RESERVE);
        let request = subject.service.request(Method::POST, &path, subject.service.gateway_jwt());
        let request = request.header("content-type", content_type).body(r#"{"id":"x","tokens":1}"#);
        send(request).await.problem(415, "unsupported_media_type");
    }
    subject.unchanged().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn problems_speak_the_callers_language() {
    let subject = Subject::new().await;
    let path = subject.path(RESERVE);
    let own = subject.service.user_jwt(subject.user);
    for (languages, tag, title) in [
        (None, "en", "Access denied"),
        (Some("pt-BR,pt;q=0.9,en;q=0.8"), "pt-BR", "Acesso negado"),
        (Some("pt"), "pt-BR", "Acesso negado"),
        (Some("de"), "en", "Access denied"),
    ] {
        let mut request = subject.service.request(Method::POST, &path, &own).json(&json!({"tokens": 1}));
        if let Some(languages) = languages {
            request = request.header("accept-language", languages);
        }
        let answer = send(request).await;
        assert_eq!(answer.header("content-language"), Some(tag), "{languages:?}");
        assert_eq!(answer.problem(403, "forbidden")["title"], title);
    }
    let request = subject.service.request(Method::POST, &path, subject.service.gateway_jwt());
    let request = request.header("accept-language", "pt-BR").json(&json!({"id": "x", "tokens": 10_000}));
    let refused = send(request).await.problem(402, "insufficient_tokens");
    assert_eq!(refused["title"], "Tokens insuficientes");
    subject.unchanged().await;
}
