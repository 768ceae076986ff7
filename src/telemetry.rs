//! Logs: one JSON object per line on standard error, filtered as configured.
//!
//! Nothing secret is logged anywhere: secrets have no `Debug`, JWTs are never passed on, e-mail addresses stay in the
//! store.

use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::LogConfig;

/// Starts logging; a second call in one process changes nothing.
///
/// # Errors
/// When the filter is malformed; the text says where.
pub fn init(config: &LogConfig) -> Result<(), String> {
    let filter = EnvFilter::builder().parse(&config.filter).map_err(|e| format!("log.filter: {e}"))?;
    let json = fmt::layer().json().flatten_event(true).with_writer(std::io::stderr);
    // Already started, by a test in the same process: that one goes on.
    let _ = tracing_subscriber::registry().with(filter).with(json).try_init();
    Ok(())
}
