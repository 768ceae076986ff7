//! Who gets in, and where.

use cota::{
    config::{AuthConfig, Secret},
    http::jwt::{self, Role},
    quota::UserId,
};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::service::{Service, send};

/// Every route below a user: method, what follows the user's path, a body that would do, and whether gateways and the
/// user itself are let in.
fn routes() -> Vec<(Method, &'static str, Value, bool, bool)> {
    vec![
        (Method::POST, "/reservations", json!({"id": "x", "tokens": 1}), true, false),
        (Method::GET, "/reservations", json!({}), true, true),
        (Method::GET, "/reservations/a", json!({}), true, true),
        (Method::POST, "/reservations/a/settle", json!({"tokens": 1}), true, false),
        (Method::POST, "/reservations/a/extend", json!({"tokens": 60}), true, false),
        (Method::POST, "/reservations/a/release", json!({}), true, false),
        (Method::POST, "/debits", json!({"id": "x", "tokens": 1}), true, false),
        (Method::GET, "/tokens", json!({}), true, true),
        (Method::GET, "/metrics", json!({}), false, true),
        (Method::GET, "/history", json!({}), false, true),
        (Method::GET, "/anomalies", json!({}), false, true),
        (Method::GET, "/reports", json!({}), false, true),
        (Method::GET, "/reports/2026-01", json!({}), false, true),
        (Method::POST, "/credits", json!({"tokens": 1}), false, false),
        (Method::GET, "/credits", json!({}), false, true),
        (Method::POST, "/adjustments", json!({"direction": "up", "tokens": 1, "reason": "r"}), false, false),
        (Method::GET, "/alert-config", json!({}), false, true),
        (Method::PUT, "/alert-config", json!({"warning": 0.5, "critical": 0.9}), false, true),
        (Method::GET, "/alerts", json!({}), false, true),
        (Method::GET, "/auto-renewal", json!({}), false, true),
        (Method::PUT, "/auto-renewal", json!({"enabled": false}), false, false),
        (Method::GET, "/renewals", json!({}), false, true),
        (Method::POST, "/renewals/0198c5a3-99dd-7c11-9f5e-2b6a3c1d4e5f/confirm", json!({}), false, false),
        (Method::POST, "/suspend", json!({}), false, false),
        (Method::POST, "/resume", json!({}), false, false),
        (Method::GET, "", json!({}), false, true),
        (Method::PATCH, "", json!({"locale": "en"}), false, false),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_gets_403_for_another_on_every_route_whether_or_not_there_is_one() {
    let service = Service::start().await;
    let (user, other, nobody) = (service.user(100).await, service.user(100).await, UserId::generate());
    service.reserve(other, "a", 50).await.is(201);
    service.reserve(user, "a", 50).await.is(201);
    let own = service.user_jwt(user);
    for prefix in ["/v1", "/api"] {
        for (method, rest, body, gateway, reads) in routes() {
            let call = |target: String, jwt: &str| {
                let path = format!("{prefix}/users/{target}{rest}");
                send(service.request(method.clone(), &path, jwt).json(&body))
            };
            let refused = [call(other.to_string(), &own).await, call(nobody.to_string(), &own).await];
            let [first, second] = refused.map(|answer| answer.problem(403, "forbidden"));
            assert_eq!(first, second, "{method} {rest}");
            call("not-an-id".into(), &own).await.problem(403, "forbidden");
            let answer = call(user.to_string(), &own).await;
            assert_eq!(answer.status == 403, !reads, "{method} {rest}: {}", answer.text);
            if !gateway {
                call(user.to_string(), service.gateway_jwt()).await.problem(403, "forbidden");
            }
        }
        for (method, jwt) in [
            (Method::GET, &*own),
            (Method::POST, &*own),
            (Method::GET, service.gateway_jwt()),
            (Method::POST, service.gateway_jwt()),
        ] {
            let request = service.request(method, &format!("{prefix}/users"), jwt);
            send(request.json(&json!({"email": "a@b.co"}))).await.problem(403, "forbidden");
        }
    }
    let untouched = json!({"total": 100, "used": 0, "reserved": 50, "available": 50});
    assert_eq!(service.balance(other).await, untouched, "case 101");
    assert_eq!(service.balance(user).await, untouched);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_reserves_within_the_users_budget_and_nobody_without_a_user() {
    let service = Service::start().await;
    let user = service.user(100).await;
    let admin = jwt::mint(&service.world.config.auth, &user.to_string(), Role::Admin, 60).unwrap();
    let reserve = |tokens: u64| {
        let path = format!("/v1/users/{user}/reservations");
        service.send(service.request(Method::POST, &path, &admin).json(&json!({"id": "a", "tokens": tokens})))
    };
    reserve(101).await.problem(402, "insufficient_tokens");
    reserve(100).await.is(201);
    // Case 104: a gateway has no balance of its own that could stand in.
    service.post("/v1/users//reservations", &json!({"tokens": 1})).await.problem(422, "invalid_user_id");
    service.post("/v1/reservations", &json!({"tokens": 1})).await.problem(404, "route_not_found");
    service.finish().await;
}

/// A JWT with these claims changed, signed with this key.
fn forged(auth: &AuthConfig, header: Header, key: &[u8], change: impl FnOnce(&mut Value)) -> String {
    let now = jsonwebtoken::get_current_timestamp();
    let mut claims = json!({"sub": "gw", "iss": auth.issuer, "aud": auth.audience, "exp": now + 600, "iat": now,
                            "role": "admin"});
    change(&mut claims);
    encode(&header, &claims, &EncodingKey::from_secret(key)).unwrap()
}

/// Base64 without padding, as JWTs have it.
fn part(json: &Value) -> String {
    let unsigned = encode(&Header::default(), json, &EncodingKey::from_secret(b"any")).unwrap();
    unsigned.split('.').nth(1).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jwt_that_is_not_ours_is_401_and_changes_nothing() {
    let service = Service::start().await;
    let user = service.user(100).await;
    let auth = &service.world.config.auth;
    let key = auth.hs256_secret.expose().as_bytes();
    let now = jsonwebtoken::get_current_timestamp();
    let hs256 = || Header::new(Algorithm::HS256);
    let good = forged(auth, hs256(), key, |_| {});
    let (head, rest) = good.split_once('.').unwrap();
    let (body, signature) = rest.split_once('.').unwrap();
    let none = part(&json!({"alg": "none", "typ": "JWT"}));
    let other =
        AuthConfig { hs256_secret: Secret::new("another secret of more than 32 bytes"), ..auth.clone() };
    let set =
        |name: &'static str, value: Value| forged(auth, hs256(), key, move |claims| claims[name] = value);
    let refused = [
        ("nothing", String::new()),
        ("no JWT", "abc".into()),
        ("none", format!("{none}.{body}.")),
        ("none, signed", format!("{none}.{body}.{signature}")),
        ("nOnE", format!("{}.{body}.", part(&json!({"alg": "nOnE"})))),
        ("unsigned", format!("{head}.{body}.")),
        ("another's claims", format!("{head}.{}.{signature}", part(&json!({"role": "admin"})))),
        ("another secret", jwt::mint(&other, "gw", Role::Admin, 60).unwrap()),
        ("HS512", forged(auth, Header::new(Algorithm::HS512), key, |_| {})),
        ("expired", set("exp", json!(now - 60))),
        ("not yet", set("nbf", json!(now + 600))),
        ("from the future", set("iat", json!(now + 600))),
        ("too long-lived", set("exp", json!(now + 86_400 * 400))),
        ("another issuer", set("iss", json!("evil"))),
        ("another audience", set("aud", json!("other"))),
        ("unknown role", set("role", json!("root"))),
        ("no subject", set("sub", json!(""))),
        ("huge", format!("{good}{}", "a".repeat(5_000))),
    ];
    let path = format!("/v1/users/{user}/reservations");
    let body = json!({"id": "a", "tokens": 1});
    for (what, jwt) in &refused {
        let answer = send(service.request(Method::POST, &path, jwt).json(&body)).await;
        assert!(answer.header("www-authenticate").unwrap().starts_with("Bearer"), "{what}");
        // One answer for all: the reason is for the operators.
        assert_eq!(answer.problem(401, "unauthenticated")["title"], "Not authenticated", "{what}");
    }
    send(service.bare(Method::POST, &path).json(&body)).await.problem(401, "unauthenticated");
    let basic = service.bare(Method::POST, &path).header("authorization", "Basic dTpw").json(&body);
    send(basic).await.problem(401, "unauthenticated");
    assert_eq!(service.balance(user).await["available"], 100);
    send(service.request(Method::POST, &path, &good).json(&body)).await.is(201);
    service.asked(user, "a");
    service.finish().await;
}
