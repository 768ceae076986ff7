//! HTTP/2 as no honest client speaks it.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};

use crate::support::{
    h2::{
        ACK, CONTINUATION, Connection, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, GOAWAY, HEADERS,
        INITIAL_WINDOW_SIZE, PING, RST_STREAM, SETTINGS, frame, get, header,
    },
    service::Service,
    world::PATIENCE,
};

fn request(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, stream, &get(path))
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_reset_as_fast_as_they_are_opened_end_the_connection() {
    let service = Service::start().await;
    let mut attack = Connection::open(service.http, &[]).await;
    let resets: Vec<u8> = (0..10_000)
        .map(|n| 2 * n + 1)
        .flat_map(|stream| {
            [request(stream, "/healthz"), frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())].concat()
        })
        .collect();
    let (answers, requests) = attack.0.split();
    let (mut answers, mut requests) = (answers, requests);
    let mut heard = Vec::new();
    let started = Instant::now();
    tokio::select! {
        // The server closes before it has taken it all; what it said before is still there.
        _ = async { let _ = requests.write_all(&resets).await; std::future::pending::<()>().await } => {}
        read = timeout(PATIENCE, answers.read_to_end(&mut heard)) => drop(read.expect("the server closes")),
    }
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    let calm = ENHANCE_YOUR_CALM.to_be_bytes();
    let told = heard.windows(17).any(|bytes| bytes[3] == GOAWAY && bytes[13..17] == calm);
    // A reset may overtake the goodbye.
    assert!(told || heard.len() < 100_000, "{} bytes of answers", heard.len());
    assert_eq!(service.get("/healthz").await.status, 200);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn heads_without_end_are_refused() {
    let service = Service::start().await;
    // Frames that go on: the head never ends.
    let mut attack = Connection::open(service.http, &[]).await;
    let mut bytes = frame(HEADERS, END_STREAM, 1, &get("/healthz"));
    for _ in 0..1_000 {
        bytes.extend(frame(CONTINUATION, 0, 1, &header("x", &"y".repeat(16_000))));
    }
    let (mut answers, mut requests) = attack.0.split();
    let mut heard = Vec::new();
    tokio::select! {
        _ = async { let _ = requests.write_all(&bytes).await; std::future::pending::<()>().await } => {}
        _ = answers.read_to_end(&mut heard) => {}
    }
    // A head that ends, but is too large: the stream is refused, or the connection.
    let mut large = Connection::open(service.http, &[]).await;
    let mut block = get("/healthz");
    (0..400).for_each(|_| block.extend(header("x", &"y".repeat(30))));
    large.send(&frame(HEADERS, END_STREAM, 1, &block[..10_000])).await;
    large.send(&frame(CONTINUATION, END_HEADERS, 1, &block[10_000..])).await;
    large.send(&frame(PING, 0, 0, &[7; 8])).await;
    let mut statuses = Vec::new();
    while let Some(frame) = large.next().await {
        match frame.kind {
            // 0x88 is `:status 200` of the static table.
            HEADERS => statuses.push(frame.payload[0]),
            PING if frame.flags & ACK != 0 => break,
            _ => {}
        }
    }
    assert!(!statuses.contains(&0x88), "served");
    // The same request without the ballast is.
    let mut plain = Connection::open(service.http, &[]).await;
    plain.send(&request(1, "/healthz")).await;
    assert_eq!(plain.next_of(HEADERS).await.payload[0], 0x88);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_opens_no_window_for_its_answer_is_cut_off() {
    let service = Service::with(|config| {
        config.http.write_timeout_ms = 300;
        // So that it is not the unanswered pings that end it.
        config.http.header_timeout_ms = 60_000;
    })
    .await;
    let mut stalled = Connection::open(service.http, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    stalled.send(&request(1, "/healthz")).await;
    stalled.next_of(HEADERS).await;
    let frames = stalled.rest().await;
    assert!(frames.iter().all(|frame| frame.kind != DATA), "the answer went out");
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_stuck_in_the_middle_of_a_head_is_cut_off() {
    let service = Service::with(|config| config.http.header_timeout_ms = 300).await;
    let mut stuck = Connection::open(service.http, &[]).await;
    stuck.send(&request(1, "/healthz")).await;
    stuck.next_of(DATA).await;
    let started = Instant::now();
    stuck.send(&frame(HEADERS, END_STREAM, 3, &get("/healthz"))).await;
    stuck.rest().await;
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_without_a_stream_is_ended_in_order() {
    let service = Service::with(|config| config.http.idle_timeout_ms = 300).await;
    let mut idle = Connection::open(service.http, &[]).await;
    idle.send(&request(1, "/healthz")).await;
    idle.next_of(DATA).await;
    let started = Instant::now();
    let mut goodbyes = Vec::new();
    // An honest client: it answers every ping.
    while let Some(heard) = idle.next().await {
        match heard.kind {
            PING if heard.flags & ACK == 0 => idle.send(&frame(PING, ACK, 0, &heard.payload)).await,
            SETTINGS if heard.flags & ACK == 0 => idle.send(&frame(SETTINGS, ACK, 0, &[])).await,
            GOAWAY => goodbyes.push(heard.reason()),
            _ => {}
        }
    }
    assert!(!goodbyes.is_empty() && goodbyes.iter().all(|reason| *reason == 0), "{goodbyes:?}");
    assert!(started.elapsed() >= Duration::from_millis(290), "{:?}", started.elapsed());
    service.finish().await;
}
