//! The live stream: balance and events as they happen, over real sockets.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use cota::{app, quota::UserId};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::{sync::oneshot, time::timeout};

use crate::support::{
    h2,
    service::{Answer, Service, send},
    world::{PATIENCE, until},
};

/// What a stream says, piece by piece.
struct Sse {
    response: reqwest::Response,
    text: String,
    pieces: VecDeque<Piece>,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Piece {
    id: Option<i64>,
    event: String,
    data: Value,
}

impl Sse {
    async fn open(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self { response, text: String::new(), pieces: VecDeque::new() }
    }

    /// The next piece that is no comment; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Piece> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                return Some(piece);
            }
            let chunk = timeout(PATIENCE, self.response.chunk()).await.expect("something within bounds");
            self.text.push_str(std::str::from_utf8(&chunk.ok()??).unwrap());
            while let Some((piece, rest)) = self.text.split_once("\n\n") {
                let mut read = Piece::default();
                for line in piece.lines() {
                    match line.split_once(": ") {
                        Some(("id", id)) => read.id = Some(id.parse().unwrap()),
                        Some(("event", name)) => read.event = name.to_owned(),
                        Some(("data", data)) => read.data = serde_json::from_str(data).unwrap(),
                        Some(("retry", _)) => {}
                        _ => assert_eq!(line, ":"),
                    }
                }
                let rest = rest.to_owned();
                if !read.event.is_empty() {
                    self.pieces.push_back(read);
                }
                self.text = rest;
            }
        }
    }

    /// The next balance, which must be this within a second.
    async fn balance(&mut self, total: u64, used: u64, reserved: u64) {
        let begun = Instant::now();
        loop {
            let piece = self.next().await.unwrap();
            if piece.event != "balance" {
                continue;
            }
            let found = &piece.data["balance"];
            if *found
                == json!({"total": total, "used": used, "reserved": reserved,
                                "available": total - used - reserved})
            {
                assert_eq!((piece.id, &piece.data["status"]), (None, &json!("active")));
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{found}");
        }
    }

    async fn event(&mut self) -> Piece {
        loop {
            let piece = self.next().await.unwrap();
            if piece.event != "balance" {
                return piece;
            }
        }
    }
}

fn path(user: UserId) -> String {
    format!("/v1/users/{user}/events")
}

fn own(service: &Service, user: UserId) -> RequestBuilder {
    service.request(Method::GET, &path(user), &service.user_jwt(user))
}

async fn append(service: &Service, user: UserId, count: i32) -> Vec<i64> {
    sqlx::query_scalar(
        "INSERT INTO user_events (user_id, kind, data)
         SELECT $1, 'alert.warning', jsonb_build_object('n', n) FROM generate_series(1, $2) n RETURNING id",
    )
    .bind(user.0)
    .bind(count)
    .fetch_all(service.world.database.pool())
    .await
    .unwrap()
}

async fn ticket(service: &Service, user: UserId) -> String {
    let request = service.request(Method::POST, &format!("{}/ticket", path(user)), &service.user_jwt(user));
    send(request).await.is(201)["ticket"].as_str().unwrap().to_owned()
}

/// Waits until so many streams are open.
async fn streams(service: &Service, count: usize) {
    until("streams have come and gone", async || {
        service.metrics().await.contains(&format!("cota_live_streams {count}\n"))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn balances_and_events_come_as_they_happen() {
    let service = Service::start().await;
    let user = service.user(1_000).await;
    for request in [own(&service, user), service.request(Method::GET, &path(user), service.admin_jwt())] {
        let mut stream = Sse::open(request).await;
        let used = service.balance(user).await["used"].as_u64().unwrap();
        stream.balance(1_000, used, 0).await;
        let id = format!("call-{used}");
        let begun = Instant::now();
        service.reserve(user, &id, 100).await.is(201);
        stream.balance(1_000, used, 100).await;
        service.settle(user, &id, 60).await.is(200);
        stream.balance(1_000, used + 60, 0).await;
        let event_id = append(&service, user, 1).await[0];
        let event = stream.event().await;
        assert!(
            begun.elapsed() < Duration::from_secs(4),
            "each within a second, give or take a busy machine"
        );
        assert_eq!((event.id, &*event.event), (Some(event_id), "alert.warning"));
        assert_eq!((&event.data["type"], &event.data["data"]), (&json!("alert.warning"), &json!({"n": 1})));
        assert_eq!(event.data["user_id"], user.to_string());
    }
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_misses_nothing_and_gets_nothing_twice() {
    let service = Service::start().await;
    let (user, other) = (service.user(0).await, service.user(0).await);
    let ids = append(&service, user, 250).await;
    append(&service, other, 3).await;
    let mut seen = Vec::new();
    // Each time some more, by either way of saying where.
    for (turn, take) in [10, 140, 100].into_iter().enumerate() {
        let last: i64 = seen.last().copied().unwrap_or(0);
        let request = if turn == 1 {
            let path = format!("{}?after={last}", path(user));
            service.request(Method::GET, &path, &service.user_jwt(user))
        } else {
            own(&service, user).header("last-event-id", last.to_string())
        };
        let mut stream = Sse::open(request).await;
        for _ in 0..take {
            seen.push(stream.event().await.id.unwrap());
        }
    }
    assert_eq!(seen, ids);
    // Without it, events begin with the next.
    let mut stream = Sse::open(own(&service, user)).await;
    stream.balance(0, 0, 0).await;
    let next = append(&service, user, 1).await[0];
    assert_eq!(stream.event().await.id, Some(next));
    for wrong in ["x", "-1", "", "1.5", "99999999999999999999"] {
        let answer = send(own(&service, user).header("last-event-id", wrong)).await;
        assert_eq!(answer.problem(422, "invalid_query")["field"], "Last-Event-ID", "{wrong:?}");
        let path = format!("{}?after={wrong}", path(user));
        service.get_as(&path, &service.user_jwt(user)).await.problem(422, "invalid_query");
    }
    service.get_as(&path(UserId::generate()), service.admin_jwt()).await.problem(404, "user_not_found");
    service.get_as(&path(user), &service.user_jwt(other)).await.problem(403, "forbidden");
    service.get_as(&path(user), service.gateway_jwt()).await.problem(403, "forbidden");
    drop(stream);
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_opens_the_stream_of_its_user_once_on_any_replica() {
    let service = Service::start().await;
    let (user, other) = (service.user(5).await, service.user(0).await);
    // Another replica on the same stores.
    let (stop, stopped) = oneshot::channel::<()>();
    let (started, addresses) = oneshot::channel();
    let config = service.world.config.clone();
    let second = tokio::spawn(app::run(config, async { drop(stopped.await) }, started));
    let second_http = addresses.await.unwrap().http;
    until("the second replica is ready", async || {
        reqwest::get(format!("http://{second_http}/readyz")).await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    let client = reqwest::Client::new();
    let elsewhere = |ticket: &str| client.get(format!("http://{second_http}{}?ticket={ticket}", path(user)));
    let here = |user, ticket: &str| service.bare(Method::GET, &format!("{}?ticket={ticket}", path(user)));
    let first = ticket(&service, user).await;
    let mut stream = Sse::open(elsewhere(&first)).await;
    stream.balance(5, 0, 0).await;
    // What one replica is told, the stream on the other one says.
    service.reserve(user, "a", 2).await.is(201);
    stream.balance(5, 0, 2).await;
    for again in [elsewhere(&first), here(user, &first)] {
        Answer::read(again.send().await.unwrap()).await.problem(401, "unauthenticated");
    }
    let of_user = ticket(&service, user).await;
    send(here(other, &of_user)).await.problem(403, "forbidden");
    send(here(user, &of_user)).await.problem(401, "unauthenticated");
    for wrong in ["", "x", &"a".repeat(5_000)] {
        send(here(user, wrong)).await.problem(401, "unauthenticated");
    }
    let late = ticket(&service, user).await;
    service.world.sql("UPDATE event_tickets SET expires_at = now() - interval '1 second'").await;
    send(here(user, &late)).await.problem(401, "unauthenticated");
    // The newest ten are good.
    let mut many = Vec::new();
    for _ in 0..11 {
        many.push(ticket(&service, user).await);
    }
    send(here(user, &many[0])).await.problem(401, "unauthenticated");
    drop(Sse::open(here(user, &many[1])).await);
    let kept: i64 = sqlx::query_scalar("SELECT count(*) FROM event_tickets WHERE hash = sha256($1::bytea)")
        .bind(many[2].as_bytes())
        .fetch_one(service.world.database.pool())
        .await
        .unwrap();
    assert_eq!(kept, 1, "only its hash is kept");
    for jwt in [service.gateway_jwt(), &service.user_jwt(other)] {
        let request = service.request(Method::POST, &format!("{}/ticket", path(user)), jwt);
        send(request).await.problem(403, "forbidden");
    }
    let nobody = format!("{}/ticket", path(UserId::generate()));
    send(service.request(Method::POST, &nobody, service.admin_jwt())).await.problem(404, "user_not_found");
    drop(stream);
    stop.send(()).unwrap();
    second.await.unwrap().unwrap();
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_bounded_by_user_and_in_all() {
    let service = Service::with(|config| {
        config.live.max_streams_per_user = 2;
        config.live.max_streams = 3;
    })
    .await;
    let (user, other, third) = (service.user(0).await, service.user(0).await, service.user(0).await);
    let mut open = vec![Sse::open(own(&service, user)).await, Sse::open(own(&service, user)).await];
    send(own(&service, user)).await.problem(429, "too_many_streams");
    open.push(Sse::open(own(&service, other)).await);
    send(own(&service, third)).await.problem(503, "overloaded");
    streams(&service, 3).await;
    // They are no calls that run.
    assert!(service.metrics().await.contains("cota_http_calls_in_flight 0\n"));
    drop(open.remove(0));
    streams(&service, 2).await;
    open.push(Sse::open(own(&service, third)).await);
    drop(open);
    streams(&service, 0).await;
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_outlives_every_bound_of_a_call_and_ends_with_the_service() {
    let service = Service::with(|config| {
        config.http.request_deadline_ms = 1_000;
        config.http.write_timeout_ms = 100;
        config.http.header_timeout_ms = 500;
        // Longer than the tests' client keeps a connection.
        config.http.idle_timeout_ms = 500;
    })
    .await;
    let user = service.user(7).await;
    let mut stream = Sse::open(own(&service, user)).await;
    stream.balance(7, 0, 0).await;
    let mut over_http2 = h2::Connection::open(service.http, &[]).await;
    let head =
        [h2::get(&path(user)), h2::header("authorization", &format!("Bearer {}", service.user_jwt(user)))];
    over_http2.send(&h2::frame(h2::HEADERS, h2::END_STREAM | h2::END_HEADERS, 1, &head.concat())).await;
    let mut text = String::new();
    while !text.contains("event: balance") {
        text.push_str(&String::from_utf8(over_http2.awake(h2::DATA).await.payload).unwrap());
    }
    let silence = Duration::from_secs(2);
    let (quiet, quiet_http2) =
        tokio::join!(timeout(silence, stream.next()), timeout(silence, over_http2.awake(h2::DATA)));
    assert!(quiet.is_err() && quiet_http2.is_err(), "they say nothing, and stay");
    service.reserve(user, "a", 3).await.is(201);
    stream.balance(7, 0, 3).await;
    while !text.contains("\"reserved\":3") {
        text.push_str(&String::from_utf8(over_http2.awake(h2::DATA).await.payload).unwrap());
    }
    service.signal();
    let end = timeout(PATIENCE, async { while stream.next().await.is_some() {} }).await;
    assert!(end.is_ok(), "a drain ends it");
    drop(over_http2);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_nothing_loses_its_stream_and_costs_nobody_else_anything() {
    let service = Service::with(|config| config.http.write_timeout_ms = 300).await;
    let user = service.user(0).await;
    // Far more than the buffers of two sockets hold, all of it owed to who asks from the beginning.
    sqlx::query(
        "INSERT INTO user_events (user_id, kind, data, fanned_out_at)
         SELECT $1, 'alert.warning', jsonb_build_object('x', repeat('x', 16000)), now() FROM generate_series(1, 2000)",
    )
    .bind(user.0)
    .execute(service.world.database.pool())
    .await
    .unwrap();
    let stalled = own(&service, user).header("last-event-id", "0").send().await.unwrap();
    let mut well = Sse::open(own(&service, user)).await;
    well.balance(0, 0, 0).await;
    streams(&service, 1).await;
    let next = append(&service, user, 1).await[0];
    assert_eq!(well.event().await.id, Some(next));
    drop((stalled, well));
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_lasts_as_long_as_it_may() {
    let service = Service::with(|config| config.live.max_seconds = 1).await;
    let user = service.user(0).await;
    let mut stream = Sse::open(own(&service, user)).await;
    while stream.next().await.is_some() {}
    streams(&service, 0).await;
    service.finish().await;
}
