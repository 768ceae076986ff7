//! The commands, one file each.

mod check_config;
mod dev;
mod jwt;
mod migrate;
mod serve;
mod shutdown;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::{
    app::AppError,
    config::{Config, ConfigError},
    devstack::DevstackError,
    http::jwt::MintError,
    store::StoreError,
};

/// Per-user LLM-token quotas for high-traffic gateways.
#[derive(Debug, Parser)]
#[command(name = "cota", version, about, disable_help_subcommand = true)]
pub struct Cli {
    /// Configuration file; the environment (COTA_HTTP__LISTEN=…) comes on top.
    #[arg(long, short, global = true, env = "COTA_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service.
    Serve,
    /// Run the service with a private Redis and Postgres, a demo user and JWTs; nothing to configure.
    Dev(dev::DevOptions),
    /// Bring the database's schema up to this version.
    Migrate,
    /// Make a JWT with the configured secret, for development.
    Jwt(jwt::JwtOptions),
    /// Read the configuration, check it, and print what is in force, without its secrets.
    CheckConfig,
}

#[derive(Debug, thiserror::Error)]
pub enum CliError {
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    #[error("configuration: {0}")]
    Log(String),
    #[error(transparent)]
    App(#[from] AppError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Devstack(#[from] DevstackError),
    #[error(transparent)]
    Mint(#[from] MintError),
    #[error("{0}: {1}")]
    File(String, std::io::Error),
    #[error("{0}")]
    Dev(String),
    #[error("cannot print the configuration: {0}")]
    Print(#[from] serde_json::Error),
}

/// Parses the arguments and runs the command.
///
/// # Errors
/// What the command met; the text is for the person at the terminal.
pub async fn run() -> Result<(), CliError> {
    let Cli { config, command } = Cli::parse();
    if let Command::Dev(options) = command {
        return dev::run(options).await;
    }
    let config = Config::load(config.as_deref())?;
    match command {
        Command::Serve => serve::run(config).await,
        Command::Migrate => migrate::run(&config).await,
        Command::Jwt(options) => jwt::run(&config, &options),
        Command::CheckConfig => check_config::run(&config),
        Command::Dev(_) => Ok(()),
    }
}
