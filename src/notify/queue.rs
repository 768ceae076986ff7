//! The tasks that queue and send notifications. Every replica runs them; see [`crate::store::Store::claim_webhooks`] for
//! how they share the work.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    channel::{FAULT_PAUSE, work_off},
    email::{Emails, Post},
    webhook::{Sender, Webhooks},
};
use crate::{
    config::{EmailConfig, NotifyConfig, millis},
    metrics,
    store::{Store, StoreError},
    traces::Traces,
};

/// Events that are fanned out in one statement.
const FAN_OUT: u32 = 500;

/// How often old notifications are deleted, and how many at once.
const TIDY_INTERVAL: Duration = Duration::from_secs(60);
const TIDY: u32 = 5_000;

/// How often the backlog is measured.
const MEASURE_INTERVAL: Duration = Duration::from_secs(5);

/// Queues and sends notifications.
pub struct Notifier {
    store: Store,
    sender: Sender,
    post: Option<(Post, EmailConfig)>,
    config: NotifyConfig,
    traces: Traces,
}

/// The running tasks of a notifier.
pub struct RunningNotifier {
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Notifier {
    pub fn new(store: Store, sender: Sender, config: NotifyConfig) -> Self {
        Self { store, sender, post: None, config, traces: Traces::default() }
    }

    /// As it is, and with e-mails.
    #[must_use]
    pub fn with_email(mut self, post: Post, config: EmailConfig) -> Self {
        self.post = Some((post, config));
        self
    }

    /// Records its webhooks as these say.
    #[must_use]
    pub fn traced(self, traces: Traces) -> Self {
        Self { traces, ..self }
    }

    pub fn start(self) -> RunningNotifier {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let look_every = millis(self.config.interval_ms);
        let (store, emails) = (self.store, self.post.is_some());
        tasks.spawn(fan_out(store.clone(), emails, look_every, stop.clone()));
        tasks.spawn(tidy(store.clone(), self.config.retention_days, stop.clone()));
        if let Some((post, config)) = self.post {
            let emails = Emails { store: store.clone(), post, config };
            tasks.spawn(work_off(Arc::new(emails), look_every, stop.clone()));
        }
        let webhooks = Webhooks { store, sender: self.sender, config: self.config, traces: self.traces };
        tasks.spawn(work_off(Arc::new(webhooks), look_every, stop.clone()));
        RunningNotifier { tasks, stop }
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

async fn fan_out(store: Store, emails: bool, look_every: Duration, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let pause = match store.fan_out(FAN_OUT, emails).await {
            Ok(events) if events >= u64::from(FAN_OUT) => continue,
            Ok(_) => look_every,
            Err(error) => {
                tracing::warn!(%error, "events cannot be queued for their receivers");
                FAULT_PAUSE
            }
        };
        stop.run_until_cancelled(sleep(pause)).await;
    }
}

/// Ends what waits for disabled endpoints, deletes what is old, and measures what waits.
async fn tidy(store: Store, retention_days: u64, stop: CancellationToken) {
    let age = Duration::from_secs(retention_days.saturating_mul(86_400));
    let mut ticks = interval(MEASURE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tidied: Option<Instant> = None;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if let Err(error) = measure(&store).await {
            tracing::warn!(%error, "the queue of notifications cannot be measured");
            continue;
        }
        if tidied.is_none_or(|at| at.elapsed() >= TIDY_INTERVAL) {
            tidied = Some(Instant::now());
            if let Err(error) = store.forget_notifications(age, TIDY).await {
                tracing::warn!(%error, "old notifications cannot be deleted");
            }
            if let Err(error) = store.forget_tickets().await {
                tracing::warn!(%error, "old tickets cannot be deleted");
            }
        }
    }
}

async fn measure(store: &Store) -> Result<(), StoreError> {
    store.fail_disabled_webhooks(TIDY).await?;
    let backlogs = store.notification_backlogs().await?;
    for (queue, backlog) in
        [("events", backlogs.events), ("webhook", backlogs.webhooks), ("email", backlogs.emails)]
    {
        metrics::notification_backlog(queue, backlog.pending, backlog.overdue);
    }
    Ok(())
}
