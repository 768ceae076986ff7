//! Bringing a backup back, into an empty database.

use std::{path::Path, process::Stdio};

use tokio::io::AsyncWriteExt;

use super::{
    BackupError,
    access::Access,
    archive::{self, Contents},
    programs::Programs,
};
use crate::{config::PostgresConfig, store::Store};

/// A backup that was found whole.
pub struct Checked {
    contents: Contents,
}

impl Checked {
    /// Tables whose rows are in it.
    pub fn tables(&self) -> usize {
        self.contents.tables().len()
    }
}

/// Checks backups, and restores them.
pub struct Restore {
    store: Store,
    access: Access,
}

impl Restore {
    /// # Errors
    /// When the URL of Postgres is none.
    pub fn new(store: Store, postgres: &PostgresConfig) -> Result<Self, BackupError> {
        Ok(Self { store, access: Access::of(postgres)? })
    }

    /// Reads every byte of a backup: against its checksum, unless that is left out, and as a restore would. Needs no
    /// Postgres.
    ///
    /// # Errors
    /// When it is damaged, or none of ours.
    pub async fn check(file: &Path, with_checksum: bool) -> Result<Checked, BackupError> {
        if with_checksum {
            archive::compare(file).await?;
        }
        let programs = Programs::newest().await?;
        let contents = Contents::read(&programs, file).await?;
        if !contents.is_ours() {
            return Err(BackupError::NotOurs(file.to_owned()));
        }
        archive::read_whole(&programs, file).await?;
        Ok(Checked { contents })
    }

    /// # Errors
    /// When the database has tables already.
    pub async fn refuse_unless_empty(&self) -> Result<(), BackupError> {
        let tables = self.store.tables().await?;
        match tables.first() {
            None => Ok(()),
            Some(first) => {
                let first = first.replace(' ', ".");
                Err(BackupError::NotEmpty(format!("{} tables, {first} among them", tables.len())))
            }
        }
    }

    /// Puts everything into the database, in one SQL transaction: after an error it is as empty as before.
    ///
    /// # Errors
    /// When pg_restore fails, or a role that the backup names is missing.
    pub async fn load(&self, file: &Path, checked: &Checked) -> Result<(), BackupError> {
        let programs = Programs::find(self.store.server_version().await?).await?;
        self.store.ensure_role().await?;
        let mut command = self.access.command(&programs.restore);
        command
            .args(["--single-transaction", "--exit-on-error", "--no-owner", "--no-password"])
            // Where it is, libpq reads from its variables.
            .args(["--dbname=postgresql:///", "--use-list=/dev/stdin"])
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let work = async {
            let mut child = command.spawn()?;
            if let Some(mut stdin) = child.stdin.take() {
                stdin.write_all(checked.contents.portable().as_bytes()).await?;
            }
            child.wait_with_output().await
        };
        archive::judge("pg_restore", work.await)?;
        Ok(self.store.set_default_privileges().await?)
    }
}
