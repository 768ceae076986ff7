//! Which pg_dump and pg_restore.

use std::{fs, path::PathBuf};

use tokio::process::Command;

use super::BackupError;

/// Where Debian keeps the programs of each version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// The two programs, of one version.
#[derive(Clone, Debug)]
pub struct Programs {
    pub dump: PathBuf,
    pub restore: PathBuf,
}

impl Programs {
    /// Those of the server's version, else of the next newer one that is here: an older pg_dump refuses the server, and
    /// what a much newer one writes an older pg_restore cannot read.
    ///
    /// # Errors
    /// When there are none, on `PATH` or in Debian's folders.
    pub async fn find(server: u32) -> Result<Self, BackupError> {
        let fitting = Self::all().await.into_iter().filter(|(version, _)| *version >= server);
        let nearest = fitting.min_by_key(|(version, _)| *version);
        nearest.map(|(_, programs)| programs).ok_or(BackupError::NoPrograms(server))
    }

    /// The newest, which read what any version has written.
    ///
    /// # Errors
    /// When there are none.
    pub async fn newest() -> Result<Self, BackupError> {
        let newest = Self::all().await.into_iter().max_by_key(|(version, _)| *version);
        newest.map(|(_, programs)| programs).ok_or(BackupError::NoPrograms(0))
    }

    async fn all() -> Vec<(u32, Self)> {
        let mut all = Vec::new();
        for folder in folders() {
            let found = Self { dump: folder.join("pg_dump"), restore: folder.join("pg_restore") };
            if !found.dump.is_file() || !found.restore.is_file() {
                continue;
            }
            if let Some(version) = version(&found).await {
                all.push((version, found));
            }
        }
        all
    }
}

fn folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = fs::read_dir(DEBIAN).into_iter().flatten().flatten().map(|entry| entry.path().join("bin"));
    std::env::split_paths(&path).chain(debian).collect()
}

/// The major version, as the program tells it: `pg_dump (PostgreSQL) 15.14 (Debian …)`.
async fn version(programs: &Programs) -> Option<u32> {
    let output = Command::new(&programs.dump).arg("--version").output().await.ok()?;
    parse(&String::from_utf8(output.stdout).ok()?)
}

fn parse(said: &str) -> Option<u32> {
    let number = said.split_once(") ")?.1;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(parse("pg_dump (PostgreSQL) 15.14 (Debian 15.14-0+deb12u1)\n"), Some(15));
        assert_eq!(parse("pg_dump (PostgreSQL) 18beta1\n"), Some(18));
        assert_eq!(parse("something else"), None);
    }
}
