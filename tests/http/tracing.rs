//! Traces, as a collector gets them.

use std::{collections::BTreeSet, time::Duration};

use cota::quota::UserId;
use futures_util::future::join_all;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use reqwest::Method;
use serde_json::json;
use tokio::{net::TcpListener, time::Instant};

use crate::support::{
    collector::{Collected, Collector},
    receiver::{self, Receiver},
    service::{Answer, Service, send},
    world::until,
};

/// The span of the caller.
const CALLER: &str = "b7ad6b7169203331";

/// A trace of this number.
fn trace(n: u32) -> String {
    format!("0af7651916cd43dd8448eb21{n:08x}")
}

fn traceparent(n: u32, flags: &str) -> String {
    format!("00-{}-{CALLER}-{flags}", trace(n))
}

/// A service and its collector; it begins this share of traces by itself.
async fn start(sampling_ratio: f64) -> (Service, Collector) {
    let collector = Collector::start().await;
    let service = Service::with(|config| {
        collector.configure(&mut config.tracing, sampling_ratio);
        receiver::configure(&mut config.notify);
    });
    (service.await, collector)
}

async fn reserve(service: &Service, user: UserId, id: &str, traceparent: &str) -> Answer {
    let path = format!("/v1/users/{user}/reservations");
    let request = service.request(Method::POST, &path, service.gateway_jwt());
    let request = request.header("traceparent", traceparent).header("tracestate", "vendor=1");
    service.send(request.json(&json!({"id": id, "tokens": 1}))).await
}

fn named<'a>(spans: &'a [Collected], name: &str) -> &'a Collected {
    spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name} in {spans:#?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_its_caller_records_is_followed_to_redis() {
    let (service, collector) = start(0.0).await;
    let user = service.user(1_000).await;
    service.reserve(user, "warm", 1).await.is(201);
    reserve(&service, user, "followed", &traceparent(1, "01")).await.is(201);
    let spans = collector.trace(&trace(1), 3).await;
    let handler = named(&spans, "POST /v1/users/{id}/reservations");
    let (lane, script) = (named(&spans, "lane"), named(&spans, "EVALSHA apply"));
    assert_eq!((&*handler.parent, &*handler.state, handler.kind), (CALLER, "vendor=1", SpanKind::Server));
    assert!(lane.is_child_of(handler) && script.is_child_of(lane));
    assert!(handler.encloses(lane) && lane.encloses(script));
    assert_eq!((lane.kind, &*lane.events), (SpanKind::Internal, &["sent".to_owned()][..]));
    assert_eq!(script.kind, SpanKind::Client);
    handler.says(&[
        ("http.request.method", "POST"),
        ("http.route", "/v1/users/{id}/reservations"),
        ("http.response.status_code", "201"),
    ]);
    let partition = service.world.partitions.of(user).0.to_string();
    lane.says(&[("cota.partition", &partition), ("cota.operations", "1")]);
    script.says(&[
        ("db.system.name", "redis"),
        ("db.operation.name", "EVALSHA"),
        ("db.stored_procedure.name", "apply"),
        ("cota.operations", "1"),
    ]);
    let told = collector.service();
    assert_eq!((&*told["service.name"], &*told["service.version"]), ("cota", env!("CARGO_PKG_VERSION")));
    assert!(told.contains_key("service.instance.id"));
    // Nothing else was recorded: nothing else came with a trace, and none begin here.
    assert_eq!(collector.spans().len(), 3, "{:#?}", collector.spans());
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_is_sent_says_who_it_is_about() {
    let (service, collector) = start(1.0).await;
    let user = service.user(1_000).await;
    service.reserve(user, "a-reservation-of-theirs", 10).await.is(201);
    service.settle(user, "a-reservation-of-theirs", 10).await.is(200);
    service.reserve(user, "too-much", 100_000).await.problem(402, "insufficient_tokens");
    let own = service.user_jwt(user);
    service.get_as(&format!("/v1/users/{user}?email={user}@cota.test"), &own).await;
    let peek = service.request(Method::GET, &format!("/v1/users/{user}/tokens"), &own);
    send(peek.header("traceparent", traceparent(1, "01"))).await.is(200);
    let nowhere = format!("/v1/nowhere/{user}");
    let nowhere = service.request(Method::from_bytes(b"SECRET").unwrap(), &nowhere, &own);
    send(nowhere.header("traceparent", traceparent(2, "01"))).await.problem(404, "route_not_found");
    let peeked = collector.trace(&trace(1), 2).await;
    assert!(named(&peeked, "EVALSHA peek").is_child_of(named(&peeked, "GET /v1/users/{id}/tokens")));
    collector.trace(&trace(2), 1).await[0]
        .says(&[("http.request.method", "_OTHER"), ("http.response.status_code", "404")]);
    collector.has("a flush", |spans| spans.iter().find(|span| span.name == "flush").cloned()).await;
    let id = user.to_string();
    for text in
        [&id, &id.replace('-', ""), "cota.test", "theirs", "too-much", "nowhere", "SECRET", &own, "Bearer"]
    {
        assert!(!collector.saw(text), "{text}");
    }
    assert!(collector.saw("/v1/users/{id}/reservations/{rid}/settle"));
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_caller_decides_and_what_it_says_wrongly_it_does_not_say() {
    let (service, collector) = start(1.0).await;
    let user = service.user(1_000).await;
    reserve(&service, user, "unsampled", &traceparent(1, "00")).await.is(201);
    let wrong = [
        "",
        "01",
        "00-xyz",
        &traceparent(2, "0"),
        &traceparent(2, "01-x"),
        &traceparent(2, "01").to_uppercase(),
    ];
    for (n, value) in wrong.iter().enumerate() {
        reserve(&service, user, &format!("wrong-{n}"), value).await.is(201);
    }
    reserve(&service, user, "sampled", &traceparent(3, "01")).await.is(201);
    collector.trace(&trace(3), 3).await;
    let begun = |spans: &[Collected]| {
        let ours = |span: &&Collected| span.parent.is_empty() && span.name.ends_with("/reservations");
        let traces: BTreeSet<_> = spans.iter().filter(ours).map(|span| span.trace.clone()).collect();
        (traces.len() == wrong.len()).then_some(traces)
    };
    collector.has("each of the others has a trace of its own", begun).await;
    let has = |n| collector.spans().iter().any(|span| span.trace == trace(n));
    assert!(!has(1) && !has(2) && has(3));
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_one_batch_point_to_its_call_and_it_to_them() {
    let (service, collector) = start(0.0).await;
    let user = service.user(100_000).await;
    let mut round = 0;
    // A batch forms when some ask while another is in flight: sooner or later.
    until("a batch of many", async || {
        round += 1;
        let ask = async |n: u32| {
            let number = round * 100 + n;
            reserve(&service, user, &format!("r{number}"), &traceparent(number, "01")).await.is(201);
        };
        join_all((0..16).map(ask)).await;
        collector.trace(&trace(round * 100), 2).await;
        collector.spans().iter().any(|span| span.name == "EVALSHA apply" && !span.links.is_empty())
    })
    .await;
    let linked = |spans: &[Collected]| {
        let script = spans.iter().find(|span| !span.links.is_empty() && span.name == "EVALSHA apply")?;
        let lanes = script
            .links
            .iter()
            .map(|(trace, id)| spans.iter().find(|span| (&span.trace, &span.id) == (trace, id)).cloned());
        Some((script.clone(), lanes.collect::<Option<Vec<_>>>()?))
    };
    let (script, lanes) = collector.has("the call and its lanes", linked).await;
    assert_eq!(script.attributes["cota.operations"], (lanes.len() + 1).to_string());
    for lane in lanes {
        assert_eq!((&*lane.name, &*lane.links), ("lane", &[(script.trace.clone(), script.id.clone())][..]));
        assert_ne!(lane.trace, script.trace);
    }
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_is_a_trace_of_its_own() {
    let (service, collector) = start(1.0).await;
    let user = service.user(1_000).await;
    service.reserve(user, "a", 10).await.is(201);
    service.settle(user, "a", 7).await.is(200);
    let find = |spans: &[Collected]| {
        let flush = spans.iter().find(|span| span.name == "flush")?;
        Some((flush.clone(), spans.iter().find(|span| span.is_child_of(flush))?.clone()))
    };
    let (flush, ack) = collector.has("the flush", find).await;
    let partition = service.world.partitions.of(user).0.to_string();
    flush.says(&[("cota.partition", &partition), ("cota.rows", "1")]);
    assert!(flush.parent.is_empty() && flush.encloses(&ack));
    assert_eq!(ack.attributes["db.stored_procedure.name"], "ack");
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn receivers_of_webhooks_can_join_the_trace() {
    let (service, collector) = start(1.0).await;
    let (user, receiver) = (service.user(0).await, Receiver::start().await);
    receiver.next(&[receiver::Reply::status(500)]);
    let hooks = format!("/v1/users/{user}/webhooks");
    let body = json!({"url": receiver.url("/hook"), "events": ["credit.granted"]});
    send(service.request(Method::POST, &hooks, &service.user_jwt(user)).json(&body)).await.is(201);
    service.credit(user, 10, "first").await.is(201);
    let webhook = receiver.has(1).await.remove(0);
    let parent: Vec<&str> = webhook.header("traceparent").split('-').collect();
    assert_eq!((parent.len(), parent[0], parent[3]), (4, "00", "01"));
    let span = collector.trace(parent[1], 1).await.remove(0);
    assert_eq!((&*span.id, &*span.parent, &*span.name), (parent[2], "", "POST webhook"));
    assert!(span.failed && span.kind == SpanKind::Client);
    span.says(&[
        ("http.request.method", "POST"),
        ("cota.event.type", "credit.granted"),
        ("http.response.status_code", "500"),
        ("error.type", "500"),
    ]);
    assert!(!collector.saw(&receiver.address.to_string()));
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_traces_nothing_passes_nothing_on() {
    let service = Service::with(|config| receiver::configure(&mut config.notify)).await;
    let (user, receiver) = (service.user(0).await, Receiver::start().await);
    let hooks = format!("/v1/users/{user}/webhooks");
    let body = json!({"url": receiver.url("/hook"), "events": ["credit.granted"]});
    send(service.request(Method::POST, &hooks, &service.user_jwt(user)).json(&body)).await.is(201);
    service.credit(user, 10, "first").await.is(201);
    reserve(&service, user, "a", &traceparent(1, "01")).await.is(201);
    assert!(!receiver.has(1).await[0].headers.contains_key("traceparent"));
    service.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_problem_of_ours_is_a_failed_span() {
    let collector = Collector::start().await;
    let service = Service::with(|config| {
        collector.configure(&mut config.tracing, 0.0);
        (config.http.request_deadline_ms, config.flusher.drain_timeout_ms) = (500, 100);
    })
    .await;
    let user = service.user(1_000).await;
    service.world.redis.lock().await.kill().await.unwrap();
    reserve(&service, user, "a", &traceparent(1, "01")).await.problem(503, "ledger_unavailable");
    let spans = collector.trace(&trace(1), 1).await;
    let handler = named(&spans, "POST /v1/users/{id}/reservations");
    assert!(handler.failed);
    assert_eq!(handler.attributes["error.type"], "ledger_unavailable");
    service.stop().await;
}

/// A collector that takes connections and says nothing; and an end that comes soon all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_hangs_holds_nothing_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let service = Service::with(|config| {
        config.tracing.endpoint = Some(endpoint);
        config.tracing.sampling_ratio = 1.0;
        config.tracing.timeout_ms = 60_000;
    })
    .await;
    let user = service.user(1_000).await;
    for n in 0..20 {
        service.reserve(user, &format!("r{n}"), 1).await.is(201);
        service.settle(user, &format!("r{n}"), 1).await.is(200);
    }
    let connected = silent.accept().await.unwrap();
    service.world.check().await;
    let stopping = Instant::now();
    service.stop().await;
    assert!(stopping.elapsed() < Duration::from_secs(20), "{:?}", stopping.elapsed());
    drop(connected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_costs_its_spans_and_nothing_else() {
    // A port that nobody listens on any more.
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let service = Service::with(|config| {
        config.tracing.endpoint = Some(format!("http://{gone}"));
        config.tracing.sampling_ratio = 1.0;
    })
    .await;
    let user = service.user(1_000).await;
    service.reserve(user, "a", 10).await.is(201);
    service.settle(user, "a", 10).await.is(200);
    until("lost spans are counted", async || {
        let metrics = service.metrics().await;
        let failed =
            metrics.lines().find_map(|line| line.strip_prefix("cota_trace_spans_total{outcome=\"failed\"} "));
        failed.is_some_and(|failed| failed.parse::<f64>().unwrap() > 0.0)
    })
    .await;
    service.reserve(user, "b", 10).await.is(201);
    service.finish().await;
}
