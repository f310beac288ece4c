//! The `seckill` command.

use std::process::ExitCode;

use clap::Parser;
use mimalloc::MiMalloc;

/// A purchase allocates some forty times, mostly little and not for long, and what one thread allocates another often
/// frees. That is quicker here than in the system's allocator.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    seckill::cli::run(seckill::cli::Cli::parse())
}
