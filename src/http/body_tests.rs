//! What the body of a request may be.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{body::Body, http::Request};
use bytes::Bytes;
use hyper::body::Frame;

use super::{assert_problem, harness};
use crate::{http::testing::Harness, quota::UserId};

/// A body that gives some bytes and then nothing, or too many, or breaks off.
struct Odd {
    frames: Vec<Bytes>,
    end: Option<std::io::ErrorKind>,
}

impl hyper::body::Body for Odd {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        match (self.frames.pop(), self.end) {
            (Some(bytes), _) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            (None, Some(kind)) => Poll::Ready(Some(Err(kind.into()))),
            (None, None) => Poll::Pending,
        }
    }
}

fn with_body(harness: &Harness, content_type: Option<&str>, body: Body) -> Request<Body> {
    let mut request = Request::post(format!("/v1/users/{}/reservations", UserId::generate()))
        .header("authorization", format!("Bearer {}", harness.gateway()));
    if let Some(content_type) = content_type {
        request = request.header("content-type", content_type);
    }
    request.body(body).unwrap()
}

#[tokio::test]
async fn bodies_that_are_too_large_too_slow_broken_or_of_another_type() {
    let harness = harness();
    let json = Some("application/json");
    let large = format!("{{\"tokens\":1,\"model\":\"{}\"}}", "m".repeat(4_096));
    let answer = harness.send(with_body(&harness, json, Body::from(large))).await;
    assert_problem(&answer, 413, "body_too_large", "declared");
    assert_eq!(answer.body["limit"], 4_096);
    let endless = Odd { frames: vec![Bytes::from_static(&[b' '; 1_024]); 100], end: None };
    let answer = harness.send(with_body(&harness, json, Body::new(endless))).await;
    assert_problem(&answer, 413, "body_too_large", "chunked");
    let slow = Odd { frames: vec![Bytes::from_static(b"{\"tok")], end: None };
    let answer = harness.send(with_body(&harness, json, Body::new(slow))).await;
    assert_problem(&answer, 408, "body_timeout", "slow");
    let broken =
        Odd { frames: vec![Bytes::from_static(b"{\"tok")], end: Some(std::io::ErrorKind::UnexpectedEof) };
    let answer = harness.send(with_body(&harness, json, Body::new(broken))).await;
    assert_problem(&answer, 400, "incomplete_body", "broken");
    for content_type in [
        None,
        Some("text/plain"),
        Some("application/x-www-form-urlencoded"),
        Some("application/jsonx"),
        Some(""),
    ] {
        let answer = harness.send(with_body(&harness, content_type, Body::from("{\"tokens\":1}"))).await;
        assert_problem(&answer, 415, "unsupported_media_type", "type");
    }
    for content_type in ["application/json; charset=utf-8", "APPLICATION/JSON", " application/json ;x"] {
        let answer = harness.send(with_body(&harness, Some(content_type), Body::from("{"))).await;
        assert_problem(&answer, 400, "malformed_json", content_type);
    }
    let answer = harness.send(with_body(&harness, None, Body::empty())).await;
    assert_problem(&answer, 400, "malformed_json", "no body");
}
