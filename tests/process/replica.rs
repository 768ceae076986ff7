//! `cota serve` as a child process.

use std::{
    fs::File,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
};

use cota::{
    config::{AuthConfig, Config},
    http::jwt::{Role, mint},
};

use crate::support::{servers, world::until};

/// A replica; killed when dropped.
pub struct Replica {
    child: Child,
    pub url: String,
    pub metrics_url: String,
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn gateway_jwt(config: &Config) -> String {
    mint(&auth(config), "test-gateway", Role::Gateway, 3_600).unwrap()
}

pub fn admin_jwt(config: &Config) -> String {
    mint(&auth(config), "test-admin", Role::Admin, 3_600).unwrap()
}

/// Where the service is to make backups, if it is.
fn backup_environment(config: &Config) -> Vec<(&'static str, String)> {
    let Some(directory) = &config.backup.directory else { return Vec::new() };
    vec![
        ("COTA_BACKUP__DIRECTORY", directory.display().to_string()),
        ("COTA_BACKUP__INTERVAL_SECONDS", config.backup.interval_seconds.to_string()),
        ("COTA_BACKUP__KEEP", config.backup.keep.to_string()),
    ]
}

fn auth(config: &Config) -> AuthConfig {
    config.auth.clone()
}

impl Replica {
    /// Starts one on these stores and waits until it is ready.
    pub async fn start(config: &Config) -> Self {
        Self::spawn(config, Stdio::null(), "warn").await
    }

    /// As [`Self::start`], with a log of its own.
    pub async fn start_logging(config: &Config, log: &Path, filter: &str) -> Self {
        Self::spawn(config, File::create(log).unwrap().into(), filter).await
    }

    async fn spawn(config: &Config, log: Stdio, filter: &str) -> Self {
        let (http, metrics) = (free_port(), free_port());
        let mut command = Command::new(env!("CARGO_BIN_EXE_cota"));
        command
            .arg("serve")
            .env("COTA_HTTP__LISTEN", format!("127.0.0.1:{http}"))
            .env("COTA_HTTP__METRICS_LISTEN", format!("127.0.0.1:{metrics}"))
            .env("COTA_AUTH__HS256_SECRET", config.auth.hs256_secret.expose())
            .envs(servers::keys_environment(&config.keys))
            .env("COTA_REDIS__URL", config.redis.url.expose())
            .env("COTA_POSTGRES__URL", config.postgres.url.expose())
            .env("COTA_POSTGRES__MAX_CONNECTIONS", "8")
            .env("COTA_LOG__FILTER", filter)
            .envs(backup_environment(config))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let replica = Self {
            child: command.spawn().unwrap(),
            url: format!("http://127.0.0.1:{http}"),
            metrics_url: format!("http://127.0.0.1:{metrics}/metrics"),
        };
        replica.ready().await;
        replica
    }

    pub async fn ready(&self) {
        let client = reqwest::Client::new();
        until("the replica is ready", async || {
            let answer = client.get(format!("{}/readyz", self.url)).send().await;
            answer.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Waits for its end; whether it ended well.
    pub async fn ended(&mut self) -> bool {
        let mut status = None;
        until("the replica has ended", async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap().success()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
