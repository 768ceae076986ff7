//! The commands: what `cota` does when it is called.
//!
//! Answers for programs and people go to standard output; progress, logs and errors to standard error.

mod audit;
mod backup;
mod check_config;
mod dev;
mod jwt;
mod keys;
mod migrate;
mod progress;
mod restore;
mod serve;
mod shutdown;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::{
    accounts::checkpoints::CheckpointError,
    app::AppError,
    backup::BackupError,
    config::{Config, ConfigError},
    crypto::KeyringError,
    devstack::DevstackError,
    http::jwt::{KeyFileError, MintError},
    store::StoreError,
};

/// Per-user LLM-token quotas for high-traffic gateways: reserve before the call, settle after it.
#[derive(Debug, Parser)]
#[command(version, about, arg_required_else_help = true)]
struct Cli {
    /// TOML file with the configuration; what `COTA_<SECTION>__<KEY>` in the environment says goes first.
    #[arg(long, short, global = true, value_name = "FILE", env = "COTA_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service.
    Serve,
    /// Run everything on this machine: a private Redis and Postgres, a demo user, and JWTs to try it with.
    Dev(Box<dev::DevOptions>),
    /// Bring the database schema up to date.
    Migrate,
    /// Make a verified backup of Postgres, or check one. Redis needs none.
    Backup(backup::BackupOptions),
    /// Restore a backup into an empty database.
    Restore(restore::RestoreOptions),
    /// Check the audit log, or write a checkpoint of it.
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Make and rotate the keys that seal what is secret in the database.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Make a JWT that this configuration takes.
    Jwt(jwt::JwtOptions),
    /// Read and check the configuration, and show it with its secrets hidden.
    CheckConfig,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Logging(String),
    #[error("keys: {0}")]
    Keys(#[from] KeyringError),
    #[error(transparent)]
    App(#[from] AppError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Devstack(#[from] DevstackError),
    #[error(transparent)]
    Jwt(#[from] MintError),
    #[error("key set {path}: {error}")]
    KeyFile { path: PathBuf, error: KeyFileError },
    #[error("{what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("these accounts have an address that another one has too; change one of each pair: {0}")]
    EmailsTaken(String),
    #[error("{0} things are not as they were written")]
    Unsound(u64),
    #[error(transparent)]
    Backup(#[from] BackupError),
    #[error("checkpoints: {0}")]
    Checkpoints(#[from] CheckpointError),
    #[error("{0} values cannot be opened: {1}")]
    Unopened(usize, String),
    #[error("{0}")]
    Usage(&'static str),
    #[error("`cota dev` runs in {folder} already{details}")]
    AlreadyRunning { folder: PathBuf, details: String },
    #[error("the service was not ready after {0} s; {1} tells more")]
    NotReady(u64, PathBuf),
}

impl CliError {
    /// For `map_err`: what was being done to which path.
    fn io(what: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Self + use<> {
        let what = format!("{what} {}", path.display());
        move |source| Self::Io { what, source }
    }
}

/// Parses the arguments and runs the command. Errors are one line on standard error and exit status 1.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cota: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cota: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> Result<(), CliError> {
    let file = cli.config.as_deref();
    match cli.command {
        Command::Serve => serve::run(Config::load(file)?).await,
        Command::Dev(options) => dev::run(&options, Config::read(file)?).await,
        Command::Migrate => migrate::run(&Config::load(file)?).await,
        Command::Backup(options) => backup::run(&options, &Config::load(file)?).await,
        Command::Restore(options) => restore::run(&options, &Config::load(file)?).await,
        Command::Audit(command) => audit::run(&command, &Config::load(file)?).await,
        Command::Keys(command) => keys::run(&command, || Ok(Config::load(file)?)).await,
        Command::Jwt(options) => jwt::run(&options, &Config::load(file)?),
        Command::CheckConfig => check_config::run(&Config::load(file)?),
    }
}
