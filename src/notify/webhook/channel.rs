//! Webhooks as a channel of the queue.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{Fault, Said, Sender, Standing, judge};
use crate::{
    config::{NotifyConfig, millis},
    metrics,
    notify::channel::{Channel, LEASE_MARGIN},
    store::{Attempt, Store, StoreError, Verdict, WebhookClaim},
    traces::{self, Traces},
};

pub struct Webhooks {
    pub store: Store,
    pub sender: Sender,
    pub config: NotifyConfig,
    pub traces: Traces,
}

impl Channel for Webhooks {
    type Claim = WebhookClaim;

    const NAME: &'static str = "webhook";

    fn at_once(&self) -> usize {
        self.config.webhooks_at_once
    }

    async fn take(&self, room: u32) -> Result<Vec<WebhookClaim>, StoreError> {
        let lease = millis(self.config.webhook_timeout_ms) + LEASE_MARGIN;
        self.store.claim_webhooks(room, lease).await
    }

    async fn attempt(&self, claim: WebhookClaim) {
        let started = Instant::now();
        let result = self.send(&claim).await;
        let error = result.as_ref().err().map(ToString::to_string);
        let said = result.ok();
        let verdict = judge(self.standing(&claim), said, rand::random());
        metrics::notification(Self::NAME, outcome(verdict), started.elapsed());
        let attempt = Attempt { status: said.map(|said| said.status), error: error.as_deref(), verdict };
        match self.store.finish_webhook(&claim, attempt).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::info!(webhook = %claim.endpoint, "an attempt came to its end too late to count")
            }
            // The lease ends, and it is sent again under the same id.
            Err(error) => tracing::warn!(%error, webhook = %claim.endpoint, "an attempt cannot be noted"),
        }
        if let Verdict::Disable(reason) = verdict {
            tracing::info!(webhook = %claim.endpoint, reason = reason.as_str(), "a webhook endpoint was disabled");
        }
    }
}

impl Webhooks {
    /// Sends it once; its receiver can join the trace.
    async fn send(&self, claim: &WebhookClaim) -> Result<Said, Fault> {
        let secrets = claim.secrets.as_ref().map_err(|error| {
            tracing::error!(%error, webhook = %claim.endpoint, "a secret cannot be opened");
            Fault::Sealed
        })?;
        let mut span = self.traces.webhook(claim.event.kind.as_str());
        let send = self.sender.send(&claim.url, secrets, &claim.event, Timestamp::now());
        let result = traces::within(span.as_ref(), send).await;
        if let Some(span) = &mut span {
            span.attempted(result.as_ref().map(|said| said.status).map_err(|fault| fault.as_str()));
        }
        result
    }

    fn standing(&self, claim: &WebhookClaim) -> Standing {
        Standing {
            attempts: claim.attempts,
            failures: claim.failures,
            failing_for: claim.failing_for,
            patience: Duration::from_secs(self.config.webhook_disable_after_hours.saturating_mul(3_600)),
        }
    }
}

fn outcome(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Delivered => "delivered",
        Verdict::Retry { .. } => "retry",
        Verdict::Failed { .. } => "failed",
        Verdict::Disable(_) => "disabled",
    }
}
