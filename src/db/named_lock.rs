//! Locks by name, of all instances of a database: for work outside of it that only one of them may do at a time.

use std::time::Duration;

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel_async::RunQueryDsl;

use super::conn::DbConn;
use super::diagnosis::diagnosed;
use super::error::DbResult;
use super::pool::{Db, DbPool};

/// The server keeps locks of all its databases in one list.
const NAME: &str = "CONCAT('seckill-', ?, ':', LEFT(MD5(DATABASE()), 32))";

#[derive(QueryableByName)]
struct Taken {
    #[diesel(sql_type = Nullable<BigInt>)]
    taken: Option<i64>,
}

/// A lock that is held. Dropped, it ends with its connection; released, the connection is used again.
pub struct NamedLock {
    /// `None`: one process has the file, and nobody else needs to be kept away.
    conn: Option<DbConn>,
    name: &'static str,
}

impl Db {
    /// Waits for a lock, so long at most; `None`: another instance has it still. Must be called on the main runtime.
    pub async fn take_lock(&self, name: &'static str, patience: Duration) -> DbResult<Option<NamedLock>> {
        if let DbPool::Sqlite(..) = &self.pool {
            return Ok(Some(NamedLock { conn: None, name }));
        }
        let mut lock = NamedLock { conn: Some(self.pool.get(self.wanted_events.clone()).await?), name };
        let Some(DbConn::MySql(conn)) = &mut lock.conn else { return Ok(Some(lock)) };
        let take = sql_query(format!("SELECT CAST(GET_LOCK({NAME}, ?) AS SIGNED) AS taken"))
            .bind::<Text, _>(name)
            .bind::<BigInt, _>(i64::try_from(patience.as_secs()).unwrap_or(i64::MAX));
        let taken = take.get_result::<Taken>(&mut **conn).await;
        let is_taken = diagnosed(&mut **conn, taken).await?.taken == Some(1);
        Ok(is_taken.then_some(lock))
    }
}

impl NamedLock {
    /// Lets the next one have it.
    pub async fn release(mut self) {
        let Some(DbConn::MySql(conn)) = &mut self.conn else { return };
        let release = sql_query(format!("SELECT CAST(RELEASE_LOCK({NAME}) AS SIGNED) AS taken"));
        let released = release.bind::<Text, _>(self.name).get_result::<Taken>(&mut **conn).await;
        if diagnosed(&mut **conn, released).await.is_ok_and(|released| released.taken == Some(1)) {
            // It goes back to the pool.
            drop(self.conn.take());
        }
    }
}

impl Drop for NamedLock {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            conn.discard();
        }
    }
}
