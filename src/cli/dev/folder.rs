//! The folder of `cota dev`: its lock, its secrets, its log and `dev.json`.

use std::{
    fs::{self, File, TryLockError},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{CliError, facts::Facts};
use crate::{config::KeysConfig, crypto::Keyring};

const FACTS: &str = "dev.json";
const SECRETS: &str = "secrets.json";
const LOG: &str = "cota.log";

/// Made once, so that JWTs and data outlive a restart.
#[derive(Deserialize, Serialize)]
pub(super) struct Secrets {
    pub(super) hs256_secret: String,
    pub(super) postgres_password: String,
    /// A folder of an older version has none: it gets new ones.
    #[serde(default)]
    pub(super) keys: KeysConfig,
}

/// The folder, which nobody else uses while this lives.
pub(super) struct Folder {
    path: PathBuf,
    /// The kernel lets go of the lock when we end, however we end.
    _lock: File,
}

impl Folder {
    /// Takes the folder; makes it if it is not there.
    ///
    /// # Errors
    /// [`CliError::AlreadyRunning`] when another `cota dev` has it.
    pub(super) fn open(path: &Path) -> Result<Self, CliError> {
        fs::create_dir_all(path).map_err(CliError::io("making", path))?;
        let lock_path = path.join("lock");
        let lock = File::options().create(true).append(true).open(&lock_path);
        let lock = lock.map_err(CliError::io("opening", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(CliError::AlreadyRunning { folder: path.to_owned(), details: details(path) });
            }
            Err(TryLockError::Error(error)) => return Err(CliError::io("locking", &lock_path)(error)),
        }
        let ignore = path.join(".gitignore");
        fs::write(&ignore, "*\n").map_err(CliError::io("writing", &ignore))?;
        let folder = Self { path: path.to_owned(), _lock: lock };
        // Of a run that was killed.
        folder.forget()?;
        Ok(folder)
    }

    /// The secrets; made at the first start.
    pub(super) fn secrets(&self) -> Result<Secrets, CliError> {
        let path = self.path.join(SECRETS);
        let mut secrets = match fs::read(&path) {
            Ok(text) => {
                serde_json::from_slice(&text).map_err(|e| CliError::io("reading", &path)(e.into()))?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Secrets {
                hs256_secret: random_text(),
                postgres_password: random_text(),
                keys: KeysConfig::default(),
            },
            Err(error) => return Err(CliError::io("reading", &path)(error)),
        };
        if secrets.keys.ring.is_empty() {
            secrets.keys = Keyring::generate("dev")?;
            write_private(&path, &secrets)?;
        }
        Ok(secrets)
    }

    /// Writes `dev.json`.
    pub(super) fn tell(&self, facts: &Facts) -> Result<(), CliError> {
        write_private(&self.facts_path(), facts)
    }

    /// Removes `dev.json`, if it is there.
    pub(super) fn forget(&self) -> Result<(), CliError> {
        match fs::remove_file(self.facts_path()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(CliError::io("removing", &self.facts_path())(error))
            }
            _ => Ok(()),
        }
    }

    /// The log, for appending.
    pub(super) fn log(&self) -> Result<File, CliError> {
        let path = self.log_path();
        File::options().create(true).append(true).open(&path).map_err(CliError::io("opening", &path))
    }

    pub(super) fn log_path(&self) -> PathBuf {
        self.path.join(LOG)
    }

    pub(super) fn facts_path(&self) -> PathBuf {
        self.path.join(FACTS)
    }
}

/// What the running one says of itself, if it is ready.
fn details(path: &Path) -> String {
    #[derive(Deserialize)]
    struct Running {
        url: String,
        pid: u32,
    }
    let text = fs::read(path.join(FACTS)).unwrap_or_default();
    serde_json::from_slice::<Running>(&text)
        .map(|running| format!(": process {}, {}", running.pid, running.url))
        .unwrap_or_default()
}

/// Writes a file that is there as a whole or not at all, and readable by its owner only.
fn write_private(path: &Path, value: &impl Serialize) -> Result<(), CliError> {
    let mut text = serde_json::to_vec_pretty(value).map_err(|e| CliError::io("writing", path)(e.into()))?;
    text.push(b'\n');
    let draft = path.with_extension("draft");
    let write = || {
        // A draft of a killed run may have other rights, and its mode would stay.
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&draft, path)
    };
    write().map_err(CliError::io("writing", path))
}

/// 244 random bits, safe in URLs.
fn random_text() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Temporary(PathBuf);

    impl Temporary {
        fn new() -> Self {
            Self(std::env::temp_dir().join(format!("cota-folder-{}", Uuid::new_v4().simple())))
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn one_at_a_time_and_the_second_hears_who_is_there() {
        let place = Temporary::new();
        let first = Folder::open(&place.0).unwrap();
        write_private(&first.facts_path(), &serde_json::json!({ "url": "http://there", "pid": 42 })).unwrap();
        let error = Folder::open(&place.0).err().unwrap().to_string();
        assert!(error.contains("42") && error.contains("http://there"), "{error}");
        assert!(first.facts_path().exists());
        drop(first);
        let next = Folder::open(&place.0).unwrap();
        assert!(!next.facts_path().exists(), "what a killed run said is gone");
    }

    #[test]
    fn secrets_are_made_once_and_private() {
        use std::os::unix::fs::PermissionsExt;
        let place = Temporary::new();
        let folder = Folder::open(&place.0).unwrap();
        let made = folder.secrets().unwrap();
        let found = folder.secrets().unwrap();
        assert_eq!(made.hs256_secret, found.hs256_secret);
        assert_eq!(made.postgres_password, found.postgres_password);
        assert_eq!(made.keys.index_key.expose(), found.keys.index_key.expose());
        Keyring::of(&found.keys).unwrap();
        assert!(made.hs256_secret.len() >= 32 && made.hs256_secret != made.postgres_password);
        let mode = fs::metadata(place.0.join(SECRETS)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
