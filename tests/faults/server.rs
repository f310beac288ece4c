//! The program under test, as a process of its own.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use seckill::config::{Backend, Config, RedisMode, Tls};
use secrecy::ExposeSecret;
use tokio::process::{Child, Command};

use crate::process;

/// The program that is tested.
const OWN: &str = env!("CARGO_BIN_EXE_seckill");
/// To start and to be ready.
const START_PATIENCE: Duration = Duration::from_secs(45);
/// To end after SIGTERM, with room to see by how much it was late.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// Lines of its log that a failed test shows.
const LAST_LINES: usize = 40;

/// `seckill serve` on a port of its own, the same one after every restart.
pub struct Server {
    program: PathBuf,
    settings: Vec<(&'static str, String)>,
    port: u16,
    log: PathBuf,
    child: Option<Child>,
}

impl Server {
    fn new(config: &Config, more: &[(&'static str, String)]) -> Self {
        let port = process::free_port();
        let log = std::env::temp_dir().join(format!("seckill-faults-{port}-{}.log", uuid::Uuid::now_v7().simple()));
        let settings = [settings(config, port), more.to_vec()].concat();
        Self { program: PathBuf::from(OWN), settings, port, log, child: None }
    }

    /// Starts it and waits until it is ready.
    pub async fn start(config: &Config) -> Self {
        Self::start_with(config, &[]).await
    }

    /// The same, with something more in its environment, also when it is started again.
    pub async fn start_with(config: &Config, more: &[(&'static str, String)]) -> Self {
        let mut server = Self::new(config, more);
        server.restart().await;
        server
    }

    /// Starts another build of it, which is replaced by this one when it is started again.
    pub async fn start_old(config: &Config, program: PathBuf) -> Self {
        let mut server = Self::new(config, &[]);
        let own = std::mem::replace(&mut server.program, program);
        server.restart().await;
        server.program = own;
        server
    }

    /// Starts it where it cannot become ready, and waits until it says so.
    pub async fn start_unready(config: &Config) -> Self {
        let mut server = Self::new(config, &[]);
        let log = OpenOptions::new().create(true).append(true).open(&server.log).unwrap();
        server.child = Some(server.command().stderr(log).spawn().expect("the program starts"));
        let url = server.url();
        let begun = Instant::now();
        while reqwest::get(format!("{url}/readyz")).await.is_err() {
            assert!(begun.elapsed() < START_PATIENCE, "does not listen after {START_PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        server
    }

    fn command(&self) -> Command {
        let mut command = command_of(&self.program, "serve", &self.settings);
        if self.program != Path::new(OWN) {
            // It may not know what our config.yaml says.
            command.current_dir(std::env::temp_dir());
        }
        command
    }

    /// Starts it again on the same settings and waits until it is ready.
    pub async fn restart(&mut self) {
        self.restart_with(&[]).await;
    }

    /// The same, with something more in its environment.
    pub async fn restart_with(&mut self, more: &[(&str, String)]) {
        let log = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let command = self.command().envs(more.iter().cloned()).stderr(log).spawn();
        let url = self.url();
        let child = self.child.insert(command.expect("the program starts"));
        let begun = Instant::now();
        while !is_ready(&url).await {
            assert!(child.try_wait().unwrap().is_none(), "the program ended by itself");
            assert!(begun.elapsed() < START_PATIENCE, "not ready after {START_PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What `/readyz` says: its status and its body.
    pub async fn readiness(&self) -> (u16, String) {
        let reply = reqwest::get(format!("{}/readyz", self.url())).await.unwrap();
        (reply.status().as_u16(), reply.text().await.unwrap())
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub async fn kill(&mut self) {
        process::kill(&mut self.child.take().expect("it runs")).await;
    }

    /// Starts it where it cannot start; how it ended, which it must by itself.
    #[cfg(feature = "failpoints")]
    pub async fn restart_in_vain(&mut self, more: &[(&str, String)]) -> ExitStatus {
        let log = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut child = self.command().envs(more.iter().cloned()).stderr(log).spawn().unwrap();
        tokio::time::timeout(START_PATIENCE, child.wait()).await.expect("it ends by itself").unwrap()
    }

    /// Waits until it has died by itself.
    #[cfg(feature = "failpoints")]
    pub async fn died(&mut self, patience: Duration) -> ExitStatus {
        let mut child = self.child.take().expect("it runs");
        tokio::time::timeout(patience, child.wait()).await.expect("it dies at its crash point").unwrap()
    }

    /// What it has said.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Asks it to end; how it did, and after how long.
    pub async fn terminate(&mut self) -> (ExitStatus, Duration) {
        process::terminate(&mut self.child.take().expect("it runs"), STOP_PATIENCE).await
    }

    /// Memory in use, in MiB.
    pub fn memory_mib(&self) -> u64 {
        self.status_mib("VmRSS:")
    }

    /// The most that ever was in use, in MiB.
    pub fn peak_memory_mib(&self) -> u64 {
        self.status_mib("VmHWM:")
    }

    fn status_mib(&self, key: &str) -> u64 {
        let line = self.proc("status").lines().find_map(|line| Some(line.strip_prefix(key)?.to_owned())).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// Processor time that it has used.
    pub fn cpu_seconds(&self) -> f64 {
        cpu_seconds(&self.proc("stat"))
    }

    fn proc(&self, file: &str) -> String {
        let pid = self.child.as_ref().and_then(Child::id).expect("it runs");
        fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap()
    }
}

/// Processor time in a `stat` of the system, of a process or a thread.
pub fn cpu_seconds(stat: &str) -> f64 {
    let after_name = stat.rsplit(')').next().unwrap();
    let ticks = after_name.split_whitespace().skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>();
    ticks / 100.0
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
            eprintln!("the end of {}:\n{last}", self.log.display());
        } else {
            let _ = fs::remove_file(&self.log);
        }
    }
}

/// Runs it to its end, which it should meet at once; what it ended with and what it said.
pub async fn run(config: &Config) -> (ExitStatus, String) {
    run_with(config, &[]).await
}

/// The same, with something more in its environment.
pub async fn run_with(config: &Config, more: &[(&'static str, String)]) -> (ExitStatus, String) {
    let settings = [settings(config, process::free_port()), more.to_vec()].concat();
    let command = command_of(Path::new(OWN), "serve", &settings).stderr(Stdio::piped()).spawn();
    let ending = command.expect("the program starts").wait_with_output();
    let output = tokio::time::timeout(START_PATIENCE, ending).await.expect("it ends by itself").unwrap();
    (output.status, String::from_utf8(output.stderr).unwrap())
}

/// Runs another command to its end; whether it succeeded, and what it said.
pub async fn run_command(config: &Config, subcommand: &str, arguments: &[&str]) -> (bool, String) {
    let mut command = command_of(Path::new(OWN), subcommand, &settings(config, 0));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped());
    let output = tokio::time::timeout(START_PATIENCE, command.output()).await.expect("it ends by itself").unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

/// Brings the schema up to date; how that ended.
pub async fn migrate(config: &Config, arguments: &[&str]) -> ExitStatus {
    let mut command = command_of(Path::new(OWN), "migrate", &settings(config, 0));
    command.args(arguments).stderr(Stdio::null()).status().await.expect("the program starts")
}

async fn is_ready(url: &str) -> bool {
    reqwest::get(format!("{url}/readyz")).await.is_ok_and(|reply| reply.status() == 200)
}

fn command_of(program: &Path, subcommand: &str, settings: &[(&'static str, String)]) -> Command {
    let mut command = Command::new(program);
    // The servers of the configuration are an error while the backend is embedded.
    for key in ["MYSQL__DSN", "REDIS__ADDR", "REDIS__PASSWORD", "RABBITMQ__URL"] {
        command.env_remove(format!("SECKILL__{key}"));
    }
    command.arg(subcommand).envs(settings.iter().cloned()).env_remove("RUST_LOG").kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

fn settings(config: &Config, port: u16) -> Vec<(&'static str, String)> {
    let mut settings = vec![
        ("SECKILL__SERVER__PORT", port.to_string()),
        ("SECKILL__EMBEDDED__DATA_DIR", config.embedded.data_dir.display().to_string()),
        ("SECKILL__AUTH__JWT_SECRET", config.auth.jwt_secret.expose_secret().to_owned()),
        ("SECKILL__AUTH__BCRYPT_COST", config.auth.bcrypt_cost.to_string()),
        ("SECKILL__ADMIN__PASSWORD", config.admin.password.expose_secret().to_owned()),
    ];
    settings.extend(match config.backend {
        Backend::Embedded => vec![("SECKILL__BACKEND", "embedded".to_owned())],
        Backend::Distributed => vec![
            ("SECKILL__BACKEND", "distributed".to_owned()),
            ("SECKILL__MYSQL__DSN", config.mysql.dsn.expose_secret().to_owned()),
            ("SECKILL__REDIS__ADDR", config.redis.addr.clone()),
            ("SECKILL__REDIS__PASSWORD", config.redis.password.expose_secret().to_owned()),
            ("SECKILL__REDIS__USERNAME", config.redis.username.clone()),
            ("SECKILL__REDIS__KEY_PREFIX", config.redis.key_prefix.clone()),
            ("SECKILL__REDIS__DB", config.redis.db.to_string()),
            ("SECKILL__RABBITMQ__URL", config.rabbitmq.url.expose_secret().to_owned()),
            ("SECKILL__RABBITMQ__QUEUE", config.rabbitmq.queue.clone()),
            ("SECKILL__MYSQL__TLS", tls(config.mysql.tls)),
            ("SECKILL__MYSQL__TLS_CA_FILE", config.mysql.tls_ca_file.display().to_string()),
            ("SECKILL__REDIS__TLS", tls(config.redis.tls)),
            ("SECKILL__REDIS__TLS_CA_FILE", config.redis.tls_ca_file.display().to_string()),
            ("SECKILL__RABBITMQ__TLS", tls(config.rabbitmq.tls)),
            ("SECKILL__RABBITMQ__TLS_CA_FILE", config.rabbitmq.tls_ca_file.display().to_string()),
        ],
    });
    // A program of an earlier version does not know these.
    if config.redis.mode != RedisMode::Single {
        settings.extend([
            ("SECKILL__REDIS__MODE", mode(config.redis.mode)),
            ("SECKILL__REDIS__NODES", config.redis.nodes.join(",")),
            ("SECKILL__REDIS__SENTINEL_PASSWORD", config.redis.sentinel_password.expose_secret().to_owned()),
        ]);
    }
    settings
}

fn mode(mode: RedisMode) -> String {
    match mode {
        RedisMode::Single => "single",
        RedisMode::Sentinel => "sentinel",
        RedisMode::Cluster => "cluster",
    }
    .to_owned()
}

fn tls(tls: Tls) -> String {
    match tls {
        Tls::Off => "off",
        Tls::Verify => "verify",
    }
    .to_owned()
}
