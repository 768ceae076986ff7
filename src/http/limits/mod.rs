//! Who may call how often, and how many at once. `docs/PROTECTION.md` tells the whole.

mod callers;
mod in_flight;
pub mod keyed;
pub mod networks;

use std::{sync::Arc, time::Duration};

use tokio::time::interval;
use tokio_util::sync::CancellationToken;

pub use callers::Callers;
pub use in_flight::{Flight, InFlight};
pub use networks::Networks;

use crate::{config::HttpConfig, metrics};

/// How often limiters forget what they no longer need.
const TIDY_INTERVAL: Duration = Duration::from_secs(30);

/// The limits of the API, shared by all its routes.
pub struct Limits {
    pub networks: Networks,
    pub callers: Callers,
    pub in_flight: Arc<InFlight>,
}

impl Limits {
    pub fn new(config: &HttpConfig) -> Self {
        Self {
            networks: Networks::new(config.auth_failures_per_minute, config.trusted_proxies.clone()),
            callers: Callers::new(config),
            in_flight: InFlight::new(config.max_in_flight),
        }
    }

    /// Keeps the limiters small, until `stop`.
    pub async fn upkeep(&self, stop: CancellationToken) {
        let mut ticks = interval(TIDY_INTERVAL);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            let networks = self.networks.keyed();
            networks.into_iter().chain(self.callers.keyed()).for_each(keyed::Keyed::tidy);
            metrics::limiter_keys("networks", networks.map_or(0, keyed::Keyed::keys));
            metrics::limiter_keys("callers", self.callers.keyed().map(keyed::Keyed::keys).sum());
        }
    }
}
