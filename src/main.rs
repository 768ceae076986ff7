//! Parses the arguments, runs one command, and says what went wrong.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    match cota::cli::run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cota: {error}");
            ExitCode::FAILURE
        }
    }
}
