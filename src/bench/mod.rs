//! Load from outside: `seckill bench` measures a server, `seckill demo` shows one. Sends only to loopback, a bounded
//! number of requests.
//!
//! Nothing of the server calls this module, and it talks to the server over HTTP only; the proof at the end is read
//! from the database.

mod demo;
mod floor;
mod generator;
mod proof;
mod rounds;
mod server;

use clap::Args;

pub use demo::DemoArgs;
pub use floor::serve as serve_floor;

use crate::config::Config;

/// What `seckill bench` can be told.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// Units on sale in each round; as many buyers get one, and as many again are refused.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    stock: u32,
    /// Connections that are open at once, each with one request at a time.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=4096))]
    connections: u16,
    /// Rounds; the medians are reported.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    rounds: u8,
}

/// Runs the benchmark; an error is also what is returned when the proof fails.
pub async fn run(config: Config, args: BenchArgs) -> Result<(), String> {
    rounds::run(config, &args).await
}

/// Runs the demonstration.
pub async fn demo(config: Config, args: DemoArgs) -> Result<(), String> {
    demo::run(config, &args).await
}
