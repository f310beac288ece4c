//! The server under test: this program, or another build of it, in a process of its own.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

use super::generator::{ask, request};

const START_PATIENCE: Duration = Duration::from_secs(60);

/// A child process that serves HTTP; killed when dropped.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    child: Child,
}

/// What the kernel says of a process.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    pub(super) cpu: Duration,
    pub(super) peak_memory_kib: u64,
}

/// This program.
pub(super) fn this_program() -> Result<PathBuf, String> {
    std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))
}

impl Server {
    /// Starts `seckill serve` of that build in a folder with these settings, and waits until it is ready.
    pub(super) async fn start(
        program: &Path,
        folder: &Path,
        config: Option<&Path>,
        settings: &[(&str, String)],
    ) -> Result<Self, String> {
        let address = free_address()?;
        let mut command = subcommand(program, "serve", config, settings);
        command.current_dir(folder).env("SECKILL__SERVER__HOST", address.ip().to_string());
        command.env("SECKILL__SERVER__PORT", address.port().to_string());
        Self::spawn(command, address, "/readyz", 200).await
    }

    /// Starts the bare endpoint that F is measured with.
    pub(super) async fn start_baseline() -> Result<Self, String> {
        let address = free_address()?;
        let mut command = Command::new(this_program()?);
        command.arg("baseline").arg(address.to_string());
        Self::spawn(command, address, "/", 404).await
    }

    async fn spawn(mut command: Command, address: SocketAddr, path: &str, answer: u16) -> Result<Self, String> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let child = command.spawn().map_err(|error| format!("cannot start the server: {error}"))?;
        let mut server = Self { address, child };
        let begun = Instant::now();
        let probe = request("GET", path, None, None);
        while !ask(address, &probe).await.is_ok_and(|(status, _)| status == answer) {
            if let Ok(Some(status)) = server.child.try_wait() {
                return Err(format!("the server ended: {status}"));
            }
            if begun.elapsed() > START_PATIENCE {
                return Err(format!("the server was not ready within {START_PATIENCE:?}"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(server)
    }

    /// CPU time and memory so far; zeros where the system does not tell.
    pub(super) fn usage(&self) -> Usage {
        let Some(pid) = self.child.id() else { return Usage::default() };
        let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        // After the name in parentheses: state is field 0, so utime and stime (in clock ticks of 10 ms) are 11 and 12.
        let stat = read("stat");
        let ticks = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks.filter_map(|field| field.parse::<u64>().ok()).sum();
        let status = read("status");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB"));
        Usage {
            cpu: Duration::from_millis(ticks * 10),
            peak_memory_kib: peak.and_then(|peak| peak.trim().parse().ok()).unwrap_or(0),
        }
    }

    /// Kills it and waits until it is gone.
    pub(super) async fn end(mut self) {
        let _ = self.child.kill().await;
    }
}

/// Lets this program bring the schema up to date.
pub(super) async fn migrate(config: Option<&Path>, settings: &[(&str, String)]) -> Result<(), String> {
    let failed = |problem: &dyn std::fmt::Display| format!("seckill migrate: {problem}");
    let status = subcommand(&this_program()?, "migrate", config, settings).kill_on_drop(true).status().await;
    match status.map_err(|error| failed(&error))? {
        status if status.success() => Ok(()),
        status => Err(failed(&status)),
    }
}

fn subcommand(program: &Path, name: &str, config: Option<&Path>, settings: &[(&str, String)]) -> Command {
    let mut command = Command::new(program);
    command.arg(name).env("RUST_LOG", "error");
    if let Some(file) = config {
        command.arg("--config").arg(file);
    }
    command.envs(settings.iter().map(|(key, value)| (*key, value)));
    command
}

fn free_address() -> Result<SocketAddr, String> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|error| format!("no free port: {error}"))
}
