//! Who has the turn to write to a SQLite file. It has one writer: to wait for this turn is fair, to wait for the file's lock
//! would not be.

use std::path::PathBuf;

use diesel::{QueryResult, SqliteConnection};

use super::error::DbResult;
use super::{connect, diagnosis};

/// Whoever has the turn to write to the file. Its own connection is for work that must not change threads.
pub(super) struct SqliteWriter {
    file: PathBuf,
    conn: Option<SqliteConnection>,
}

impl SqliteWriter {
    /// Of this file.
    pub(super) fn new(file: PathBuf) -> Self {
        Self { file, conn: None }
    }

    /// Runs `work` in a transaction on this thread, which blocks. `None`: `work` had it rolled back.
    pub(super) fn transaction<T>(
        &mut self,
        work: impl FnOnce(&mut SqliteConnection) -> QueryResult<T>,
    ) -> DbResult<Option<T>> {
        tokio::task::block_in_place(|| {
            let mut conn = match self.conn.take() {
                Some(conn) => conn,
                None => connect::seller(&self.file)?,
            };
            // After an error the connection might still be in the middle of something: the next one is new.
            let done = match conn.immediate_transaction(work) {
                Ok(value) => Some(value),
                Err(diesel::result::Error::RollbackTransaction) => None,
                Err(error) => return Err(diagnosis::of_sqlite(error)),
            };
            self.conn = Some(conn);
            Ok(done)
        })
    }
}
