//! A connection to whichever database was configured. The queries are its methods, one file a table.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use diesel::{QueryResult, SqliteConnection};
use diesel_async::pooled_connection::PoolableConnection;
use diesel_async::pooled_connection::deadpool::Object;
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use diesel_async::{AsyncConnection, AsyncMysqlConnection, RunQueryDsl, SimpleAsyncConnection, TransactionManager};
use futures_util::future::BoxFuture;

use super::diagnosis::diagnosed;
use super::error::{DbError, DbResult};
use super::wanted_events::WantedEvents;
use crate::model::EventType;

/// Runs one query text on whichever database the connection is to, and has an error diagnosed where it happened. `$conn`
/// is a `&mut DbConn`.
macro_rules! on_db {
    ($conn:ident, $query:expr) => {
        match $conn {
            $crate::db::conn::DbConn::MySql(connection) => {
                let result = {
                    let $conn = &mut **connection;
                    $query
                };
                $crate::db::diagnosis::diagnosed(&mut **connection, result).await
            }
            $crate::db::conn::DbConn::Sqlite(connection) => {
                let result = {
                    let $conn = &mut **connection;
                    $query
                };
                $crate::db::diagnosis::diagnosed(&mut **connection, result).await
            }
        }
    };
}
pub(super) use on_db;

pub(super) type AsyncSqliteConnection = SyncConnectionWrapper<SqliteConnection>;

diesel::define_sql_function! {
    /// The id that the last `INSERT` of this session generated (MySQL).
    fn last_insert_id() -> diesel::sql_types::BigInt;
}

diesel::define_sql_function! {
    /// The id that the last `INSERT` of this connection generated (SQLite).
    fn last_insert_rowid() -> diesel::sql_types::BigInt;
}

/// A connection from the pool. The queries are its methods.
pub enum DbConn {
    /// To MySQL or MariaDB.
    MySql(Pooled<Object<AsyncMysqlConnection>>),
    /// To a SQLite file.
    Sqlite(Pooled<Object<AsyncSqliteConnection>>),
}

/// A connection of a pool, which knows what somebody wants to be told of.
pub struct Pooled<O> {
    connection: O,
    wanted_events: Arc<WantedEvents>,
}

impl<O> Pooled<O> {
    pub(super) fn new(connection: O, wanted_events: Arc<WantedEvents>) -> Self {
        Self { connection, wanted_events }
    }
}

impl<O: Deref> Deref for Pooled<O> {
    type Target = O::Target;

    fn deref(&self) -> &O::Target {
        &self.connection
    }
}

impl<O: DerefMut> DerefMut for Pooled<O> {
    fn deref_mut(&mut self) -> &mut O::Target {
        &mut self.connection
    }
}

impl DbConn {
    pub(super) async fn in_transaction<T, E, F>(&mut self, work: F) -> Result<T, E>
    where
        E: From<DbError>,
        F: for<'c> FnOnce(&'c mut DbConn) -> BoxFuture<'c, Result<T, E>>,
    {
        self.begin().await?;
        match work(self).await {
            Ok(value) => {
                self.commit().await?;
                Ok(value)
            }
            Err(error) => {
                // When even this fails the connection is broken, and its server rolls back.
                let _ = self.rollback().await;
                Err(error)
            }
        }
    }

    /// Whether it answers.
    pub(super) async fn select_one(&mut self) -> DbResult<()> {
        let conn = self;
        on_db!(conn, SimpleAsyncConnection::batch_execute(conn, "SELECT 1").await)
    }

    /// The number that the last row was given which this connection has inserted.
    pub(super) async fn last_inserted(&mut self) -> DbResult<i64> {
        match self {
            Self::MySql(conn) => {
                let id = diesel::select(last_insert_id()).get_result(&mut **conn).await;
                diagnosed(&mut **conn, id).await
            }
            Self::Sqlite(conn) => {
                let id = diesel::select(last_insert_rowid()).get_result(&mut **conn).await;
                diagnosed(&mut **conn, id).await
            }
        }
    }

    async fn begin(&mut self) -> DbResult<()> {
        let conn = self;
        on_db!(conn, begin(conn).await)
    }

    async fn commit(&mut self) -> DbResult<()> {
        let conn = self;
        on_db!(conn, commit(conn).await)
    }

    async fn rollback(&mut self) -> DbResult<()> {
        let conn = self;
        on_db!(conn, rollback(conn).await)
    }

    /// Whether it must not be used again: its server cannot do what is asked, or its transaction was not ended.
    pub(super) fn is_spoiled(&mut self) -> bool {
        match self {
            Self::MySql(conn) => PoolableConnection::is_broken(&mut **conn),
            Self::Sqlite(conn) => PoolableConnection::is_broken(&mut **conn),
        }
    }

    /// Closes the connection instead of giving it back.
    pub(super) fn discard(self) {
        match self {
            Self::MySql(conn) => drop(Object::take(conn.connection)),
            Self::Sqlite(conn) => drop(Object::take(conn.connection)),
        }
    }

    /// Whether somebody may want to be told of events of this type.
    pub(super) fn is_wanted(&self, event_type: EventType) -> bool {
        match self {
            Self::MySql(conn) => conn.wanted_events.wants(event_type),
            Self::Sqlite(conn) => conn.wanted_events.wants(event_type),
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
