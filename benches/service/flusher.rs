//! The flusher alone, with everything it does per row, against a plain `COPY` of the same rows into the same table.

use std::{fs, path::PathBuf, time::Duration};

use cota::{
    config::{Config, Secret},
    crypto::Keyring,
    devstack::{PostgresOptions, PostgresServer, RedisOptions, RedisServer},
    flusher::Flusher,
    ledger::{Ledger, Running},
    quota::{Charge, Debit, Model, Partitions, ReservationId, Tokens},
    store::Store,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use sqlx::{Connection, PgConnection, postgres::PgPoolCopyExt};
use tokio::time::{Instant, sleep};

use crate::{AnyError, accounts, figures::Figures, figures::target_folder};

const ROUNDS: u32 = 3;
const ROWS: u64 = 50_000;
/// Accounts the rows are spread over.
const ACCOUNTS: u64 = 1_000;
const DATABASE: &str = "bench";
const PATIENCE: Duration = Duration::from_secs(60);

/// Both stores and a ledger in this process, without a flusher.
struct World {
    folder: PathBuf,
    _redis: RedisServer,
    _postgres: PostgresServer,
    url: String,
    ledger: Ledger,
    running: Running,
    flusher: Flusher,
}

pub async fn measure(figures: &mut Figures) -> Result<(), AnyError> {
    let world = World::start().await?;
    for round in 0..ROUNDS {
        eprintln!("flusher, round {} of {ROUNDS}", round + 1);
        world.fill(round).await?;
        let started = Instant::now();
        if !world.flusher.drain(PATIENCE).await {
            return Err("the outbox did not empty".into());
        }
        let flushed = ROWS as f64 / started.elapsed().as_secs_f64();
        let copied = world.copy().await?;
        figures.add("flusher_rows_per_s", flushed);
        figures.add("flusher_vs_copy", flushed / copied);
    }
    world.stop().await
}

impl World {
    async fn start() -> Result<Self, AnyError> {
        let folder = fs::canonicalize(target_folder())?.join(format!("bench-flusher-{}", std::process::id()));
        let redis = RedisServer::start(RedisOptions::new(folder.join("redis"))).await?;
        let postgres = PostgresServer::start(PostgresOptions::new(folder.join("postgres"))).await?;
        postgres.create_database(DATABASE).await?;
        let url = postgres.url(DATABASE);
        let mut config = Config::default();
        config.redis.url = Secret::new(redis.url());
        config.postgres.url = Secret::new(&url);
        let store = Store::lazy(&config.postgres, &Keyring::of(&Keyring::generate("bench")?)?)?;
        store.migrate().await?;
        let partitions = Partitions::new(config.ledger.partitions).ok_or("no partitions")?;
        let partitions = store.ensure_partitions(partitions).await?;
        accounts::insert(&mut PgConnection::connect(&url).await?, ACCOUNTS).await?;
        let (ledger, background) = Ledger::new(&config, store.clone(), partitions)?;
        let running = background.start();
        let flusher = Flusher::new(ledger.outbox().clone(), store, partitions, config.flusher);
        while !ledger.closed_partitions().is_empty() {
            sleep(Duration::from_millis(20)).await;
        }
        Ok(Self { folder, _redis: redis, _postgres: postgres, url, ledger, running, flusher })
    }

    /// Leaves `ROWS` entries in the outbox.
    async fn fill(&self, round: u32) -> Result<(), AnyError> {
        let debits = (0..ROWS).map(|number| async move {
            let ask = Debit {
                id: ReservationId::new(&format!("f{round}-{number}"))?,
                charge: Charge::Tokens(Tokens::new(1)?),
                model: Some(Model::new("gpt-5")?),
                request_id: None,
            };
            let user = accounts::user(number % ACCOUNTS);
            let debit = self.ledger.debit(user, ask, Instant::now() + PATIENCE).await;
            debit.map(drop).map_err(|refusal| AnyError::from(format!("{refusal:?}")))
        });
        stream::iter(debits).buffer_unordered(512).try_collect::<()>().await
    }

    /// Takes the ledger's rows out and copies them in again; rows per second.
    async fn copy(&self) -> Result<f64, AnyError> {
        let mut postgres = PgConnection::connect(&self.url).await?;
        let pool = sqlx::PgPool::connect(&self.url).await?;
        let rows: Vec<_> =
            pool.copy_out_raw("COPY token_transactions TO STDOUT").await?.try_collect().await?;
        sqlx::query("TRUNCATE token_transactions CASCADE").execute(&mut postgres).await?;
        let started = Instant::now();
        let mut copy = postgres.copy_in_raw("COPY token_transactions FROM STDIN").await?;
        for chunk in rows.chunks(256) {
            copy.send(chunk.concat()).await?;
        }
        let copied = copy.finish().await?;
        let took = started.elapsed().as_secs_f64();
        if copied != ROWS {
            return Err(format!("{copied} rows in the ledger instead of {ROWS}").into());
        }
        sqlx::query("TRUNCATE token_transactions CASCADE").execute(&mut postgres).await?;
        pool.close().await;
        Ok(copied as f64 / took)
    }

    async fn stop(self) -> Result<(), AnyError> {
        self.running.stop().await;
        let Self { folder, mut _redis, mut _postgres, .. } = self;
        _redis.kill().await?;
        _postgres.kill().await?;
        Ok(fs::remove_dir_all(folder)?)
    }
}
