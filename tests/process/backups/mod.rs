//! `cota backup` and `cota restore`, as operators run them.

mod command;
mod restored;
mod schedule;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use cota::config::Secret;

use crate::support::{TestDatabase, servers, world::World};

/// Also looked for in everything that is said.
const SECRET: &str = "a secret of more than thirty-two bytes";

/// The password in every URL of these tests. The server asks for none, and takes any.
const PASSWORD: &str = "canary-password";

async fn world() -> World {
    World::with(0, |config| {
        config.auth.hs256_secret = Secret::new(SECRET);
        config.postgres.url = Secret::new(with_password(config.postgres.url.expose()));
    })
    .await
}

fn with_password(url: &str) -> String {
    url.replacen('@', &format!(":{PASSWORD}@"), 1)
}

/// What a command said and how it ended.
struct Said {
    ok: bool,
    text: String,
}

impl Said {
    #[track_caller]
    fn done(self) -> String {
        assert!(self.ok, "{}", self.text);
        self.text
    }

    /// It failed, saying this.
    #[track_caller]
    fn refused(self, why: &str) {
        assert!(!self.ok && self.text.contains(why), "{why}: {}", self.text);
    }
}

/// A command of `cota` on this database.
fn command(url: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cota"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("COTA_")) {
        command.env_remove(name);
    }
    command
        .args(arguments)
        .env("COTA_POSTGRES__URL", url)
        .env("COTA_AUTH__HS256_SECRET", SECRET)
        .envs(servers::keys_environment(&servers::keys()));
    command
}

/// Runs it; no secret may be in what it says.
async fn run(mut command: Command) -> Said {
    let output: Output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    let text = String::from_utf8([&*output.stdout, &*output.stderr].concat()).unwrap();
    assert!(!text.contains(PASSWORD) && !text.contains(SECRET), "{text}");
    Said { ok: output.status.success(), text }
}

async fn cota(url: &str, arguments: &[&str]) -> Said {
    run(command(url, arguments)).await
}

/// Makes a backup and says where it is.
async fn backup(url: &str, folder: &Path) -> PathBuf {
    let before = backups(folder);
    cota(url, &["backup", "--to", folder.to_str().unwrap()]).await.done();
    let made: Vec<PathBuf> = backups(folder).into_iter().filter(|path| !before.contains(path)).collect();
    assert_eq!(made.len(), 1);
    made.into_iter().next().unwrap()
}

async fn restore(url: &str, file: &Path) -> Said {
    cota(url, &["restore", file.to_str().unwrap()]).await
}

/// The backups in a folder, oldest first.
fn backups(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "dump")).collect();
    found.sort();
    found
}

async fn tables(database: &TestDatabase) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        .fetch_one(database.pool())
        .await
        .unwrap()
}
