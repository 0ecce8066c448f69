//! The binary: turns the command line into a call and an error into an exit code.

use mimalloc::MiMalloc;
use std::process::ExitCode;
use willis::cli::{Cli, Command};
use willis_kernels::runtime::allocator::{CachingAllocator, TRAINING_CACHE_BYTES};

// Tensor-sized allocations fault pages in one by one with the system allocator.
#[global_allocator]
static ALLOCATOR: CachingAllocator<MiMalloc> = CachingAllocator::new(MiMalloc);

fn main() -> ExitCode {
    let cli = Cli::from_arguments();
    if matches!(cli.command, Command::Train(_) | Command::Pretrain(_)) {
        ALLOCATOR.set_cache_bytes(TRAINING_CACHE_BYTES);
    }
    let checked = willis_kernels::runtime::check_environment().map_err(Into::into);
    match checked.and_then(|()| willis::commands::run(cli)) {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
