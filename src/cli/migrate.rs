//! `cota migrate`.

use std::time::{Duration, Instant};

use super::CliError;
use crate::{config::Config, store::Store};

/// How often a long migration says that it still runs.
const PROGRESS: Duration = Duration::from_secs(5);

/// Brings the schema up to date. Two at once wait for each other.
pub(super) async fn run(config: &Config) -> Result<(), CliError> {
    eprintln!("Connecting to Postgres …");
    let store = Store::connect(&config.postgres).await?;
    let applied = with_progress(&store).await;
    store.close().await;
    match applied? {
        0 => println!("The schema is up to date."),
        1 => println!("Applied 1 migration."),
        n => println!("Applied {n} migrations."),
    }
    Ok(())
}

async fn with_progress(store: &Store) -> Result<usize, CliError> {
    eprintln!("Applying migrations …");
    let started = Instant::now();
    let mut ticks = tokio::time::interval(PROGRESS);
    ticks.tick().await;
    let migration = store.migrate();
    tokio::pin!(migration);
    loop {
        tokio::select! {
            applied = &mut migration => return Ok(applied?),
            _ = ticks.tick() => eprintln!("… still running after {} s", started.elapsed().as_secs()),
        }
    }
}
