//! The command line.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::app::{self, RunningApp};
use crate::config::Config;
use crate::telemetry;

/// Sells a limited stock exactly once.
#[derive(Debug, Parser)]
#[command(version, about)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Configuration file [default: config.yaml, if there is one].
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve the API and write orders (the default).
    Serve,
    /// Bring the database's schema up to date and exit.
    Migrate,
}

/// Runs a command to its end.
pub async fn run(cli: Cli) -> ExitCode {
    telemetry::init();
    let outcome = match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => serve(cli.config).await,
        Command::Migrate => migrate(cli.config).await,
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("seckill: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(file: Option<PathBuf>) -> Result<(), String> {
    let config = Config::load(file.as_deref()).map_err(|error| error.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let app = RunningApp::start(&config).await.map_err(|error| error.to_string())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    app.stop().await;
    Ok(())
}

async fn migrate(file: Option<PathBuf>) -> Result<(), String> {
    let config = Config::load(file.as_deref()).map_err(|error| error.to_string())?;
    app::migrate(&config).await.map_err(|error| error.to_string())
}
