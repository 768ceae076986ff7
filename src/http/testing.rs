//! A router without servers, for what is refused before the ledger or the store is reached.

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Method, Request, StatusCode},
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{
    Api,
    jwt::{Role, Verifier, mint},
    router,
};
use crate::{
    config::{AuthConfig, Config, HttpConfig, LiveConfig, NotifyConfig, PostgresConfig, RedisConfig, Secret},
    crypto::Keyring,
    ledger::Ledger,
    notify::Live,
    quota::{Partitions, UserId},
    store::Store,
    traces::Traces,
};

/// The router, and JWTs that it takes.
pub struct Harness {
    pub router: Router,
    auth: AuthConfig,
}

/// An answer, read.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Answer {
    pub fn code(&self) -> &str {
        self.body["code"].as_str().unwrap_or("")
    }
}

impl Harness {
    /// Neither the ledger nor the store of this one can be reached.
    pub fn new(http: HttpConfig) -> Self {
        // Tests go through whole tables as one caller.
        Self::limited(HttpConfig { user_calls_per_second: 0, admin_calls_per_second: 0, ..http })
    }

    /// As [`Self::new`], with the rates of the configuration.
    pub fn limited(http: HttpConfig) -> Self {
        let auth = AuthConfig {
            hs256_secret: Secret::new("0123456789abcdef0123456789abcdef"),
            ..AuthConfig::default()
        };
        // Port 1 is nobody's; and without its background tasks the ledger never opens a gate.
        let config = Config {
            redis: RedisConfig { url: Secret::new("redis://127.0.0.1:1"), ..RedisConfig::default() },
            postgres: PostgresConfig {
                url: Secret::new("postgres://cota@127.0.0.1:1/cota"),
                ..PostgresConfig::default()
            },
            ..Config::default()
        };
        let keyring = Keyring::of(&Keyring::generate("test").unwrap()).unwrap();
        let store = Store::lazy(&config.postgres, &keyring).unwrap();
        let (ledger, _) = Ledger::new(&config, store.clone(), Partitions::new(2).unwrap()).unwrap();
        let live = Live::new(store.clone(), ledger.clone(), LiveConfig::default(), CancellationToken::new());
        let (notify, verifier) = (NotifyConfig::default(), Verifier::new(&auth));
        let api = Api::new(ledger, store, http, &notify, live, verifier, Traces::default());
        Self { router: router(api), auth }
    }

    pub fn jwt(&self, role: Role, subject: &str) -> String {
        mint(&self.auth, subject, role, 60).unwrap()
    }

    pub fn gateway(&self) -> String {
        self.jwt(Role::Gateway, "gateway-1")
    }

    pub fn admin(&self) -> String {
        self.jwt(Role::Admin, "admin-1")
    }

    pub fn user(&self, user: UserId) -> String {
        self.jwt(Role::User, &user.to_string())
    }

    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, 1 << 20).await.unwrap();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Answer { status: parts.status, headers: parts.headers, body }
    }

    /// A JSON request with that JWT, if any.
    pub async fn call(&self, method: &Method, path: &str, jwt: Option<&str>, body: &str) -> Answer {
        let mut request =
            Request::builder().method(method).uri(path).header("content-type", "application/json");
        if let Some(jwt) = jwt {
            request = request.header("authorization", format!("Bearer {jwt}"));
        }
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    pub async fn post(&self, path: &str, jwt: &str, body: &str) -> Answer {
        self.call(&Method::POST, path, Some(jwt), body).await
    }
}
