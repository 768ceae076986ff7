//! `cota audit`.

use std::{path::PathBuf, time::Instant};

use clap::Subcommand;
use jiff::Timestamp;

use super::CliError;
use crate::{
    accounts::checkpoints::{self, Checkpoints, Trusted},
    config::Config,
    crypto::Keyring,
    store::{Extent, Store},
};

#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// Check the whole audit log: its chains, the ledger and the grants against it, and the checkpoints. The service may
    /// run meanwhile. Ends with status 1 when something is wrong.
    Verify {
        /// Folder or file with checkpoints (default: audit.checkpoint_dir).
        #[arg(long, value_name = "PATH")]
        checkpoints: Option<PathBuf>,
    },
    /// Write a checkpoint now.
    Checkpoint {
        /// The folder (default: audit.checkpoint_dir).
        #[arg(long, value_name = "FOLDER")]
        folder: Option<PathBuf>,
    },
}

pub(super) async fn run(command: &AuditCommand, config: &Config) -> Result<(), CliError> {
    let keyring = Keyring::of(&config.keys)?;
    let store = Store::connect(&config.postgres, &keyring).await?;
    let configured = config.audit.checkpoint_dir.clone();
    let done = match command {
        AuditCommand::Verify { checkpoints } => {
            verify(&store, &keyring, checkpoints.clone().or(configured)).await
        }
        AuditCommand::Checkpoint { folder } => {
            checkpoint(&store, &keyring, folder.clone().or(configured)).await
        }
    };
    store.close().await;
    done
}

async fn verify(store: &Store, keyring: &Keyring, checkpoints: Option<PathBuf>) -> Result<(), CliError> {
    let trusted = match &checkpoints {
        Some(path) => checkpoints::read(path, keyring)?,
        None => Trusted::default(),
    };
    let started = Instant::now();
    let mut progress = |rows: u64, transactions: u64| {
        eprintln!("… {rows} rows, {transactions} transactions after {} s", started.elapsed().as_secs());
    };
    let found = store.verify_audit(Extent::Whole, &trusted.heads, &mut progress).await?;
    println!("{} rows of the log, {} transactions.", found.rows, found.transactions);
    match checkpoints {
        Some(_) => println!("{} checkpoints.", trusted.checkpoints),
        None => println!("No checkpoints: a cut end would not be seen."),
    }
    if trusted.unknown_keys > 0 {
        println!("{} checkpoints were signed by keys that are not in the ring.", trusted.unknown_keys);
    }
    for line in &trusted.broken {
        println!("checkpoint {line}: its signature is wrong");
    }
    for finding in &found.findings {
        let row = finding.number.map(|number| format!(", row {number}")).unwrap_or_default();
        println!("chain {}{row}: {}", finding.chain, finding.flaw);
    }
    if found.more > 0 {
        println!("… and {} more", found.more);
    }
    let flaws = found.findings.len() as u64 + found.more + trusted.broken.len() as u64;
    if flaws == 0 {
        println!("Everything is as it was written.");
        Ok(())
    } else {
        Err(CliError::Unsound(flaws))
    }
}

async fn checkpoint(store: &Store, keyring: &Keyring, folder: Option<PathBuf>) -> Result<(), CliError> {
    let folder = folder.ok_or(CliError::Usage("name a folder, or set audit.checkpoint_dir"))?;
    let name = format!("command-{}", std::process::id());
    let mut checkpoints = Checkpoints::new(store.clone(), keyring.clone(), &folder, name);
    checkpoints.write(Timestamp::now()).await?;
    println!("Written to {}.", folder.display());
    Ok(())
}
