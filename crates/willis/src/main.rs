//! The binary: turns the command line into a call and an error into an exit code.

use clap::Parser;
use std::process::ExitCode;

// Tensor-sized allocations fault pages in one by one with the system allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = willis::cli::Cli::parse();
    match willis::commands::run(cli) {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
