//! A private Redis: append-only file on, nothing evicted, loopback only.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
};

use tokio::process::Child;

use super::process::{DevstackError, find_program, free_port, owned_command, stop, until_ready};

const PROGRAM: &str = "redis-server";

/// How often a start is tried on another port before it is given up.
const MAX_PORTS: usize = 5;

/// How to start a Redis.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// Data folder; made when absent.
    pub dir: PathBuf,
    /// `None`: any free one.
    pub port: Option<u16>,
    /// `None`: `redis-server` from PATH.
    pub binary: Option<PathBuf>,
    /// Further command-line options, such as `["--enable-debug-command", "yes"]`.
    pub extra_args: Vec<String>,
}

/// A running Redis; killed when dropped.
pub struct RedisServer {
    child: Child,
    options: RedisOptions,
    port: u16,
}

impl RedisServer {
    /// Starts it and waits until it answers and has loaded its data.
    ///
    /// # Errors
    /// When the program is missing, or does not get ready; the error brings the end of its log.
    pub async fn start(options: RedisOptions) -> Result<Self, DevstackError> {
        std::fs::create_dir_all(&options.dir)
            .map_err(DevstackError::io(options.dir.display().to_string()))?;
        let mut attempt = 1;
        loop {
            let port = options.port.map_or_else(free_port, Ok)?;
            match spawn(&options, port).await {
                Ok(child) => return Ok(Self { child, options, port }),
                // Somebody else took the port between the look and the start.
                Err(DevstackError::NotStarted { .. }) if options.port.is_none() && attempt < MAX_PORTS => {
                    attempt += 1
                }
                Err(error) => return Err(error),
            }
        }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `None` while it is stopped.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Where its append-only files are.
    pub fn aof_dir(&self) -> PathBuf {
        self.options.dir.join("appendonlydir")
    }

    /// Stops it in order: everything it has is on disk.
    pub async fn stop(&mut self) {
        stop(&mut self.child, "TERM").await;
    }

    /// Kills it where it stands.
    pub async fn kill(&mut self) {
        stop(&mut self.child, "KILL").await;
    }

    /// Starts it again, on the same port and with the same data, after [`Self::stop`] or [`Self::kill`].
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn start_again(&mut self) -> Result<(), DevstackError> {
        self.child = spawn(&self.options, self.port).await?;
        Ok(())
    }
}

async fn spawn(options: &RedisOptions, port: u16) -> Result<Child, DevstackError> {
    let missing =
        || DevstackError::NotInstalled { program: PROGRAM.into(), hint: "apt-get install redis-server" };
    let program = options.binary.clone().or_else(|| find_program(PROGRAM)).ok_or_else(missing)?;
    let log = options.dir.join("redis.log");
    let mut command = owned_command(&program, None);
    command
        .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"])
        .args(["--appendfsync", "everysec", "--maxmemory-policy", "noeviction", "--daemonize", "no"])
        .arg("--dir")
        .arg(absolute(&options.dir)?)
        .arg("--logfile")
        .arg(absolute(&options.dir)?.join("redis.log"))
        .args(&options.extra_args)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut child = command.spawn().map_err(DevstackError::io(PROGRAM))?;
    let pid = child.id();
    until_ready(&mut child, PROGRAM, &log, async || is_serving(port, pid).await).await?;
    Ok(child)
}

fn absolute(path: &Path) -> Result<PathBuf, DevstackError> {
    std::path::absolute(path).map_err(DevstackError::io(path.display().to_string()))
}

/// Whether the server on this port is ours, and done loading.
async fn is_serving(port: u16, pid: Option<u32>) -> bool {
    let Ok(client) = redis::Client::open(format!("redis://127.0.0.1:{port}")) else { return false };
    let Ok(mut connection) = client.get_multiplexed_async_connection().await else { return false };
    let info: Result<String, _> = redis::cmd("INFO").query_async(&mut connection).await;
    info.is_ok_and(|info| {
        let has = |line: &str| info.lines().any(|l| l.trim() == line);
        has("loading:0") && pid.is_some_and(|pid| has(&format!("process_id:{pid}")))
    })
}
