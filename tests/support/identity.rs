//! An identity provider: private keys, the key set that publishes them, and a server that answers with it. Used by the
//! tests of the library too, so it knows nothing of Cota.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use axum::{Router, body::Body, extract::State, response::Response};
use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};

/// A private key, and its name in key sets.
#[derive(Clone, Copy)]
pub struct TestKey {
    pub kid: &'static str,
    pub algorithm: Algorithm,
    pub pem: &'static str,
}

pub const RSA_1: TestKey =
    TestKey { kid: "rsa-1", algorithm: Algorithm::RS256, pem: include_str!("../data/test-key-rsa-1.pem") };
pub const RSA_2: TestKey =
    TestKey { kid: "rsa-2", algorithm: Algorithm::RS256, pem: include_str!("../data/test-key-rsa-2.pem") };
pub const P256_1: TestKey =
    TestKey { kid: "p256-1", algorithm: Algorithm::ES256, pem: include_str!("../data/test-key-p256-1.pem") };
pub const P256_2: TestKey =
    TestKey { kid: "p256-2", algorithm: Algorithm::ES256, pem: include_str!("../data/test-key-p256-2.pem") };
pub const ED25519_1: TestKey = TestKey {
    kid: "ed25519-1",
    algorithm: Algorithm::EdDSA,
    pem: include_str!("../data/test-key-ed25519-1.pem"),
};
pub const ED25519_2: TestKey = TestKey {
    kid: "ed25519-2",
    algorithm: Algorithm::EdDSA,
    pem: include_str!("../data/test-key-ed25519-2.pem"),
};

impl std::fmt::Debug for TestKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kid)
    }
}

impl TestKey {
    pub fn private(&self) -> EncodingKey {
        let pem = self.pem.as_bytes();
        match self.algorithm {
            Algorithm::RS256 => EncodingKey::from_rsa_pem(pem),
            Algorithm::ES256 => EncodingKey::from_ec_pem(pem),
            _ => EncodingKey::from_ed_pem(pem),
        }
        .unwrap()
    }

    /// Its public half as a member of a key set.
    pub fn jwk(&self) -> Value {
        let jwk = Jwk::from_encoding_key(&self.private(), self.algorithm).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["kid"] = json!(self.kid);
        jwk["use"] = json!("sig");
        jwk
    }

    /// A JWT with these claims and this key's name.
    pub fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.kid.to_owned()), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.private()).unwrap()
    }
}

/// A key set with the public halves of these keys.
pub fn jwks(keys: &[TestKey]) -> String {
    json!({"keys": keys.iter().map(TestKey::jwk).collect::<Vec<_>>()}).to_string()
}

/// Claims that do, of an issuer with the audience `cota`.
pub fn claims(issuer: &str, subject: &str, role: &str) -> Value {
    let now = jsonwebtoken::get_current_timestamp();
    json!({"iss": issuer, "aud": "cota", "sub": subject, "role": role, "iat": now, "exp": now + 600})
}

/// What the server answers.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    pub header: (&'static str, String),
    pub body: String,
    /// Chunks that never end, after the body.
    pub endless: bool,
}

impl Reply {
    pub fn keys(keys: &[TestKey]) -> Self {
        Self::text(200, jwks(keys))
    }

    pub fn text(status: u16, body: impl Into<String>) -> Self {
        let header = ("content-type", "application/json".to_owned());
        Self { status, header, body: body.into(), endless: false }
    }
}

struct Shared {
    reply: Mutex<Reply>,
    hits: AtomicUsize,
    open: watch::Sender<bool>,
}

/// Publishes a key set over plain HTTP on a loopback port.
pub struct JwksServer {
    pub url: String,
    shared: Arc<Shared>,
    running: JoinHandle<()>,
}

impl JwksServer {
    pub async fn start(keys: &[TestKey]) -> Self {
        let shared = Shared {
            reply: Mutex::new(Reply::keys(keys)),
            hits: AtomicUsize::new(0),
            open: watch::Sender::new(true),
        };
        let shared = Arc::new(shared);
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
        let running = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, shared, running }
    }

    /// Requests so far.
    pub fn hits(&self) -> usize {
        self.shared.hits.load(Ordering::SeqCst)
    }

    /// From now on it answers so.
    pub fn answer(&self, reply: Reply) {
        *self.shared.reply.lock().unwrap() = reply;
    }

    pub fn publish(&self, keys: &[TestKey]) {
        self.answer(Reply::keys(keys));
    }

    /// Requests that come from now on get the answer of their time, but not before [`Self::release`].
    pub fn hold(&self) {
        self.shared.open.send_replace(false);
    }

    pub fn release(&self) {
        self.shared.open.send_replace(true);
    }
}

impl Drop for JwksServer {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn answer(State(shared): State<Arc<Shared>>) -> Response {
    let reply = shared.reply.lock().unwrap().clone();
    let mut open = shared.open.subscribe();
    shared.hits.fetch_add(1, Ordering::SeqCst);
    open.wait_for(|open| *open).await.unwrap();
    let (name, value) = reply.header;
    let body = if reply.endless {
        let chunks = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(" ".repeat(1_000)));
        Body::from_stream(chunks)
    } else {
        Body::from(reply.body)
    };
    Response::builder().status(reply.status).header(name, value).body(body).unwrap()
}
