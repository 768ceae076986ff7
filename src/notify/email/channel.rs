//! E-mails as a channel of the queue.

use jiff::Timestamp;
use tokio::time::Instant;

use super::Post;
use crate::{
    config::{EmailConfig, millis},
    metrics,
    notify::channel::{Channel, LEASE_MARGIN},
    store::{EmailClaim, EmailVerdict, Store, StoreError},
};

pub struct Emails {
    pub store: Store,
    pub post: Post,
    pub config: EmailConfig,
}

impl Channel for Emails {
    type Claim = EmailClaim;

    const NAME: &'static str = "email";

    fn at_once(&self) -> usize {
        self.config.at_once
    }

    async fn take(&self, room: u32) -> Result<Vec<EmailClaim>, StoreError> {
        self.store.claim_emails(room, millis(self.config.timeout_ms) + LEASE_MARGIN).await
    }

    async fn attempt(&self, claim: EmailClaim) {
        let started = Instant::now();
        let sent = match self.post.send(&claim, Timestamp::now(), rand::random()).await {
            Ok(sent) => sent,
            // Nothing was sent; its lease ends, and it is tried again.
            Err(error) => return tracing::warn!(%error, "the user of an e-mail cannot be read"),
        };
        metrics::notification(Self::NAME, outcome(sent.verdict), started.elapsed());
        match self.store.finish_email(&claim, sent.status, sent.error.as_deref(), sent.verdict).await {
            Ok(true) => {}
            Ok(false) => {
                tracing::info!(event = claim.event.id, "an e-mail came to its end too late to count")
            }
            // The lease ends, and it is sent again under the same Message-ID.
            Err(error) => tracing::warn!(%error, event = claim.event.id, "an e-mail cannot be noted"),
        }
    }
}

fn outcome(verdict: EmailVerdict) -> &'static str {
    match verdict {
        EmailVerdict::Delivered => "delivered",
        EmailVerdict::Retry(_) => "retry",
        EmailVerdict::Failed => "failed",
    }
}
