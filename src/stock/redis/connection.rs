//! Connections to Redis that many tasks share, each bound to the identity of the server it was made to.

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_redis::PoolError;
use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{self, InfoDict, RedisError};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use super::address::Address;
use super::failure::{refused, refused_database, sort_connect};
use super::shard::Master;
use crate::stock::types::GateError;

/// After a failed attempt, the next callers are turned away this long without trying.
pub(super) const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// A connection and the identity of its server.
///
/// It never reconnects by itself: behind a new connection may be another server, which must be asked first.
pub(super) struct Link {
    // Keeps the place in the pool; commands go through clones of `shared`.
    pooled: Option<deadpool_redis::Connection>,
    shared: MultiplexedConnection,
    /// Where its server is.
    pub(super) address: Address,
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

/// Holds one link to the master of a shard: made on first use, made again after it broke.
pub(super) struct ConnectionCell {
    master: Arc<Master>,
    database: u16,
    runtime: Handle,
    link: Mutex<Option<Arc<Link>>>,
    connecting: tokio::sync::Mutex<Option<(Instant, GateError)>>,
}

impl ConnectionCell {
    /// Must be called on the main runtime.
    pub(super) fn new(master: Arc<Master>, database: u16, runtime: Handle) -> Self {
        let (link, connecting) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { master, database, runtime, link, connecting }
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

    /// Asks the link's server who it is, and refuses one that must not keep a gate.
    pub(super) async fn read_server_id(&self, link: &Link) -> Result<String, GateError> {
        let info = ask_info(&mut link.conn()).await.map_err(|error| sort_connect(&PoolError::Backend(error)))?;
        identify(&info, &self.master)
    }

    async fn connect(&self) -> Result<Link, GateError> {
        let (master, database) = (self.master.clone(), self.database);
        // A connection lives on the runtime that made it, and the runtime of an HTTP worker ends before the main one.
        let connecting = self.runtime.spawn(async move {
            let server = master.find().await?;
            let pooled = match server.pool.get().await {
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
                Ok(info) => identify(&info, &master)?,
                Err(error) => return Err(server.failed(&PoolError::Backend(error)).await),
            };
            Ok(Link { pooled: Some(pooled), shared, address: server.address.clone(), server_id })
        });
        connecting.await.unwrap_or_else(|error| Err(GateError::Unreachable(error.to_string())))
    }
}

async fn ask_info(conn: &mut MultiplexedConnection) -> Result<InfoDict, RedisError> {
    redis::cmd("INFO").query_async(conn).await
}

fn identify(info: &InfoDict, master: &Master) -> Result<String, GateError> {
    let field = |name: &str| info.get::<String>(name).unwrap_or_default();
    let problem = match field("redis_mode").as_str() {
        "sentinel" => Some("redis.addr: this is a Sentinel: name it in redis.nodes, and set redis.mode: sentinel"),
        "cluster" if !master.is_of_cluster() => {
            Some("redis.mode: this is a node of a cluster: name it in redis.nodes, and set redis.mode: cluster")
        }
        _ => None,
    };
    if let Some(problem) = problem {
        return Err(GateError::Misconfigured(problem.to_owned()));
    }
    if field("loading") == "1" {
        return Err(refused("LOADING", ""));
    }
    if field("role") != "master" {
        return Err(refused("READONLY", &format!("its role is {}", field("role"))));
    }
    let policy = field("maxmemory_policy");
    if policy != "noeviction" {
        let problem = format!(
            "maxmemory-policy of Redis is {policy}; it must be noeviction, or buyers are forgotten: \
             `CONFIG SET maxmemory-policy noeviction`, and the same in redis.conf"
        );
        return Err(GateError::Misconfigured(problem));
    }
    let (run, replication) = (field("run_id"), field("master_replid"));
    if run.is_empty() || replication.is_empty() {
        return Err(GateError::Misconfigured("INFO of Redis shows neither run_id nor master_replid".to_owned()));
    }
    Ok(format!("{run}:{replication}"))
}
