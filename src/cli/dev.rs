//! `cota dev`: the whole service on one machine, with nothing to configure.
//!
//! Everything is kept under one folder: the data of a private Redis and Postgres, the secret JWTs are signed with, and
//! `dev.json`, which says to programs what the terminal says to people. A second start finds it all again.

mod demo;
mod files;
mod ready;

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{CliError, shutdown};
use crate::{
    app::{self, Addresses},
    config::{Config, Secret},
    devstack::{PostgresOptions, PostgresServer, RedisOptions, RedisServer},
    store::Store,
    telemetry,
};

const DATABASE: &str = "cota";

#[derive(Debug, Args)]
pub struct DevOptions {
    /// Where everything is kept.
    #[arg(long, default_value = ".cota")]
    data: PathBuf,
    /// Port of the API; any free one if taken.
    #[arg(long, default_value_t = 8080)]
    http_port: u16,
    /// Port of /metrics; any free one if taken.
    #[arg(long, default_value_t = 9464)]
    metrics_port: u16,
    /// Port of the private Redis; any free one by default.
    #[arg(long)]
    redis_port: Option<u16>,
    /// Port of the private Postgres; any free one by default.
    #[arg(long)]
    postgres_port: Option<u16>,
    /// redis-server; by default the one in PATH.
    #[arg(long)]
    redis_binary: Option<PathBuf>,
    /// Folder with postgres and initdb; by default the one in PATH, else the newest of Debian's.
    #[arg(long)]
    postgres_binaries: Option<PathBuf>,
    /// What to log, such as `info` or `cota=debug`.
    #[arg(long, default_value = "warn")]
    log: String,
}

/// The private stores, while they run.
struct Stores {
    redis: RedisServer,
    postgres: PostgresServer,
}

pub async fn run(options: DevOptions) -> Result<(), CliError> {
    let folder = files::Folder::open(&options.data)?;
    println!("starting Redis and Postgres under {} …", options.data.display());
    let mut stores = start_stores(&options).await?;
    let result = serve(&options, &folder, &stores).await;
    folder.forget();
    stores.redis.stop().await?;
    stores.postgres.stop().await?;
    if result.is_ok() {
        println!("stopped; the data is kept under {}", options.data.display());
    }
    result
}

async fn start_stores(options: &DevOptions) -> Result<Stores, CliError> {
    let mut redis = RedisOptions::new(options.data.join("redis"));
    redis.port = options.redis_port;
    redis.binary.clone_from(&options.redis_binary);
    let mut postgres = PostgresOptions::new(options.data.join("postgres"));
    postgres.port = options.postgres_port;
    postgres.bin_dir.clone_from(&options.postgres_binaries);
    let (redis, postgres) = tokio::join!(RedisServer::start(redis), PostgresServer::start(postgres));
    let stores = Stores { redis: redis?, postgres: postgres? };
    stores.postgres.create_database(DATABASE).await?;
    Ok(stores)
}

async fn serve(options: &DevOptions, folder: &files::Folder, stores: &Stores) -> Result<(), CliError> {
    let config = configure(options, folder, stores)?;
    telemetry::init(&config.log).map_err(CliError::Log)?;
    let store = Store::connect(&config.postgres).await?;
    store.migrate().await?;
    let user = demo::user(&store, folder).await?;
    store.close().await;

    let stop = CancellationToken::new();
    let (started, addresses) = oneshot::channel();
    let service = tokio::spawn(app::run(config.clone(), stop.clone().cancelled_owned(), started));
    let announced = async {
        let addresses: Addresses =
            addresses.await.map_err(|_| CliError::Dev("the service ended before it listened".into()))?;
        ready::wait(addresses.http).await?;
        let facts = demo::facts(&config, stores_urls(stores), addresses, user)?;
        folder.announce(&facts)?;
        demo::print(&facts);
        Ok::<_, CliError>(())
    };
    let outcome = tokio::select! {
        outcome = async { announced.await?; shutdown::requested().await; Ok(()) } => outcome,
        () = shutdown::requested() => Ok(()),
    };
    println!("\nstopping …");
    stop.cancel();
    match service.await {
        Ok(ended) => ended?,
        Err(error) => return Err(CliError::Dev(error.to_string())),
    }
    outcome
}

fn stores_urls(stores: &Stores) -> demo::StoreUrls {
    demo::StoreUrls { redis: stores.redis.url(), postgres: stores.postgres.url(DATABASE) }
}

fn configure(options: &DevOptions, folder: &files::Folder, stores: &Stores) -> Result<Config, CliError> {
    let mut config = Config::default();
    config.http.listen = free_or(options.http_port);
    config.http.metrics_listen = free_or(options.metrics_port);
    config.auth.hs256_secret = Secret::new(folder.secret()?);
    config.redis.url = Secret::new(stores.redis.url());
    config.postgres.url = Secret::new(stores.postgres.url(DATABASE));
    config.log.filter.clone_from(&options.log);
    config.check()?;
    Ok(config)
}

/// The port asked for, or any free one when somebody has it already.
fn free_or(port: u16) -> SocketAddr {
    let asked = SocketAddr::from(([127, 0, 0, 1], port));
    match std::net::TcpListener::bind(asked) {
        Ok(_) => asked,
        Err(_) => SocketAddr::from(([127, 0, 0, 1], 0)),
    }
}
