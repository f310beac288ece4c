//! The `seckill` command.

use std::process::ExitCode;

use clap::Parser;

// Purchases make many small objects on one thread and drop them on another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    seckill::cli::run(seckill::cli::Cli::parse()).await
}
