//! `cota serve`: the service, until SIGTERM or Ctrl-C.

use tokio::sync::oneshot;

use super::{CliError, shutdown};
use crate::{app, config::Config, telemetry};

pub async fn run(config: Config) -> Result<(), CliError> {
    telemetry::init(&config.log).map_err(CliError::Log)?;
    let (started, _) = oneshot::channel();
    Ok(app::run(config, shutdown::requested(), started).await?)
}
