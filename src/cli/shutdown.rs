//! When the operator wants us to stop.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::CliError;

/// A token that is cancelled by Ctrl-C (SIGINT) or SIGTERM, from now on. The task behind it ends with the runtime at
/// the latest.
///
/// # Errors
/// When the process may not handle signals.
pub(super) fn requested() -> Result<CancellationToken, CliError> {
    let listen =
        |kind| signal(kind).map_err(|source| CliError::Io { what: "listening for signals".into(), source });
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        cancelled.cancel();
    });
    Ok(token)
}
