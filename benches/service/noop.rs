//! The yardstick: a bare hyper handler that reads a request of the same shape and writes an answer of the same shape.

use std::{convert::Infallible, process::Stdio};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, body::Bytes, body::Incoming, header, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
};

use crate::AnyError;

/// As long as the answer to a reserve.
const ANSWER: &str = concat!(
    r#"{"reservation":{"id":"b-1234-12345678","state":"pending","tokens":1,"used_tokens":0,"charged_tokens":null,"#,
    r#""model":"gpt-5","reserved_at":"2026-01-01T00:00:00.000Z","expires_at":"2026-01-01T00:10:00.000Z"},"#,
    r#""balance":{"total":1000000000000,"used":123456,"reserved":12345,"available":999999864199}}"#
);

async fn answer(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    // A body that breaks off ends its connection anyhow.
    let _ = request.into_body().collect().await;
    let mut response = Response::new(Full::new(Bytes::from_static(ANSWER.as_bytes())));
    *response.status_mut() = hyper::StatusCode::CREATED;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

/// Serves until it is killed; prints its address first.
pub async fn serve() -> Result<(), AnyError> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("http://{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)));
    }
}

/// The yardstick in a process of its own, as the service is; ends with its handle.
pub struct Noop {
    pub url: String,
    _child: Child,
}

impl Noop {
    pub async fn start() -> Result<Self, AnyError> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("noop")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let output = child.stdout.take().ok_or("the yardstick has no output")?;
        let url = BufReader::new(output).lines().next_line().await?.ok_or("the yardstick did not start")?;
        Ok(Self { url, _child: child })
    }
}
