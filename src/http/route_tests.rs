//! What the router refuses by itself: nobody here may reach the ledger or the store.

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use serde_json::Value;

use super::{
    jwt::Role,
    testing::{Answer, Harness},
};
use crate::{config::HttpConfig, quota::UserId};

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    Hot,
    Read,
    Own,
    Admin,
}

/// All routes about one user; `{id}` and `{rid}` to be put in, and what else is in braces.
const USER_ROUTES: [(Method, &str, Access); 40] = [
    (Method::POST, "/users/{id}/reservations", Access::Hot),
    (Method::GET, "/users/{id}/reservations", Access::Read),
    (Method::GET, "/users/{id}/reservations/{rid}", Access::Read),
    (Method::POST, "/users/{id}/reservations/{rid}/settle", Access::Hot),
    (Method::POST, "/users/{id}/reservations/{rid}/release", Access::Hot),
    (Method::POST, "/users/{id}/reservations/{rid}/extend", Access::Hot),
    (Method::POST, "/users/{id}/debits", Access::Hot),
    (Method::GET, "/users/{id}/tokens", Access::Read),
    (Method::GET, "/users/{id}/metrics", Access::Own),
    (Method::GET, "/users/{id}/history", Access::Own),
    (Method::GET, "/users/{id}/anomalies", Access::Own),
    (Method::GET, "/users/{id}/reports", Access::Own),
    (Method::GET, "/users/{id}/reports/2026-01", Access::Own),
    (Method::GET, "/users/{id}/credits", Access::Own),
    (Method::POST, "/users/{id}/credits", Access::Admin),
    (Method::POST, "/users/{id}/adjustments", Access::Admin),
    (Method::GET, "/users/{id}/alert-config", Access::Own),
    (Method::PUT, "/users/{id}/alert-config", Access::Own),
    (Method::GET, "/users/{id}/alerts", Access::Own),
    (Method::GET, "/users/{id}/auto-renewal", Access::Own),
    (Method::PUT, "/users/{id}/auto-renewal", Access::Admin),
    (Method::GET, "/users/{id}/renewals", Access::Own),
    (Method::POST, "/users/{id}/renewals/0198c5a3-99dd-7c11-9f5e-2b6a3c1d4e5f/confirm", Access::Admin),
    (Method::POST, "/users/{id}/suspend", Access::Admin),
    (Method::POST, "/users/{id}/resume", Access::Admin),
    (Method::GET, "/users/{id}", Access::Own),
    (Method::HEAD, "/users/{id}", Access::Own),
    (Method::PATCH, "/users/{id}", Access::Admin),
    (Method::GET, "/users/{id}/notification-settings", Access::Own),
    (Method::PUT, "/users/{id}/notification-settings", Access::Own),
    (Method::GET, "/users/{id}/events", Access::Own),
    (Method::POST, "/users/{id}/events/ticket", Access::Own),
    (Method::POST, "/users/{id}/webhooks", Access::Own),
    (Method::GET, "/users/{id}/webhooks", Access::Own),
    (Method::GET, "/users/{id}/webhooks/{wid}", Access::Own),
    (Method::PATCH, "/users/{id}/webhooks/{wid}", Access::Own),
    (Method::DELETE, "/users/{id}/webhooks/{wid}", Access::Own),
    (Method::POST, "/users/{id}/webhooks/{wid}/rotate-secret", Access::Own),
    (Method::GET, "/users/{id}/webhooks/{wid}/deliveries", Access::Own),
    (Method::POST, "/users/{id}/webhooks/{wid}/deliveries/{did}/resend", Access::Own),
];

const PREFIXES: [&str; 2] = ["/v1", "/api"];

fn harness() -> Harness {
    Harness::new(HttpConfig { max_body_bytes: 4_096, body_timeout_ms: 50, ..HttpConfig::default() })
}

fn path(prefix: &str, route: &str, id: &str, rid: &str) -> String {
    let route = route.replace("{wid}", "0198c5a3-1b2c-7d3e-8f40-51627384a5b6").replace("{did}", "17");
    format!("{prefix}{}", route.replace("{id}", id).replace("{rid}", rid))
}

fn assert_problem(answer: &Answer, status: u16, code: &str, about: &str) {
    assert_eq!(answer.status.as_u16(), status, "{about}: {answer:?}");
    assert_eq!(answer.code(), code, "{about}: {answer:?}");
    assert_eq!(answer.headers["content-type"], "application/problem+json", "{about}");
    assert_eq!(answer.headers["x-content-type-options"], "nosniff", "{about}");
    assert_eq!(answer.headers["cache-control"], "no-store", "{about}");
}

/// As [`assert_problem`], for a method that may have no body in its answer.
fn assert_refused(method: &Method, answer: &Answer, status: u16, code: &str, about: &str) {
    if method == Method::HEAD {
        assert_eq!(answer.status.as_u16(), status, "{about}");
    } else {
        assert_problem(answer, status, code, about);
    }
}

#[tokio::test]
async fn no_route_is_open_to_who_has_no_valid_jwt() {
    let harness = harness();
    let id = UserId::generate().to_string();
    let mut bodies = Vec::new();
    let lists = [
        (Method::POST, "/users", Access::Admin),
        (Method::GET, "/users", Access::Admin),
        (Method::POST, "/batch", Access::Hot),
        (Method::GET, "/anomalies", Access::Admin),
        (Method::GET, "/reports/consolidated", Access::Admin),
        (Method::GET, "/summary", Access::Admin),
    ];
    for (method, route, _) in USER_ROUTES.iter().chain(&lists) {
        for prefix in PREFIXES {
            let path = path(prefix, route, &id, "r-1");
            let without = harness.call(method, &path, None, "{}").await;
            assert_refused(method, &without, 401, "unauthenticated", &path);
            assert_eq!(without.headers["www-authenticate"], "Bearer");
            for forged in ["x", "a.b.c", "eyJhbGciOiJub25lIn0.e30."] {
                let answer = harness.call(method, &path, Some(forged), "{}").await;
                assert_refused(method, &answer, 401, "unauthenticated", &path);
                assert_eq!(answer.headers["www-authenticate"], "Bearer error=\"invalid_token\"");
                bodies.push(answer.body);
            }
        }
    }
    bodies.retain(|body| !body.is_null());
    assert!(bodies.iter().all(|body| *body == bodies[0]), "the body tells why: {bodies:?}");
}

/// The matrix: each route for each role, with one body however the refusal came about.
#[tokio::test]
async fn a_user_never_reaches_another() {
    let harness = harness();
    let (own, other) = (UserId::generate(), UserId::generate());
    let jwt = harness.user(own);
    let mut bodies: Vec<Value> = Vec::new();
    for (method, route, _) in &USER_ROUTES {
        for prefix in PREFIXES {
            for id in [&other.to_string(), "not-a-uuid", "%FF", "%7Bx%7D", &own.0.simple().to_string()] {
                for rid in ["r-1", "%FF", "a%3Ab"] {
                    let path = path(prefix, route, id, rid);
                    // Neither a good nor a bad body makes a difference.
                    for body in ["{\"tokens\":1}", "{", ""] {
                        let answer = harness.call(method, &path, Some(&jwt), body).await;
                        assert_refused(method, &answer, 403, "forbidden", &path);
                        bodies.push(answer.body);
                    }
                }
            }
        }
    }
    bodies.retain(|body| !body.is_null());
    assert!(bodies.iter().all(|body| *body == bodies[0]), "bodies differ");
    for method in [Method::POST, Method::GET] {
        let answer = harness.call(&method, "/v1/users", Some(&jwt), "{\"email\":\"a@b.co\"}").await;
        assert_problem(&answer, 403, "forbidden", "/v1/users");
    }
}

#[tokio::test]
async fn each_role_keeps_to_its_routes() {
    let harness = harness();
    let own = UserId::generate();
    let (user, gateway) = (harness.user(own), harness.gateway());
    for (method, route, access) in &USER_ROUTES {
        let path = path("/v1", route, &own.to_string(), "r-1");
        if matches!(access, Access::Hot | Access::Admin) {
            let answer = harness.call(method, &path, Some(&user), "{\"tokens\":1}").await;
            assert_refused(method, &answer, 403, "forbidden", &path);
        }
        if matches!(access, Access::Own | Access::Admin) {
            let answer = harness.call(method, &path, Some(&gateway), "{\"tokens\":1}").await;
            assert_refused(method, &answer, 403, "forbidden", &path);
            // A gateway whose subject is a user's id is still a gateway.
            let disguised = harness.jwt(Role::Gateway, &own.to_string());
            let answer = harness.call(method, &path, Some(&disguised), "{\"tokens\":1}").await;
            assert_refused(method, &answer, 403, "forbidden", &path);
        }
    }
    for method in [Method::POST, Method::GET] {
        let answer = harness.call(&method, "/v1/users", Some(&gateway), "{}").await;
        assert_problem(&answer, 403, "forbidden", "/v1/users");
    }
}

/// The complement: who is admitted gets past access, which shows in what is refused next.
#[tokio::test]
async fn who_is_admitted_is_told_of_the_next_fault() {
    let harness = harness();
    let own = UserId::generate();
    let admin = harness.admin();
    for (method, route, access) in &USER_ROUTES {
        for id in ["not-a-uuid", "%FF", "%7Bx%7D", &own.0.simple().to_string(), &"x".repeat(1_000)] {
            let path = path("/v1", route, id, "r-1");
            let answer = harness.call(method, &path, Some(&admin), "{}").await;
            assert_refused(method, &answer, 422, "invalid_user_id", &path);
            if matches!(access, Access::Hot | Access::Read) {
                let answer = harness.call(method, &path, Some(&harness.gateway()), "{}").await;
                assert_refused(method, &answer, 422, "invalid_user_id", &path);
            }
        }
        if *method == Method::GET && matches!(access, Access::Read | Access::Own) {
            let path = format!("{}?x=1", path("/v1", route, &own.to_string(), "r-1"));
            let answer = harness.call(method, &path, Some(&harness.user(own)), "").await;
            assert_problem(&answer, 422, "invalid_query", &path);
            assert_eq!(answer.body["field"], "x");
        }
    }
}

#[tokio::test]
async fn reservation_ids_of_wrong_form_are_refused() {
    let harness = harness();
    let gateway = harness.gateway();
    let id = UserId::generate().to_string();
    let long = "x".repeat(129);
    let huge = "x".repeat(1_024);
    for (method, route, _) in USER_ROUTES.iter().filter(|(_, route, _)| route.contains("{rid}")) {
        for rid in [
            "%7Bx%7D", "a%3Ab", "%00", "a%0A", "a%0D%0Ab", "%20", "a%2Fb", "%FF", "%C3%A9", "*", "a+b",
            "a:b", "{x}", &long, &huge,
        ] {
            let path = path("/v1", route, &id, rid);
            let Ok(request) = Request::builder()
                .method(method)
                .uri(&path)
                .header("authorization", format!("Bearer {gateway}"))
                .body(Body::empty())
            else {
                continue;
            };
            let answer = harness.send(request).await;
            assert_problem(&answer, 422, "invalid_reservation_id", &path);
        }
        let empty = harness.call(method, &path("/v1", route, &id, ""), Some(&gateway), "{}").await;
        let (status, code) =
            if route.ends_with("{rid}") { (404, "route_not_found") } else { (422, "invalid_reservation_id") };
        assert_problem(&empty, status, code, route);
    }
}

#[tokio::test]
async fn unknown_paths_and_methods() {
    let harness = harness();
    let admin = harness.admin();
    for path in ["/", "/v1", "/v1/", "/v2/users", "/users", "/v1/users/a/b/c/d/e", "/metrics", "/v1/users/"] {
        let answer = harness.call(&Method::GET, path, Some(&admin), "").await;
        assert_problem(&answer, 404, "route_not_found", path);
    }
    for (method, route, allow) in [
        (Method::DELETE, "/users", "POST,GET,HEAD"),
        (Method::GET, "/users/{id}/debits", "POST"),
        (Method::PUT, "/users/{id}/tokens", "GET,HEAD"),
        (Method::POST, "/users/{id}/tokens", "GET,HEAD"),
        (Method::PATCH, "/users/{id}/reservations/{rid}/settle", "POST"),
        (Method::TRACE, "/users/{id}", "GET,HEAD,PATCH,DELETE"),
        (Method::GET, "/batch", "POST"),
    ] {
        let path = path("/v1", route, &UserId::generate().to_string(), "r-1");
        let answer = harness.call(&method, &path, Some(&admin), "").await;
        assert_problem(&answer, 405, "method_not_allowed", &path);
        assert_eq!(answer.headers["allow"], allow, "{path}");
    }
    assert_problem(
        &harness.call(&Method::POST, "/healthz", None, "").await,
        405,
        "method_not_allowed",
        "healthz",
    );
}

#[tokio::test]
async fn health_needs_no_jwt() {
    let answer = harness().call(&Method::GET, "/healthz", None, "").await;
    assert_eq!((answer.status, answer.body["status"].as_str()), (StatusCode::OK, Some("ok")));
}

/// The ledger is closed here: what passes every check is a 503 that says what became of it and names the reservation.
#[tokio::test]
async fn a_ledger_that_is_away_is_a_503_with_the_reservation_id() {
    let harness = Harness::new(HttpConfig { request_deadline_ms: 200, ..HttpConfig::default() });
    let gateway = harness.gateway();
    let user = format!("/v1/users/{}", UserId::generate());
    for (call, body, id) in [
        ("reservations", "{\"tokens\":1,\"id\":\"r-1\"}", Some("r-1")),
        ("reservations", "{\"tokens\":1}", None),
        ("reservations/r-1/settle", "{\"tokens\":0}", Some("r-1")),
        ("reservations/r-1/release", "", Some("r-1")),
        ("reservations/r-1/extend", "{\"used_tokens\":1}", Some("r-1")),
        ("debits", "{\"tokens\":1,\"id\":\"d-1\"}", Some("d-1")),
    ] {
        let answer = harness.post(&format!("{user}/{call}"), &gateway, body).await;
        assert_problem(&answer, 503, "ledger_unavailable", call);
        assert_eq!(answer.headers["retry-after"], "1", "{call}");
        assert!(matches!(answer.body["outcome"].as_str(), Some("none" | "unknown")), "{answer:?}");
        let named = answer.body["reservation_id"].as_str().expect("a reservation id");
        assert!(id.is_none_or(|id| id == named) && !named.is_empty(), "{answer:?}");
    }
    let answer = harness.call(&Method::GET, &format!("{user}/tokens"), Some(&gateway), "").await;
    assert_problem(&answer, 503, "ledger_unavailable", "tokens");
    let answer = harness.call(&Method::GET, "/readyz", None, "").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.body["not_ready"], serde_json::json!(["redis", "postgres", "partitions"]));
    assert_eq!(answer.body["closed_partitions"], serde_json::json!([0, 1]));
}

#[tokio::test]
async fn problems_speak_portuguese_and_repeat_the_request_id() {
    let request = Request::builder()
        .uri("/v1/users")
        .header("accept-language", "pt-BR")
        .header("x-request-id", "abc-1")
        .header("authorization", format!("Bearer {}", harness().gateway()))
        .body(Body::empty())
        .unwrap();
    let answer = harness().send(request).await;
    assert_problem(&answer, 403, "forbidden", "pt");
    assert_eq!(answer.body["title"], "Acesso negado");
    assert_eq!(answer.headers["content-language"], "pt-BR");
    assert_eq!(answer.headers["x-request-id"], "abc-1");
}

#[tokio::test]
async fn a_bare_jwt_is_taken() {
    let harness = harness();
    let request = Request::builder()
        .uri("/v1/users?limit=0")
        .header("authorization", harness.admin())
        .body(Body::empty())
        .unwrap();
    assert_problem(&harness.send(request).await, 422, "invalid_query", "bare");
}

#[path = "account_shape_tests.rs"]
mod account_shapes;
#[path = "body_tests.rs"]
mod bodies;
#[path = "shape_tests.rs"]
mod shapes;
