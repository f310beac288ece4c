//! The servers of `mysql.dsn`: how one connects, and to which of several.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use diesel_async::AsyncMysqlConnection;
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, Error as ClientError, IoError, Opts, OptsBuilder, SslOpts, TlsError};
use tokio::time::{Instant, timeout_at};

use super::diagnosis::classify;
use super::error::{DbError, DbResult, ErrorClass};
use crate::config;
use crate::tls::{self, Trust};

/// For all of it: connect, log in, set up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Each session: what the protocol assumes, and errors instead of silently changed values.
const SESSION: [&str; 3] = [
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO'",
    "SET SESSION innodb_lock_wait_timeout = 3",
];
/// What tells a server that takes writes from others. One that does not know a name leaves it out.
const ROLE: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('read_only', 'wsrep_on')";

/// See the module.
pub(super) struct MySqlServers {
    /// Or what is wrong with the settings, which every attempt to connect returns.
    servers: Result<Vec<MySqlServer>, String>,
    /// The one that was used last, with which the next connection begins: all connections should lead to the same one.
    used: AtomicUsize,
}

struct MySqlServer {
    /// Kept, for it remembers how TLS is spoken.
    options: Opts,
    host: String,
    port: u16,
    trust: Option<Arc<Trust>>,
}

impl MySqlServers {
    /// Connects to nothing yet.
    pub(super) fn new(settings: &config::MySql) -> Self {
        Self { servers: read(settings), used: AtomicUsize::default() }
    }

    /// Connects to the only server, or to the first of several that takes writes. One that does not answer in time is the
    /// last one that the next connection tries.
    pub(super) async fn connect(&self) -> DbResult<AsyncMysqlConnection> {
        let servers = self.servers.as_ref().map_err(|problem| DbError::Misconfigured(problem.clone()))?;
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let first = self.used.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for at in (first..first + servers.len()).map(|at| at % servers.len()) {
            match timeout_at(deadline, servers[at].connect(servers.len() > 1)).await {
                Ok(Ok(conn)) => {
                    self.used.store(at, Ordering::Relaxed);
                    return Ok(conn);
                }
                Ok(Err(error)) => failures.push(error),
                Err(_) => {
                    self.used.store((at + 1) % servers.len(), Ordering::Relaxed);
                    failures.push(servers[at].unreachable("no answer while connecting"));
                    break;
                }
            }
        }
        Err(of_all(failures))
    }
}

/// Whether the settings name servers that could be connected to; connects to nothing.
pub fn check_mysql(settings: &config::MySql) -> Result<(), String> {
    read(settings).map(drop)
}

/// A connection of its own, outside the pool.
pub async fn connect_mysql(settings: &config::MySql) -> DbResult<AsyncMysqlConnection> {
    MySqlServers::new(settings).connect().await
}

/// One server, or several of which at least one can become what is needed by itself: then that is what is waited for.
fn of_all(mut failures: Vec<DbError>) -> DbError {
    if failures.len() == 1 {
        return failures.remove(0);
    }
    if failures.iter().all(|failure| !matches!(failure.class(), ErrorClass::Unreachable | ErrorClass::Lost)) {
        return failures.swap_remove(0);
    }
    let all: Vec<String> = failures.iter().map(told).collect();
    DbError::Unreachable(format!("none of the servers: {}", all.join("; ")))
}

fn told(failure: &DbError) -> String {
    match failure {
        DbError::Unreachable(problem) | DbError::Misconfigured(problem) => problem.clone(),
        other => other.to_string(),
    }
}

fn read(settings: &config::MySql) -> Result<Vec<MySqlServer>, String> {
    let trust = settings.trust()?;
    let servers = settings.servers().map_err(|error| format!("mysql.dsn: {error}"))?;
    servers.iter().map(|url| MySqlServer::new(url, trust.clone())).collect()
}

impl MySqlServer {
    fn new(url: &url::Url, trust: Option<Arc<Trust>>) -> Result<Self, String> {
        let options = Opts::from_url(url.as_str()).map_err(|error| format!("mysql.dsn: {error}"))?;
        if options.db_name().is_none_or(str::is_empty) {
            return Err("mysql.dsn: names no database; it must end with /DATABASE".to_owned());
        }
        if options.ssl_opts().is_some() {
            return Err("mysql.dsn: require_ssl does not belong here: remove it, and set mysql.tls: verify".to_owned());
        }
        if trust.is_some() && options.socket().is_some() {
            return Err("mysql.dsn: a socket has no TLS: leave it out, or set mysql.tls: off".to_owned());
        }
        let (host, port) = (options.ip_or_hostname().to_owned(), options.tcp_port());
        // Diesel counts the rows that a statement found, and keeps prepared statements itself.
        let mut builder =
            OptsBuilder::from_opts(options).init(SESSION.to_vec()).stmt_cache_size(0).client_found_rows(true);
        if let Some(trust) = &trust {
            let roots = trust.certificates().iter().map(|certificate| certificate.to_vec().into()).collect();
            let tls = SslOpts::default()
                .with_disable_built_in_roots(true)
                .with_root_certs(roots)
                .with_danger_tls_hostname_override(Some(tls::bare(&host).to_owned()));
            // To a server on this machine it would go over to a socket, where there is no TLS.
            builder = builder.ssl_opts(tls).prefer_socket(false);
        }
        Ok(Self { options: builder.into(), host, port, trust })
    }

    async fn connect(&self, one_of_several: bool) -> DbResult<AsyncMysqlConnection> {
        let mut conn = Conn::new(self.options.clone()).await.map_err(|error| self.failed(error))?;
        if one_of_several {
            self.check_role(&mut conn).await?;
        }
        // Diesel prepares statements at once. Where there is no room for them, this error still has its number.
        let probe = conn.prep("DO 0").await.map_err(|error| self.failed(error))?;
        conn.close(probe).await.map_err(|error| self.failed(error))?;
        AsyncMysqlConnection::try_from(conn).await.map_err(|error| DbError::Unreachable(error.to_string()))
    }

    /// Refuses a replica: what is read there may be older than what was written at the primary. And servers that all take
    /// writes, for a lock at one of them is none at another.
    async fn check_role(&self, conn: &mut Conn) -> DbResult<()> {
        let role: Vec<(String, String)> = conn.query(ROLE).await.map_err(|error| self.failed(error))?;
        let is_on = |name: &str| role.iter().any(|(known, value)| known == name && value != "OFF" && value != "0");
        if is_on("wsrep_on") {
            return Err(DbError::Misconfigured(format!(
                "mysql.dsn: {}:{} is a node of Galera, where several take writes: name one address that leads to one of them",
                self.host, self.port
            )));
        }
        match is_on("read_only") {
            true => Err(self.unreachable("is read_only: make the primary writable")),
            false => Ok(()),
        }
    }

    fn unreachable(&self, problem: &str) -> DbError {
        DbError::Unreachable(format!("{}:{}: {problem}", self.host, self.port))
    }

    /// What an error of a connection that does not stand yet means.
    fn failed(&self, error: ClientError) -> DbError {
        match error {
            ClientError::Server(error) => {
                DbError::of_class(classify(Some(error.code), &error.state), Some(error.code), error.message)
            }
            ClientError::Url(error) => DbError::Misconfigured(format!("mysql.dsn: {error}")),
            ClientError::Driver(DriverError::NoClientSslFlagFromServer) => DbError::Misconfigured(format!(
                "mysql.tls: {}:{} has no TLS: give it a certificate, or set mysql.tls: off",
                self.host, self.port
            )),
            // What client and server cannot agree on does not change by asking again.
            ClientError::Driver(
                problem @ (DriverError::UnknownAuthPlugin { .. }
                | DriverError::MysqlOldPasswordDisabled
                | DriverError::CleartextPluginDisabled
                | DriverError::CantParseServerVersion { .. }),
            ) => DbError::Misconfigured(format!("mysql.dsn: {problem}")),
            ClientError::Io(IoError::Tls(TlsError::Tls(error))) if self.trust.is_some() => {
                let explain = |trust: &Arc<Trust>| trust.explain(&error, &self.host, self.port);
                DbError::Misconfigured(self.trust.as_ref().map(explain).unwrap_or_default())
            }
            ClientError::Io(IoError::Io(error)) => {
                let of_tls = self.trust.as_ref().and_then(|trust| trust.problem(&error, &self.host, self.port));
                // In the system's words alone: the client puts its own before them, twice.
                of_tls.map_or_else(|| self.unreachable(&error.to_string()), DbError::Misconfigured)
            }
            other => self.unreachable(&other.to_string()),
        }
    }
}
