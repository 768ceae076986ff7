//! Making a backup; the steps are told in the module above.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::{process::Command, time::interval};

use super::{
    BackupError,
    access::Access,
    archive::{self, Contents, checksum_file, private},
    folder::{Folder, Keep},
    programs::Programs,
};
use crate::{
    config::PostgresConfig,
    store::{Store, Task},
};

/// How often progress is told.
const PROGRESS: Duration = Duration::from_secs(5);

/// How long pg_dump waits for a migration that holds a table.
const LOCK_WAIT: &str = "--lock-wait-timeout=60s";

/// Makes backups of one database in one folder.
pub struct Backups {
    store: Store,
    access: Access,
    folder: Folder,
    keep: Keep,
}

/// A backup that was made.
#[derive(Clone, Debug)]
pub struct Made {
    pub path: PathBuf,
    pub bytes: u64,
    /// Tables whose rows are in it.
    pub tables: usize,
    /// Older ones that are gone now.
    pub removed: Vec<PathBuf>,
}

impl Backups {
    /// # Errors
    /// When the URL of Postgres is none.
    pub fn new(
        store: Store,
        postgres: &PostgresConfig,
        directory: &Path,
        keep: Keep,
    ) -> Result<Self, BackupError> {
        let access = Access::of(postgres)?;
        let folder = Folder::new(directory, access.database());
        Ok(Self { store, access, folder, keep })
    }

    /// When the newest in the folder was made; `None` when there is none.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn newest(&self) -> Result<Option<Timestamp>, BackupError> {
        let read = || {
            fs::create_dir_all(self.folder.path())?;
            self.folder.backups()
        };
        let backups = read().map_err(BackupError::io("reading", self.folder.path()))?;
        Ok(backups.first().map(|backup| backup.at))
    }

    /// Makes one, and thins out the older ones. `tell` hears now and then how many bytes are written.
    ///
    /// # Errors
    /// [`BackupError::Busy`] when another process makes one; else when anything of it fails. Then there is no backup,
    /// and every older one stays.
    pub async fn make(&self, tell: &mut (dyn FnMut(u64) + Send)) -> Result<Made, BackupError> {
        self.locked(None, tell).await?.ok_or(BackupError::Busy)
    }

    /// As [`Self::make`], if the newest is older than that and nobody makes one.
    pub async fn make_if_older(&self, than: SignedDuration) -> Result<Option<Made>, BackupError> {
        self.locked(Some(than), &mut |_| {}).await
    }

    async fn locked(
        &self,
        older_than: Option<SignedDuration>,
        tell: &mut (dyn FnMut(u64) + Send),
    ) -> Result<Option<Made>, BackupError> {
        let Some(lock) = self.store.try_lock_task(Task::Backups).await? else { return Ok(None) };
        // Under the lock: the one who held it may just have made one here.
        let newest = self.newest();
        let is_due = newest.as_ref().is_ok_and(|newest| {
            let age = newest.map(|newest| Timestamp::now().duration_since(newest));
            older_than.is_none_or(|than| age.is_none_or(|age| age >= than))
        });
        let made = match newest {
            Err(error) => Err(error),
            Ok(_) if is_due => self.make_one(tell).await.map(Some),
            Ok(_) => Ok(None),
        };
        lock.release().await;
        made
    }

    async fn make_one(&self, tell: &mut (dyn FnMut(u64) + Send)) -> Result<Made, BackupError> {
        let in_folder = |what| BackupError::io(what, self.folder.path());
        self.folder.clear_drafts().map_err(in_folder("clearing"))?;
        let programs = Programs::find(self.store.server_version().await?).await?;
        let tables = self.store.tables().await?;
        let at = Timestamp::now();
        let draft = self.folder.draft(at);
        let bytes = self.dump(&programs, &draft, tell).await?;
        let contents = Contents::read(&programs, &draft).await?;
        let lacks = contents.lacks(&tables);
        if !lacks.is_empty() {
            return Err(BackupError::Incomplete(lacks.join(", ")));
        }
        archive::read_whole(&programs, &draft).await?;
        let sum = archive::checksum(&draft).await?;
        let path = self.name(&draft, at, &sum).map_err(BackupError::io("naming", &draft))?;
        let removed =
            self.folder.thin(self.keep, Timestamp::now(), &path).map_err(in_folder("thinning out"))?;
        Ok(Made { path, bytes, tables: tables.len(), removed })
    }

    /// Runs pg_dump into a file of ours; says how long that is, once it is on disk.
    async fn dump(
        &self,
        programs: &Programs,
        draft: &Path,
        tell: &mut (dyn FnMut(u64) + Send),
    ) -> Result<u64, BackupError> {
        // Made before pg_dump opens it, so that nobody else can read it at any time.
        let file = private(draft).map_err(BackupError::io("making", draft))?;
        let mut command: Command = self.access.command(&programs.dump);
        command.args(["--format=custom", "--no-password", "--enable-row-security", LOCK_WAIT]);
        command.arg("--file").arg(draft);
        let work = archive::run("pg_dump", command);
        tokio::pin!(work);
        let mut ticks = interval(PROGRESS);
        ticks.tick().await;
        loop {
            tokio::select! {
                ended = &mut work => { ended?; break; }
                _ = ticks.tick() => tell(fs::metadata(draft).map_or(0, |metadata| metadata.len())),
            }
        }
        let sync = tokio::task::spawn_blocking(move || {
            file.sync_all()?;
            Ok(file.metadata()?.len())
        });
        // Only a panic or the end of the runtime ends the task otherwise.
        sync.await
            .unwrap_or_else(|error| Err(std::io::Error::other(error)))
            .map_err(BackupError::io("writing", draft))
    }

    /// From now on it is a backup.
    fn name(&self, draft: &Path, at: Timestamp, sum: &str) -> std::io::Result<PathBuf> {
        let name = self.folder.name(at);
        let path = self.folder.path().join(&name);
        let sum_draft = self.folder.path().join(format!("{name}.sha256.draft"));
        archive::write_checksum(&sum_draft, sum, &name)?;
        fs::rename(&sum_draft, checksum_file(&path))?;
        fs::rename(draft, &path)?;
        self.folder.sync()?;
        Ok(path)
    }
}
