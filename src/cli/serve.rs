//! `cota serve`.

use tokio::sync::oneshot;

use super::{CliError, shutdown};
use crate::{app, config::Config, telemetry};

/// Runs the service until SIGINT or SIGTERM.
pub(super) async fn run(config: Config) -> Result<(), CliError> {
    telemetry::init(&config.log).map_err(CliError::Logging)?;
    let stop = shutdown::requested()?;
    // The log says where it listens; nobody waits for the channel.
    let (started, _) = oneshot::channel();
    app::run(config, stop.cancelled_owned(), started).await?;
    Ok(())
}
