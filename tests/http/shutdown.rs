//! A shutdown under load: who was heard is answered, and what was acked is in the ledger.

use std::sync::atomic::{AtomicU64, Ordering};

use cota::quota::UserId;
use futures_util::future::{join, join_all};
use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{invariants, service::Service, world::until};

/// Debits one after the other until the service is gone.
async fn debit_until_it_is_gone(service: &Service, user: UserId, worker: usize, acked: &AtomicU64) {
    for n in 0.. {
        let id = format!("w{worker}-{n}");
        service.asked(user, &id);
        let request =
            service.request(Method::POST, &format!("/v1/users/{user}/debits"), service.gateway_jwt());
        match service.try_send(request.json(&json!({"id": id, "tokens": 1}))).await {
            Ok(answer) if answer.status == 201 => acked.fetch_add(1, Ordering::SeqCst),
            Ok(answer) => panic!("{}: {}", answer.status, answer.text),
            Err(_) => return,
        };
    }
}

/// A debit whose head has been read and whose body has not been sent.
async fn half_a_debit(service: &Service, user: UserId, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(service.http).await.unwrap();
    let head = format!(
        "POST /v1/users/{user}/debits HTTP/1.1\r\nhost: cota\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        service.gateway_jwt(),
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    // Said once the handler asks for the body: from here on the request is under way.
    let mut said = [0; "HTTP/1.1 100 Continue\r\n\r\n".len()];
    stream.read_exact(&mut said).await.unwrap();
    assert!(said.starts_with(b"HTTP/1.1 100 "));
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_under_way_are_answered_and_nothing_acked_is_lost() {
    let service = Service::start().await;
    let user = service.user(1_000_000).await;
    let acked = AtomicU64::new(0);
    let workers = join_all((0..8).map(|worker| debit_until_it_is_gone(&service, user, worker, &acked)));
    let shutdown = async {
        let body = |n: usize| json!({"id": format!("half-{n}"), "tokens": 5}).to_string();
        let mut halves = join_all((0..8).map(async |n| half_a_debit(&service, user, &body(n)).await)).await;
        until("the load runs", async || acked.load(Ordering::SeqCst) >= 100).await;
        service.signal();
        until("new callers are turned away", async || TcpStream::connect(service.http).await.is_err()).await;
        for (n, stream) in halves.iter_mut().enumerate() {
            stream.write_all(body(n).as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 201 "), "{answer}");
            service.acked(user, &format!("half-{n}"), 5);
        }
    };
    join(workers, shutdown).await;
    let world = service.stop().await;
    // Nobody flushes any more: what the service left in the outbox would stay there.
    invariants::settle_down(&world).await;
    invariants::check(&world).await;
    let used: i64 = sqlx::query_scalar("SELECT used_tokens FROM user_accounts")
        .fetch_one(world.database.pool())
        .await
        .unwrap();
    assert!(used as u64 >= acked.load(Ordering::SeqCst) + 40, "{used}");
}
