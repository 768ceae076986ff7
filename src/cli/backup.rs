//! `cota backup`.

use std::{path::PathBuf, time::Instant};

use super::{CliError, progress::with_progress};
use crate::{
    backup::{Backups, Keep, Restore},
    config::Config,
    crypto::Keyring,
    store::Store,
};

#[derive(Debug, clap::Args)]
pub(super) struct BackupOptions {
    /// The folder (default: backup.directory).
    #[arg(long, value_name = "FOLDER")]
    to: Option<PathBuf>,
    /// How many backups stay, the newest (default: backup.keep).
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    keep: Option<u32>,
    /// Those that are younger stay as well (default: backup.keep_days).
    #[arg(long, value_name = "DAYS")]
    keep_days: Option<u32>,
    /// Make none: check this one, every byte of it. Needs no Postgres.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["to", "keep", "keep_days"])]
    check: Option<PathBuf>,
}

pub(super) async fn run(options: &BackupOptions, config: &Config) -> Result<(), CliError> {
    if let Some(file) = &options.check {
        let checked = with_progress("Reading the backup", Restore::check(file, true)).await?;
        println!("{} is whole: {} tables.", file.display(), checked.tables());
        return Ok(());
    }
    let directory = options.to.as_ref().or(config.backup.directory.as_ref());
    let directory = directory.ok_or(CliError::Usage("name a folder with --to, or set backup.directory"))?;
    let keep = Keep {
        newest: options.keep.map_or(config.backup.keep, |keep| keep as usize),
        days: options.keep_days.unwrap_or(config.backup.keep_days),
    };
    let store = Store::connect(&config.postgres, &Keyring::of(&config.keys)?).await?;
    let backups = Backups::new(store.clone(), &config.postgres, directory, keep)?;
    eprintln!("Making a backup …");
    let started = Instant::now();
    let mut tell =
        |bytes: u64| eprintln!("… {} MB after {} s", bytes / 1_000_000, started.elapsed().as_secs());
    let made = backups.make(&mut tell).await;
    store.close().await;
    let made = made?;
    println!("{}: {} bytes, {} tables, verified.", made.path.display(), made.bytes, made.tables);
    for path in &made.removed {
        println!("Removed {}.", path.display());
    }
    Ok(())
}
