//! A private Postgres: loopback only, as the `postgres` system user when we are root.

use std::{
    fs,
    path::PathBuf,
    time::{Duration, Instant},
};

use sqlx::{Connection, PgConnection};

use super::{
    DevstackError, Signal,
    cluster::{self, Cluster, ROLE},
    leftover, ports,
    process::Process,
};

/// How long a start may take, crash recovery included.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// How long a stop may take.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
const PID_FILE: &str = "postmaster.pid";

/// How a Postgres is started.
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// Data and log; made if absent.
    pub dir: PathBuf,
    /// A free loopback port when absent.
    pub port: Option<u16>,
    /// The folder of `postgres` and `initdb`; from `PATH`, else the newest of Debian's, when absent.
    pub bin_dir: Option<PathBuf>,
    /// Asked of every connection; set when the data is made. Without one, loopback is trusted.
    pub password: Option<String>,
    /// For tests: faster, and safe against a crash of the server, but not of the machine. Commits stay synchronous:
    /// an entry leaves the outbox once its commit was confirmed, so a commit that can be lost is a loss.
    pub fast: bool,
    pub max_connections: u32,
    /// More arguments for `postgres`, such as `-c`, `work_mem=8MB`; what they set goes first.
    pub extra_args: Vec<String>,
}

impl PostgresOptions {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            port: None,
            bin_dir: None,
            password: None,
            fast: false,
            max_connections: 100,
            extra_args: Vec::new(),
        }
    }
}

/// A Postgres of our own. Stopped at once when dropped.
#[derive(Debug)]
pub struct PostgresServer {
    options: PostgresOptions,
    cluster: Cluster,
    port: u16,
    process: Option<Process>,
}

impl PostgresServer {
    /// Makes the data if there is none, starts Postgres and waits until it takes connections. One that an earlier
    /// run left on this data is stopped first.
    ///
    /// # Errors
    /// When there is no Postgres, no system user to run it as, or it does not come up; the text carries its last
    /// words.
    pub async fn start(options: PostgresOptions) -> Result<Self, DevstackError> {
        let cluster =
            cluster::open(&options.dir, options.bin_dir.as_deref(), options.password.as_deref()).await?;
        let mut server = Self { options, cluster, port: 0, process: None };
        const ATTEMPTS: usize = 10;
        let mut attempt = 1;
        loop {
            server.port = match server.options.port {
                Some(port) => port,
                None => ports::free_port()
                    .map_err(|source| DevstackError::Io { what: "finding a free port".into(), source })?,
            };
            let may_move = server.options.port.is_none() && attempt < ATTEMPTS;
            match server.run().await {
                Err(error) if error.is_port_taken() && may_move => attempt += 1,
                result => return result.map(|()| server),
            }
        }
    }

    async fn run(&mut self) -> Result<(), DevstackError> {
        let data = &self.cluster.data;
        let pid_file = data.join(PID_FILE);
        leftover::stop(&pid_file, "postgres", data, Signal::INT).await?;
        let mut command = self.cluster.command("postgres", "INT");
        let mut set = |setting: String| {
            command.arg("-c").arg(setting);
        };
        set("listen_addresses=127.0.0.1".into());
        set(format!("port={}", self.port));
        set("unix_socket_directories=".into());
        set(format!("max_connections={}", self.options.max_connections));
        set("logging_collector=off".into());
        set("log_destination=stderr".into());
        if self.options.fast {
            for name in ["fsync", "full_page_writes"] {
                set(format!("{name}=off"));
            }
        }
        command.args(&self.options.extra_args);
        let process =
            Process::spawn("postgres", command, &self.options.dir.join("postgres.log"), Signal::QUIT)?;
        let pid = process.pid().to_string();
        process.ready(START_PATIENCE, async || is_ready(&pid_file, &pid)).await?;
        self.process = Some(process);
        Ok(())
    }

    /// The URL of one of its databases.
    pub fn url(&self, database: &str) -> String {
        self.url_of(ROLE, database)
    }

    /// As [`Self::url`], for a login that [`Self::create_login`] made.
    pub fn url_of(&self, login: &str, database: &str) -> String {
        let password =
            self.options.password.as_ref().map(|password| format!(":{password}")).unwrap_or_default();
        format!("postgres://{login}{password}@127.0.0.1:{}/{database}?sslmode=disable", self.port)
    }

    /// Where Postgres listens; the same after every restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id of the postmaster while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Makes a database if there is none of this name.
    ///
    /// # Errors
    /// When Postgres cannot be reached or refuses.
    pub async fn create_database(&self, name: &str) -> Result<(), DevstackError> {
        let mut connection = PgConnection::connect(&self.url("postgres")).await?;
        let found: Option<i32> = sqlx::query_scalar("SELECT 1 FROM pg_database WHERE datname = $1")
            .bind(name)
            .fetch_optional(&mut connection)
            .await?;
        if found.is_none() {
            let quoted = name.replace('"', "\"\"");
            sqlx::query(sqlx::AssertSqlSafe(format!("CREATE DATABASE \"{quoted}\"")))
                .execute(&mut connection)
                .await?;
        }
        connection.close().await?;
        Ok(())
    }

    /// Makes a login with no rights but those of `role`, and with the password of this server, if there is none of this
    /// name.
    ///
    /// # Errors
    /// When Postgres cannot be reached or refuses.
    pub async fn create_login(&self, name: &str, role: &str) -> Result<(), DevstackError> {
        let mut connection = PgConnection::connect(&self.url("postgres")).await?;
        let found: Option<i32> = sqlx::query_scalar("SELECT 1 FROM pg_roles WHERE rolname = $1")
            .bind(name)
            .fetch_optional(&mut connection)
            .await?;
        if found.is_none() {
            let password = match &self.options.password {
                Some(password) => format!("PASSWORD '{}'", password.replace('\'', "''")),
                None => String::new(),
            };
            let sql = format!("CREATE ROLE \"{name}\" LOGIN {password} IN ROLE \"{role}\"");
            sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&mut connection).await?;
        }
        connection.close().await?;
        Ok(())
    }

    /// Stops Postgres in order: sessions are ended, all is written. Nothing happens when it does not run.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn stop(&mut self) -> Result<(), DevstackError> {
        self.end(Signal::INT).await
    }

    /// Stops Postgres at once, as a crash would: the next start recovers.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn kill(&mut self) -> Result<(), DevstackError> {
        self.end(Signal::QUIT).await
    }

    async fn end(&mut self, signal: Signal) -> Result<(), DevstackError> {
        if let Some(process) = &self.process {
            process.signal(signal)?;
            process.ended(STOP_PATIENCE).await?;
        }
        self.process = None;
        Ok(())
    }

    /// Stops Postgres if it runs, and starts it on the same port and data.
    ///
    /// # Errors
    /// As [`Self::start`] and [`Self::stop`].
    pub async fn restart(&mut self) -> Result<(), DevstackError> {
        self.stop().await?;
        let started = Instant::now();
        loop {
            match self.run().await {
                // Somebody's test listener may be on our port for a moment.
                Err(error) if error.is_port_taken() && started.elapsed() < START_PATIENCE => {}
                result => return result,
            }
        }
    }
}

/// Postgres writes its pid on the first line of its pid file and its state on the eighth; `pg_ctl` looks there too.
fn is_ready(pid_file: &std::path::Path, pid: &str) -> bool {
    let text = fs::read_to_string(pid_file).unwrap_or_default();
    let mut lines = text.lines();
    lines.next().map(str::trim) == Some(pid) && lines.nth(6).map(str::trim) == Some("ready")
}
