//! Connections: how each begins, and what it means when one cannot be had.

use std::path::Path;
use std::time::Duration;

use deadpool::managed::TimeoutType;
use diesel::connection::SimpleConnection;
use diesel::result::Error as QueryError;
use diesel::{Connection, ConnectionError, SqliteConnection};
use diesel_async::pooled_connection::PoolError as ManagerError;
use diesel_async::pooled_connection::deadpool::PoolError;
use diesel_async::{AsyncConnection, AsyncMysqlConnection, SimpleAsyncConnection};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, Error as ClientError, IoError, Opts, OptsBuilder};

use super::conn::AsyncSqliteConnection;
use super::diagnosis::{self, classify};
use super::error::{DbError, DbResult};

/// For all of it: connect, log in, set up.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Each session: what the protocol assumes, and errors instead of silently changed values.
const MYSQL_SESSION: [&str; 3] = [
    "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO'",
    "SET SESSION innodb_lock_wait_timeout = 3",
];
/// Each connection to the file. FULL: a commit is on disk before it returns, so a 202 survives a power loss. A new file
/// gets pages of 8 KiB: half as many calls to write the index of a sale, most of whose pages each transaction changes.
const SQLITE_SESSION: &str = "PRAGMA page_size = 8192; PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
     PRAGMA foreign_keys = ON; PRAGMA journal_size_limit = 67108864; PRAGMA wal_autocheckpoint = 8192;";
/// The connection that sells. Buyers come in no order, so a transaction touches pages all over the indexes: they stay in
/// memory (32 MiB at most), and only every 64 MiB of log (`wal_autocheckpoint`, in pages) are they written to their place.
const SQLITE_SELLER: &str = "PRAGMA cache_size = -32768;";

/// Connects to MySQL. Not by way of Diesel, which would throw the number of an error away.
pub(super) async fn mysql(dsn: &str) -> DbResult<AsyncMysqlConnection> {
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, establish_mysql(dsn));
    connecting.await.unwrap_or_else(|_| Err(DbError::Unreachable("no answer while connecting".to_owned())))
}

async fn establish_mysql(dsn: &str) -> DbResult<AsyncMysqlConnection> {
    let options = Opts::from_url(dsn).map_err(|error| DbError::Misconfigured(error.to_string()))?;
    if options.db_name().is_none_or(str::is_empty) {
        return Err(DbError::Misconfigured("names no database; it must end with /DATABASE".to_owned()));
    }
    let place = format!("{}:{}", options.ip_or_hostname(), options.tcp_port());
    // Diesel counts the rows that a statement found, and keeps prepared statements itself.
    let options =
        OptsBuilder::from_opts(options).init(MYSQL_SESSION.to_vec()).stmt_cache_size(0).client_found_rows(true);
    let mut conn = Conn::new(options).await.map_err(|error| at(&place, of_client(error)))?;
    // Diesel prepares statements at once. Where there is no room for them, this error still has its number.
    let probe = conn.prep("DO 0").await.map_err(of_client)?;
    conn.close(probe).await.map_err(of_client)?;
    AsyncMysqlConnection::try_from(conn).await.map_err(|error| DbError::Unreachable(error.to_string()))
}

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

/// [`mysql`] for the pool.
pub(super) async fn pooled_mysql(dsn: &str) -> Result<AsyncMysqlConnection, ConnectionError> {
    mysql(dsn).await.map_err(packed)
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

/// Names the server that nobody has reached.
fn at(place: &str, error: DbError) -> DbError {
    match error {
        DbError::Unreachable(problem) => DbError::Unreachable(format!("{place}: {problem}")),
        other => other,
    }
}

/// What an error of a connection that does not stand yet means.
fn of_client(error: ClientError) -> DbError {
    match error {
        ClientError::Server(error) => {
            DbError::of_class(classify(Some(error.code), &error.state), Some(error.code), error.message)
        }
        ClientError::Url(error) => DbError::Misconfigured(error.to_string()),
        // What client and server cannot agree on does not change by asking again.
        ClientError::Driver(
            problem @ (DriverError::UnknownAuthPlugin { .. }
            | DriverError::MysqlOldPasswordDisabled
            | DriverError::CleartextPluginDisabled
            | DriverError::NoClientSslFlagFromServer
            | DriverError::CantParseServerVersion { .. }),
        ) => DbError::Misconfigured(problem.to_string()),
        // In the system's words alone: the client puts its own before them, twice.
        ClientError::Io(IoError::Io(error)) => DbError::Unreachable(error.to_string()),
        other => DbError::Unreachable(other.to_string()),
    }
}
