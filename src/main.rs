//! The `cota` program: everything is in the library.

fn main() -> std::process::ExitCode {
    cota::cli::main()
}
