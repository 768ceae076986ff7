//! Saying that something long still runs.

use std::time::{Duration, Instant};

/// How often.
const PROGRESS: Duration = Duration::from_secs(5);

/// Says what begins, then every few seconds that it still runs.
pub(super) async fn with_progress<T>(what: &str, work: impl Future<Output = T>) -> T {
    eprintln!("{what} …");
    let started = Instant::now();
    let mut ticks = tokio::time::interval(PROGRESS);
    ticks.tick().await;
    tokio::pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => eprintln!("… still running after {} s", started.elapsed().as_secs()),
        }
    }
}
