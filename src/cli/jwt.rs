//! `cota jwt`: a JWT signed with the configured secret.

use clap::{Args, ValueEnum};

use super::CliError;
use crate::{
    config::Config,
    http::jwt::{Role, mint},
};

#[derive(Debug, Args)]
pub struct JwtOptions {
    /// What its bearer may do.
    #[arg(long, value_enum)]
    role: RoleName,
    /// Its subject: for the role `user` the user's id, else a name for the logs.
    #[arg(long)]
    sub: String,
    /// How long it is good for.
    #[arg(long, default_value_t = 86_400)]
    ttl_seconds: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum RoleName {
    User,
    Gateway,
    Admin,
}

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::User => Self::User,
            RoleName::Gateway => Self::Gateway,
            RoleName::Admin => Self::Admin,
        }
    }
}

pub fn run(config: &Config, options: &JwtOptions) -> Result<(), CliError> {
    println!("{}", mint(&config.auth, &options.sub, options.role.into(), options.ttl_seconds)?);
    Ok(())
}
