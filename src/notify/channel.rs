//! What working off the queue is the same for, whichever way notifications go.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::store::StoreError;

/// Pause after a fault of Postgres.
pub const FAULT_PAUSE: Duration = Duration::from_millis(500);

/// What a lease lasts beyond the longest attempt: time to note what came of it.
pub const LEASE_MARGIN: Duration = Duration::from_secs(15);

/// How long a shutdown waits for what is just being sent; the rest is sent again, by others.
const DRAIN: Duration = Duration::from_secs(5);

/// One way for notifications to go.
pub trait Channel: Send + Sync + 'static {
    type Claim: Send + 'static;

    /// The word in metrics and logs.
    const NAME: &'static str;

    /// Notifications that this process sends at a time.
    fn at_once(&self) -> usize;

    /// Takes on what is due, at most `room`.
    fn take(&self, room: u32) -> impl Future<Output = Result<Vec<Self::Claim>, StoreError>> + Send;

    /// Sends one, and notes what came of it.
    fn attempt(&self, claim: Self::Claim) -> impl Future<Output = ()> + Send;
}

/// Takes on what is due as long as there is room, and sends it, until `stop`.
pub async fn work_off<C: Channel>(channel: Arc<C>, look_every: Duration, stop: CancellationToken) {
    let mut running = JoinSet::new();
    let mut look = interval(look_every);
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
        let room = channel.at_once().saturating_sub(running.len());
        if room == 0 {
            continue;
        }
        match channel.take(u32::try_from(room).unwrap_or(u32::MAX)).await {
            Ok(claims) => {
                for claim in claims {
                    let channel = Arc::clone(&channel);
                    running.spawn(async move { channel.attempt(claim).await });
                }
            }
            Err(error) => {
                tracing::warn!(%error, channel = C::NAME, "notifications cannot be taken on");
                stop.run_until_cancelled(sleep(FAULT_PAUSE)).await;
            }
        }
    }
    let rest = async { while running.join_next().await.is_some() {} };
    if timeout(DRAIN, rest).await.is_err() {
        tracing::info!(
            channel = C::NAME,
            "notifications are cut off by the shutdown, and will be sent again"
        );
    }
}
