//! Too much of everything: heads, headers, bodies, and what is no HTTP at all.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, interval, timeout},
};

use super::say;
use crate::support::{service::Service, world::PATIENCE};

const MEGABYTES: usize = 1 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn heads_without_end_are_refused_before_they_are_held() {
    let service = Service::start().await;
    let user = service.user(100).await;
    let jwt = service.gateway_jwt().to_owned();
    let head = format!("GET /v1/users/{user}/tokens HTTP/1.1\r\nhost: cota\r\nauthorization: {jwt}\r\n");
    for bomb in [
        format!("{head}x: {}\r\n\r\n", "x".repeat(10 * MEGABYTES)),
        format!("{head}{}\r\n", "x: x\r\n".repeat(10_000)),
        format!("{head}{}\r\n", "x: x\r\n".repeat(101)),
        format!("GET /{} HTTP/1.1\r\nhost: cota\r\n\r\n", "x".repeat(10 * MEGABYTES)),
        format!("{} / HTTP/1.1\r\nhost: cota\r\n\r\n", "X".repeat(10 * MEGABYTES)),
    ] {
        for address in [service.http, service.metrics] {
            let heard = say(address, bomb.as_bytes()).await;
            // A reset may overtake the answer.
            let refused = ["", "HTTP/1.1 431 ", "HTTP/1.1 414 ", "HTTP/1.1 400 "];
            assert!(
                refused.iter().any(|start| heard.starts_with(start) && start.is_empty() == heard.is_empty()),
                "{heard}"
            );
        }
    }
    // The same head without the bomb is served: it was the bomb that was refused.
    let heard = say(service.http, format!("{head}connection: close\r\n\r\n").as_bytes()).await;
    assert!(heard.starts_with("HTTP/1.1 200 "), "{heard}");
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_without_end_are_refused_once_they_pass_the_limit_or_the_time() {
    let service = Service::with(|config| config.http.body_timeout_ms = 500).await;
    let user = service.user(100).await;
    let head = format!(
        "POST /v1/users/{user}/debits HTTP/1.1\r\nhost: cota\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n",
        service.gateway_jwt()
    );
    // As fast as it goes, and slowly.
    for (chunk, pause, status) in [(4_096, Duration::ZERO, "413"), (1, Duration::from_millis(20), "408")] {
        let (mut answers, mut requests) = TcpStream::connect(service.http).await.unwrap().into_split();
        requests.write_all(head.as_bytes()).await.unwrap();
        let chunk = format!("{chunk:x}\r\n{}\r\n", " ".repeat(chunk));
        let started = Instant::now();
        let endless = async {
            let mut ticks = interval(pause.max(Duration::from_nanos(1)));
            let mut sent = 0;
            while requests.write_all(chunk.as_bytes()).await.is_ok() {
                sent += chunk.len();
                assert!(sent < 64 * MEGABYTES, "the server takes it all");
                ticks.tick().await;
            }
            std::future::pending::<()>().await;
        };
        let mut heard = [0; 12];
        tokio::select! {
            () = endless => {}
            read = timeout(PATIENCE, answers.read_exact(&mut heard)) => drop(read.expect("an answer").unwrap()),
        }
        assert_eq!(String::from_utf8_lossy(&heard), format!("HTTP/1.1 {status}"));
        assert!(started.elapsed() < PATIENCE);
    }
    assert_eq!(service.balance(user).await["used"], 0);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_ends_its_own_connection_alone() {
    let service = Service::start().await;
    let user = service.user(100).await;
    let request = b"GET /healthz HTTP/1.1\r\nhost: cota\r\n\r\n".as_slice();
    let garbage: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    let heard = say(service.http, &[request, &garbage, request].concat()).await;
    assert_eq!(
        heard.matches("HTTP/1.1 200 ").count(),
        1,
        "what came before it is answered, nothing after it"
    );
    for nonsense in [&garbage[..], b"\0\0\0\0\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"SSH-2.0-x\r\n\r\n"]
    {
        assert!(!say(service.http, nonsense).await.contains(" 200 "));
    }
    // Many calls in one piece are answered one after the other, and in order.
    let many =
        [request.repeat(5_000), b"GET /nowhere HTTP/1.1\r\nconnection: close\r\n\r\n".to_vec()].concat();
    let heard = say(service.http, &many).await;
    assert_eq!(heard.matches("HTTP/1.1 200 ").count(), 5_000);
    assert!(heard.rfind("HTTP/1.1 404 ") > heard.rfind("HTTP/1.1 200 "));
    service.reserve(user, "after", 10).await.is(201);
    let balance = json!({"total": 100, "used": 0, "reserved": 10, "available": 90});
    assert_eq!(service.balance(user).await, balance);
    service.finish().await;
}
