//! When to end: on SIGTERM or SIGINT.

use tokio::signal::unix::{SignalKind, signal};

/// Done once either signal has come.
pub async fn requested() {
    tokio::select! {
        () = one(SignalKind::terminate()) => {}
        () = one(SignalKind::interrupt()) => {}
    }
}

async fn one(kind: SignalKind) {
    match signal(kind) {
        Ok(mut signals) => {
            signals.recv().await;
        }
        Err(error) => {
            // Without a handler the signal keeps its default: it ends the process, only less gently.
            tracing::error!(%error, "no handler for a signal");
            std::future::pending::<()>().await;
        }
    }
}
