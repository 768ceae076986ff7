//! The HTTP API: router, authentication, problems, one file per resource.
//!
//! Handlers hold neither SQL nor Redis commands: they read a request ([`request`], [`json`]), call the ledger or a
//! use case, and write the answer ([`views`]). Whatever is refused is a [`problem::Problem`], made text at the
//! edge of the router.
//!
//! **When a caller hangs up**, hyper drops the handler's future, wherever it waits. That is safe: the ledger's
//! futures may be dropped at any point, a settle handed to the ledger runs to its end without its caller, and a
//! reserve that was not sent yet is forgotten. The same holds for the deadline below, which drops futures too.

mod adjustments;
mod alerts;
mod anomalies;
mod audit;
pub mod auth;
mod batch;
mod bodies;
pub mod code;
mod credits;
mod csv;
mod debits;
mod deliveries;
mod edge;
mod etag;
pub mod events;
mod export;
mod format;
pub mod front;
mod health;
mod history;
mod html;
pub mod json;
pub mod jwt;
mod language;
pub mod limits;
mod metrics;
mod notification_settings;
mod openapi;
mod operations;
mod personal;
pub mod problem;
mod refusals;
mod renewals;
mod reports;
mod request;
mod reservations;
pub mod server;
pub mod tls;
mod tokens;
mod usage;
mod user_health;
mod users;
mod views;
mod webhooks;

#[cfg(test)]
mod route_tests;
#[cfg(test)]
mod testing;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    routing::{get, post},
};
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};

pub use health::{MetricsPage, metrics_router};
pub use problem::Problem;

use crate::{
    accounts::Accounts,
    config::{HttpConfig, NotifyConfig, millis},
    ledger::{Ledger, Outcome},
    notify::{Endpoints, Live, Settings},
    store::Store,
    traces::Traces,
};
use jwt::Verifier;
use limits::Limits;
pub use refusals::Refusals;

/// What the handlers share; cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Parts>);

/// The parts an [`Api`] is made of.
pub struct Parts {
    pub ledger: Ledger,
    pub accounts: Accounts,
    pub endpoints: Endpoints,
    pub settings: Settings,
    pub live: Live,
    pub store: Store,
    pub config: HttpConfig,
    pub verifier: Verifier,
    pub limits: Limits,
    pub refusals: Refusals,
    pub traces: Traces,
    /// Room for exports.
    exports: Arc<Semaphore>,
    readiness: health::Readiness,
}

impl std::ops::Deref for Api {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Api {
    pub fn new(
        ledger: Ledger,
        store: Store,
        config: HttpConfig,
        notify: &NotifyConfig,
        live: Live,
        verifier: Verifier,
        traces: Traces,
    ) -> Self {
        let endpoints = Endpoints::new(store.clone(), notify);
        let settings = Settings::new(store.clone());
        let accounts = Accounts::new(store.clone(), ledger.clone());
        let readiness = health::Readiness::new(ledger.clone(), store.clone());
        let limits = Limits::new(&config);
        let refusals = Refusals::default();
        let exports = Arc::new(Semaphore::new(personal::MAX_EXPORTS));
        Self(Arc::new(Parts {
            ledger,
            accounts,
            endpoints,
            settings,
            live,
            store,
            config,
            verifier,
            limits,
            refusals,
            traces,
            exports,
            readiness,
        }))
    }

    /// When the call that is now complete must be answered.
    fn deadline(&self) -> Deadline {
        let whole = millis(self.config.request_deadline_ms);
        let end = Instant::now() + whole;
        Deadline { end, inner: end - (whole / 10).min(MARGIN) }
    }
}

/// How much earlier the ledger answers than the request must: time for its last step and to write the answer.
const MARGIN: Duration = Duration::from_millis(50);

/// The end of a request, counted from when its body had arrived.
#[derive(Clone, Copy, Debug)]
struct Deadline {
    end: Instant,
    /// For the ledger, which keeps its deadlines by itself and can say what became of a call.
    inner: Instant,
}

impl Deadline {
    /// A use case on Postgres; when it takes too long, `outcome` says whether it may have had an effect.
    async fn store<T, E: Into<Problem>>(
        &self,
        outcome: Outcome,
        call: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Problem> {
        match timeout_at(self.end, call).await {
            Ok(result) => result.map_err(Into::into),
            Err(_) => Err(Problem::unavailable(code::Code::StoreUnavailable, outcome)),
        }
    }
}

/// The routes, under `/v1` and, the same, under `/api`; probes and the description of the API at the root.
pub fn router(api: Api) -> Router {
    Router::new()
        .merge(routes("/v1"))
        .merge(routes("/api"))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/openapi.json", get(openapi::pages::describe))
        .route("/docs", get(openapi::pages::page))
        .route("/docs/", get(openapi::pages::page_with_slash))
        .route("/docs/{asset}", get(openapi::pages::asset))
        .fallback(async || Problem::new(code::Code::RouteNotFound))
        .method_not_allowed_fallback(async || Problem::new(code::Code::MethodNotAllowed))
        .layer(edge::Edges(api.clone()))
        .with_state(api)
}

/// Whole paths instead of a nested router, which would copy the URI of every request.
fn routes(prefix: &str) -> Router<Api> {
    let users = format!("{prefix}/users");
    let user = format!("{users}/{{id}}");
    let reservations = format!("{user}/reservations");
    let reservation = format!("{reservations}/{{rid}}");
    let webhooks = format!("{user}/webhooks");
    let webhook = format!("{webhooks}/{{wid}}");
    Router::new()
        .route(&reservations, post(reservations::reserve).get(reservations::list))
        .route(&reservation, get(reservations::show))
        .route(&format!("{reservation}/settle"), post(reservations::settle))
        .route(&format!("{reservation}/release"), post(reservations::release))
        .route(&format!("{reservation}/extend"), post(reservations::extend))
        .route(&format!("{user}/debits"), post(debits::debit))
        .route(&format!("{user}/tokens"), get(tokens::show))
        .route(&format!("{user}/metrics"), get(metrics::show))
        .route(&format!("{user}/history"), get(history::list))
        .route(&format!("{user}/anomalies"), get(anomalies::of_user))
        .route(&format!("{user}/reports"), get(reports::list))
        .route(&format!("{user}/reports/{{month}}"), get(reports::show))
        .route(&format!("{user}/credits"), post(credits::credit).get(credits::list))
        .route(&format!("{user}/audit"), get(audit::list))
        .route(&format!("{prefix}/audit/verify"), get(audit::verify))
        .route(&webhooks, post(webhooks::create).get(webhooks::list))
        .route(&webhook, get(webhooks::show).patch(webhooks::update).delete(webhooks::delete))
        .route(&format!("{webhook}/rotate-secret"), post(webhooks::rotate))
        .route(&format!("{webhook}/deliveries"), get(deliveries::list))
        .route(&format!("{webhook}/deliveries/{{did}}/resend"), post(deliveries::resend))
        .route(&format!("{user}/events"), get(events::watch))
        .route(&format!("{user}/events/ticket"), post(events::ticket))
        .route(
            &format!("{user}/notification-settings"),
            get(notification_settings::show).put(notification_settings::replace),
        )
        .route(&format!("{user}/adjustments"), post(adjustments::adjust))
        .route(&format!("{user}/alert-config"), get(alerts::show_config).put(alerts::set_config))
        .route(&format!("{user}/alerts"), get(alerts::list))
        .route(&format!("{user}/auto-renewal"), get(renewals::show_config).put(renewals::set_config))
        .route(&format!("{user}/renewals"), get(renewals::list))
        .route(&format!("{user}/renewals/{{renewal}}/confirm"), post(renewals::confirm))
        .route(&format!("{user}/suspend"), post(users::suspend))
        .route(&format!("{user}/resume"), post(users::resume))
        .route(&format!("{prefix}/batch"), post(batch::batch))
        .route(&format!("{prefix}/anomalies"), get(anomalies::of_all))
        .route(&format!("{prefix}/reports/consolidated"), get(reports::consolidated))
        .route(&format!("{prefix}/summary"), get(reports::summary))
        .route(&users, post(users::create).get(users::list))
        .route(&format!("{user}/health"), get(user_health::show))
        .route(&format!("{user}/export"), get(personal::export))
        .route(&user, get(users::show).patch(users::update).delete(personal::delete))
}
