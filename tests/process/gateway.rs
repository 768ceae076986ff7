//! Gateways: reserve and settle over HTTP, every call repeated with the same id until its answer is definite.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use cota::quota::UserId;
use futures_util::future::join_all;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::support::world::{PATIENCE, World, id, until};

pub struct Gateways<'a> {
    world: &'a World,
    urls: Mutex<Vec<String>>,
    jwt: String,
    client: Client,
    stop: AtomicBool,
    pub acked: AtomicU64,
}

impl<'a> Gateways<'a> {
    pub fn new(world: &'a World, urls: Vec<String>, jwt: String) -> Self {
        // A call that never ends would hide a hang: none may take longer than its deadline and some.
        let client = Client::builder().timeout(Duration::from_secs(8)).build().unwrap();
        let (stop, acked) = (AtomicBool::new(false), AtomicU64::new(0));
        Self { world, urls: Mutex::new(urls), jwt, client, stop, acked }
    }

    pub fn set_urls(&self, urls: Vec<String>) {
        *self.urls.lock().unwrap() = urls;
    }

    pub async fn run(&self, users: &[UserId], workers: usize) {
        join_all((0..workers).map(|worker| self.work(users, worker))).await;
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    pub async fn progress(&self, more: u64) {
        let target = self.acked.load(Ordering::SeqCst) + more;
        until("the gateways go on", async || self.acked.load(Ordering::SeqCst) >= target).await;
    }

    async fn work(&self, users: &[UserId], worker: usize) {
        let mut n = 0;
        while !self.stop.load(Ordering::SeqCst) {
            let (user, name, amount) =
                (users[(worker + n) % users.len()], format!("g{worker}-{n}"), (n % 9) as u64);
            self.world.journal.lock().unwrap().asked.insert((user, id(&name)));
            let reservations = format!("/v1/users/{user}/reservations");
            let (status, body) =
                self.definite(worker + n, &reservations, &json!({"id": name, "tokens": 10})).await;
            assert!(status.is_success(), "{status} {body}");
            let settle = format!("{reservations}/{name}/settle");
            let (status, body) = self.definite(worker + n + 1, &settle, &json!({"tokens": amount})).await;
            assert_eq!(status, StatusCode::OK, "{body}");
            assert_eq!(body["transaction"]["tokens"], amount);
            self.world.journal.lock().unwrap().acked.insert((user, id(&name)), amount);
            self.acked.fetch_add(1, Ordering::SeqCst);
            n += 1;
        }
    }

    /// Repeats until the answer is neither a 503 nor a broken connection.
    async fn definite(&self, turn: usize, path: &str, body: &Value) -> (StatusCode, Value) {
        let give_up = tokio::time::Instant::now() + PATIENCE;
        for attempt in turn.. {
            let url = {
                let urls = self.urls.lock().unwrap();
                format!("{}{path}", urls[attempt % urls.len()])
            };
            let answer = self.client.post(url).bearer_auth(&self.jwt).json(body).send().await;
            match answer {
                Ok(answer) if answer.status() != StatusCode::SERVICE_UNAVAILABLE => {
                    let status = answer.status();
                    if let Ok(body) = answer.json().await {
                        return (status, body);
                    }
                }
                Ok(_) | Err(_) => {}
            }
            assert!(tokio::time::Instant::now() < give_up, "no definite answer for {path}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        unreachable!("attempts do not end")
    }
}
