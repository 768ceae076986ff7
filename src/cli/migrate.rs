//! `cota migrate`.

use std::time::{Duration, Instant};

use super::{CliError, progress::with_progress};
use crate::{config::Config, crypto::Keyring, quota::UserId, store::Store};

/// How often a long migration says that it still runs.
const PROGRESS: Duration = Duration::from_secs(5);

/// Addresses that are sealed in one SQL transaction.
const SEAL_BATCH: u32 = 500;

/// How long a replica that says nothing counts as running.
const REPLICA_SILENCE: Duration = Duration::from_secs(60);

/// Brings the schema up to date, then the rows. Two at once wait for each other.
pub(super) async fn run(config: &Config) -> Result<(), CliError> {
    let keyring = Keyring::of(&config.keys)?;
    eprintln!("Connecting to Postgres …");
    // Not connected: the role that the service acts as may be still to be made.
    let store = Store::lazy(&config.postgres, &keyring)?;
    let migrated = migrate(&store).await;
    store.close().await;
    migrated
}

/// Applies the migrations that are missing, and seals what an older version left plain.
pub(super) async fn migrate(store: &Store) -> Result<(), CliError> {
    match with_progress("Applying migrations", store.migrate()).await? {
        0 => println!("The schema is up to date."),
        1 => println!("Applied 1 migration."),
        n => println!("Applied {n} migrations."),
    }
    seal_emails(store).await
}

/// Seals the plain addresses that a version without seals left; quick when there are none.
async fn seal_emails(store: &Store) -> Result<(), CliError> {
    let older = store.replicas_without_seals(REPLICA_SILENCE).await?;
    let (mut after, mut seen, mut conflicts) = (None, 0, Vec::new());
    let mut said = Instant::now();
    loop {
        let step = store.seal_emails(after, SEAL_BATCH, older > 0).await?;
        seen += step.seen;
        conflicts.extend(step.conflicts);
        after = step.next;
        if after.is_none() {
            break;
        }
        if said.elapsed() >= PROGRESS {
            eprintln!("… {seen} e-mail addresses sealed");
            said = Instant::now();
        }
    }
    if seen > conflicts.len() {
        println!("Sealed {} e-mail addresses.", seen - conflicts.len());
    }
    if older > 0 && seen > 0 {
        println!(
            "{older} replicas of an older version run: the plain addresses stay until `cota migrate` runs without them."
        );
    }
    if conflicts.is_empty() { Ok(()) } else { Err(CliError::EmailsTaken(listed(&conflicts))) }
}

fn listed(users: &[UserId]) -> String {
    users.iter().map(UserId::to_string).collect::<Vec<_>>().join(", ")
}
