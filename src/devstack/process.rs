//! Starting, watching and stopping a child server.

use std::{
    io,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use tokio::{
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

/// How long a server may take to start or to stop.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Why a server could not be had.
#[derive(Debug, thiserror::Error)]
pub enum DevstackError {
    #[error("{program} is not installed ({hint})")]
    NotInstalled { program: String, hint: &'static str },
    #[error("{0} is used by a server that is still running (process {1})")]
    InUse(String, u32),
    #[error("{program} did not start: {why}")]
    NotStarted { program: String, why: String },
    #[error("{0}: {1}")]
    Io(String, io::Error),
}

impl DevstackError {
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |error| Self::Io(what, error)
    }
}

/// A loopback port that was free a moment ago. Another process may take it first: start again then.
///
/// # Errors
/// When no port can be bound at all.
pub fn free_port() -> Result<u16, DevstackError> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(DevstackError::io("no free port"))?;
    Ok(listener.local_addr().map_err(DevstackError::io("no free port"))?.port())
}

/// Finds a program in PATH.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// Whether this process is root; servers that refuse to run as root then need another user.
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| std::os::unix::fs::MetadataExt::uid(&meta) == 0)
}

/// A command that ends when we do. `as_user` runs it as that system user.
pub fn owned_command(program: &Path, as_user: Option<&str>) -> Command {
    let mut command = match find_program("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            if let Some(user) = as_user {
                let user = [format!("--reuid={user}"), format!("--regid={user}")];
                command.args(user).args(["--init-groups", "--reset-env"]);
            }
            command.arg("--pdeathsig=TERM").arg(program);
            command
        }
        None => Command::new(program),
    };
    command.process_group(0).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Runs a helper to its end.
pub async fn run(mut command: Command, program: &str) -> Result<(), DevstackError> {
    let output = command.output().await.map_err(DevstackError::io(program))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(DevstackError::NotStarted { program: program.to_owned(), why })
}

/// Sends a signal by name.
pub async fn signal(pid: u32, name: &str) {
    // A process that is gone already is no error.
    let _ = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(pid.to_string())
        .stderr(Stdio::null())
        .status()
        .await;
}

/// Signals a child and waits for its end; kills it when that takes too long.
pub async fn stop(child: &mut Child, name: &str) {
    if let Some(pid) = child.id() {
        signal(pid, name).await;
        if timeout(PATIENCE, child.wait()).await.is_err() {
            // Nothing more can be done than to kill it.
            let _ = child.kill().await;
        }
    }
}

/// Waits until a server answers; an error when it ends before, or does not answer in time.
pub async fn until_ready(
    child: &mut Child,
    program: &str,
    log: &Path,
    mut answers: impl AsyncFnMut() -> bool,
) -> Result<(), DevstackError> {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(2);
    loop {
        if answers().await {
            return Ok(());
        }
        let ended = child.try_wait().map_err(DevstackError::io(program))?;
        if ended.is_some() || Instant::now() >= deadline {
            let log = std::fs::read_to_string(log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().rev().take(5).collect();
            let why = lines.into_iter().rev().collect::<Vec<_>>().join("\n");
            return Err(DevstackError::NotStarted { program: program.to_owned(), why });
        }
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}
