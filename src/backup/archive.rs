//! What is in a backup, and whether it is whole.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::{Output, Stdio},
};

use sha2::{Digest, Sha256};
use tokio::process::Command;

use super::{BackupError, programs::Programs};

/// Tables that every version of the schema has had.
const ALWAYS: [&str; 4] = ["_sqlx_migrations", "partitions", "token_transactions", "user_accounts"];

/// How much of what a program said is told.
const SAID: usize = 2_000;

/// The table of contents as pg_restore lists it.
pub struct Contents(String);

impl Contents {
    /// # Errors
    /// When pg_restore cannot read it.
    pub async fn read(programs: &Programs, file: &Path) -> Result<Self, BackupError> {
        let mut command = Command::new(&programs.restore);
        command.arg("--list").arg(file);
        let output = run("pg_restore", command).await?;
        Ok(Self(String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    /// The tables whose rows are in it, as `schema name`.
    pub fn tables(&self) -> Vec<String> {
        let named = |line: &str| {
            let rest = line.split_once(" TABLE DATA ")?.1;
            let mut words = rest.split(' ');
            Some(format!("{} {}", words.next()?, words.next()?))
        };
        self.0.lines().filter_map(named).collect()
    }

    /// Which of these tables are missing.
    pub fn lacks<'t>(&self, tables: &'t [String]) -> Vec<&'t str> {
        let there = self.tables();
        tables.iter().filter(|table| !there.contains(table)).map(String::as_str).collect()
    }

    /// Whether it is a backup of Cota's.
    pub fn is_ours(&self) -> bool {
        let there = self.tables();
        ALWAYS
            .iter()
            .all(|name| there.iter().any(|table| table.split_once(' ').is_some_and(|t| t.1 == *name)))
    }

    /// The list without what names its owner of then, which may be unknown where it is restored, and without the schema
    /// that every database has.
    pub fn portable(&self) -> String {
        let kept = self
            .0
            .lines()
            .filter(|line| !line.contains(" DEFAULT ACL ") && !line.contains(" SCHEMA - public "));
        kept.flat_map(|line| [line, "\n"]).collect()
    }
}

/// Reads every byte of it, as a restore would.
///
/// # Errors
/// When pg_restore finds it broken.
pub async fn read_whole(programs: &Programs, file: &Path) -> Result<(), BackupError> {
    let mut command = Command::new(&programs.restore);
    command.arg("--file=/dev/null").arg("--exit-on-error").arg(file);
    run("pg_restore", command).await.map(drop)
}

/// Runs a program to its end, without input; an error tells its last words.
///
/// # Errors
/// When it cannot be started, or ends with another status than 0.
pub async fn run(program: &'static str, mut command: Command) -> Result<Output, BackupError> {
    command.stdin(Stdio::null()).kill_on_drop(true);
    judge(program, command.output().await)
}

/// An error of a program that did not end well.
pub fn judge(program: &'static str, output: io::Result<Output>) -> Result<Output, BackupError> {
    let failed = |said: String| BackupError::Program { program, said };
    let output = output.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let start = said.len().saturating_sub(SAID);
    let start = (start..said.len()).find(|at| said.is_char_boundary(*at)).unwrap_or_default();
    Err(failed(format!("{} ({})", said[start..].trim().replace('\n', "; "), output.status)))
}

/// The file with a backup's checksum, as `sha256sum --check` reads it.
pub fn checksum_file(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".sha256");
    name.into()
}

/// Hexadecimal SHA-256 of a file.
pub async fn checksum(file: &Path) -> Result<String, BackupError> {
    let path = file.to_owned();
    let summed = tokio::task::spawn_blocking(move || sum(&path)).await;
    // Only a panic or the end of the runtime ends the task otherwise.
    summed.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(BackupError::io("reading", file))
}

fn sum(path: &Path) -> io::Result<String> {
    let (mut file, mut digest) = (File::open(path)?, Sha256::new());
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => digest.update(&buffer[..read]),
        }
    }
    Ok(digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Writes the checksum of `file`, which is called `name`, and gets it on disk.
pub fn write_checksum(path: &Path, sum: &str, name: &str) -> io::Result<()> {
    let mut file = private(path)?;
    file.write_all(format!("{sum}  {name}\n").as_bytes())?;
    file.sync_all()
}

/// Holds a backup against its checksum.
///
/// # Errors
/// When there is none, or the file is another one.
pub async fn compare(file: &Path) -> Result<(), BackupError> {
    let beside = checksum_file(file);
    let written = match std::fs::read_to_string(&beside) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(BackupError::NoChecksum(beside)),
        Err(error) => return Err(BackupError::io("reading", &beside)(error)),
    };
    let sum = checksum(file).await?;
    if written.split_whitespace().next() == Some(&*sum) {
        Ok(())
    } else {
        Err(BackupError::Damaged(file.to_owned()))
    }
}

/// A new file that only its owner can read.
pub fn private(path: &Path) -> io::Result<File> {
    File::options().write(true).create_new(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = ";
; Archive created at 2026-11-27
3432; 1262 16388 DATABASE - cota cota
5; 2615 2200 SCHEMA - public pg_database_owner
3433; 0 0 ACL - SCHEMA public pg_database_owner
216; 1259 16394 TABLE public partitions cota
3420; 0 16394 TABLE DATA public partitions cota
3421; 0 16400 TABLE DATA public user_accounts cota
2080; 826 16500 DEFAULT ACL public DEFAULT PRIVILEGES FOR TABLES cota
";

    #[test]
    fn a_list_is_read() {
        let contents = Contents(LIST.into());
        assert_eq!(contents.tables(), ["public partitions", "public user_accounts"]);
        let wanted = ["public partitions".to_owned(), "public grants".to_owned()];
        assert_eq!(contents.lacks(&wanted), ["public grants"]);
        assert!(!contents.is_ours());
        let kept = contents.portable();
        assert!(kept.contains("ACL - SCHEMA public") && kept.contains("TABLE DATA public partitions"));
        assert!(!kept.contains("DEFAULT ACL") && !kept.contains("SCHEMA - public"));
    }
}
