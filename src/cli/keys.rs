//! `cota keys`: making keys, and moving what is sealed from one to the next.

use std::time::{Duration, Instant};

use clap::Subcommand;
use jiff::Zoned;
use uuid::Uuid;

use super::CliError;
use crate::{
    config::{Config, Secret},
    crypto::Keyring,
    store::{SealedColumn, Store},
};

/// How often a long rotation says how far it is.
const PROGRESS: Duration = Duration::from_secs(5);

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Print a `[keys]` section with new random keys, for the configuration file.
    Generate(GenerateOptions),
    /// Seal everything with the active key that another one has sealed. The service may run meanwhile.
    Rotate(RotateOptions),
    /// Say how much each key has sealed: one that has nothing left may be removed.
    Status,
}

#[derive(Debug, clap::Args)]
pub(super) struct GenerateOptions {
    /// Id of the new key: 1 to 32 characters of a-z 0-9 . _ - (default: the month).
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Only a `[[keys.ring]]` table, to be added to a ring that is in use.
    #[arg(long)]
    add: bool,
}

#[derive(Debug, clap::Args)]
pub(super) struct RotateOptions {
    /// Values in one SQL transaction.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// Milliseconds to rest after each, for a database that is busy.
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pause_ms: u64,
}

pub(super) async fn run(
    command: &KeysCommand,
    load: impl FnOnce() -> Result<Config, CliError>,
) -> Result<(), CliError> {
    if let KeysCommand::Generate(options) = command {
        return generate(options);
    }
    let config = load()?;
    let keyring = Keyring::of(&config.keys)?;
    let store = Store::connect(&config.postgres, &keyring).await?;
    let done = match command {
        KeysCommand::Rotate(options) => rotate(&store, keyring.active(), options).await,
        _ => status(&store, keyring.active()).await,
    };
    store.close().await;
    done
}

fn generate(options: &GenerateOptions) -> Result<(), CliError> {
    let this_month = || Zoned::now().strftime("%Y-%m").to_string();
    let id = options.id.clone().unwrap_or_else(this_month);
    let keys = Keyring::generate(&id)?;
    // For the rules of the id.
    Keyring::of(&keys)?;
    if !options.add {
        println!("[keys]\nactive = \"{id}\"\nindex_key = \"{}\"\n", keys.index_key.expose());
    }
    for entry in &keys.ring {
        let key = entry.key.as_ref().map(Secret::expose).unwrap_or_default();
        println!("[[keys.ring]]\nid = \"{id}\"\nkey = \"{key}\"");
    }
    Ok(())
}

/// Ended in the middle, it is simply started again: it goes on with what is left.
async fn rotate(store: &Store, active: &str, options: &RotateOptions) -> Result<(), CliError> {
    let mut broken = Vec::new();
    for column in store.sealed_columns().await? {
        let name = format!("{}.{}", column.table, column.column);
        let resealed = rotate_column(store, &column, options, &mut broken).await?;
        println!("{name}: {resealed} values sealed with the key {active:?}");
    }
    if broken.is_empty() { Ok(()) } else { Err(CliError::Unopened(broken.len(), broken.join("; "))) }
}

async fn rotate_column(
    store: &Store,
    column: &SealedColumn,
    options: &RotateOptions,
    broken: &mut Vec<String>,
) -> Result<usize, CliError> {
    let (mut after, mut resealed, mut said) = (Uuid::nil(), 0, Instant::now());
    loop {
        let step = store.reseal(column, after, options.batch).await?;
        resealed += step.resealed;
        for (row, why) in step.broken {
            broken.push(format!("{}.{} of {row}: {why}", column.table, column.column));
        }
        let Some(next) = step.next else { return Ok(resealed) };
        after = next;
        if said.elapsed() >= PROGRESS {
            eprintln!("… {}.{}: {resealed} so far", column.table, column.column);
            said = Instant::now();
        }
        tokio::time::sleep(Duration::from_millis(options.pause_ms)).await;
    }
}

async fn status(store: &Store, active: &str) -> Result<(), CliError> {
    println!("active: {active:?}");
    for column in store.sealed_columns().await? {
        for count in store.sealed_counts(&column).await? {
            println!("{}.{}: {} by {:?}", column.table, column.column, count.values, count.key_id);
        }
    }
    Ok(())
}
