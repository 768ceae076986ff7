//! Something of everything that can happen to a service that is well.

use cota::{
    config::{IssuerConfig, PublicKeyAlgorithm, Role},
    quota::UserId,
};
use reqwest::Method;
use serde_json::json;

use crate::support::{
    identity::{JwksServer, P256_1},
    invariants::settle_down,
    receiver::{self, Receiver, Reply},
    service::{Service, send},
    world::until,
};

/// An identity provider, so that its keys are watched.
pub async fn issuer() -> JwksServer {
    JwksServer::start(&[P256_1]).await
}

pub async fn service(issuer: &JwksServer) -> Service {
    let provider = IssuerConfig {
        issuer: "https://login.example/".into(),
        audience: "cota".into(),
        jwks_file: None,
        jwks_url: Some(issuer.url.clone().try_into().unwrap()),
        algorithms: vec![PublicKeyAlgorithm::ES256],
        roles: vec![Role::User],
    };
    Service::with(|config| {
        config.auth.issuers = vec![provider];
        receiver::configure(&mut config.notify);
    })
    .await
}

/// Endpoints of webhooks: one that takes them, and one that wants no more.
pub async fn receivers() -> [Receiver; 2] {
    let receivers = [Receiver::start().await, Receiver::start().await];
    receivers[1].always(Reply::status(410));
    receivers
}

/// Calls of every kind; gives the user they were about.
pub async fn drive(service: &Service, receivers: &[Receiver]) -> UserId {
    let user = service.user(10_000_000).await;
    for receiver in receivers {
        let webhook = json!({"url": receiver.url("/cota")});
        service.admin_post(&format!("/v1/users/{user}/webhooks"), &webhook).await.is(201);
    }
    past(service, user).await;
    more(service, user).await;
    service.reserve(user, "too-much", 100_000_000).await.problem(402, "insufficient_tokens");
    let wrong = service.bare(Method::GET, &format!("/v1/users/{user}/tokens")).bearer_auth("a.b.c");
    service.send(wrong).await.problem(401, "unauthenticated");
    // Above its first thresholds.
    let debit = json!({"id": "much", "tokens": 8_500_000, "model": "large"});
    service.post(&format!("/v1/users/{user}/debits"), &debit).await.is(201);
    // One that nobody settles.
    let path = format!("/v1/users/{user}/reservations");
    let forgotten = json!({"id": "forgotten", "tokens": 5, "ttl_seconds": 1});
    service.post(&path, &forgotten).await.is(201);
    until("a reservation has expired", async || {
        let asked = service.request(Method::GET, &format!("{path}/forgotten"), service.gateway_jwt());
        send(asked).await.is(200)["reservation"]["state"] == "expired"
    })
    .await;
    user
}

/// What takes days: usage to project from, and an hour that was unusual.
async fn past(service: &Service, user: UserId) {
    for id in ["5-days-ago", "3-days-ago"] {
        let debit = json!({"id": id, "tokens": 10, "model": id});
        service.post(&format!("/v1/users/{user}/debits"), &debit).await.is(201);
    }
    settle_down(&service.world).await;
    let world = &service.world;
    let earlier =
        "UPDATE token_transactions SET timestamp = timestamp - interval '1 day' * left(model_used, 1)::int
                   WHERE model_used LIKE '%-days-ago'";
    world.rewrite(earlier).await;
    world.sum_up_anew().await;
    world
        .sql(
            "INSERT INTO anomalies (id, user_id, hour, time_zone, tokens, threshold_tokens, median_tokens, mad_tokens,
                 typical_tokens, samples)
             SELECT gen_random_uuid(), id, date_trunc('hour', now()), 'UTC', 100, 50, 10, 5, 12, 24 FROM user_accounts",
        )
        .await;
}

/// One call of each verb, and a credit, of which its user hears.
pub async fn more(service: &Service, user: UserId) {
    let id = cota::quota::ReservationId::generate().to_string();
    let debits = format!("/v1/users/{user}/debits");
    service.reserve(user, &id, 3).await.is(201);
    let extend = json!({"tokens": 4, "used_tokens": 1});
    service.post(&service.reservation(user, &id, "/extend"), &extend).await.is(200);
    service.settle(user, &id, 2).await.is(200);
    let released = format!("{id}-released");
    service.reserve(user, &released, 1).await.is(201);
    service.post(&service.reservation(user, &released, "/release"), &json!({})).await.is(200);
    service.post(&debits, &json!({"id": format!("{id}-debit"), "tokens": 1})).await.is(201);
    let credits = format!("/v1/users/{user}/credits");
    let credit = service.request(Method::POST, &credits, service.admin_jwt()).header("idempotency-key", &id);
    send(credit.json(&json!({"tokens": 1}))).await.is(201);
    service
        .batch(&[
            json!({"op": "debit", "user_id": user.to_string(), "id": format!("{id}-batch"), "tokens": 1}),
        ])
        .await;
}
