//! The database: pooled connections, and every query there is, one file a table. No rules of the sale.
//!
//! [`Db::run`] and [`Db::transaction`] are the only ways in. They run on the main runtime, never on an actix
//! worker's: a request that is given up must not cut a query or a transaction in two.

mod error;
mod idempotency;
mod migrations;
mod orders;
mod products;
pub mod schema;
mod users;

use std::time::Duration;

use diesel::{ConnectionError, QueryResult};
use diesel_async::pooled_connection::deadpool::{Object, Pool, PoolError};
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig};
use diesel_async::{AsyncConnection, AsyncMysqlConnection, SimpleAsyncConnection, TransactionManager};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use secrecy::{ExposeSecret, SecretString};
use tokio::runtime::Handle;

use crate::config;

pub use error::{DbError, DbResult};
pub use idempotency::{NewKey, StoredKey};
pub use orders::{NewOrder, WrittenOrder};
pub use products::{NewProduct, ProductChange, ProductLock};

/// Wait for a free connection, and for a new one to be made.
const POOL_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest a query or a whole transaction may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);
/// Each session: what the protocol assumes, and errors instead of silently changed values.
const MYSQL_SESSION: [&str; 3] = [
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO'",
    "SET SESSION innodb_lock_wait_timeout = 3",
];

/// Runs one query text on whichever database the connection is to. `$conn` is a `&mut DbConn`.
macro_rules! on_db {
    ($conn:ident, $query:expr) => {
        match $conn {
            $crate::db::DbConn::MySql($conn) => {
                let $conn = &mut **$conn;
                $query
            }
        }
    };
}
use on_db;

/// The pool of the database that was configured. Cheap to clone.
#[derive(Clone)]
pub struct Db {
    pool: DbPool,
    runtime: Handle,
}

#[derive(Clone)]
enum DbPool {
    MySql(Pool<AsyncMysqlConnection>),
}

/// A connection from the pool. The queries are its methods.
pub enum DbConn {
    /// To MySQL or MariaDB.
    MySql(Object<AsyncMysqlConnection>),
}

impl Db {
    /// Makes the pool; connects only when the first query asks for it. Must be called on the main runtime.
    pub fn mysql(settings: &config::MySql) -> Self {
        let mut manager = ManagerConfig::default();
        manager.custom_setup = Box::new(|dsn| connect_mysql(dsn).boxed());
        let manager = AsyncDieselConnectionManager::new_with_config(settings.dsn.expose_secret(), manager);
        let pool = Pool::builder(manager)
            .max_size(settings.pool_size)
            .wait_timeout(Some(POOL_TIMEOUT))
            .create_timeout(Some(POOL_TIMEOUT))
            .recycle_timeout(Some(POOL_TIMEOUT))
            .runtime(deadpool_redis::Runtime::Tokio1)
            .build()
            .expect("a runtime is set, which is all that can be missing");
        Self { pool: DbPool::MySql(pool), runtime: Handle::current() }
    }

    /// Brings the schema up to date. Safe when several instances do it at once.
    pub async fn migrate(dsn: &SecretString) -> DbResult<()> {
        migrations::run_mysql(dsn.expose_secret()).await
    }

    /// Runs `work` with a connection, outside a transaction.
    ///
    /// After an error that [`DbError::is_transient`], the work may have been done all the same.
    pub async fn run<T, E, F>(&self, work: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbError> + Send + 'static,
        F: for<'c> FnOnce(&'c mut DbConn) -> BoxFuture<'c, Result<T, E>> + Send + 'static,
    {
        let pool = self.pool.clone();
        let task = self.runtime.spawn(async move {
            let mut conn = pool.get().await?;
            match tokio::time::timeout(QUERY_TIMEOUT, work(&mut conn)).await {
                Ok(result) => result,
                Err(_) => {
                    // A query cut short leaves its connection unusable.
                    conn.discard();
                    Err(DbError::TimedOut.into())
                }
            }
        });
        task.await.map_err(|stopped| DbError::Task(stopped.to_string()))?
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
        self.run(move |conn| {
            Box::pin(async move {
                conn.begin().await?;
                match work(conn).await {
                    Ok(value) => {
                        conn.commit().await?;
                        Ok(value)
                    }
                    Err(error) => {
                        // When even this fails the connection is broken, and its server rolls back.
                        let _ = conn.rollback().await;
                        Err(error)
                    }
                }
            })
        })
        .await
    }

    /// Whether the database answers.
    pub async fn ping(&self) -> DbResult<()> {
        self.run(|conn| Box::pin(async move { Ok(on_db!(conn, conn.batch_execute("SELECT 1").await)?) })).await
    }
}

impl DbPool {
    async fn get(&self) -> DbResult<DbConn> {
        match self {
            Self::MySql(pool) => Ok(DbConn::MySql(pool.get().await?)),
        }
    }
}

impl DbConn {
    async fn begin(&mut self) -> DbResult<()> {
        let conn = self;
        Ok(on_db!(conn, begin(conn).await)?)
    }

    async fn commit(&mut self) -> DbResult<()> {
        let conn = self;
        Ok(on_db!(conn, commit(conn).await)?)
    }

    async fn rollback(&mut self) -> DbResult<()> {
        let conn = self;
        Ok(on_db!(conn, rollback(conn).await)?)
    }

    /// Closes the connection instead of giving it back.
    fn discard(self) {
        match self {
            Self::MySql(conn) => drop(Object::take(conn)),
        }
    }
}

async fn begin<C: AsyncConnection>(conn: &mut C) -> QueryResult<()> {
    C::TransactionManager::begin_transaction(conn).await
}

async fn commit<C: AsyncConnection>(conn: &mut C) -> QueryResult<()> {
    C::TransactionManager::commit_transaction(conn).await
}

async fn rollback<C: AsyncConnection>(conn: &mut C) -> QueryResult<()> {
    C::TransactionManager::rollback_transaction(conn).await
}

async fn connect_mysql(dsn: &str) -> Result<AsyncMysqlConnection, ConnectionError> {
    let mut conn = AsyncMysqlConnection::establish(dsn).await?;
    for statement in MYSQL_SESSION {
        conn.batch_execute(statement).await.map_err(ConnectionError::CouldntSetupConfiguration)?;
    }
    Ok(conn)
}

impl From<PoolError> for DbError {
    fn from(error: PoolError) -> Self {
        Self::Unreachable(error.to_string())
    }
}
