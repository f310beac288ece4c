//! MariaDB, Redis or RabbitMQ for one test alone, which may kill, freeze and empty it.
//!
//! It takes the place of the server that was configured, under the same names and passwords.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use diesel_async::{AsyncConnection, AsyncMysqlConnection, SimpleAsyncConnection};
use seckill::config::Config;
use secrecy::ExposeSecret;
use tokio::process::{Child, Command};
use url::Url;

use crate::certificates::ServerCertificate;
use crate::link::Link;
use crate::process::{self, free_port};

/// RabbitMQ needs minutes of a machine that builds something beside it.
const START_PATIENCE: Duration = Duration::from_secs(300);
const STOP_PATIENCE: Duration = Duration::from_secs(60);

pub struct Daemon {
    link: Link,
    config: Config,
    folder: PathBuf,
    port: u16,
    /// RabbitMQ's distribution port and that of its name server.
    cluster_ports: [u16; 2],
    child: Option<Child>,
    /// The name server of Erlang, which would stay behind if RabbitMQ started it.
    name_server: Option<Child>,
    /// More for its command line, at its next start.
    pub arguments: Vec<String>,
    /// It speaks TLS, and nothing else.
    certificate: Option<ServerCertificate>,
}

impl Daemon {
    /// Starts the server and makes `config` lead to it.
    pub async fn start(link: Link, config: &mut Config) -> Self {
        Self::start_with(link, config, &[]).await
    }

    /// The same with more on its command line.
    pub async fn start_with(link: Link, config: &mut Config, arguments: &[&str]) -> Self {
        Self::start_as(link, config, arguments, None).await
    }

    /// The same where it refuses whoever does not speak TLS. `config` is not told.
    pub async fn start_with_tls(link: Link, config: &mut Config, certificate: ServerCertificate) -> Self {
        Self::start_as(link, config, &[], Some(certificate)).await
    }

    async fn start_as(
        link: Link,
        config: &mut Config,
        arguments: &[&str],
        certificate: Option<ServerCertificate>,
    ) -> Self {
        let port = free_port();
        link.redirect(config, port);
        let folder = std::env::temp_dir().join(format!("seckill-faults-{}", uuid::Uuid::now_v7().simple()));
        fs::create_dir(&folder).unwrap();
        let cluster_ports = [free_port(), free_port()];
        let config = config.clone();
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let (child, name_server) = (None, None);
        let mut daemon = Self { link, config, folder, port, cluster_ports, child, name_server, arguments, certificate };
        match link {
            Link::MariaDb => daemon.install_mariadb().await,
            Link::Redis => {}
            Link::RabbitMq => daemon.prepare_rabbitmq(),
        }
        daemon.restart().await;
        daemon
    }

    /// Starts the server again and waits until it can be used; returns when that was.
    pub async fn restart(&mut self) -> Instant {
        self.launch();
        self.usable().await
    }

    /// Starts the server again.
    pub fn launch(&mut self) {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.join("log")).unwrap();
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).kill_on_drop(true);
        self.child = Some(command.spawn().unwrap_or_else(|error| panic!("{:?}: {error}", self.link)));
    }

    /// Waits until the server can be used; returns when that was.
    pub async fn usable(&self) -> Instant {
        let begun = Instant::now();
        while !self.answers().await {
            assert!(begun.elapsed() < START_PATIENCE, "{:?} did not come up:\n{}", self.link, self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Instant::now()
    }

    async fn answers(&self) -> bool {
        match &self.certificate {
            None => self.link.answers(&self.config).await,
            // The program that is tested is what speaks TLS here.
            Some(_) => tokio::net::TcpStream::connect(("127.0.0.1", self.port)).await.is_ok(),
        }
    }

    pub async fn kill(&mut self) {
        process::kill(&mut self.child.take().expect("it runs")).await;
    }

    pub async fn terminate(&mut self) {
        process::terminate(&mut self.child.take().expect("it runs"), STOP_PATIENCE).await;
    }

    /// Returns when it went on.
    pub async fn freeze(&self, time: Duration) -> Instant {
        process::freeze(self.child.as_ref().expect("it runs"), time).await;
        Instant::now()
    }

    /// A connection to MariaDB of somebody who may do everything.
    pub async fn operator(&self) -> AsyncMysqlConnection {
        let mut url = Url::parse(self.config.mysql.dsn.expose_secret()).unwrap();
        url.set_username("operator").unwrap();
        url.set_password(Some("operator")).unwrap();
        AsyncMysqlConnection::establish(url.as_str()).await.expect("the operator logs in")
    }

    /// Has the operator do something to MariaDB.
    pub async fn operate(&self, statement: &str) {
        self.operator().await.batch_execute(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
    }

    /// Where the server keeps its files.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Throws away what a Redis that is not running has on disk.
    pub fn empty_redis(&self) {
        assert!(self.child.is_none() && self.link == Link::Redis);
        fs::remove_dir_all(self.folder.join("appendonlydir")).unwrap();
    }

    fn command(&self) -> Command {
        match self.link {
            Link::MariaDb => self.mariadb(),
            Link::Redis => self.redis(),
            Link::RabbitMq => self.rabbitmq(),
        }
    }

    fn redis(&self) -> Command {
        let mut command = Command::new("redis-server");
        match &self.certificate {
            None => command.arg("--port").arg(self.port.to_string()),
            Some(ServerCertificate { ca, certificate, key }) => {
                command.args(["--port", "0", "--tls-port"]).arg(self.port.to_string());
                command.args(["--tls-auth-clients", "no", "--tls-ca-cert-file"]).arg(ca);
                command.arg("--tls-cert-file").arg(certificate).arg("--tls-key-file").arg(key)
            }
        };
        command.args(["--bind", "127.0.0.1", "--dir"]).arg(&self.folder);
        command.args(["--databases", "4096", "--maxmemory-policy", "noeviction", "--save", ""]);
        command.args(["--appendonly", "yes", "--appendfsync", "everysec"]);
        let password = self.config.redis.password.expose_secret();
        if !password.is_empty() {
            command.args(["--requirepass", password]);
        }
        command.args(&self.arguments);
        command
    }

    async fn install_mariadb(&self) {
        let mut install = Command::new("mariadb-install-db");
        install.args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"]);
        install.env("TMPDIR", &self.folder);
        install.arg(format!("--datadir={}", self.folder.join("data").display())).arg(format!("--user={}", user()));
        let installed = install.output().await.expect("mariadb-install-db");
        assert!(installed.status.success(), "{}", String::from_utf8_lossy(&installed.stderr));
        let url = Url::parse(self.config.mysql.dsn.expose_secret()).unwrap();
        let (name, password) = (url.username(), url.password().unwrap_or_default());
        let database = url.path().trim_start_matches('/');
        let access = format!(
            "CREATE DATABASE IF NOT EXISTS {database};\n\
             CREATE USER IF NOT EXISTS '{name}'@'127.0.0.1' IDENTIFIED BY '{password}';\n\
             GRANT ALL ON {database}.* TO '{name}'@'127.0.0.1';\n\
             CREATE USER IF NOT EXISTS 'operator'@'127.0.0.1' IDENTIFIED BY 'operator';\n\
             GRANT ALL ON *.* TO 'operator'@'127.0.0.1' WITH GRANT OPTION;\n"
        );
        fs::write(self.folder.join("access.sql"), access).unwrap();
    }

    fn mariadb(&self) -> Command {
        let file = |name: &str| self.folder.join(name).display().to_string();
        let mut command = Command::new("/usr/sbin/mariadbd");
        // Not in a folder with others: at its start each removes what it takes for its own old temporary tables.
        command.env("TMPDIR", &self.folder);
        command.args(["--no-defaults", "--bind-address=127.0.0.1", "--skip-name-resolve", "--max-connections=500"]);
        command.args(["--innodb-flush-log-at-trx-commit=1", "--innodb-log-file-size=64M"]);
        command.arg(format!("--user={}", user())).arg(format!("--port={}", self.port));
        command.arg(format!("--datadir={}", file("data"))).arg(format!("--socket={}", file("socket")));
        command.arg(format!("--pid-file={}", file("pid"))).arg(format!("--init-file={}", file("access.sql")));
        if let Some(ServerCertificate { ca, certificate, key }) = &self.certificate {
            command.arg("--require-secure-transport=ON").arg(format!("--ssl-ca={}", ca.display()));
            command.arg(format!("--ssl-cert={}", certificate.display())).arg(format!("--ssl-key={}", key.display()));
        }
        command.args(&self.arguments);
        command
    }

    fn prepare_rabbitmq(&mut self) {
        let url = Url::parse(self.config.rabbitmq.url.expose_secret()).unwrap();
        let listener = match &self.certificate {
            None => format!("listeners.tcp.default = 127.0.0.1:{}\n", self.port),
            Some(ServerCertificate { ca, certificate, key }) => format!(
                "listeners.tcp = none\nlisteners.ssl.default = 127.0.0.1:{}\nssl_options.cacertfile = {}\n\
                 ssl_options.certfile = {}\nssl_options.keyfile = {}\n",
                self.port,
                ca.display(),
                certificate.display(),
                key.display()
            ),
        };
        let settings = format!(
            "default_user = {}\ndefault_pass = {}\n{listener}log.console = false\n",
            url.username(),
            url.password().unwrap_or_default(),
        );
        fs::write(self.folder.join("rabbitmq.conf"), settings).unwrap();
        fs::write(self.folder.join("enabled_plugins"), "[].\n").unwrap();
        let mut name_server = Command::new("epmd");
        name_server.args(["-port", &self.cluster_ports[1].to_string(), "-address", "127.0.0.1"]);
        name_server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        self.name_server = Some(name_server.spawn().expect("epmd"));
    }

    /// What an operator types at RabbitMQ.
    pub async fn rabbitmqctl(&self, arguments: &[&str]) {
        let mut command = Command::new("/usr/lib/rabbitmq/bin/rabbitmqctl");
        self.set_rabbitmq_env(&mut command);
        let output = command.args(arguments).output().await.expect("rabbitmqctl");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn rabbitmq(&self) -> Command {
        let mut command = Command::new("/usr/lib/rabbitmq/bin/rabbitmq-server");
        self.set_rabbitmq_env(&mut command);
        // Without a shell between us and the server, which would take our signals.
        command.env("RUNNING_UNDER_SYSTEMD", "true");
        command
    }

    fn set_rabbitmq_env(&self, command: &mut Command) {
        command.env("HOME", &self.folder).env("RABBITMQ_NODENAME", "seckill@localhost");
        if self.certificate.is_none() {
            command.env("RABBITMQ_NODE_IP_ADDRESS", "127.0.0.1").env("RABBITMQ_NODE_PORT", self.port.to_string());
        }
        command.env("RABBITMQ_DIST_PORT", self.cluster_ports[0].to_string());
        command.env("ERL_EPMD_PORT", self.cluster_ports[1].to_string()).env("ERL_EPMD_ADDRESS", "127.0.0.1");
        // Its distribution port, too, is for this machine alone.
        command.env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-kernel inet_dist_use_interface {127,0,0,1}");
        command.env("RABBITMQ_MNESIA_BASE", self.folder.join("mnesia"));
        command.env("RABBITMQ_LOG_BASE", self.folder.join("logs"));
        command.env("RABBITMQ_PID_FILE", self.folder.join("pid"));
        command.env("RABBITMQ_ENABLED_PLUGINS_FILE", self.folder.join("enabled_plugins"));
        command.env("RABBITMQ_CONFIG_FILE", self.folder.join("rabbitmq.conf"));
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        for child in [&mut self.child, &mut self.name_server].into_iter().flatten() {
            let _ = child.start_kill();
            // Until it is gone it would write into the folder.
            while matches!(child.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        if std::thread::panicking() {
            eprintln!("{:?} leaves its files in {}", self.link, self.folder.display());
        } else {
            let _ = fs::remove_dir_all(&self.folder);
        }
    }
}

fn user() -> String {
    let id = std::process::Command::new("id").arg("-un").output().expect("id");
    String::from_utf8(id.stdout).unwrap().trim().to_owned()
}
