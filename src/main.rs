//! The `cota` program: everything is in the library.

/// Every request makes some tens of small allocations, on many threads at once.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cota::cli::main()
}
