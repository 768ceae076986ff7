//! Is it alive, is it ready, what does it measure.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use tokio::{sync::Mutex, time::timeout};

use super::{Api, views::json};
use crate::store::Store;

#[derive(Serialize)]
struct Alive {
    status: &'static str,
}

/// `GET /healthz`: the process serves.
pub async fn alive() -> Response {
    json(StatusCode::OK, &Alive { status: "ok" })
}

/// Whether Postgres answers, asked at most once per [`FRESH`] however many probes come.
pub struct Readiness {
    store: Store,
    last: Mutex<Option<(Instant, bool)>>,
}

/// How long an answer about Postgres is good for.
const FRESH: Duration = Duration::from_millis(500);
/// A Postgres that takes longer does not answer.
const PATIENCE: Duration = Duration::from_secs(1);

impl Readiness {
    pub fn new(store: Store) -> Self {
        Self { store, last: Mutex::new(None) }
    }

    async fn postgres_answers(&self) -> bool {
        // Held across the ping: who comes meanwhile waits for that answer instead of asking again.
        let mut last = self.last.lock().await;
        match *last {
            Some((at, answered)) if at.elapsed() < FRESH => answered,
            _ => {
                let answered = timeout(PATIENCE, self.store.ping()).await.is_ok_and(|pinged| pinged.is_ok());
                *last = Some((Instant::now(), answered));
                answered
            }
        }
    }
}

#[derive(Serialize)]
struct Ready {
    status: &'static str,
    /// What is not as it should be: `postgres`, `partitions`.
    not_ready: Vec<&'static str>,
    /// Partitions whose gate is closed here.
    closed_partitions: Vec<u16>,
}

/// `GET /readyz`: 200 when the hot path can serve, 503 when a part of it cannot.
///
/// Postgres being away is named, but is no reason to take a replica out: the hot path goes on without it, and to
/// send its traffic to nobody would turn a small trouble into an outage.
pub async fn ready(State(api): State<Api>) -> Response {
    let closed_partitions: Vec<u16> =
        api.ledger.closed_partitions().iter().map(|partition| partition.0).collect();
    let mut not_ready = Vec::new();
    if !api.readiness.postgres_answers().await {
        not_ready.push("postgres");
    }
    let serves = closed_partitions.is_empty();
    if !serves {
        not_ready.push("partitions");
    }
    let (status, word) = match (serves, not_ready.is_empty()) {
        (true, true) => (StatusCode::OK, "ready"),
        (true, false) => (StatusCode::OK, "degraded"),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
    };
    json(status, &Ready { status: word, not_ready, closed_partitions })
}

/// The router of the metrics listener: `GET /metrics`, in Prometheus' text format, as `render` writes it.
pub fn metrics_router(render: impl Fn() -> String + Send + Sync + 'static) -> Router {
    let render = Arc::new(render);
    let metrics = move || {
        let render = Arc::clone(&render);
        async move {
            let text_format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            ([(header::CONTENT_TYPE, text_format)], render()).into_response()
        }
    };
    Router::new().route("/metrics", get(metrics))
}
