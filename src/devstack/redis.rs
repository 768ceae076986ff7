//! A private Redis: AOF on, nothing evicted, loopback only.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    DevstackError, Signal, leftover, ports,
    process::{self, Process},
};

/// How long a start may take, the loading of a long AOF included.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// How long a stop may take.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
const PID_FILE: &str = "redis.pid";
/// A rewrite is a second process at full speed. Ten thousand reserves add 3 MB: with Redis' own 64 MB the first begins 20
/// seconds into full load.
const REWRITE_FROM: &str = "256mb";

/// How a Redis is started.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// Data, log and pid file; made if absent.
    pub dir: PathBuf,
    /// A free loopback port when absent.
    pub port: Option<u16>,
    /// `redis-server` from `PATH` when absent.
    pub binary: Option<PathBuf>,
    /// More arguments, such as `--enable-debug-command yes`, each word by itself. They come last and so win.
    pub extra_args: Vec<String>,
}

impl RedisOptions {
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), port: None, binary: None, extra_args: Vec::new() }
    }

    #[must_use]
    pub fn arg(mut self, name: &str, value: &str) -> Self {
        self.extra_args.extend([name.to_owned(), value.to_owned()]);
        self
    }
}

/// A Redis of our own. Killed when dropped.
#[derive(Debug)]
pub struct RedisServer {
    options: RedisOptions,
    binary: PathBuf,
    port: u16,
    process: Option<Process>,
}

impl RedisServer {
    /// Starts a Redis and waits until it answers, with the data of `dir` loaded. One that an earlier run left in
    /// `dir` is stopped first.
    ///
    /// # Errors
    /// When there is no `redis-server`, or it does not come up; the text carries its last words.
    pub async fn start(options: RedisOptions) -> Result<Self, DevstackError> {
        let binary = match &options.binary {
            Some(binary) => binary.clone(),
            None => process::find("redis-server").ok_or_else(|| DevstackError::Missing {
                program: "redis-server".into(),
                package: "redis-server",
            })?,
        };
        fs::create_dir_all(&options.dir).map_err(DevstackError::io("making", &options.dir))?;
        let mut server = Self { options, binary, port: 0, process: None };
        match server.options.port {
            Some(port) => {
                server.port = port;
                server.run().await?;
            }
            None => server.run_somewhere().await?,
        }
        Ok(server)
    }

    /// Another may take a free port before Redis does; then another port is tried.
    async fn run_somewhere(&mut self) -> Result<(), DevstackError> {
        const ATTEMPTS: usize = 10;
        let mut attempt = 1;
        loop {
            self.port = ports::free_port()
                .map_err(|source| DevstackError::Io { what: "finding a free port".into(), source })?;
            match self.run().await {
                Err(error) if error.is_port_taken() && attempt < ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    async fn run(&mut self) -> Result<(), DevstackError> {
        let dir = self.dir();
        leftover::stop(&dir.join(PID_FILE), "redis-server", dir, Signal::TERM).await?;
        let mut command = process::command(&self.binary, "TERM", None);
        command.args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--daemonize", "no"]);
        command.arg("--dir").arg(dir).arg("--pidfile").arg(absolute(dir)?.join(PID_FILE));
        command.args(["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]);
        command.args(["--auto-aof-rewrite-min-size", REWRITE_FROM]);
        command.args(["--maxmemory-policy", "noeviction"]).args(&self.options.extra_args);
        let process = Process::spawn("redis-server", command, &dir.join("redis.log"), Signal::KILL)?;
        let (port, pid) = (self.port, process.pid());
        process.ready(START_PATIENCE, async || answers(port, pid).await).await?;
        self.process = Some(process);
        Ok(())
    }

    /// `redis://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Where Redis listens; the same after every restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// The data folder.
    pub fn dir(&self) -> &Path {
        &self.options.dir
    }

    /// The folder of the append-only files: a test that cuts the newest `*.incr.aof` loses the last writes.
    pub fn aof_dir(&self) -> PathBuf {
        self.dir().join("appendonlydir")
    }

    /// Stops Redis in order: it writes out its AOF. Nothing happens when it does not run.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn stop(&mut self) -> Result<(), DevstackError> {
        self.end(Signal::TERM).await
    }

    /// Kills Redis; what it had not yet written is lost.
    ///
    /// # Errors
    /// When it does not end.
    pub async fn kill(&mut self) -> Result<(), DevstackError> {
        self.end(Signal::KILL).await
    }

    async fn end(&mut self, signal: Signal) -> Result<(), DevstackError> {
        if let Some(process) = &self.process {
            process.signal(signal)?;
            // A paused one would not hear it.
            process.signal(Signal::CONT)?;
            process.ended(STOP_PATIENCE).await?;
        }
        self.process = None;
        Ok(())
    }

    /// Lets Redis hang: it keeps its connections and answers nothing, until [`Self::resume`].
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn pause(&self) -> Result<(), DevstackError> {
        self.process.as_ref().map_or(Ok(()), |process| process.signal(Signal::STOP))
    }

    /// Ends [`Self::pause`].
    ///
    /// # Errors
    /// When it cannot be signalled.
    pub fn resume(&self) -> Result<(), DevstackError> {
        self.process.as_ref().map_or(Ok(()), |process| process.signal(Signal::CONT))
    }

    /// Stops Redis if it runs, and starts it on the same port and data.
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

fn absolute(path: &Path) -> Result<PathBuf, DevstackError> {
    std::path::absolute(path).map_err(DevstackError::io("resolving", path))
}

/// Whether the process `pid` answers PING on `port`, which it does not while it loads. Another Redis may have the
/// port: ours is about to end then, because it could not bind.
async fn answers(port: u16, pid: u32) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await?;
        stream.write_all(b"PING\r\nINFO server\r\nQUIT\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer)
    };
    let answer = tokio::time::timeout(Duration::from_secs(1), ask).await;
    let own = format!("process_id:{pid}\r\n");
    matches!(answer, Ok(Ok(answer)) if answer.starts_with("+PONG\r\n") && answer.contains(&own))
}
