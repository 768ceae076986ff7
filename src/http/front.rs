//! What stands behind the listener: a few answers while the service starts, then the API.
//!
//! The ledger cannot be built before Postgres has said how many partitions there are. Until then the service is alive
//! and says what it waits for, instead of leaving its callers to guess.

use std::sync::{Arc, OnceLock};

use axum::{
    Router,
    http::{HeaderMap, StatusCode},
    response::Response,
    routing::get,
};

use super::{
    code::{self, Code},
    health::{self, Ready},
    language::Language,
    problem::{Problem, TopUp},
    views::json,
};

/// The router in use; clones share it.
#[derive(Clone)]
pub struct Front {
    waiting: Router,
    open: Arc<OnceLock<Router>>,
}

impl Default for Front {
    fn default() -> Self {
        Self::waiting()
    }
}

impl Front {
    /// Answers that it is alive, that it is not ready, and everything else with 503.
    pub fn waiting() -> Self {
        let waiting = Router::new()
            .route("/healthz", get(health::alive))
            .route("/readyz", get(not_ready))
            .fallback(starting);
        Self { waiting, open: Arc::default() }
    }

    /// From now on `router` answers. The first call counts.
    pub fn open(&self, router: Router) {
        // There is one start per process, and it opens once.
        let _ = self.open.set(router);
    }

    pub(super) fn router(&self) -> Router {
        self.open.get().unwrap_or(&self.waiting).clone()
    }
}

/// A listener that has nothing to wait for.
impl From<Router> for Front {
    fn from(router: Router) -> Self {
        let front = Self { waiting: Router::new(), open: Arc::default() };
        front.open(router);
        front
    }
}

async fn not_ready() -> Response {
    let not_ready = Ready { status: "not_ready", not_ready: vec!["postgres"], closed_partitions: Vec::new() };
    json(StatusCode::SERVICE_UNAVAILABLE, &not_ready)
}

async fn starting(headers: HeaderMap) -> Response {
    code::count(Code::Starting);
    Problem::new(Code::Starting).render(Language::of(&headers), TopUp::default())
}

#[cfg(test)]
mod tests {
    use axum::{
        body::{Body, to_bytes},
        http::Request,
    };
    use serde_json::{Value, json};
    use tower::ServiceExt;

    use super::*;

    async fn ask(front: &Front, path: &str) -> (u16, Value) {
        let response = front.router().oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 4_096).await.unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn before_it_opens_it_says_what_it_waits_for() {
        let front = Front::waiting();
        assert_eq!(ask(&front, "/healthz").await, (200, json!({"status": "ok"})));
        let not_ready = json!({"status": "not_ready", "not_ready": ["postgres"], "closed_partitions": []});
        assert_eq!(ask(&front, "/readyz").await, (503, not_ready));
        for path in ["/v1/users", "/api/users/x/tokens", "/nowhere"] {
            let (status, body) = ask(&front, path).await;
            assert_eq!((status, &body["code"], &body["outcome"]), (503, &json!("starting"), &json!("none")));
        }
        let other = front.clone();
        front.open(Router::new().route("/v1/users", get(async || "[]")));
        assert_eq!(ask(&other, "/v1/users").await, (200, json!([])), "clones open together");
    }
}
