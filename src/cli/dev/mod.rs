//! `cota dev`: everything on this machine.
//!
//! Start: the folder is locked; Redis and Postgres start on the data they had; the schema and the demo user are made
//! sure of; the service starts; once `/readyz` says so, `dev.json` is written and the guide is printed. Stop, on
//! Ctrl-C or SIGTERM, goes the other way: `dev.json` first, then the service, which drains, then Redis, then Postgres.

mod demo;
mod facts;
mod folder;
mod guide;
mod probe;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    time::Duration,
};

use clap::Args;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use self::{
    facts::Facts,
    folder::{Folder, Secrets},
};
use super::{CliError, shutdown};
use crate::{
    app::{self, Addresses, AppError},
    config::{Config, PostgresConfig, Secret},
    crypto::Keyring,
    devstack::{PostgresOptions, PostgresServer, RedisOptions, RedisServer},
    quota::UserId,
    store::Store,
    telemetry,
};

/// How long the service may take to be ready; a recovery after a restart is in it.
const READY_PATIENCE: Duration = Duration::from_secs(60);
const DATABASE: &str = "cota";
/// What the service logs in as: it owns nothing.
const LOGIN: &str = "cota_service";

#[derive(Debug, Args)]
pub(super) struct DevOptions {
    /// Where the data, the logs and dev.json are.
    #[arg(long, value_name = "FOLDER", default_value = ".cota")]
    data: PathBuf,
    /// Port of the API (default: 8080, or a free one when that is taken).
    #[arg(long, value_name = "PORT")]
    http_port: Option<u16>,
    /// Port of /metrics (default: 9464, or a free one when that is taken).
    #[arg(long, value_name = "PORT")]
    metrics_port: Option<u16>,
    /// Port of the private Redis (default: a free one).
    #[arg(long, value_name = "PORT")]
    redis_port: Option<u16>,
    /// Port of the private Postgres (default: a free one).
    #[arg(long, value_name = "PORT")]
    postgres_port: Option<u16>,
    /// The redis-server program (default: from PATH).
    #[arg(long, value_name = "FILE")]
    redis_binary: Option<PathBuf>,
    /// The folder of postgres and initdb (default: from PATH, else the newest under /usr/lib/postgresql).
    #[arg(long, value_name = "FOLDER")]
    postgres_binaries: Option<PathBuf>,
}

/// The servers the service stands on.
struct Servers {
    redis: RedisServer,
    postgres: PostgresServer,
}

/// Runs until Ctrl-C or SIGTERM.
pub(super) async fn run(options: &DevOptions, config: Config) -> Result<(), CliError> {
    let folder = Folder::open(&options.data)?;
    telemetry::init_file(&config.log, folder.log()?).map_err(CliError::Logging)?;
    let stop = shutdown::requested()?;
    let secrets = folder.secrets()?;
    eprintln!("Starting Redis and Postgres in {} …", options.data.display());
    // A stop while they start drops them, which ends them.
    let Some(servers) = stop.run_until_cancelled(start_servers(options, &secrets)).await else {
        return Ok(());
    };
    let mut servers = servers?;
    let result = serve(options, config, &folder, &secrets, &servers, stop).await;
    eprintln!("Stopping Redis and Postgres …");
    let (redis, postgres) = (servers.redis.stop().await, servers.postgres.stop().await);
    result?;
    redis?;
    Ok(postgres?)
}

async fn start_servers(options: &DevOptions, secrets: &Secrets) -> Result<Servers, CliError> {
    let mut redis = RedisOptions::new(options.data.join("redis"));
    redis.port = options.redis_port;
    redis.binary.clone_from(&options.redis_binary);
    let mut postgres = PostgresOptions::new(options.data.join("postgres"));
    postgres.port = options.postgres_port;
    postgres.bin_dir.clone_from(&options.postgres_binaries);
    postgres.password = Some(secrets.postgres_password.clone());
    let (redis, postgres) = tokio::try_join!(RedisServer::start(redis), PostgresServer::start(postgres))?;
    postgres.create_database(DATABASE).await?;
    Ok(Servers { redis, postgres })
}

async fn serve(
    options: &DevOptions,
    mut config: Config,
    folder: &Folder,
    secrets: &Secrets,
    servers: &Servers,
    stop: CancellationToken,
) -> Result<(), CliError> {
    config.http.listen = loopback(options.http_port, config.http.listen.port());
    config.http.metrics_listen = loopback(options.metrics_port, config.http.metrics_listen.port());
    config.auth.hs256_secret = Secret::new(&secrets.hs256_secret);
    config.keys = secrets.keys.clone();
    config.redis.url = Secret::new(servers.redis.url());
    config.postgres.role = PostgresConfig::default().role;
    config.postgres.owner_url = Secret::new(servers.postgres.url(DATABASE));
    config.postgres.url = Secret::new(servers.postgres.url_of(LOGIN, DATABASE));
    config.check()?;
    let Some(user) = stop.run_until_cancelled(prepare(&config, servers)).await else { return Ok(()) };
    let user = user?;

    let (started, addresses) = oneshot::channel();
    let drain = CancellationToken::new();
    let mut service = tokio::spawn(app::run(config.clone(), drain.clone().cancelled_owned(), started));
    let shown = tokio::select! {
        ended = &mut service => return finished(ended),
        shown = announce(&config, folder, servers, user, addresses) => shown,
        () = stop.cancelled() => Ok(()),
    };
    if shown.is_ok() {
        tokio::select! {
            ended = &mut service => {
                folder.forget()?;
                return finished(ended);
            }
            () = stop.cancelled() => eprintln!("Stopping …"),
        }
    }
    folder.forget()?;
    drain.cancel();
    finished(service.await)?;
    shown
}

/// The port that was asked for; else the usual one, or any when somebody has that.
fn loopback(asked: Option<u16>, usual: u16) -> SocketAddr {
    let at = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    match asked {
        Some(port) => at(port),
        None if TcpListener::bind(at(usual)).is_ok() => at(usual),
        None => at(0),
    }
}

fn finished(ended: Result<Result<(), AppError>, tokio::task::JoinError>) -> Result<(), CliError> {
    match ended {
        Ok(result) => Ok(result?),
        Err(error) => Err(CliError::Io { what: "running the service".into(), source: error.into() }),
    }
}

/// Makes sure of the schema and of the demo user.
async fn prepare(config: &Config, servers: &Servers) -> Result<UserId, CliError> {
    let store = Store::lazy(&config.postgres, &Keyring::of(&config.keys)?)?;
    store.migrate().await?;
    // The migrations made the role.
    servers.postgres.create_login(LOGIN, &config.postgres.role).await?;
    let user = demo::ensure_user(&store).await;
    store.close().await;
    user
}

/// Waits until the service is ready, and says so to programs and people.
async fn announce(
    config: &Config,
    folder: &Folder,
    servers: &Servers,
    user: UserId,
    addresses: oneshot::Receiver<Addresses>,
) -> Result<(), CliError> {
    let ready = async {
        // Dropped when the service ends before it listens: then that is the news, and waiting for it is right.
        let Ok(addresses) = addresses.await else { return std::future::pending().await };
        probe::until_ready(addresses.http).await;
        addresses
    };
    let addresses = tokio::time::timeout(READY_PATIENCE, ready)
        .await
        .map_err(|_| CliError::NotReady(READY_PATIENCE.as_secs(), folder.log_path()))?;
    let postgres_url = servers.postgres.url(DATABASE);
    let facts = Facts::gather(&config.auth, addresses, servers.redis.url(), postgres_url, user)?;
    folder.tell(&facts)?;
    print!("{}", guide::text(&facts, folder));
    Ok(())
}
