//! The whole service behind its own sockets, over real stores, as `cota serve` runs it.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::{net::SocketAddr, sync::Mutex, time::Duration};

use cota::{
    app::{self, Addresses, AppError},
    config::{Config, Secret},
    http::jwt::{self, Role},
    quota::{ReservationId, UserId},
};
use reqwest::{Client, Method, RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};
use tokio::{sync::oneshot, task::JoinHandle};

use super::{
    contract, invariants,
    world::{World, until},
};

/// Where a refusal for want of tokens sends people.
pub const TOP_UP_URL: &str = "https://example.com/top-up";

/// A service that runs until [`Service::finish`].
pub struct Service {
    /// Both stores and what was asked of them; it has no replica but this service.
    pub world: World,
    pub http: SocketAddr,
    pub metrics: SocketAddr,
    client: Client,
    gateway: String,
    admin: String,
    stop: Mutex<Option<oneshot::Sender<()>>>,
    running: JoinHandle<Result<(), AppError>>,
}

/// An answer, whole.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// `null` when it was no JSON.
    pub body: Value,
    pub text: String,
}

impl Answer {
    pub async fn read(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        Self { status, headers, body: serde_json::from_str(&text).unwrap_or_default(), text }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub fn replayed(&self) -> bool {
        self.header("idempotent-replayed").is_some_and(|value| value == "true")
    }

    /// The body of an answer with this status.
    #[track_caller]
    pub fn is(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        if status < 400 {
            assert_eq!(self.header("content-type"), Some("application/json"));
            assert_eq!(self.header("x-content-type-options"), Some("nosniff"));
            assert_eq!(self.header("cache-control"), Some("no-store"));
        }
        self.body
    }

    /// The body of a problem with this status and code, its form checked.
    #[track_caller]
    pub fn problem(self, status: u16, code: &str) -> Value {
        assert_eq!((self.status, &self.body["code"]), (status, &json!(code)), "{}", self.text);
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{code}");
        assert_eq!(self.header("retry-after").is_some(), matches!(status, 429 | 503), "{code}");
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["type"], format!("urn:cota:problem:{code}"));
        assert!(self.body["title"].is_string() && self.body["detail"].is_string(), "{}", self.text);
        self.body
    }
}

impl Service {
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::serve(World::with(0, |config| configure(config, change)).await).await
    }

    /// With a Postgres of its own, which may be stopped.
    pub async fn with_own_postgres() -> Self {
        let mut world = World::with_own_postgres(0).await;
        configure(&mut world.config, |_| {});
        Self::serve(world).await
    }

    /// With a Postgres that is to be started once the service waits for it.
    pub async fn without_postgres() -> Self {
        let mut world = World::with_own_postgres(0).await;
        configure(&mut world.config, |_| {});
        world.postgres.as_ref().unwrap().lock().await.stop().await.unwrap();
        Self::launch(world).await
    }

    async fn serve(world: World) -> Self {
        let service = Self::launch(world).await;
        service.is_ready().await;
        service.is_described().await;
        service
    }

    async fn launch(world: World) -> Self {
        let config = world.config.clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let (started, addresses) = oneshot::channel();
        let shutdown = async {
            let _ = stopped.await;
        };
        let running = tokio::spawn(app::run(config.clone(), shutdown, started));
        let Addresses { http, metrics } = addresses.await.unwrap();
        let mint = |role| jwt::mint(&config.auth, "test", role, 3_600).unwrap();
        Self {
            http,
            metrics,
            // Below every timeout of the server, so that no request meets a connection that is just being closed.
            client: Client::builder().pool_idle_timeout(Duration::from_millis(100)).build().unwrap(),
            gateway: mint(Role::Gateway),
            admin: mint(Role::Admin),
            world,
            stop: Mutex::new(Some(stop)),
            running,
        }
    }

    /// Waits until it says that it is ready.
    pub async fn is_ready(&self) {
        until("the service is ready", async || {
            let url = format!("http://{}/readyz", self.http);
            match self.client.get(url).send().await {
                Ok(response) => Answer::read(response).await.body["status"] == "ready",
                Err(_) => false,
            }
        })
        .await;
    }

    /// Asks it what it says of itself: from now on answers are held against that.
    pub async fn is_described(&self) {
        contract::adopt(send(self.bare(Method::GET, "/openapi.json")).await.is(200));
    }

    pub fn gateway_jwt(&self) -> &str {
        &self.gateway
    }

    pub fn admin_jwt(&self) -> &str {
        &self.admin
    }

    /// A JWT of this user.
    pub fn user_jwt(&self, user: UserId) -> String {
        jwt::mint(&self.world.config.auth, &user.to_string(), Role::User, 3_600).unwrap()
    }

    /// A user with so many tokens, as an operator would make one.
    pub async fn user(&self, total: u64) -> UserId {
        let id = UserId::generate();
        let new = json!({"id": id.to_string(), "email": format!("{id}@cota.test")});
        self.admin_post("/v1/users", &new).await.is(201);
        if total > 0 {
            self.credit(id, total, "start").await.is(201);
        }
        id
    }

    pub async fn credit(&self, user: UserId, tokens: u64, key: &str) -> Answer {
        let credit = self.request(Method::POST, &format!("/v1/users/{user}/credits"), &self.admin);
        send(credit.header("idempotency-key", key).json(&json!({"tokens": tokens}))).await
    }

    /// A request with this JWT, to be completed and sent by [`Service::send`].
    pub fn request(&self, method: Method, path: &str, jwt: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.http)).bearer_auth(jwt)
    }

    /// Without a JWT.
    pub fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("http://{}{path}", self.http))
    }

    /// As a gateway.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path, &self.gateway).json(body)).await
    }

    /// As a gateway.
    pub async fn get(&self, path: &str) -> Answer {
        self.get_as(path, &self.gateway).await
    }

    pub async fn get_as(&self, path: &str, jwt: &str) -> Answer {
        send(self.request(Method::GET, path, jwt)).await
    }

    pub async fn admin_post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path, &self.admin).json(body)).await
    }

    pub async fn reserve(&self, user: UserId, id: &str, tokens: u64) -> Answer {
        self.post(&format!("/v1/users/{user}/reservations"), &json!({"id": id, "tokens": tokens})).await
    }

    /// Reserve's path and its verbs: `""`, `"/settle"`, `"/release"`, `"/extend"`.
    pub fn reservation(&self, user: UserId, id: &str, verb: &str) -> String {
        format!("/v1/users/{user}/reservations/{id}{verb}")
    }

    pub async fn settle(&self, user: UserId, id: &str, tokens: u64) -> Answer {
        self.post(&self.reservation(user, id, "/settle"), &json!({"tokens": tokens})).await
    }

    /// The live balance.
    pub async fn balance(&self, user: UserId) -> Value {
        self.get(&format!("/v1/users/{user}/tokens")).await.is(200)["balance"].take()
    }

    /// Sends it, and remembers what was asked and acked for the invariants.
    pub async fn send(&self, request: RequestBuilder) -> Answer {
        self.try_send(request).await.unwrap()
    }

    /// As [`Service::send`], for a service that may be gone.
    pub async fn try_send(&self, request: RequestBuilder) -> reqwest::Result<Answer> {
        let (client, request) = request.build_split();
        let request = request.unwrap();
        let path = request.url().path().to_owned();
        let body = request.body().and_then(|body| serde_json::from_slice(body.as_bytes()?).ok());
        let sent: Value = body.unwrap_or_default();
        let key = request.headers().get("idempotency-key").and_then(|key| key.to_str().ok());
        let id = sent["id"].as_str().or(key).map(str::to_owned);
        let method = request.method().clone();
        let answer = Answer::read(client.execute(request).await?).await;
        contract::check(&method, &path, &answer);
        if path.ends_with("/batch") {
            self.note_batch(&sent, &answer);
        } else {
            self.note(&path, id.as_deref(), &answer);
        }
        Ok(answer)
    }

    /// Notes a call that may have no answer, or one that nobody reads.
    pub fn asked(&self, user: UserId, id: &str) {
        let id = ReservationId::new(id).unwrap();
        self.world.journal.lock().unwrap().asked.insert((user, id));
    }

    /// Notes a charge whose answer the test read by itself.
    pub fn acked(&self, user: UserId, id: &str, tokens: u64) {
        self.asked(user, id);
        let id = ReservationId::new(id).unwrap();
        self.world.journal.lock().unwrap().acked.insert((user, id), tokens);
    }

    fn note(&self, path: &str, sent: Option<&str>, answer: &Answer) {
        if answer.status >= 300 {
            return;
        }
        let parts: Vec<&str> = path.split('/').collect();
        let Some(user) = parts.get(3).and_then(|id| id.parse::<UserId>().ok()) else { return };
        let reserved = answer.body["reservation"]["id"].as_str();
        let id = reserved.or_else(|| parts.get(5).copied()).or(sent);
        let Some(id) = id.and_then(|id| ReservationId::new(id).ok()) else { return };
        let mut journal = self.world.journal.lock().unwrap();
        journal.asked.insert((user, id.clone()));
        if let Some(tokens) = answer.body["transaction"]["tokens"].as_u64() {
            journal.acked.insert((user, id), tokens);
        }
    }

    /// Notes every operation of a batch as its single call would be noted.
    fn note_batch(&self, sent: &Value, answer: &Answer) {
        let operations = sent["operations"].as_array().into_iter().flatten();
        let results = answer.body["results"].as_array().into_iter().flatten();
        let mut journal = self.world.journal.lock().unwrap();
        for (operation, result) in operations.zip(results) {
            let user = operation["user_id"].as_str().and_then(|id| id.parse::<UserId>().ok());
            let body = &result["body"];
            let id = [&operation["id"], &body["reservation"]["id"], &body["reservation_id"]];
            let id = id.into_iter().find_map(|id| ReservationId::new(id.as_str()?).ok());
            let (Some(user), Some(id)) = (user, id) else { continue };
            journal.asked.insert((user, id.clone()));
            if let Some(tokens) = body["transaction"]["tokens"].as_u64() {
                journal.acked.insert((user, id), tokens);
            }
        }
    }

    /// Sends operations as one batch, which must be taken; the results.
    pub async fn batch(&self, operations: &[Value]) -> Vec<Value> {
        let answer = self.post("/v1/batch", &json!({"operations": operations})).await.is(200);
        let results = answer["results"].as_array().unwrap().clone();
        assert_eq!(results.len(), operations.len());
        results
    }

    /// The text of `/metrics`.
    pub async fn metrics(&self) -> String {
        self.metrics_page("/metrics").await
    }

    /// The text of a page of the metrics port.
    pub async fn metrics_page(&self, path: &str) -> String {
        let url = format!("http://{}{path}", self.metrics);
        self.client.get(url).send().await.unwrap().error_for_status().unwrap().text().await.unwrap()
    }

    /// Waits until both stores agree, holds them against the invariants, and stops the service in order.
    pub async fn finish(self) {
        self.world.check().await;
        let world = self.stop().await;
        invariants::check(&world).await;
    }

    /// Asks it to stop, as SIGTERM does.
    pub fn signal(&self) {
        if let Some(stop) = self.stop.lock().unwrap().take() {
            stop.send(()).unwrap();
        }
    }

    /// Stops it in order; the stores stay.
    pub async fn stop(self) -> World {
        self.signal();
        self.running.await.unwrap().unwrap();
        self.world
    }
}

/// Sends it without a note: for reads, and for calls that name no reservation.
pub async fn send(request: RequestBuilder) -> Answer {
    let (client, request) = request.build_split();
    let request = request.unwrap();
    let (method, path) = (request.method().clone(), request.url().path().to_owned());
    let answer = Answer::read(client.execute(request).await.unwrap()).await;
    contract::check(&method, &path, &answer);
    answer
}

fn configure(config: &mut Config, change: impl FnOnce(&mut Config)) {
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    config.http.listen = any_port;
    config.http.metrics_listen = any_port;
    // Tests go through whole tables as one caller.
    (config.http.user_calls_per_second, config.http.admin_calls_per_second) = (0, 0);
    config.http.top_up_url = Some(TOP_UP_URL.into());
    config.auth.hs256_secret = Secret::new("a secret of the tests, of more than 32 bytes");
    change(config);
}
