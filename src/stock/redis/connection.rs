//! Connections to Redis that many tasks share, each bound to the identity of the server it was made to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::io::tcp::TcpSettings;
use deadpool_redis::redis::{
    self, AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, InfoDict, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, TlsCertificates,
};
use deadpool_redis::{Manager, Pool, PoolError, Runtime};
use parking_lot::Mutex;
use secrecy::ExposeSecret;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::failure::{refused, refused_database, sort_connect};
use crate::config;
use crate::stock::types::GateError;
use crate::tls::{self, Trust};

/// To open a connection, and to wait for one from the pool.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// For one answer. A step that times out may still have been done.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);
/// After a failed attempt, the next callers are turned away this long without trying.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A connection and the identity of its server.
///
/// It never reconnects by itself: behind a new connection may be another server, which must be asked first.
pub(super) struct Link {
    // Keeps the place in the pool; commands go through clones of `shared`.
    pooled: Option<deadpool_redis::Connection>,
    shared: MultiplexedConnection,
    /// `run_id` and replication id: another one after each restart, promotion or resynchronisation.
    pub(super) server_id: String,
}

impl Link {
    /// A handle for one command.
    pub(super) fn conn(&self) -> MultiplexedConnection {
        self.shared.clone()
    }
}

impl Drop for Link {
    /// Closes the connection instead of giving it back: the next link must reach the server of then.
    fn drop(&mut self) {
        self.pooled.take().map(deadpool_redis::Connection::take);
    }
}

/// Holds one link: made on first use, made again after it broke.
pub(super) struct ConnectionCell {
    server: Arc<RedisServer>,
    pool: Pool,
    database: u16,
    runtime: Handle,
    link: Mutex<Option<Arc<Link>>>,
    connecting: tokio::sync::Mutex<Option<(Instant, GateError)>>,
}

/// Where Redis is, and how one logs in there.
pub(super) struct RedisServer {
    /// Chooses no database: the library would not say why Redis refuses one.
    address: ConnectionInfo,
    host: String,
    port: u16,
    trust: Option<Arc<Trust>>,
}

impl RedisServer {
    pub(super) fn new(settings: &config::Redis) -> Result<Self, String> {
        let mut login = RedisConnectionInfo::default();
        let password = settings.password.expose_secret();
        if !password.is_empty() {
            login = login.set_password(password);
        }
        if !settings.username.is_empty() {
            login = login.set_username(&settings.username);
        }
        let of_address = |error: RedisError| format!("redis.addr: {error}");
        let trust = settings.trust()?;
        let scheme = if trust.is_some() { "rediss" } else { "redis" };
        let address = format!("{scheme}://{}", settings.addr).into_connection_info().map_err(of_address)?;
        // Many share a connection: a call must not wait until the answers of those before have come.
        let mut address = address.set_redis_settings(login).set_tcp_settings(TcpSettings::default().set_nodelay(true));
        if let Some(trust) = &trust {
            let roots = TlsCertificates { client_tls: None, root_cert: Some(trust.pem()) };
            let client = Client::build_with_tls(address, roots).map_err(|error| format!("redis.tls: {error}"))?;
            address = client.get_connection_info().clone();
        }
        let (host, port) = match address.addr() {
            ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => (host.clone(), *port),
            _ => return Err("redis.addr: must be host:port".to_owned()),
        };
        Ok(Self { address, host, port, trust })
    }

    /// A pool of `size` connections.
    pub(super) fn pool(&self, size: usize) -> Result<Pool, String> {
        let timeouts = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let manager = Manager::new_with_config(self.address.clone(), timeouts);
        Pool::builder(manager.map_err(|error| format!("redis: {error}"))?)
            .max_size(size)
            .wait_timeout(Some(CONNECT_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .recycle_timeout(Some(CONNECT_TIMEOUT))
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| format!("redis: {error}"))
    }

    /// What an error of a connection that does not stand yet means.
    async fn failed(&self, error: &PoolError) -> GateError {
        let sorted = sort_connect(error);
        let GateError::Unreachable(problem) = sorted else { return sorted };
        let (host, port) = (self.host.as_str(), self.port);
        let broke = |error: &RedisError| !error.is_connection_refusal() && !error.is_timeout();
        let hung_up = matches!(error, PoolError::Backend(error) if broke(error));
        let of_tls = match &self.trust {
            Some(trust) => match tokio::join!(trust.why_refused(host, port), answers_without_tls(host, port)) {
                (Some(problem), _) => Some(problem),
                (None, true) => Some(trust.does_not_speak_tls(host, port)),
                // Without an answer nobody knows whether the other side understands TLS.
                (None, false) => return GateError::Unreachable(format!("{problem}, over TLS, as redis.tls says")),
            },
            None if hung_up && tls::speaks_tls(host, port).await => {
                Some(format!("redis.tls: {host}:{port} wants TLS: set redis.tls: verify"))
            }
            None => None,
        };
        of_tls.map_or(GateError::Unreachable(problem), GateError::Misconfigured)
    }
}

/// Whether it is Redis without TLS, which would wait for ever for the end of a line in what a handshake begins with.
async fn answers_without_tls(host: &str, port: u16) -> bool {
    let asking = async {
        let mut stream = TcpStream::connect((tls::bare(host), port)).await?;
        stream.write_all(b"PING\r\n").await?;
        stream.read_u8().await
    };
    // A pong, or an error.
    matches!(tokio::time::timeout(RESPONSE_TIMEOUT, asking).await, Ok(Ok(b'+' | b'-')))
}

/// For those who connect by themselves. It chooses no database.
pub fn redis_address(settings: &config::Redis) -> Result<ConnectionInfo, String> {
    RedisServer::new(settings).map(|server| server.address)
}

impl ConnectionCell {
    /// Must be called on the main runtime.
    pub(super) fn new(server: Arc<RedisServer>, pool: Pool, database: u16) -> Self {
        let (link, connecting) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { server, pool, database, runtime: Handle::current(), link, connecting }
    }

    /// The link, made now if there is none.
    pub(super) async fn link(&self) -> Result<Arc<Link>, GateError> {
        if let Some(link) = self.current() {
            return Ok(link);
        }
        let mut last_failure = self.connecting.lock().await;
        if let Some(link) = self.current() {
            return Ok(link);
        }
        if let Some((at, problem)) = &*last_failure
            && at.elapsed() < RETRY_PAUSE
        {
            return Err(problem.clone());
        }
        match self.connect().await {
            Ok(link) => {
                *last_failure = None;
                let link = Arc::new(link);
                *self.link.lock() = Some(link.clone());
                Ok(link)
            }
            Err(problem) => {
                *last_failure = Some((Instant::now(), problem.clone()));
                Err(problem)
            }
        }
    }

    pub(super) fn current(&self) -> Option<Arc<Link>> {
        self.link.lock().clone()
    }

    /// Forgets a link that failed, unless another has taken its place already.
    pub(super) fn drop_link(&self, failed: &Arc<Link>) {
        let mut link = self.link.lock();
        if link.as_ref().is_some_and(|current| Arc::ptr_eq(current, failed)) {
            *link = None;
        }
    }

    async fn connect(&self) -> Result<Link, GateError> {
        let (server, pool, database) = (self.server.clone(), self.pool.clone(), self.database);
        // A connection lives on the runtime that made it, and an HTTP worker's ends before ours.
        let connecting = self.runtime.spawn(async move {
            let pooled = match pool.get().await {
                Ok(pooled) => pooled,
                Err(error) => return Err(server.failed(&error).await),
            };
            let mut shared: MultiplexedConnection = (*pooled).clone();
            if database != 0 {
                let chosen: Result<(), _> = redis::cmd("SELECT").arg(database).query_async(&mut shared).await;
                if let Err(error) = chosen {
                    return Err(match refused_database(&error, database) {
                        GateError::Unreachable(_) => server.failed(&PoolError::Backend(error)).await,
                        refused => refused,
                    });
                }
            }
            // A server that wants TLS may hang up only when it is asked something.
            let server_id = match ask_info(&mut shared).await {
                Ok(info) => identify(&info)?,
                Err(error) => return Err(server.failed(&PoolError::Backend(error)).await),
            };
            Ok(Link { pooled: Some(pooled), shared, server_id })
        });
        connecting.await.unwrap_or_else(|error| Err(GateError::Unreachable(error.to_string())))
    }
}

/// Asks a server who it is, and refuses one that must not keep a gate.
pub(super) async fn read_server_id(conn: &mut MultiplexedConnection) -> Result<String, GateError> {
    let info = ask_info(conn).await.map_err(|error| sort_connect(&PoolError::Backend(error)))?;
    identify(&info)
}

async fn ask_info(conn: &mut MultiplexedConnection) -> Result<InfoDict, RedisError> {
    redis::cmd("INFO").query_async(conn).await
}

fn identify(info: &InfoDict) -> Result<String, GateError> {
    let field = |name: &str| info.get::<String>(name).unwrap_or_default();
    if field("loading") == "1" {
        return Err(refused("LOADING", ""));
    }
    if field("role") != "master" {
        return Err(refused("READONLY", &format!("its role is {}", field("role"))));
    }
    let policy = field("maxmemory_policy");
    if policy != "noeviction" {
        let problem = format!("maxmemory-policy of Redis is {policy}; it must be noeviction, or buyers are forgotten");
        return Err(GateError::Misconfigured(problem));
    }
    let (run, replication) = (field("run_id"), field("master_replid"));
    if run.is_empty() || replication.is_empty() {
        return Err(GateError::Misconfigured("INFO of Redis shows neither run_id nor master_replid".to_owned()));
    }
    Ok(format!("{run}:{replication}"))
}
