//! Servers of an earlier run that was killed.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{Pid, kill_process};

use super::{DevstackError, Signal};

/// How long a leftover may take to end before it is killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Stops the server that `pid_file` names on its first line, if it still runs and is really ours: its program is
/// called `program` and it works in `folder`, as both servers do. Then removes the file, which would otherwise stop
/// Postgres from starting once the kernel hands out the pid again.
///
/// # Errors
/// When the server cannot be signalled or does not end.
pub(super) async fn stop(
    pid_file: &Path,
    program: &str,
    folder: &Path,
    signal: Signal,
) -> Result<(), DevstackError> {
    let Ok(text) = fs::read_to_string(pid_file) else { return Ok(()) };
    if let Some(pid) = text.lines().next().and_then(|line| line.trim().parse::<i32>().ok())
        && let Some(pid) = Pid::from_raw(pid)
    {
        end(pid, program, folder, signal).await?;
    }
    match fs::remove_file(pid_file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(DevstackError::io("removing", pid_file)(error))
        }
        _ => Ok(()),
    }
}

async fn end(pid: Pid, program: &str, folder: &Path, signal: Signal) -> Result<(), DevstackError> {
    for signal in [signal, Signal::KILL] {
        if !is_ours(pid, program, folder) {
            return Ok(());
        }
        match kill_process(pid, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => {
                let what = format!("stopping process {}", pid.as_raw_nonzero());
                return Err(DevstackError::Io { what, source: error.into() });
            }
        }
        let started = Instant::now();
        while is_ours(pid, program, folder) && started.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    if is_ours(pid, program, folder) {
        return Err(DevstackError::TimedOut {
            program: program.to_owned(),
            state: "stopped",
            waited: 2 * PATIENCE,
            output: format!("process {} was left by an earlier run", pid.as_raw_nonzero()),
        });
    }
    Ok(())
}

fn is_ours(pid: Pid, program: &str, folder: &Path) -> bool {
    let proc = Path::new("/proc").join(pid.as_raw_nonzero().to_string());
    // The name it gave itself, not the file: Debian's redis-server is a link to a program of another name.
    let name = fs::read_to_string(proc.join("comm"));
    let works_in = fs::read_link(proc.join("cwd"));
    match (name, works_in, folder.canonicalize()) {
        (Ok(name), Ok(works_in), Ok(folder)) => name.trim_end() == program && works_in == folder,
        _ => false,
    }
}
