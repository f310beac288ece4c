//! Connections: how each begins, and what it means when one cannot be had.

use std::path::Path;
use std::sync::Arc;

use deadpool::managed::TimeoutType;
use diesel::connection::SimpleConnection;
use diesel::result::Error as QueryError;
use diesel::{Connection, ConnectionError, SqliteConnection};
use diesel_async::pooled_connection::PoolError as ManagerError;
use diesel_async::pooled_connection::deadpool::PoolError;
use diesel_async::{AsyncConnection, AsyncMysqlConnection, SimpleAsyncConnection};

use super::conn::AsyncSqliteConnection;
use super::diagnosis;
use super::error::{DbError, DbResult};
use super::mysql_servers::MySqlServers;

/// Each connection to the file. FULL: a commit is on disk before it returns, so a 202 survives a power loss. A new file
/// gets pages of 8 KiB: half as many calls to write the index of a sale, most of whose pages each transaction changes.
const SQLITE_SESSION: &str = "PRAGMA page_size = 8192; PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
     PRAGMA foreign_keys = ON; PRAGMA journal_size_limit = 67108864; PRAGMA wal_autocheckpoint = 8192;";
/// The connection that sells. Buyers come in no order, so a transaction touches pages all over the indexes: they stay in
/// memory (32 MiB at most), and only every 64 MiB of log (`wal_autocheckpoint`, in pages) are they written to their place.
const SQLITE_SELLER: &str = "PRAGMA cache_size = -32768;";

/// Connects to a file, which is made if there is none.
pub(super) async fn sqlite(file: &str) -> DbResult<AsyncSqliteConnection> {
    let conn = AsyncSqliteConnection::establish(file).await;
    let mut conn = conn.map_err(not_opened)?;
    conn.batch_execute(SQLITE_SESSION).await.map_err(diagnosis::of_sqlite)?;
    Ok(conn)
}

/// The connection that sells, for work that must not change threads.
pub(super) fn seller(file: &Path) -> DbResult<SqliteConnection> {
    let conn = SqliteConnection::establish(&file.to_string_lossy());
    let mut conn = conn.map_err(not_opened)?;
    conn.batch_execute(SQLITE_SESSION).map_err(diagnosis::of_sqlite)?;
    conn.batch_execute(SQLITE_SELLER).map_err(diagnosis::of_sqlite)?;
    Ok(conn)
}

fn not_opened(error: ConnectionError) -> DbError {
    match error {
        ConnectionError::BadConnection(text) => diagnosis::of_sqlite_text(&text),
        other => DbError::Unreachable(other.to_string()),
    }
}

/// Connects to MySQL for the pool. Not by way of Diesel, which would throw the number of an error away.
pub(super) async fn pooled_mysql(servers: Arc<MySqlServers>) -> Result<AsyncMysqlConnection, ConnectionError> {
    servers.connect().await.map_err(packed)
}

/// [`sqlite`] for the pool.
pub(super) async fn pooled_sqlite(file: &str) -> Result<AsyncSqliteConnection, ConnectionError> {
    sqlite(file).await.map_err(packed)
}

/// The pool hands on errors of Diesel only: ours travels inside one.
fn packed(error: DbError) -> ConnectionError {
    ConnectionError::CouldntSetupConfiguration(QueryError::QueryBuilderError(Box::new(error)))
}

impl From<PoolError> for DbError {
    fn from(error: PoolError) -> Self {
        match error {
            PoolError::Timeout(TimeoutType::Wait) => Self::Overloaded("no connection became free in time".to_owned()),
            PoolError::Backend(ManagerError::ConnectionError(ConnectionError::CouldntSetupConfiguration(
                QueryError::QueryBuilderError(inside),
            ))) => match inside.downcast::<Self>() {
                Ok(error) => *error,
                Err(other) => Self::Unreachable(other.to_string()),
            },
            other => Self::Unreachable(other.to_string()),
        }
    }
}
