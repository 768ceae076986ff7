//! A shutdown under load: who was heard is answered, and what was acked is in the ledger.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    invariants,
    service::{Answer, Service},
    world::until,
};
use cota::quota::{ReservationId, UserId};

/// Debits one after the other until the service turns it away; notes what was acked.
async fn debit_until_turned_away(service: &Asker, worker: usize) {
    for n in 0.. {
        let id = format!("w{worker}-{n}");
        service.journal_asked(&id);
        let request = service.client.post(&service.url).bearer_auth(&service.jwt);
        let Ok(response) = request.json(&json!({"id": id, "tokens": 1})).send().await else { return };
        let answer = Answer::read(response).await;
        match answer.status {
            201 => service.acked(&id, &answer.body),
            503 => {}
            other => panic!("{other}: {}", answer.text),
        }
    }
}

struct Asker {
    client: reqwest::Client,
    url: String,
    jwt: String,
    user: UserId,
    world: std::sync::Arc<std::sync::Mutex<Vec<(ReservationId, Option<u64>)>>>,
    acked: AtomicUsize,
}

impl Asker {
    fn journal_asked(&self, id: &str) {
        self.world.lock().unwrap().push((ReservationId::new(id).unwrap(), None));
    }

    fn acked(&self, id: &str, body: &Value) {
        let tokens = body["transaction"]["tokens"].as_u64();
        self.world.lock().unwrap().push((ReservationId::new(id).unwrap(), tokens));
        self.acked.fetch_add(1, Ordering::SeqCst);
    }
}
