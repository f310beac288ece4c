//! The command line.

mod backups;
mod check_config;
mod set_password;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use secrecy::ExposeSecret;
use serde_json::json;
use tokio::runtime::Runtime;

use crate::app::{self, RunningApp};
#[cfg(feature = "bench")]
use crate::bench;
use crate::config::{Backend, Config};
use crate::data_dir::DataDir;
use crate::handlers::openapi;
use crate::model::ProductId;
use crate::output::print_lines;
use crate::process::{self, StopSignals};
use crate::queue::{Chosen, DeadLetter, DeadLetters, PutBack, Replayed};
use crate::telemetry;

/// What the program is called.
const NAME: &str = "seckill";
/// For a query that is not over when everything else is, such as one of a start that was told to stop.
const LAST_QUERY: Duration = Duration::from_secs(1);

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
    Migrate {
        /// Embedded: begin a new journal, without what is in the one that does not fit or is lost; that one is moved away.
        #[arg(long)]
        new_journal: bool,
    },
    /// See, repeat or drop purchases that could not be written. Embedded: only while no server runs.
    DeadLetters {
        #[command(subcommand)]
        action: DeadLetterAction,
    },
    /// See or change which Redis and which queue belong to the database. Distributed only.
    Deployment {
        #[command(subcommand)]
        action: DeploymentAction,
    },
    /// Look after administrators.
    Admin {
        #[command(subcommand)]
        action: AdminAction,
    },
    /// Say what a start would do with this configuration, or what is wrong with it. Connects to nothing.
    CheckConfig,
    /// Write the embedded backend's database and journal to a new file, also while it sells.
    Backup {
        /// Must not exist yet. It holds names and password hashes, so only you may read it.
        file: PathBuf,
    },
    /// Print the manual page.
    #[command(hide = true)]
    Man,
    /// Print the HTTP API as an OpenAPI document.
    #[command(hide = true)]
    Openapi,
    /// Print what a shell needs to complete commands.
    #[command(hide = true)]
    Completions {
        /// Which.
        shell: Shell,
    },
    /// Make an empty data folder (embedded.data_dir) what a backup says it was.
    Restore {
        /// What `backup` has written.
        file: PathBuf,
    },
    #[cfg(feature = "bench")]
    #[command(flatten)]
    Bench(bench::Command),
}

#[derive(Debug, Clone, Copy, Subcommand)]
enum DeploymentAction {
    /// Have the gate of a product rebuilt from its live orders: some seconds of 503, and no promise is lost. For a gate that
    /// does not say what is true; instances must be running.
    RebuildGate {
        /// Id of the product.
        product: ProductId,
    },
    /// Print what the deployment uses, and what each instance that runs uses.
    Show,
    /// Make the Redis and the queue of this configuration those of the deployment. Instances that use others stop selling
    /// within a second, until they are started with this configuration. What was promised stays promised.
    Adopt {
        /// Also if they belong to another deployment, whose database is gone.
        #[arg(long)]
        take: bool,
    },
}

#[derive(Debug, Clone, Subcommand)]
enum DeadLetterAction {
    /// Print each as a line of JSON: its id, when it was set aside, why, its product, how many purchases, the message.
    List,
    /// Put them back into the queue.
    Replay(Which),
    /// Delete them. What a buyer was promised in them is lost.
    Drop {
        #[command(flatten)]
        which: Which,
        /// Yes, delete them.
        #[arg(long, required = true)]
        yes: bool,
    },
}

#[derive(Debug, Clone, Subcommand)]
enum AdminAction {
    /// Give an account another password: asks for it, or reads a line of standard input. Also while servers run.
    SetPassword {
        /// Whose [default: admin.username].
        #[arg(long, value_name = "NAME")]
        username: Option<String>,
    },
}

/// Which dead letters.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
struct Which {
    /// Ids, as `list` shows them.
    #[arg(value_name = "ID")]
    ids: Vec<String>,
    /// All of them.
    #[arg(long)]
    all: bool,
}

impl From<Which> for Chosen {
    fn from(Which { ids, all }: Which) -> Self {
        if all { Self::All } else { Self::Ids(ids) }
    }
}

/// Runs a command to its end. Not `async`, because what is awaited in the program's own crate is compiled there once more.
pub fn run(cli: Cli) -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _scenario = fail::FailScenario::setup();
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("seckill: cannot start threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = match runtime.block_on(dispatch(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("seckill: {problem}");
            ExitCode::FAILURE
        }
    };
    runtime.shutdown_timeout(LAST_QUERY);
    code
}

async fn dispatch(cli: Cli) -> Result<(), String> {
    let load = || {
        let config = Config::load(cli.config.as_deref()).map_err(|error| error.to_string())?;
        telemetry::init(config.log.format);
        Ok::<_, String>(config)
    };
    let config = || load().inspect(|_| process::keep_to_itself());
    match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => serve(&config()?).await,
        Command::Migrate { new_journal } => {
            app::migrate(&config()?, new_journal).await.map_err(|error| error.to_string())
        }
        Command::Deployment { action } => deployment(&config()?, action).await,
        Command::DeadLetters { action } => dead_letters(&config()?, action).await,
        Command::Admin { action: AdminAction::SetPassword { username } } => {
            set_password::run(&config()?, username).await
        }
        Command::CheckConfig => check_config::run(&config()?),
        Command::Man => print_what(|out| clap_mangen::Man::new(Cli::command()).render(out)),
        Command::Openapi => print_what(|out| out.write_all(openapi().as_bytes())),
        Command::Completions { shell } => print_what(|out| {
            clap_complete::generate(shell, &mut Cli::command(), NAME, out);
            Ok(())
        }),
        Command::Backup { file } => backups::back_up(&config()?, &file).await,
        Command::Restore { file } => backups::restore(&config()?, &file).await,
        #[cfg(feature = "bench")]
        Command::Bench(command) => bench::run(command, load, cli.config.clone()).await,
    }
}

async fn deployment(config: &Config, action: DeploymentAction) -> Result<(), String> {
    if config.backend == Backend::Embedded {
        return Err("backend: embedded keeps everything in its data folder".to_owned());
    }
    let membership = app::membership(config).map_err(|error| error.to_string())?;
    let unknown = || "not known yet".to_owned();
    match action {
        DeploymentAction::Show => {
            let (row, instances) = membership.show().await?;
            let mut lines = vec![
                format!("deployment  {}", row.deployment_id),
                format!("Redis       {}", row.redis_name.unwrap_or_else(unknown)),
                format!("queue       {}", row.queue_name.unwrap_or_else(unknown)),
            ];
            lines.extend(instances.iter().map(|uses| format!("instance    {} {}", uses.redis_name, uses.queue_name)));
            print_lines(lines)
        }
        DeploymentAction::RebuildGate { product } => {
            let epoch = membership.rebuild_gate(product).await?;
            print_lines([format!("product {product}: epoch {epoch} has begun; the running instances rebuild its gate")])
        }
        DeploymentAction::Adopt { take } => {
            let before = membership.adopt(take).await?;
            let (row, _) = membership.show().await?;
            let now = [("Redis", before.redis_name, row.redis_name), ("queue", before.queue_name, row.queue_name)];
            print_lines(now.map(|(what, before, now)| {
                format!("{what}: {} (before: {})", now.unwrap_or_else(unknown), before.unwrap_or_else(unknown))
            }))
        }
    }
}

async fn dead_letters(config: &Config, action: DeadLetterAction) -> Result<(), String> {
    let (mut letters, _data_dir) = match config.backend {
        Backend::Embedded => {
            let data_dir = DataDir::lock_existing(&config.embedded.data_dir)?;
            (DeadLetters::embedded(&data_dir.journal())?, Some(data_dir))
        }
        Backend::Distributed => (DeadLetters::rabbitmq(&config.rabbitmq).await?, None),
    };
    let done = match action {
        DeadLetterAction::List => letters.list().await.and_then(|listed| print_lines(listed.iter().map(described))),
        DeadLetterAction::Replay(which) => {
            let replay = app::replay(config).map_err(|error| error.to_string())?;
            let which = which.into();
            let done = letters.replay(&which, async |letter| match &replay {
                Some(replay) => replay.readmit(letter).await,
                None => Ok(PutBack { message: Some(letter.body.clone()), kept: None }),
            });
            done.await.and_then(|Replayed { letters, kept }| {
                let kept = kept.into_iter().map(|reason| format!("stays set aside: {reason}"));
                print_lines(std::iter::once(format!("{letters} put back")).chain(kept))
            })
        }
        DeadLetterAction::Drop { which, .. } => {
            let done = letters.remove(&which.into()).await;
            done.and_then(|count| print_lines([format!("{count} dropped")]))
        }
    };
    letters.close().await;
    done
}

fn described(letter: &DeadLetter) -> String {
    let (product, purchases) = letter.content();
    json!({
        "id": letter.id,
        "parked_at": letter.parked_at,
        "reason": letter.reason,
        "product_id": product,
        "purchases": purchases,
        "body": String::from_utf8_lossy(&letter.body),
    })
    .to_string()
}

/// What is made for a program to read.
fn print_what(make: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> Result<(), String> {
    let mut made = Vec::new();
    make(&mut made).map_err(|error| error.to_string())?;
    print_lines(String::from_utf8_lossy(&made).lines().map(str::to_owned))
}

async fn serve(config: &Config) -> Result<(), String> {
    let signals = StopSignals::catch()?;
    let app = tokio::select! {
        started = RunningApp::start(config) => started.map_err(|error| error.to_string())?,
        signal = signals.told() => {
            tracing::warn!(signal, "Told to stop before the start was done");
            return Ok(());
        }
    };
    process::tell_ready();
    greet(&app, config);
    let broken = tokio::select! {
        signal = signals.told() => {
            tracing::info!(signal, "Told to stop");
            None
        }
        broken = app.broken() => Some(broken),
    };
    process::tell_stopping();
    app.stop().await;
    match broken {
        None => Ok(()),
        Some(broken) => Err(format!("{broken}; start it again")),
    }
}

/// What a newcomer needs to go on; the password is shown at this one start only.
fn greet(app: &RunningApp, config: &Config) {
    say!("\nShop     http://{}/shop\nConsole  http://{}/console\n", app.address(), app.admin_address());
    let (Some(admin), Backend::Embedded) = (app.new_admin(), config.backend) else { return };
    say!(
        "  administrator  {username}\n  password       {password}\n                 \
         (shown this once; kept in {folder}/admin_password)\n",
        username = admin.username,
        password = admin.password.expose_secret(),
        folder = config.embedded.data_dir.display(),
    );
}
