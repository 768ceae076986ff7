//! Backups of Postgres: made, verified, thinned out, and brought back (`docs/BACKUP.md`).
//!
//! A backup is pg_dump's custom format in one file, with its SHA-256 in another beside it. Making one:
//!
//! 1. An advisory lock in Postgres, so that one process at a time does it.
//! 2. pg_dump writes a draft, whose name no reading of the folder takes for a backup; mode 0600 from its first byte.
//! 3. The draft is on disk, lists every table of the catalogue, and is read whole by pg_restore.
//! 4. The checksum gets its name, then the backup: with that it exists. Whatever fails before leaves only a draft, which
//!    the next run removes.
//! 5. Only then older ones go, never one that is not named and accompanied as ours are.
//!
//! Redis is in no backup: it is rebuilt from Postgres, and what it knows beyond a restored Postgres is booked by the
//! recovery (`ledger/restored.rs`).

mod access;
mod archive;
mod folder;
mod make;
mod programs;
mod restore;
mod schedule;

use std::{io, path::PathBuf};

pub use folder::Keep;
pub use make::{Backups, Made};
pub use restore::{Checked, Restore};
pub use schedule::Schedule;

use crate::store::StoreError;

/// Why there is no backup, or nothing was restored.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("another process makes a backup of this database now")]
    Busy,
    #[error("postgres.url names no host and database that pg_dump could be told")]
    Url,
    #[error(
        "there is no pg_dump and pg_restore of PostgreSQL {0} or newer (Debian: apt-get install postgresql-client)"
    )]
    NoPrograms(u32),
    #[error("{program} failed: {said}")]
    Program { program: &'static str, said: String },
    #[error("the backup lacks tables: {0}")]
    Incomplete(String),
    #[error("{0} is none of Cota's backups: it lacks tables that each of them has")]
    NotOurs(PathBuf),
    #[error("{0} is not what was written: its SHA-256 is another")]
    Damaged(PathBuf),
    #[error("there is no {0} to check the backup against")]
    NoChecksum(PathBuf),
    #[error("the database is not empty (it has {0}); make a new one, and name it in postgres.url")]
    NotEmpty(String),
}

impl BackupError {
    /// For `map_err`: what was being done to which path.
    fn io(what: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}
