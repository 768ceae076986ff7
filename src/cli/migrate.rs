//! `cota migrate`: the schema, up to this version.

use super::CliError;
use crate::{config::Config, quota::Partitions, store::Store};

pub async fn run(config: &Config) -> Result<(), CliError> {
    println!("connecting to Postgres …");
    let store = Store::connect(&config.postgres).await?;
    println!("migrating …");
    let applied = store.migrate().await?;
    let wanted = Partitions::new(config.ledger.partitions);
    if let Some(wanted) = wanted {
        let partitions = store.ensure_partitions(wanted).await?;
        println!("{applied} migrations applied, {} partitions", partitions.count());
    }
    store.close().await;
    Ok(())
}
