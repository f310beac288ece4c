//! Connections to Redis that many tasks share, each bound to the identity of the server it was made to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{
    self, AsyncConnectionConfig, InfoDict, IntoConnectionInfo, RedisConnectionInfo, RedisError,
};
use deadpool_redis::{Manager, Pool, PoolError, Runtime};
use parking_lot::Mutex;
use secrecy::ExposeSecret;
use tokio::runtime::Handle;

use super::failure::{refused, refused_database, sort_connect};
use crate::config;
use crate::stock::types::GateError;

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
    pool: Pool,
    database: u16,
    runtime: Handle,
    link: Mutex<Option<Arc<Link>>>,
    connecting: tokio::sync::Mutex<Option<(Instant, GateError)>>,
}

/// A pool of `size` connections for `settings`, which choose no database yet: the library would not say why Redis refuses one.
pub(super) fn pool(settings: &config::Redis, size: usize) -> Result<Pool, String> {
    let mut login = RedisConnectionInfo::default();
    let password = settings.password.expose_secret();
    if !password.is_empty() {
        login = login.set_password(password);
    }
    if !settings.username.is_empty() {
        login = login.set_username(&settings.username);
    }
    let address = format!("redis://{}", settings.addr)
        .into_connection_info()
        .map_err(|error| format!("redis.addr: {error}"))?
        .set_redis_settings(login);
    let timeouts = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT));
    let manager = Manager::new_with_config(address, timeouts).map_err(|error| format!("redis: {error}"))?;
    Pool::builder(manager)
        .max_size(size)
        .wait_timeout(Some(CONNECT_TIMEOUT))
        .create_timeout(Some(CONNECT_TIMEOUT))
        .recycle_timeout(Some(CONNECT_TIMEOUT))
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| format!("redis: {error}"))
}

impl ConnectionCell {
    /// Must be called on the main runtime.
    pub(super) fn new(pool: Pool, database: u16) -> Self {
        let (link, connecting) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { pool, database, runtime: Handle::current(), link, connecting }
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
        let (pool, database) = (self.pool.clone(), self.database);
        // A connection lives on the runtime that made it, and an HTTP worker's ends before ours.
        let connecting = self.runtime.spawn(async move {
            let pooled = pool.get().await.map_err(|error| sort_connect(&error))?;
            let mut shared: MultiplexedConnection = (*pooled).clone();
            if database != 0 {
                let chosen: Result<(), _> = redis::cmd("SELECT").arg(database).query_async(&mut shared).await;
                chosen.map_err(|error| refused_database(&error, database))?;
            }
            let server_id = read_server_id(&mut shared).await?;
            Ok(Link { pooled: Some(pooled), shared, server_id })
        });
        connecting.await.unwrap_or_else(|error| Err(GateError::Unreachable(error.to_string())))
    }
}

/// Asks a server who it is, and refuses one that must not keep a gate.
pub(super) async fn read_server_id(conn: &mut MultiplexedConnection) -> Result<String, GateError> {
    let unreachable = |error: RedisError| sort_connect(&PoolError::Backend(error));
    let info: InfoDict = redis::cmd("INFO").query_async(conn).await.map_err(unreachable)?;
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
