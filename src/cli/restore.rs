//! `cota restore`.

use std::path::PathBuf;

use super::{CliError, migrate::migrate, progress::with_progress};
use crate::{
    backup::Restore,
    config::Config,
    crypto::Keyring,
    store::{Extent, Store},
};

#[derive(Debug, clap::Args)]
pub(super) struct RestoreOptions {
    /// The backup.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Do without the checksum in FILE.sha256.
    #[arg(long)]
    without_checksum: bool,
}

/// Restores into the database that the configuration names, which has to be empty, and checks what is there then.
pub(super) async fn run(options: &RestoreOptions, config: &Config) -> Result<(), CliError> {
    let keyring = Keyring::of(&config.keys)?;
    // Not connected: the role that the service acts as may be still to be made.
    let store = Store::lazy(&config.postgres, &keyring)?;
    let restored = restore(options, config, &store).await;
    store.close().await;
    restored
}

async fn restore(options: &RestoreOptions, config: &Config, store: &Store) -> Result<(), CliError> {
    let restore = Restore::new(store.clone(), &config.postgres)?;
    restore.refuse_unless_empty().await?;
    let check = Restore::check(&options.file, !options.without_checksum);
    let checked = with_progress("Reading the backup", check).await?;
    with_progress("Restoring", restore.load(&options.file, &checked)).await?;
    println!("Restored {} tables.", checked.tables());
    migrate(store).await?;
    store.restored().await?;
    verify(store).await?;
    println!(
        "Start the service now. It holds every account against Redis and books what Redis knows beyond this."
    );
    Ok(())
}

/// The audit log against itself, the ledger and the grants; the accounts against the ledger.
async fn verify(store: &Store) -> Result<(), CliError> {
    let verification = async { store.verify_audit(Extent::Whole, &[], &mut |_, _| {}).await };
    let found = with_progress("Verifying the audit log", verification).await?;
    for finding in &found.findings {
        println!("chain {}: {}", finding.chain, finding.flaw);
    }
    let drift = store.drift().await?;
    for account in &drift {
        println!("account {}: used tokens are not the sum of its transactions", account.user);
    }
    match found.findings.len() as u64 + found.more + drift.len() as u64 {
        0 => {
            println!("The audit log is sound: {} rows, {} transactions.", found.rows, found.transactions);
            Ok(())
        }
        flaws => Err(CliError::Unsound(flaws)),
    }
}
