//! Callers that are slow, vanish or flood: cut off in time, and nothing is changed.

use std::{net::SocketAddr, time::Duration};

use reqwest::Method;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::support::{
    service::{Service, send},
    world::PATIENCE,
};

const LIMIT: Duration = Duration::from_millis(300);

async fn impatient() -> Service {
    Service::with(|config| {
        config.http.header_timeout_ms = 300;
        config.http.body_timeout_ms = 300;
    })
    .await
}

/// Sends this and reads until the server closes; what it said, and how long it took.
async fn say(address: SocketAddr, text: &str) -> (String, Duration) {
    let started = Instant::now();
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    // Reset instead of closed is as good.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut heard)).await.expect("the server never let go");
    (String::from_utf8(heard).unwrap(), started.elapsed())
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_heads_and_bodies_are_cut_and_change_nothing() {
    let service = impatient().await;
    let user = service.user(100).await;
    service.reserve(user, "held", 10).await.is(201);
    let head = |rest: &str, length: usize| {
        format!(
            "POST /v1/users/{user}{rest} HTTP/1.1\r\nhost: cota\r\nauthorization: Bearer {}\r\n\
             content-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n",
            service.gateway_jwt()
        )
    };
    for nothing_whole in ["", "POST /v1/users HTTP/1.1\r\nhost: co"] {
        for address in [service.http, service.metrics] {
            let (heard, took) = say(address, nothing_whole).await;
            assert!(!heard.contains(" 200 ") && took >= LIMIT, "{heard} after {took:?}");
        }
    }
    let whole = r#"{"tokens":7}"#;
    for (rest, cut) in
        [("/reservations", &whole[..5]), ("/reservations/held/settle", &whole[..11]), ("/debits", "")]
    {
        let (heard, took) = say(service.http, &(head(rest, whole.len()) + cut)).await;
        assert!(heard.starts_with("HTTP/1.1 408 ") && heard.contains("\"code\":\"body_timeout\""), "{heard}");
        assert!(took >= LIMIT, "{took:?}");
    }
    let balance = json!({"total": 100, "used": 0, "reserved": 10, "available": 90});
    assert_eq!(service.balance(user).await, balance);
    // The same head with its whole body is served: it was the wait that was refused.
    let (heard, _) = say(service.http, &(head("/reservations/held/settle", whole.len()) + whole)).await;
    assert!(heard.starts_with("HTTP/1.1 200 "), "{heard}");
    service.asked(user, "held");
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_ends_early_or_grows_without_end_changes_nothing() {
    let service = impatient().await;
    let user = service.user(100).await;
    let head = format!(
        "POST /v1/users/{user}/debits HTTP/1.1\r\nhost: cota\r\nauthorization: Bearer {}\r\n\
         content-type: application/json\r\nconnection: close\r\n",
        service.gateway_jwt()
    );
    // Without a length: refused once it has grown past the limit, not when it ends.
    let chunk = format!("{:x}\r\n{}\r\n", 70_000, " ".repeat(70_000));
    let (heard, _) = say(service.http, &format!("{head}transfer-encoding: chunked\r\n\r\n{chunk}")).await;
    assert!(heard.starts_with("HTTP/1.1 413 "), "{heard}");
    // A caller that hangs up in the middle of what would be whole JSON.
    let mut stream = TcpStream::connect(service.http).await.unwrap();
    let text = format!("{head}content-length: 100\r\n\r\n{{\"id\":\"x\",\"tokens\":7}}");
    stream.write_all(text.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = String::new();
    let _ = stream.read_to_string(&mut heard).await;
    assert!(!heard.starts_with("HTTP/1.1 2"), "{heard}");
    // Two lengths: the start of a smuggled request.
    let (heard, _) =
        say(service.http, &format!("{head}content-length: 2\r\ncontent-length: 3\r\n\r\n{{}}")).await;
    assert!(heard.starts_with("HTTP/1.1 400 "), "{heard}");
    let (heard, _) = say(service.http, &format!("{head}x: {}\r\n\r\n", "y".repeat(100_000))).await;
    assert!(heard.is_empty() || heard.starts_with("HTTP/1.1 431 "), "{heard}");
    assert_eq!(service.balance(user).await["used"], 0);
    service.finish().await;
}

/// What a pooled client does: the refusal of a large body, then the next request on the same connection. The server
/// reads no further than it must, so it has to say that it will close, or the next request would be lost with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_a_large_body_says_that_the_connection_closes() {
    let service = impatient().await;
    let user = service.user(100).await;
    let body = " ".repeat(100_000);
    let own = service.user_jwt(user);
    for (jwt, content_type, status) in [
        (service.gateway_jwt(), "application/json", 413),
        (service.gateway_jwt(), "text/plain", 415),
        (&*own, "application/json", 403),
        ("a.b.c", "application/json", 401),
    ] {
        let request = service.request(Method::POST, &format!("/v1/users/{user}/debits"), jwt);
        let answer = send(request.header("content-type", content_type).body(body.clone())).await;
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")));
    }
    let refused = service.reserve(user, "x", 1_000).await;
    assert_eq!((refused.status, refused.header("connection")), (402, None), "a small body was read whole");
    service.finish().await;
}
