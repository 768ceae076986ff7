//! How pg_dump and pg_restore are told where Postgres is: by their environment, never by arguments, which every user of
//! the machine can read.

use std::path::Path;

use reqwest::Url;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tokio::process::Command;

use super::BackupError;
use crate::config::PostgresConfig;

/// Authorities of the system, for a server whose certificate is to be checked without one of its own.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Where Postgres is and who asks, as libpq's variables. Holds the password, hence no `Debug`.
pub struct Access {
    variables: Vec<(&'static str, String)>,
    database: String,
}

impl Access {
    /// The login that owns the tables, if one is named, else the service's.
    ///
    /// # Errors
    /// When the URL is none.
    pub fn of(config: &PostgresConfig) -> Result<Self, BackupError> {
        let url = match config.owner_url.expose() {
            "" => config.url.expose(),
            url => url,
        };
        let options: PgConnectOptions = url.parse().map_err(|_| BackupError::Url)?;
        let url = Url::parse(url).map_err(|_| BackupError::Url)?;
        let host = match options.get_socket() {
            Some(folder) => folder.display().to_string(),
            None => options.get_host().to_owned(),
        };
        let database = options.get_database().unwrap_or(options.get_username()).to_owned();
        let mut variables = vec![
            ("PGHOST", host),
            ("PGPORT", options.get_port().to_string()),
            ("PGUSER", options.get_username().to_owned()),
            ("PGDATABASE", database.clone()),
            ("PGCONNECT_TIMEOUT", "10".to_owned()),
            ("PGAPPNAME", "cota-backup".to_owned()),
            // Row-level security binds owners too: without a scope there would be no rows.
            ("PGOPTIONS", "-c cota.scope=service".to_owned()),
        ];
        variables.extend(password(&url).map(|password| ("PGPASSWORD", password)));
        variables.extend(encryption(config, &options, &url));
        Ok(Self { variables, database })
    }

    pub fn database(&self) -> &str {
        &self.database
    }

    /// A program that finds Postgres so, never asks for a password, and ends with us.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        for name in ["PGSERVICE", "PGHOSTADDR"] {
            command.env_remove(name);
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.kill_on_drop(true);
        command
    }
}

/// The password in the URL; without one libpq looks where it always does: `PGPASSWORD`, `PGPASSFILE`.
fn password(url: &Url) -> Option<String> {
    let in_query = url.query_pairs().find(|(key, _)| key == "password").map(|(_, value)| value.into_owned());
    in_query.or_else(|| url.password().map(decoded))
}

/// Percent-encoding undone; what is none of it stays.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = (*first == b'%').then(|| after.get(..2)).flatten();
        let byte = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok());
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// As `store::Store` connects: an authority of its own means a server that is checked.
fn encryption(config: &PostgresConfig, options: &PgConnectOptions, url: &Url) -> Vec<(&'static str, String)> {
    let in_url = |keys: [&str; 2]| {
        let pair = url.query_pairs().find(|(key, _)| keys.contains(&&**key));
        pair.map(|(_, value)| value.into_owned())
    };
    let mode = match (options.get_ssl_mode(), &config.ca_file) {
        (PgSslMode::VerifyCa, _) => "verify-ca",
        (_, Some(_)) | (PgSslMode::VerifyFull, _) => "verify-full",
        (PgSslMode::Disable, _) => "disable",
        (PgSslMode::Allow, _) => "allow",
        (PgSslMode::Require, _) => "require",
        (PgSslMode::Prefer, _) => "prefer",
    };
    let authority = match &config.ca_file {
        Some(path) => Some(path.display().to_string()),
        None => in_url(["sslrootcert", "ssl-root-cert"])
            .or_else(|| mode.starts_with("verify").then(|| SYSTEM_AUTHORITIES.to_owned())),
    };
    let mut variables = vec![("PGSSLMODE", mode.to_owned())];
    variables.extend(authority.map(|path| ("PGSSLROOTCERT", path)));
    variables.extend(in_url(["sslcert", "ssl-cert"]).map(|path| ("PGSSLCERT", path)));
    variables.extend(in_url(["sslkey", "ssl-key"]).map(|path| ("PGSSLKEY", path)));
    variables
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    fn variable(url: &str, owner_url: &str, name: &str) -> Option<String> {
        let config = PostgresConfig {
            url: Secret::new(url),
            owner_url: Secret::new(owner_url),
            ..PostgresConfig::default()
        };
        let access = Access::of(&config).unwrap();
        access.variables.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value)
    }

    #[test]
    fn urls_become_variables() {
        let url = "postgres://me:p%40ss+%25w%2Frd@db.example:6432/cota?sslmode=require";
        for (name, value) in [
            ("PGHOST", "db.example"),
            ("PGPORT", "6432"),
            ("PGUSER", "me"),
            ("PGDATABASE", "cota"),
            ("PGPASSWORD", "p@ss+%w/rd"),
            ("PGSSLMODE", "require"),
        ] {
            assert_eq!(variable(url, "", name).as_deref(), Some(value));
            assert_eq!(variable("postgres://else@nowhere/other", url, name).as_deref(), Some(value));
        }
        assert_eq!(
            variable("postgres://me@db/cota?password=a%20b", "", "PGPASSWORD").as_deref(),
            Some("a b")
        );
        assert_eq!(variable("postgres://me@db/cota", "", "PGPASSWORD"), None);
        assert_eq!(
            variable("postgres://me@db/cota?sslmode=verify-full", "", "PGSSLROOTCERT").as_deref(),
            Some(SYSTEM_AUTHORITIES)
        );
    }
}
