//! Calls at once: reserves are shed first.

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::service::Service;

#[tokio::test(flavor = "multi_thread")]
async fn when_there_is_no_room_reserves_are_refused_and_settles_are_served() {
    let service = Service::with(|config| {
        config.http.max_in_flight = 8;
        config.http.body_timeout_ms = 30_000;
    })
    .await;
    let user = service.user(1_000).await;
    service.reserve(user, "held", 10).await.is(201);
    // Six reserves whose bodies are still to come: all that is not for settles alone.
    let body = r#"{"id":"x","tokens":1}"#;
    let head = format!(
        "POST /v1/users/{user}/reservations HTTP/1.1\r\nhost: cota\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\nconnection: close\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        service.gateway_jwt(),
        body.len()
    );
    service.asked(user, "x");
    let mut waiting = Vec::new();
    for _ in 0..6 {
        let mut stream = TcpStream::connect(service.http).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        // Asked for its body: it is in.
        let mut asked = [0; 25];
        stream.read_exact(&mut asked).await.unwrap();
        assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
        waiting.push(stream);
    }
    let refused = service.reserve(user, "y", 10).await.problem(503, "overloaded");
    assert_eq!(refused["outcome"], "none");
    service.get(&format!("/v1/users/{user}/tokens")).await.problem(503, "overloaded");
    service.settle(user, "held", 5).await.is(200);
    let debit = json!({"id": "d", "tokens": 1});
    service.post(&format!("/v1/users/{user}/debits"), &debit).await.is(201);
    assert_eq!(service.get("/healthz").await.status, 200, "probes are never refused");
    assert!(service.metrics().await.contains("cota_limited_total{limiter=\"in_flight\"}"));
    // Those who were in are served, and leave room.
    let mut served = 0;
    for mut stream in waiting {
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        served += usize::from(heard.starts_with("HTTP/1.1 20"));
    }
    assert_eq!(served, 6);
    service.reserve(user, "y", 10).await.is(201);
    let balance = json!({"total": 1_000, "used": 6, "reserved": 11, "available": 983});
    assert_eq!(service.balance(user).await, balance);
    service.finish().await;
}
