//! Logs: one JSON object per line, on standard error unless a file is given, filtered as configured.
//!
//! Nothing secret is logged anywhere: secrets have no `Debug`, JWTs are never passed on, e-mail addresses stay in the
//! store.

use std::{fs::File, sync::Mutex};

use tracing_subscriber::{
    EnvFilter, fmt,
    fmt::writer::{BoxMakeWriter, MakeWriter},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::config::LogConfig;

/// Starts logging to standard error; a second call in one process changes nothing.
///
/// # Errors
/// When the filter is malformed; the text says where.
pub fn init(config: &LogConfig) -> Result<(), String> {
    init_with(config, std::io::stderr)
}

/// As [`init`], into a file.
///
/// # Errors
/// When the filter is malformed; the text says where.
pub fn init_file(config: &LogConfig, file: File) -> Result<(), String> {
    init_with(config, Mutex::new(file))
}

fn init_with(
    config: &LogConfig,
    writer: impl for<'w> MakeWriter<'w> + Send + Sync + 'static,
) -> Result<(), String> {
    let filter = EnvFilter::builder().parse(&config.filter).map_err(|e| format!("log.filter: {e}"))?;
    let json = fmt::layer().json().flatten_event(true).with_writer(BoxMakeWriter::new(writer));
    // Already started, by a test in the same process: that one goes on.
    let _ = tracing_subscriber::registry().with(filter).with(json).try_init();
    Ok(())
}
