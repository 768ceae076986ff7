//! Why a private server does not run.

use std::{io, path::Path, process::ExitStatus, time::Duration};

#[derive(Debug, thiserror::Error)]
pub enum DevstackError {
    #[error("{program} was not found: install the package {package}, or name the program")]
    Missing { program: String, package: &'static str },
    #[error("Postgres does not run as root, and there is no system user `postgres` to run it as")]
    NoPostgresUser,
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("{program} ended with {status}:\n{output}")]
    Failed { program: String, status: ExitStatus, output: String },
    #[error("{program} was not {state} after {} s:\n{output}", waited.as_secs())]
    TimedOut { program: String, state: &'static str, waited: Duration, output: String },
    #[error("Postgres: {0}")]
    Sql(#[from] sqlx::Error),
}

impl DevstackError {
    /// For `map_err`: what was being done to which path.
    pub(super) fn io(what: &str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let what = format!("{what} {}", path.display());
        move |source| Self::Io { what, source }
    }

    /// Whether the server's own words say that somebody else has its port.
    pub(super) fn is_port_taken(&self) -> bool {
        matches!(self, Self::Failed { output, .. } if output.contains("Address already in use"))
    }
}
