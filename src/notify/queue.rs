//! The tasks that queue and send notifications. Every replica runs them; see [`crate::store::Store::claim_webhooks`] for
//! how they share the work.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::webhook::{Fault, Sender, Standing, judge};
use crate::{
    config::{NotifyConfig, millis},
    metrics,
    store::{Attempt, Store, StoreError, Verdict, WebhookClaim},
};

/// Events that are fanned out in one statement.
const FAN_OUT: u32 = 500;

/// Pause after a fault of Postgres.
const FAULT_PAUSE: Duration = Duration::from_millis(500);

/// What a lease lasts beyond the longest attempt: time to note what came of it.
const LEASE_MARGIN: Duration = Duration::from_secs(15);

/// How often old notifications are deleted, and how many at once.
const TIDY_INTERVAL: Duration = Duration::from_secs(60);
const TIDY: u32 = 5_000;

/// How often the backlog is measured.
const MEASURE_INTERVAL: Duration = Duration::from_secs(5);

/// How long a shutdown waits for what is just being sent; the rest is sent again, by others.
const DRAIN: Duration = Duration::from_secs(5);

/// Queues and sends notifications.
pub struct Notifier {
    store: Store,
    sender: Sender,
    config: NotifyConfig,
}

/// The running tasks of a notifier.
pub struct RunningNotifier {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Notifier {
    pub fn new(store: Store, sender: Sender, config: NotifyConfig) -> Self {
        Self { store, sender, config }
    }

    pub fn start(self) -> RunningNotifier {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let notifier = Arc::new(self);
        tasks.spawn(Arc::clone(&notifier).fan_out(stop.clone()));
        tasks.spawn(Arc::clone(&notifier).send_webhooks(stop.clone()));
        tasks.spawn(notifier.tidy(stop.clone()));
        RunningNotifier { tasks, stop }
    }

    async fn fan_out(self: Arc<Self>, stop: CancellationToken) {
        let pause = millis(self.config.interval_ms);
        while !stop.is_cancelled() {
            let pause = match self.store.fan_out(FAN_OUT).await {
                Ok(events) if events >= u64::from(FAN_OUT) => continue,
                Ok(_) => pause,
                Err(error) => {
                    tracing::warn!(%error, "events cannot be queued for their receivers");
                    FAULT_PAUSE
                }
            };
            stop.run_until_cancelled(sleep(pause)).await;
        }
    }

    /// Takes on what is due as long as there is room, and sends it.
    async fn send_webhooks(self: Arc<Self>, stop: CancellationToken) {
        let mut running = JoinSet::new();
        let mut look = interval(millis(self.config.interval_ms));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // A panic in one was logged; its lease ends, and it is sent again.
                Some(_) = running.join_next() => {}
                _ = look.tick() => {}
            }
            while running.try_join_next().is_some() {}
            let room = self.config.webhooks_at_once.saturating_sub(running.len());
            if room == 0 {
                continue;
            }
            match self.claim(room).await {
                Ok(claims) => {
                    for claim in claims {
                        let notifier = Arc::clone(&self);
                        running.spawn(async move { notifier.attempt(claim).await });
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "webhooks cannot be taken on");
                    stop.run_until_cancelled(sleep(FAULT_PAUSE)).await;
                }
            }
        }
        let rest = async { while running.join_next().await.is_some() {} };
        if timeout(DRAIN, rest).await.is_err() {
            tracing::info!("webhooks are cut off by the shutdown, and will be sent again");
        }
    }

    async fn claim(&self, room: usize) -> Result<Vec<WebhookClaim>, StoreError> {
        let lease = millis(self.config.webhook_timeout_ms) + LEASE_MARGIN;
        self.store.claim_webhooks(u32::try_from(room).unwrap_or(u32::MAX), lease).await
    }

    async fn attempt(&self, claim: WebhookClaim) {
        let started = Instant::now();
        let result = match &claim.secrets {
            Ok(secrets) => self.sender.send(&claim.url, secrets, &claim.event, Timestamp::now()).await,
            Err(error) => {
                tracing::error!(%error, webhook = %claim.endpoint, "a secret cannot be opened");
                Err(Fault::Sealed)
            }
        };
        let error = result.as_ref().err().map(ToString::to_string);
        let said = result.ok();
        let verdict = judge(
            Standing {
                attempts: claim.attempts,
                failures: claim.failures,
                failing_for: claim.failing_for,
                patience: Duration::from_secs(self.config.webhook_disable_after_hours.saturating_mul(3_600)),
            },
            said,
            rand::random(),
        );
        metrics::notification("webhook", outcome(verdict), started.elapsed());
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

    /// Ends what waits for disabled endpoints, deletes what is old, and measures what waits.
    async fn tidy(self: Arc<Self>, stop: CancellationToken) {
        let age = Duration::from_secs(self.config.retention_days.saturating_mul(86_400));
        let mut ticks = interval(MEASURE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut tidied: Option<Instant> = None;
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Err(error) = self.measure().await {
                tracing::warn!(%error, "the queue of notifications cannot be measured");
                continue;
            }
            if tidied.is_none_or(|at| at.elapsed() >= TIDY_INTERVAL) {
                tidied = Some(Instant::now());
                if let Err(error) = self.store.forget_notifications(age, TIDY).await {
                    tracing::warn!(%error, "old notifications cannot be deleted");
                }
            }
        }
    }

    async fn measure(&self) -> Result<(), StoreError> {
        self.store.fail_disabled_webhooks(TIDY).await?;
        let backlogs = self.store.notification_backlogs().await?;
        for (queue, backlog) in [("events", backlogs.events), ("webhook", backlogs.webhooks)] {
            metrics::notification_backlog(queue, backlog.pending, backlog.overdue);
        }
        Ok(())
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

impl RunningNotifier {
    /// Takes nothing on any more, and waits a few seconds for what is just being sent.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}
