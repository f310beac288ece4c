//! Load from outside: `seckill bench` measures a server, `seckill demo` shows one. A bounded number of requests, and
//! to loopback unless `--url` says otherwise.
//!
//! A guest in the program: the cargo feature `bench`, which is on unless it is switched off. Nothing of the server knows it;
//! only the command line names it, once. It talks to the server over HTTP; the proof at the end is read from the database
//! (`ledger`), and the raw limits are asked of the three servers themselves.
//!
//! All that it uses of the server:
//!
//! | what | for |
//! |---|---|
//! | [`Config`] and its sections | where the stores are, and what a server of our own is told |
//! | `data_dir::{random_key, random_password}` | secrets of a server of our own |
//! | `app::RunningApp` | the server that `demo` shows, in this process |
//! | `services::{Tokens, Identity}` | tokens of simulated buyers |
//! | `model`: ids, `Revision`, `Purchase`, `PurchaseGroup`, `Role`, `Timestamp` | requests, and messages of the size that the server sends |
//! | `queue::encode` | those messages |
//! | `db::{Db, DbConn, DbResult, DbError}` | connections for the proof's own queries |
//! | `db::connect_mysql`, `queue::connect_rabbitmq`, `stock::redis_address` | stores of its own, and the raw limits |
//! | `process::keep_to_itself`, `output::print`, `say!` | what every command does |

mod backlog;
mod baseline;
mod bots;
mod compare;
mod deadlines;
mod demo;
mod generator;
mod ledger;
mod listeners;
mod log_ins;
mod measures;
mod own_stores;
mod pictures;
mod proof;
mod raw_limits;
mod report;
mod sale;
mod scaling;
mod server;
mod servers;
mod target;
mod webhooks;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use url::Url;

use demo::DemoArgs;

use crate::config::Config;
use crate::process::keep_to_itself;

/// The commands of this module.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show a sale: a crowd of simulated buyers of which some never pay, and the proof of units and money.
    #[command(name = "demo")]
    Demo(DemoArgs),
    /// Measure the configured backend, in a server of its own on loopback, with stores of its own (distributed: the database
    /// user must be allowed to create databases).
    #[command(name = "bench")]
    Bench(BenchArgs),
    /// Serve the bare endpoint that `bench` compares with.
    #[command(name = "baseline", hide = true)]
    Baseline {
        /// Where.
        address: SocketAddr,
    },
}

/// What `seckill bench` can be told.
#[derive(Debug, Clone, Args)]
pub struct BenchArgs {
    /// Units on sale in each sale; as many buyers get one.
    #[arg(long, default_value_t = 60_000, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    stock: u32,
    /// Connections that are open at once, each with one request at a time.
    #[arg(long, value_delimiter = ',', default_values_t = [64, 256], value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: Vec<u16>,
    /// Rounds; the medians are reported.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=20))]
    rounds: u8,
    /// Measure this server, such as http://127.0.0.1:8080, instead of one of our own. It must run on the same
    /// configuration: its tokens are signed here, and its orders counted in its database. Buys for real. If administrators have
    /// a port of their own (server.admin_port), name that one.
    #[arg(long, conflicts_with = "against")]
    url: Option<Url>,
    /// Compare this program with another build of it, pair by pair.
    #[arg(long, value_name = "PROGRAM")]
    against: Option<PathBuf>,
    /// Measure what a purchase costs as the work grows: buyers, sales, connections, instances, orders. Takes minutes.
    #[arg(long, conflicts_with_all = ["against", "url", "stock", "connections", "rounds"])]
    scaling: bool,
    /// Measure what it costs a sale that a thousand orders of another one a second are not paid in time, and how soon their units
    /// are back. Takes minutes.
    #[arg(long, conflicts_with_all = ["against", "url", "stock", "connections", "rounds", "scaling"])]
    deadlines: bool,
    /// Measure what it costs a sale that one endpoint is told of each order. Takes minutes.
    #[arg(long, conflicts_with_all = ["against", "url", "stock", "connections", "rounds", "scaling", "deadlines"])]
    webhooks: bool,
    /// Measure what it costs a sale that so many listen to its live events. Each takes a file descriptor of both processes.
    #[arg(long, value_name = "LISTENERS", conflicts_with_all = ["against", "url", "stock", "connections", "rounds", "scaling", "deadlines", "webhooks"],
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    listeners: Option<u32>,
    /// See who gets the units when a crowd of people meets ten times as many accounts of bots on a few machines, without and with
    /// max_per_address.
    #[arg(long, conflicts_with_all = ["against", "url", "stock", "connections", "rounds", "scaling", "deadlines", "webhooks", "listeners"])]
    bots: bool,
    /// Folder for report.json, report.md and its pictures.
    #[arg(long, default_value = "target/bench")]
    output: PathBuf,
}

impl BenchArgs {
    fn connections(&self) -> impl Iterator<Item = usize> {
        self.connections.iter().map(|count| usize::from(*count))
    }

    fn most_connections(&self) -> usize {
        self.connections().max().unwrap_or(1)
    }
}

/// Runs a command to its end. `load` reads the configuration, from `file` if there is one.
pub async fn run(
    command: Command,
    load: impl FnOnce() -> Result<Config, String>,
    file: Option<PathBuf>,
) -> Result<(), String> {
    match command {
        Command::Demo(args) => {
            let config = load()?;
            keep_to_itself();
            unless_stopped(demo::run(config, &args)).await?.stay().await
        }
        // Its report is no secret.
        Command::Bench(args) => measure(load()?, file, args).await,
        Command::Baseline { address } => baseline::serve(address).await,
    }
}

/// Measures, on stores of its own unless it is told of a server; an error is also what is returned when the proof fails.
async fn measure(config: Config, file: Option<PathBuf>, args: BenchArgs) -> Result<(), String> {
    if cfg!(debug_assertions) {
        eprintln!("This is a debug build: its figures say nothing. Use `make bench`.");
    }
    if args.scaling {
        return scaling::run(&config, file.as_deref()).await;
    }
    if args.deadlines {
        return deadlines::run(&config, file.as_deref()).await;
    }
    if args.webhooks {
        return webhooks::run(&config, file.as_deref()).await;
    }
    if args.bots {
        return bots::run(&config, file.as_deref()).await;
    }
    if let Some(listeners) = args.listeners {
        return listeners::run(&config, file.as_deref(), listeners as usize).await;
    }
    match &args.against {
        Some(other) => compare::run(config, file, other, &args).await,
        None => measures::run(config, file, &args).await,
    }
}

/// Ends early on Ctrl-C or SIGTERM; what was started and made is then cleared away as it is dropped.
async fn unless_stopped<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    tokio::select! {
        done = work => done,
        _ = tokio::signal::ctrl_c() => Err("interrupted".to_owned()),
        _ = terminate.recv() => Err("terminated".to_owned()),
    }
}
