//! Runs a command beside a Postgres for tests, whose address is in `COTA_TEST_POSTGRES_URL`: `script/test` runs all
//! tests this way, so that not every test process has to start one.
//!
//! An example and not a command of `cota`, because nobody but the developers needs it.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use cota::devstack::{PostgresOptions, PostgresServer};
use tokio::{process::Command, signal::unix::SignalKind};

const VARIABLE: &str = "COTA_TEST_POSTGRES_URL";

/// Where the server's data is while it runs.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // It lies in the temporary folder: nobody minds a rest.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: with-test-postgres COMMAND [ARGUMENT …]");
        return ExitCode::from(2);
    };
    let mut command = Command::new(program);
    command.args(arguments);
    let folder = Folder(std::env::temp_dir().join(format!("cota-test-run-{}", std::process::id())));
    match run(command, &folder.0).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("with-test-postgres: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(mut command: Command, folder: &Path) -> Result<ExitCode, Box<dyn std::error::Error>> {
    // The terminal's Ctrl-C reaches the command too. It ends, and then so do we: not before, or the server would be
    // taken away from under it.
    let _interrupts = tokio::signal::unix::signal(SignalKind::interrupt())?;
    let mut terminate = tokio::signal::unix::signal(SignalKind::terminate())?;
    if std::env::var_os(VARIABLE).is_some() {
        let status = command.status().await?;
        return Ok(exit_code(status.code()));
    }
    let mut options = PostgresOptions::new(folder);
    options.fast = true;
    options.max_connections = 400;
    let mut postgres = PostgresServer::start(options).await?;
    let mut child = command.env(VARIABLE, postgres.url("postgres")).kill_on_drop(true).spawn()?;
    let code = tokio::select! {
        status = child.wait() => exit_code(status?.code()),
        _ = terminate.recv() => ExitCode::FAILURE,
    };
    drop(child);
    postgres.kill().await?;
    Ok(code)
}

fn exit_code(code: Option<i32>) -> ExitCode {
    // Ended by a signal: no code.
    code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
