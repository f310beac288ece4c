//! The pool, and the only ways to a connection.
//!
//! Work runs on the main runtime, never on an actix worker's: a request that is given up must not cut a query or a transaction
//! in two. `Db::sell` alone runs in its caller's task with SQLite, so it is called on the main runtime only.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use deadpool::Runtime;
use diesel_async::AsyncMysqlConnection;
use diesel_async::pooled_connection::deadpool::Pool;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, RecyclingMethod};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

use super::conn::{AsyncSqliteConnection, DbConn, Pooled};
use super::error::{DbError, DbResult};
use super::mysql_servers::MySqlServers;
use super::sqlite_writer::SqliteWriter;
use super::wanted_events::WantedEvents;
use super::{connect, migrations};
use crate::config;
use crate::model::{EventType, EventTypes};
use crate::telemetry::PoolUse;

/// Wait for a free connection, for a new one to be made, and for an idle one to say that it still works.
const POOL_TIMEOUT: Duration = Duration::from_secs(2);
/// All of it together. Of a server that hangs, the pool would try each idle connection in turn.
const CONNECTED_WITHIN: Duration = Duration::from_secs(4);
/// Readers that wait for a connection at most.
const MAX_READERS_WAITING: usize = 256;
/// Whoever reads within a share waits this long for one of its connections.
const SHARE_TIMEOUT: Duration = Duration::from_millis(500);
/// The longest that the answer to "are you there" may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest a query or a whole transaction may take. [`SqliteWriter::transaction`] has no such limit: it ends when the disk
/// has answered.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// One connection writes at a time; the others read.
const SQLITE_CONNECTIONS: usize = 8;

/// The pool of the database that was configured. Cheap to clone.
#[derive(Clone)]
pub struct Db {
    pub(super) pool: DbPool,
    /// One connection that nobody else uses, so that a busy pool is not taken for a database that is away.
    probe: DbPool,
    /// Connections of the shares: a quarter of them all for products, which anybody may look at, and a quarter
    /// for orders. Log-ins, changes and background work find the others.
    products: Arc<Semaphore>,
    orders: Arc<Semaphore>,
    pub(super) wanted_events: Arc<WantedEvents>,
    runtime: Handle,
}

/// Connections to one kind of database.
#[derive(Clone)]
pub(super) enum DbPool {
    MySql(Pool<AsyncMysqlConnection>),
    Sqlite(Pool<AsyncSqliteConnection>, Arc<Mutex<SqliteWriter>>),
}

/// The connections that readers share who may ask as often as they like: see [`Db::read_within_share`].
#[derive(Debug, Clone, Copy)]
pub enum ConnectionShare {
    /// Products.
    Products,
    /// Orders.
    Orders,
}

/// How many orders are written in one transaction: a write batch.
#[derive(Debug, Clone, Copy)]
pub struct WriteBatchLimits {
    /// Orders at most, unless one message holds more.
    pub max_orders: usize,
    /// How long fewer orders may wait for more.
    pub linger: Duration,
    /// The same if they are few of each product.
    pub max_linger: Duration,
}

impl Db {
    /// Makes the pool; connects only when the first query asks for it. Must be called on the main runtime.
    pub fn mysql(settings: &config::MySql) -> Self {
        let servers = Arc::new(MySqlServers::new(settings));
        let connections = |most| {
            let mut manager = ManagerConfig::default();
            let servers = servers.clone();
            manager.custom_setup = Box::new(move |_| connect::pooled_mysql(servers.clone()).boxed());
            let manager = AsyncDieselConnectionManager::new_with_config("", manager);
            DbPool::MySql(pool(manager, most))
        };
        Self::new(connections(settings.pool_size), connections(1), settings.pool_size)
    }

    /// Makes the pool of a SQLite file, which [`Db::migrate_sqlite`] has made. Must be called on the main runtime.
    pub fn sqlite(file: &Path) -> Self {
        let connections = |most| {
            let mut manager = ManagerConfig::default();
            manager.custom_setup = Box::new(|file| connect::pooled_sqlite(file).boxed());
            manager.recycling_method = RecyclingMethod::Fast;
            let manager = AsyncDieselConnectionManager::new_with_config(file.to_string_lossy(), manager);
            let writer = SqliteWriter::new(file.to_owned());
            DbPool::Sqlite(pool(manager, most), Arc::new(Mutex::new(writer)))
        };
        Self::new(connections(SQLITE_CONNECTIONS), connections(1), SQLITE_CONNECTIONS)
    }

    fn new(pool: DbPool, probe: DbPool, connections: usize) -> Self {
        let quarter = || Arc::new(Semaphore::new((connections / 4).max(1)));
        let (products, orders, wanted_events) = (quarter(), quarter(), Arc::default());
        Self { pool, probe, products, orders, wanted_events, runtime: Handle::current() }
    }

    /// Brings a schema in MySQL up to date. Safe when several instances do it at once.
    pub async fn migrate_mysql(settings: &config::MySql) -> DbResult<()> {
        migrations::run_mysql(settings).await
    }

    /// Makes a SQLite file if there is none, and brings its schema up to date.
    pub async fn migrate_sqlite(file: &Path) -> DbResult<()> {
        migrations::run_sqlite(file).await
    }

    /// How orders are best written. Buyers come in no order, so their rows go all over the indexes, and in a file a page
    /// costs the same however many of its rows are new; in MySQL others wait for the products' rows meanwhile.
    pub fn write_batch_limits(&self) -> WriteBatchLimits {
        let max_linger = Duration::from_millis(100);
        match self.pool {
            DbPool::MySql(_) => WriteBatchLimits { max_orders: 2_000, linger: Duration::from_millis(20), max_linger },
            DbPool::Sqlite(..) => WriteBatchLimits { max_orders: 8_000, linger: Duration::from_millis(50), max_linger },
        }
    }

    /// From now on events of these types are written down, and no others.
    pub fn set_wanted_events(&self, wanted: EventTypes) {
        self.wanted_events.set(wanted);
    }

    /// How long orders have been written here in a rush, of which somebody is to be told. Who tells waits for that.
    pub fn rush(&self) -> Option<Duration> {
        self.wanted_events.rush()
    }

    /// Whether somebody may want to be told of events of this type.
    pub(super) fn is_wanted(&self, event_type: EventType) -> bool {
        self.wanted_events.wants(event_type)
    }

    /// Whether the database can be another server than before, one that lags behind. A file cannot.
    pub fn may_lag(&self) -> bool {
        matches!(self.pool, DbPool::MySql(_))
    }

    /// Runs `work` with a connection, outside a transaction: it only reads.
    pub async fn read<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbError> + Send + 'static,
        F: for<'c> FnOnce(&'c mut DbConn) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
    {
        // Whoever only reads can ask again; a growing queue would make everybody wait.
        if self.pool_use().waiting >= MAX_READERS_WAITING {
            return Err(DbError::Overloaded("too many readers wait".to_owned()).into());
        }
        self.run(false, None, work).await
    }

    /// Runs `work` outside a transaction, however many readers wait: for the few statements on which it depends who may come
    /// in, and whether this instance may sell.
    pub async fn run_first<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbError> + Send + 'static,
        F: for<'c> FnOnce(&'c mut DbConn) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
    {
        self.run(false, None, work).await
    }

    /// Like [`Self::read`], but for what anybody may ask for as often as they like: with a bounded share of the connections.
    pub async fn read_within_share<T, E, F>(&self, share: ConnectionShare, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbError> + Send + 'static,
        F: for<'c> FnOnce(&'c mut DbConn) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
    {
        let connections = match share {
            ConnectionShare::Products => &self.products,
            ConnectionShare::Orders => &self.orders,
        };
        let permit = tokio::time::timeout(SHARE_TIMEOUT, connections.clone().acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            return Err(DbError::Unreachable("too many read what anybody may ask for".to_owned()).into());
        };
        self.run(false, Some(permit), work).await
    }

    /// `permit` is given back when the query has ended, which it does also for a reader that has gone.
    async fn run<T, E, F>(&self, writes: bool, permit: Option<OwnedSemaphorePermit>, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbError> + Send + 'static,
        F: for<'c> FnOnce(&'c mut DbConn) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
    {
        let (pool, wanted_events) = (self.pool.clone(), self.wanted_events.clone());
        let task = self.runtime.spawn(async move {
            let _permit = permit;
            let _turn = if writes { pool.take_turn().await? } else { None };
            let mut conn = pool.get(wanted_events).await?;
            match tokio::time::timeout(QUERY_TIMEOUT, work(&mut conn)).await {
                Ok(result) => {
                    if conn.is_spoiled() {
                        // At once, with the locks it may hold. What else is idle leads to the same server.
                        conn.discard();
                        pool.forget_idle();
                    }
                    result
                }
                Err(_) => {
                    // A query cut short leaves its connection unusable.
                    conn.discard();
                    Err(DbError::TimedOut.into())
                }
            }
        });
        task.await.map_err(|stopped| match stopped.is_panic() {
            true => DbError::Panicked(stopped.to_string()),
            false => DbError::Task(stopped.to_string()),
        })?
    }

    /// Runs `work` in a transaction: committed when it returns `Ok`, else rolled back.
    ///
    /// After an error that [`DbError::is_transient`], the commit may have happened all the same (I5).
    pub async fn transaction<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbError> + Send + 'static,
        F: for<'c> FnOnce(&'c mut DbConn) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
    {
        self.run(true, None, move |conn| Box::pin(conn.in_transaction(work))).await
    }

    /// How much of the pool is used.
    pub fn pool_use(&self) -> PoolUse {
        let status = match &self.pool {
            DbPool::MySql(pool) => pool.status(),
            DbPool::Sqlite(pool, _) => pool.status(),
        };
        PoolUse { idle: status.available, used: status.size - status.available, waiting: status.waiting }
    }

    /// Whether the database answers, over a connection that nobody else uses.
    pub async fn ping(&self) -> DbResult<()> {
        let (probe, wanted_events) = (self.probe.clone(), self.wanted_events.clone());
        let task = self.runtime.spawn(async move {
            let mut conn = probe.get(wanted_events).await?;
            match tokio::time::timeout(PROBE_TIMEOUT, conn.select_one()).await {
                Ok(answer) => {
                    if conn.is_spoiled() {
                        conn.discard();
                    }
                    answer
                }
                Err(_) => {
                    conn.discard();
                    Err(DbError::TimedOut)
                }
            }
        });
        task.await.map_err(|stopped| DbError::Task(stopped.to_string()))?
    }
}

impl DbPool {
    pub(super) async fn get(&self, wanted_events: Arc<WantedEvents>) -> DbResult<DbConn> {
        let getting = async {
            match self {
                Self::MySql(pool) => Ok(DbConn::MySql(Pooled::new(pool.get().await?, wanted_events))),
                Self::Sqlite(pool, _) => Ok(DbConn::Sqlite(Pooled::new(pool.get().await?, wanted_events))),
            }
        };
        let got = tokio::time::timeout(CONNECTED_WITHIN, getting).await;
        got.unwrap_or_else(|_| Err(DbError::Unreachable("no connection within 4 s".to_owned())))
    }

    fn forget_idle(&self) {
        match self {
            Self::MySql(pool) => drop(pool.retain(|_, _| false)),
            Self::Sqlite(pool, _) => drop(pool.retain(|_, _| false)),
        }
    }

    /// Waits for the turn to write, where there are turns.
    pub(super) async fn take_turn(&self) -> DbResult<Option<OwnedMutexGuard<SqliteWriter>>> {
        let Self::Sqlite(_, writer) = self else { return Ok(None) };
        let turn = tokio::time::timeout(QUERY_TIMEOUT, writer.clone().lock_owned()).await;
        turn.map(Some).map_err(|_| DbError::Overloaded("too many writers wait".to_owned()))
    }
}

fn pool<M: deadpool::managed::Manager>(manager: M, size: usize) -> deadpool::managed::Pool<M> {
    deadpool::managed::Pool::builder(manager)
        .max_size(size)
        .wait_timeout(Some(POOL_TIMEOUT))
        .create_timeout(Some(POOL_TIMEOUT))
        .recycle_timeout(Some(POOL_TIMEOUT))
        .runtime(Runtime::Tokio1)
        .build()
        .expect("a runtime is set, which is all that can be missing")
}
