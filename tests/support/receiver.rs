//! A server that takes webhooks, as a user would run one.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_lc_rs::hmac;
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, HeaderName, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use cota::config::NotifyConfig;
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};

use super::world::until;

/// A webhook that came.
#[derive(Clone, Debug)]
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    pub raw: Vec<u8>,
    pub body: Value,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }

    pub fn id(&self) -> &str {
        self.header("webhook-id")
    }

    /// How many signatures it has, and which of them the secret (`whsec_…`) has made.
    pub fn signed_by(&self, secret: &str) -> (usize, Vec<usize>) {
        let key = BASE64.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
        let mut signed = format!("{}.{}.", self.id(), self.header("webhook-timestamp")).into_bytes();
        signed.extend(&self.raw);
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &signed);
        let expected = format!("v1,{}", BASE64.encode(tag));
        let signatures: Vec<&str> = self.header("webhook-signature").split(' ').collect();
        let made = signatures.iter().enumerate().filter(|(_, found)| **found == expected);
        (signatures.len(), made.map(|(index, _)| index).collect())
    }
}

/// What is answered.
#[derive(Clone, Copy, Debug)]
pub struct Reply {
    pub status: u16,
    pub retry_after: Option<&'static str>,
    pub after: Duration,
}

impl Reply {
    pub fn status(status: u16) -> Self {
        Self { status, retry_after: None, after: Duration::ZERO }
    }
}

#[derive(Default)]
struct Shared {
    received: Mutex<Vec<Received>>,
    next: Mutex<VecDeque<Reply>>,
    /// When nothing else is next.
    usual: Mutex<Option<Reply>>,
}

/// It runs until it is dropped.
pub struct Receiver {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    running: JoinHandle<()>,
}

impl Receiver {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let router = Router::new().fallback(take).with_state(Arc::clone(&shared));
        let running = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, shared, running }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Answers the next webhooks so, and those after them with 204.
    pub fn next(&self, replies: &[Reply]) {
        self.shared.next.lock().unwrap().extend(replies);
    }

    /// Answers so whenever nothing else is next.
    pub fn always(&self, reply: Reply) {
        *self.shared.usual.lock().unwrap() = Some(reply);
    }

    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    /// Waits until so many have come.
    pub async fn has(&self, count: usize) -> Vec<Received> {
        until("webhooks have come", async || self.received().len() >= count).await;
        self.received()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn take(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap, raw: Bytes) -> Response {
    let reply = shared.next.lock().unwrap().pop_front();
    let reply = reply.or(*shared.usual.lock().unwrap()).unwrap_or(Reply::status(204));
    let body = serde_json::from_slice(&raw).unwrap_or_default();
    let received = Received { path: uri.path().to_owned(), headers, raw: raw.to_vec(), body };
    shared.received.lock().unwrap().push(received);
    tokio::time::sleep(reply.after).await;
    let mut response = StatusCode::from_u16(reply.status).unwrap().into_response();
    if let Some(wait) = reply.retry_after {
        response.headers_mut().insert(HeaderName::from_static("retry-after"), wait.parse().unwrap());
    }
    response
}

/// Quick, and with receivers on this machine.
pub fn configure(config: &mut NotifyConfig) {
    config.interval_ms = 10;
    config.webhook_timeout_ms = 2_000;
    config.webhook_ports = Vec::new();
    config.webhook_allow_http = true;
    config.webhook_allowed_networks = vec!["127.0.0.0/8".parse().unwrap()];
}
