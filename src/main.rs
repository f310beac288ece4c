//! The `seckill` command.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::runtime::Runtime;

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
