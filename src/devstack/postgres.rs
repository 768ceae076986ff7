//! A private Postgres: loopback only, its own data folder, never as root.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use sqlx::{Connection, PgConnection};
use tokio::process::{Child, Command};

use super::process::{
    DevstackError, PATIENCE, find_program, free_port, is_root, owned_command, run, signal, stop, until_ready,
};

const SYSTEM_USER: &str = "postgres";
const SUPERUSER: &str = "postgres";
const DEBIAN_VERSIONS: &str = "/usr/lib/postgresql";
const MAX_PORTS: usize = 5;

/// How to start a Postgres.
#[derive(Clone, Debug, Default)]
pub struct PostgresOptions {
    /// Data folder; initialised when absent.
    pub dir: PathBuf,
    /// `None`: any free one.
    pub port: Option<u16>,
    /// Folder with `initdb` and `postgres`. `None`: the newest of Debian's, else PATH.
    pub binaries: Option<PathBuf>,
    /// For tests: faster, and safe against a crash of the server, but not of the machine. Commits stay synchronous: an
    /// entry leaves the outbox once its commit was confirmed, so a commit that can be lost is a loss.
    pub volatile: bool,
}

/// A running Postgres; killed when dropped.
pub struct PostgresServer {
    child: Child,
    options: PostgresOptions,
    binaries: PathBuf,
    data: PathBuf,
    port: u16,
}

impl PostgresServer {
    /// Initialises the folder if need be, starts the server and waits until it answers.
    ///
    /// A server left over from a process that was killed is stopped first.
    ///
    /// # Errors
    /// When the programs are missing or the server does not get ready; the error brings the end of its log.
    pub async fn start(options: PostgresOptions) -> Result<Self, DevstackError> {
        let binaries = options.binaries.clone().or_else(find_binaries).ok_or_else(|| {
            DevstackError::NotInstalled { program: "postgres".into(), hint: "apt-get install postgresql" }
        })?;
        let data = reachable(&options.dir)?;
        stop_leftover(&data).await?;
        if !data.join("PG_VERSION").is_file() {
            initialise(&binaries, &data).await?;
        }
        let mut attempt = 1;
        loop {
            let port = options.port.map_or_else(free_port, Ok)?;
            match spawn(&options, &binaries, &data, port).await {
                Ok(child) => return Ok(Self { child, options, binaries, data, port }),
                // Somebody else took the port between the look and the start.
                Err(DevstackError::NotStarted { .. }) if options.port.is_none() && attempt < MAX_PORTS => {
                    attempt += 1
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// URL of one of its databases, as the superuser.
    pub fn url(&self, database: &str) -> String {
        url(self.port, database)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `None` while it is stopped.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Makes a database if it is not there.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn ensure_database(&self, name: &str) -> Result<(), DevstackError> {
        let failed =
            |e: sqlx::Error| DevstackError::NotStarted { program: "postgres".into(), why: e.to_string() };
        let mut connection = PgConnection::connect(&self.url("postgres")).await.map_err(failed)?;
        let exists = sqlx::query("SELECT 1 FROM pg_database WHERE datname = $1")
            .bind(name)
            .fetch_optional(&mut connection)
            .await
            .map_err(failed)?;
        if exists.is_none() {
            let statement = format!("CREATE DATABASE \"{}\"", name.replace('"', "\"\""));
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.map_err(failed)?;
        }
        connection.close().await.map_err(failed)
    }

    /// Ends all sessions and stops in order.
    pub async fn stop(&mut self) {
        stop(&mut self.child, "INT").await;
    }

    /// Stops at once, as a crash would.
    pub async fn kill(&mut self) {
        stop(&mut self.child, "QUIT").await;
    }

    /// Starts it again, on the same port and with the same data.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_again(&mut self) -> Result<(), DevstackError> {
        self.child = spawn(&self.options, &self.binaries, &self.data, self.port).await?;
        Ok(())
    }
}

fn url(port: u16, database: &str) -> String {
    format!("postgres://{SUPERUSER}@127.0.0.1:{port}/{database}")
}

/// Debian keeps the server's programs out of PATH, a folder per version.
fn find_binaries() -> Option<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir(DEBIAN_VERSIONS)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .filter(|(_, folder)| folder.join("initdb").is_file())
        .collect();
    versions.sort();
    let newest = versions.pop().map(|(_, folder)| folder);
    newest.or_else(|| find_program("initdb")?.parent().map(Path::to_path_buf))
}

/// The user the server runs as; it refuses to be root.
fn server_user() -> Option<&'static str> {
    is_root().then_some(SYSTEM_USER)
}

/// The data folder, where the server's user can get to it. As root the folder is given to that user; if a parent of it
/// is closed to others (a home folder, say), the data goes under /var/lib instead, always to the same place.
fn reachable(dir: &Path) -> Result<PathBuf, DevstackError> {
    let dir = std::path::absolute(dir).map_err(DevstackError::io(dir.display().to_string()))?;
    if server_user().is_none() {
        std::fs::create_dir_all(&dir).map_err(DevstackError::io(dir.display().to_string()))?;
        return Ok(dir);
    }
    let open = |parent: &Path| {
        std::fs::metadata(parent)
            .is_ok_and(|meta| std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o001 != 0)
    };
    std::fs::create_dir_all(&dir).map_err(DevstackError::io(dir.display().to_string()))?;
    if dir.ancestors().skip(1).all(open) {
        return Ok(dir);
    }
    let name: String =
        dir.to_string_lossy().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let elsewhere = Path::new("/var/lib/cota").join(name.trim_matches('-'));
    std::fs::create_dir_all(&elsewhere).map_err(DevstackError::io(elsewhere.display().to_string()))?;
    Ok(elsewhere)
}

async fn initialise(binaries: &Path, data: &Path) -> Result<(), DevstackError> {
    if let Some(user) = server_user() {
        let mut chown = Command::new("chown");
        chown.arg(format!("{user}:")).arg(data);
        run(chown, "chown").await?;
    }
    let mut initdb = owned_command(&binaries.join("initdb"), server_user());
    initdb.arg("--pgdata").arg(data).args([
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--no-sync",
    ]);
    initdb.args(["--username", SUPERUSER]).current_dir("/");
    run(initdb, "initdb").await
}

/// The first line of `postmaster.pid` is the server's process id; whether it is still that server, /proc says.
async fn stop_leftover(data: &Path) -> Result<(), DevstackError> {
    let pid_of = || -> Option<u32> {
        let text = std::fs::read_to_string(data.join("postmaster.pid")).ok()?;
        let pid: u32 = text.lines().next()?.trim().parse().ok()?;
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let names_us = command.split(|byte| *byte == 0).any(|arg| arg == data.as_os_str().as_encoded_bytes());
        names_us.then_some(pid)
    };
    let Some(pid) = pid_of() else { return Ok(()) };
    let parent = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let orphaned = parent.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1)) == Some("1");
    if !orphaned {
        return Err(DevstackError::InUse(data.display().to_string(), pid));
    }
    signal(pid, "INT").await;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while pid_of().is_some() {
        if tokio::time::Instant::now() >= deadline {
            return Err(DevstackError::InUse(data.display().to_string(), pid));
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn spawn(
    options: &PostgresOptions,
    binaries: &Path,
    data: &Path,
    port: u16,
) -> Result<Child, DevstackError> {
    let log = data.with_extension("log");
    let file = std::fs::File::create(&log).map_err(DevstackError::io(log.display().to_string()))?;
    let errors = file.try_clone().map_err(DevstackError::io(log.display().to_string()))?;
    let mut command = owned_command(&binaries.join("postgres"), server_user());
    command.arg("-D").arg(data).args(["-p", &port.to_string()]);
    command.args([
        "-c",
        "listen_addresses=127.0.0.1",
        "-c",
        "unix_socket_directories=",
        "-c",
        "max_connections=300",
    ]);
    if options.volatile {
        command.args(["-c", "fsync=off", "-c", "full_page_writes=off"]);
    }
    command.current_dir("/").stdout(Stdio::from(file)).stderr(Stdio::from(errors));
    let mut child = command.spawn().map_err(DevstackError::io("postgres"))?;
    until_ready(&mut child, "postgres", &log, async || answers(port, data).await).await?;
    Ok(child)
}

/// Whether the server on this port answers and serves this data folder.
async fn answers(port: u16, data: &Path) -> bool {
    let Ok(mut connection) = PgConnection::connect(&url(port, "postgres")).await else { return false };
    let folder: Result<String, _> =
        sqlx::query_scalar("SELECT current_setting('data_directory')").fetch_one(&mut connection).await;
    folder.is_ok_and(|folder| Path::new(&folder) == data)
}
