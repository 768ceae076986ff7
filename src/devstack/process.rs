//! One child process, with a thread that lives as long as it does.

use std::{
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

pub use rustix::process::Signal;
use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process, waitid};
use tokio::sync::watch;

use super::DevstackError;

/// How much of a server's log an error shows.
const LOG_TAIL_BYTES: usize = 2_000;

/// A running child. Ends it when dropped.
#[derive(Debug)]
pub(super) struct Process {
    name: String,
    pid: Pid,
    child: Arc<Mutex<Child>>,
    exited: watch::Receiver<Option<ExitStatus>>,
    log: PathBuf,
    log_start: u64,
    on_drop: Signal,
}

impl Process {
    /// Starts `command` with its output appended to `log`.
    ///
    /// The kernel ties "my parent died" to the *thread* that started the child, and runtimes end their threads when
    /// they like; so the child's own thread starts it, and waits for it.
    pub(super) fn spawn(
        name: &str,
        mut command: Command,
        log: &Path,
        on_drop: Signal,
    ) -> Result<Self, DevstackError> {
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .and_then(|file| Ok((file.metadata()?.len(), file.try_clone()?, file)));
        let (log_start, stdout, stderr) = output.map_err(DevstackError::io("opening", log))?;
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).process_group(0);

        let (started, start) = mpsc::sync_channel(1);
        let (exit, exited) = watch::channel(None);
        thread::Builder::new()
            .name("devstack-child".into())
            .spawn(move || match command.spawn() {
                Err(error) => drop(started.send(Err(error))),
                Ok(child) => {
                    let pid = Pid::from_child(&child);
                    let child = Arc::new(Mutex::new(child));
                    drop(started.send(Ok((pid, Arc::clone(&child)))));
                    exit.send_replace(wait(pid, &child));
                }
            })
            .map_err(|source| DevstackError::Io { what: "starting a thread".into(), source })?;
        let (pid, child) = start
            .recv()
            .unwrap_or_else(|_| Err(io::Error::other("its thread ended")))
            .map_err(|source| DevstackError::Io { what: format!("starting {name}"), source })?;
        Ok(Self { name: name.to_owned(), pid, child, exited, log: log.to_owned(), log_start, on_drop })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Sends a signal; does nothing when the child has ended.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), DevstackError> {
        let mut child = lock(&self.child);
        // Under the lock nobody else can reap the child, so its pid cannot be another's.
        if matches!(child.try_wait(), Ok(None)) {
            kill_process(self.pid, signal).map_err(|error| DevstackError::Io {
                what: format!("signalling {}", self.name),
                source: error.into(),
            })?;
        }
        Ok(())
    }

    /// Waits for the end of the child.
    ///
    /// # Errors
    /// When it still runs after `patience`.
    pub(super) async fn ended(&self, patience: Duration) -> Result<ExitStatus, DevstackError> {
        let mut exited = self.exited.clone();
        let end = tokio::time::timeout(patience, exited.wait_for(Option::is_some)).await;
        match end.map(|status| status.ok().and_then(|status| *status)) {
            Ok(Some(status)) => Ok(status),
            Ok(None) => Err(self.lost()),
            Err(_) => Err(self.timed_out("stopped", patience)),
        }
    }

    /// Asks `is_ready` again and again until it says so, the child ends or `patience` is over.
    pub(super) async fn ready(
        &self,
        patience: Duration,
        mut is_ready: impl AsyncFnMut() -> bool,
    ) -> Result<(), DevstackError> {
        let until_ready = async {
            while !is_ready().await {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::select! {
            ended = self.ended(2 * patience) => Err(self.failed(ended?)),
            ready = tokio::time::timeout(patience, until_ready) => {
                ready.map_err(|_| self.timed_out("ready", patience))
            }
        }
    }

    /// Waits for a child that is meant to end by itself, and well.
    pub(super) async fn finished(&self, patience: Duration) -> Result<(), DevstackError> {
        let status = self.ended(patience).await?;
        if status.success() { Ok(()) } else { Err(self.failed(status)) }
    }

    fn failed(&self, status: ExitStatus) -> DevstackError {
        DevstackError::Failed { program: self.name.clone(), status, output: self.log_tail() }
    }

    fn timed_out(&self, state: &'static str, waited: Duration) -> DevstackError {
        DevstackError::TimedOut { program: self.name.clone(), state, waited, output: self.log_tail() }
    }

    fn lost(&self) -> DevstackError {
        let source = io::Error::other("its end was not seen");
        DevstackError::Io { what: format!("waiting for {}", self.name), source }
    }

    /// The end of what this run of the child wrote.
    fn log_tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let start = usize::try_from(self.log_start).unwrap_or(usize::MAX).min(log.len());
        let start = start.max(log.len().saturating_sub(LOG_TAIL_BYTES));
        String::from_utf8_lossy(&log[start..]).trim().to_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        const GRACE: Duration = Duration::from_secs(5);
        // An error means that there is nobody left to signal, or nothing that we could do about it.
        let _ = self.signal(self.on_drop);
        let started = Instant::now();
        loop {
            match lock(&self.child).try_wait() {
                Ok(None) => {}
                _ => return,
            }
            if started.elapsed() > GRACE {
                let mut child = lock(&self.child);
                let _ = child.kill();
                let _ = child.wait();
                return;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Waits without reaping first, so that the lock is free until the child has ended.
fn wait(pid: Pid, child: &Mutex<Child>) -> Option<ExitStatus> {
    while let Err(rustix::io::Errno::INTR) =
        waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)
    {}
    lock(child).wait().ok()
}

fn lock(child: &Mutex<Child>) -> MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A command that the kernel ends with `signal` when this process dies, running as `user` if one is given.
pub(super) fn command(program: &Path, signal_name: &str, user: Option<&str>) -> Command {
    let Some(setpriv) = find("setpriv") else { return Command::new(program) };
    let mut command = Command::new(setpriv);
    command.args(["--pdeathsig", signal_name]);
    if let Some(user) = user {
        command.args([
            &format!("--reuid={user}"),
            &format!("--regid={user}"),
            "--init-groups",
            "--reset-env",
        ]);
    }
    command.arg(program);
    command
}

/// A program's path, from `PATH`.
pub(super) fn find(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}
