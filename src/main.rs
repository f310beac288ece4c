//! The `seckill` command.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use mimalloc::MiMalloc;
use tokio::runtime::Runtime;

/// A purchase allocates some forty times, mostly little and not for long, and what one thread allocates another often
/// frees. That is quicker here than in the system's allocator.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// For a query that is not over when everything else is, such as one of a start that was told to stop.
const LAST_QUERY: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let cli = seckill::cli::Cli::parse();
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("seckill: cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(seckill::cli::run(cli));
    runtime.shutdown_timeout(LAST_QUERY);
    code
}
