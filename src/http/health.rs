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
use utoipa::ToSchema;

use super::{Api, views::json};
use crate::{ledger::Ledger, store::Store};

#[derive(Serialize, ToSchema)]
struct Alive {
    /// `ok`.
    status: &'static str,
}

/// Is it alive
///
/// The process serves.
#[utoipa::path(
    get, path = "/healthz", operation_id = "alive", tag = "Service", security(()),
    responses((status = 200, body = Alive, description = "It is.")),
)]
pub async fn alive() -> Response {
    json(StatusCode::OK, &Alive { status: "ok" })
}

/// Whether the stores answer, asked at most once per [`FRESH`] however many probes come.
pub struct Readiness {
    ledger: Ledger,
    store: Store,
    last: Mutex<Option<(Instant, Answers)>>,
}

/// Which stores answer.
#[derive(Clone, Copy)]
struct Answers {
    redis: bool,
    postgres: bool,
}

/// How long what is known of the stores is good for.
const FRESH: Duration = Duration::from_millis(500);
/// A store that takes longer does not answer.
const PATIENCE: Duration = Duration::from_secs(1);

impl Readiness {
    pub fn new(ledger: Ledger, store: Store) -> Self {
        Self { ledger, store, last: Mutex::new(None) }
    }

    async fn answers(&self) -> Answers {
        // Held across the question: who comes meanwhile waits for that answer instead of asking again.
        let mut last = self.last.lock().await;
        match *last {
            Some((at, answers)) if at.elapsed() < FRESH => answers,
            _ => {
                let postgres = timeout(PATIENCE, self.store.ping());
                let redis = self.ledger.redis_answers(tokio::time::Instant::now() + PATIENCE);
                let (postgres, redis) = tokio::join!(postgres, redis);
                let answers = Answers { redis, postgres: postgres.is_ok_and(|pinged| pinged.is_ok()) };
                *last = Some((Instant::now(), answers));
                answers
            }
        }
    }
}

#[derive(Serialize, ToSchema)]
pub struct Ready {
    /// `ready`, `degraded` or `not_ready`.
    pub status: &'static str,
    /// What is not as it should be: `redis`, `postgres`, `partitions`.
    pub not_ready: Vec<&'static str>,
    /// Partitions this replica does not serve: those whose gate is closed here, or all while Redis does not answer.
    pub closed_partitions: Vec<u16>,
}

/// Is it ready
///
/// 200 when the hot path can serve, 503 when a part of it cannot.
///
/// Postgres being away is named, but is no reason to take a replica out: the hot path goes on without it, and to
/// send its traffic to nobody would turn a small trouble into an outage.
#[utoipa::path(
    get, path = "/readyz", operation_id = "ready", tag = "Service", security(()),
    responses(
        (status = 200, body = Ready, description = "Reserves and settles are served."),
        (status = 503, body = Ready, description = "Some or all of them are not."),
    ),
)]
pub async fn ready(State(api): State<Api>) -> Response {
    let answers = api.readiness.answers().await;
    // A gate stays open when Redis merely falls silent, since nothing has been lost yet; but it serves nobody.
    let closed = if answers.redis { api.ledger.closed_partitions() } else { api.ledger.partitions() };
    let closed_partitions: Vec<u16> = closed.iter().map(|partition| partition.0).collect();
    let serves = closed_partitions.is_empty();
    let parts = [("redis", answers.redis), ("postgres", answers.postgres), ("partitions", serves)];
    let not_ready: Vec<&str> =
        parts.iter().filter(|(_, is_ready)| !is_ready).map(|(part, _)| *part).collect();
    let (status, word) = match (serves, not_ready.is_empty()) {
        (true, true) => (StatusCode::OK, "ready"),
        (true, false) => (StatusCode::OK, "degraded"),
        (false, _) => (StatusCode::SERVICE_UNAVAILABLE, "not_ready"),
    };
    json(status, &Ready { status: word, not_ready, closed_partitions })
}

/// Writes a page in Prometheus' text format.
pub type MetricsPage = Arc<dyn Fn() -> String + Send + Sync>;

/// The router of the metrics listener: `GET` of these paths, each with what is written there.
pub fn metrics_router(pages: impl IntoIterator<Item = (&'static str, MetricsPage)>) -> Router {
    pages.into_iter().fold(Router::new(), |router, (path, write)| {
        let page = move || {
            let write = Arc::clone(&write);
            async move {
                let text_format = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                ([(header::CONTENT_TYPE, text_format)], write()).into_response()
            }
        };
        router.route(path, get(page))
    })
}
