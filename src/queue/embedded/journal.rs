//! The queue's file: confirmed messages that the database does not hold yet.
//!
//! One narrow table, appended to at its end, so that what a buyer waits for is one small write and one flush to disk,
//! however many indexes the orders have.

use std::path::Path;

use diesel::connection::SimpleConnection;
use diesel::prelude::*;

use crate::model::Timestamp;
use crate::queue::dead_letter::{Chosen, DeadLetter};

/// FULL: a commit is on disk before it returns. Not EXCLUSIVE, although the folder's lock keeps other servers away: a
/// backup reads the file meanwhile. It stays small, for what is done is deleted.
const SESSION: &str = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;";
/// `batches`, as earlier versions named it, holds a message in each row.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS batches (seq INTEGER NOT NULL PRIMARY KEY, body BLOB NOT NULL) STRICT;
    CREATE TABLE IF NOT EXISTS dead (seq INTEGER NOT NULL PRIMARY KEY, body BLOB NOT NULL, reason TEXT NOT NULL) STRICT;";
/// Since when they are dead, in milliseconds of Unix time; journals of earlier versions have no such column.
const DEAD_SINCE: &str = "ALTER TABLE dead ADD COLUMN parked_at INTEGER";

diesel::table! {
    batches (seq) {
        seq -> BigInt,
        body -> Binary,
    }
}

diesel::table! {
    dead (seq) {
        seq -> BigInt,
        body -> Binary,
        reason -> Text,
        parked_at -> Nullable<BigInt>,
    }
}

type DeadRow = (i64, Vec<u8>, String, Option<i64>);

/// A message that is over: its purchases are orders, or it is a dead letter.
pub(super) struct Done {
    pub(super) seq: i64,
    /// The reason, if it is a dead letter: it can never become orders, and is kept.
    pub(super) dead: Option<String>,
}

/// The file, open.
pub struct Journal {
    conn: SqliteConnection,
}

impl Journal {
    /// Opens the file, which is made if there is none.
    pub(in crate::queue) fn open(file: &Path) -> Result<Self, String> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
        let mut conn = SqliteConnection::establish(&file.to_string_lossy()).map_err(|error| failed(&error))?;
        conn.batch_execute(SESSION).map_err(|error| failed(&error))?;
        conn.batch_execute(TABLES).map_err(|error| failed(&error))?;
        if dead::table.select(dead::parked_at).limit(0).load::<Option<i64>>(&mut conn).is_err() {
            conn.batch_execute(DEAD_SINCE).map_err(|error| failed(&error))?;
        }
        Ok(Self { conn })
    }

    /// What an earlier process confirmed and did not finish, in its order.
    pub(super) fn unfinished(&mut self) -> QueryResult<Vec<(i64, Vec<u8>)>> {
        batches::table.order(batches::seq).load(&mut self.conn)
    }

    /// The last number that is in use.
    pub(super) fn last_seq(&mut self) -> QueryResult<i64> {
        let last: Option<i64> = batches::table.select(diesel::dsl::max(batches::seq)).first(&mut self.conn)?;
        let last_dead: Option<i64> = dead::table.select(diesel::dsl::max(dead::seq)).first(&mut self.conn)?;
        Ok(last.max(last_dead).unwrap_or(0))
    }

    /// Dead letters.
    pub(super) fn count_dead(&mut self) -> QueryResult<i64> {
        dead::table.count().get_result(&mut self.conn)
    }

    /// Dead letters, the oldest first, `most` of them.
    pub(in crate::queue) fn dead_letters(&mut self, most: i64) -> QueryResult<Vec<DeadLetter>> {
        let rows: Vec<DeadRow> = dead::table.order(dead::seq).limit(most).load(&mut self.conn)?;
        Ok(rows.into_iter().map(letter).collect())
    }

    /// One of them.
    pub(super) fn dead_letter(&mut self, seq: i64) -> QueryResult<Option<DeadLetter>> {
        let row: Option<DeadRow> = dead::table.find(seq).first(&mut self.conn).optional()?;
        Ok(row.map(letter))
    }

    /// Takes a dead letter away; in its place `new` waits for a consumer, under a number of its own, and `kept` stays set aside, for a
    /// reason. False: it is not there, and nothing was done.
    pub(super) fn put_back(
        &mut self,
        seq: i64,
        new: Option<(i64, Vec<u8>)>,
        kept: Option<(String, Vec<u8>)>,
    ) -> QueryResult<bool> {
        self.conn.immediate_transaction(|conn| {
            let row = dead::table.find(seq);
            let is_there = match kept {
                None => diesel::delete(row).execute(conn)?,
                Some((reason, body)) => {
                    let set =
                        (dead::reason.eq(reason), dead::body.eq(body), dead::parked_at.eq(Timestamp::now().unix_ms()));
                    diesel::update(row).set(set).execute(conn)?
                }
            };
            if is_there == 1
                && let Some((seq, body)) = new
            {
                diesel::insert_into(batches::table)
                    .values((batches::seq.eq(seq), batches::body.eq(body)))
                    .execute(conn)?;
            }
            Ok(is_there == 1)
        })
    }

    /// Makes them wait for a consumer again.
    pub(in crate::queue) fn replay_dead(&mut self, chosen: &Chosen) -> Result<usize, String> {
        self.each_chosen(chosen, |conn, seq| {
            let back = dead::table.find(seq).select((dead::seq, dead::body));
            diesel::insert_or_ignore_into(batches::table)
                .values(back)
                .into_columns((batches::seq, batches::body))
                .execute(conn)?;
            diesel::delete(dead::table.find(seq)).execute(conn)
        })
    }

    /// Deletes them.
    pub(in crate::queue) fn drop_dead(&mut self, chosen: &Chosen) -> Result<usize, String> {
        self.each_chosen(chosen, |conn, seq| diesel::delete(dead::table.find(seq)).execute(conn))
    }

    /// Does the same with each of them, in one transaction; how many they were.
    fn each_chosen(
        &mut self,
        chosen: &Chosen,
        act: impl Fn(&mut SqliteConnection, i64) -> QueryResult<usize>,
    ) -> Result<usize, String> {
        let seqs: Vec<i64> =
            dead::table.select(dead::seq).order(dead::seq).load(&mut self.conn).map_err(|error| error.to_string())?;
        let ids: Vec<String> = seqs.iter().map(i64::to_string).collect();
        chosen.check(ids.iter().map(String::as_str))?;
        let done = self.conn.immediate_transaction(|conn| {
            let chosen = seqs.iter().zip(&ids).filter(|(_, id)| chosen.contains(id));
            chosen.map(|(seq, _)| act(conn, *seq)).sum::<QueryResult<usize>>()
        });
        done.map_err(|error: diesel::result::Error| error.to_string())
    }

    /// Adds messages and takes away what is done, in one transaction. Repeating it after an error is harmless.
    pub(super) fn commit(&mut self, done: &[Done], new: &[(i64, Vec<u8>)]) -> QueryResult<()> {
        self.conn.immediate_transaction(|conn| {
            for Done { seq, dead: reason } in done {
                let row = batches::table.find(seq);
                if let Some(reason) = reason {
                    let now = Some(Timestamp::now().unix_ms());
                    let kept = row.select((
                        batches::seq,
                        batches::body,
                        reason.into_sql::<diesel::sql_types::Text>(),
                        now.into_sql::<diesel::sql_types::Nullable<diesel::sql_types::BigInt>>(),
                    ));
                    diesel::insert_or_ignore_into(dead::table).values(kept).execute(conn)?;
                }
                diesel::delete(row).execute(conn)?;
            }
            for (seq, body) in new {
                let row = (batches::seq.eq(seq), batches::body.eq(body));
                diesel::insert_or_ignore_into(batches::table).values(row).execute(conn)?;
            }
            Ok(())
        })
    }
}

fn letter((seq, body, reason, parked_at): DeadRow) -> DeadLetter {
    DeadLetter {
        id: seq.to_string(),
        parked_at: parked_at.and_then(Timestamp::from_unix_ms),
        reason: Some(reason),
        body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_confirmed_and_not_done_is_there_again() {
        let file = std::env::temp_dir().join(format!("seckill-journal-{}", uuid::Uuid::now_v7()));
        let mut journal = Journal::open(&file).unwrap();
        journal.commit(&[], &[(1, b"a".to_vec()), (2, b"b".to_vec()), (3, b"c".to_vec())]).unwrap();
        let dead = Done { seq: 3, dead: Some("unreadable".to_owned()) };
        journal.commit(&[Done { seq: 1, dead: None }, dead], &[(4, b"d".to_vec())]).unwrap();
        // As after an error whose outcome is not known.
        journal.commit(&[Done { seq: 1, dead: None }], &[(4, b"d".to_vec())]).unwrap();
        drop(journal);

        let mut journal = Journal::open(&file).unwrap();
        assert_eq!(journal.unfinished().unwrap(), [(2, b"b".to_vec()), (4, b"d".to_vec())]);
        assert_eq!(journal.last_seq().unwrap(), 4);
        let dead: Vec<(i64, String)> = dead::table.select((dead::seq, dead::reason)).load(&mut journal.conn).unwrap();
        assert_eq!(dead, [(3, "unreadable".to_owned())]);
        std::fs::remove_file(file).unwrap();
    }

    #[test]
    fn dead_letters_of_an_earlier_version_are_read_and_chosen_by_their_ids() {
        let file = std::env::temp_dir().join(format!("seckill-journal-{}", uuid::Uuid::now_v7()));
        let mut old = SqliteConnection::establish(file.to_str().unwrap()).unwrap();
        old.batch_execute(TABLES).unwrap();
        old.batch_execute(
            "INSERT INTO dead VALUES (3, x'61', 'because'), (4, x'62', 'because'), (7, x'63', 'because')",
        )
        .unwrap();
        drop(old);
        let mut journal = Journal::open(&file).unwrap();
        let ids = |journal: &mut Journal| -> Vec<String> {
            journal.dead_letters(i64::MAX).unwrap().into_iter().map(|letter| letter.id).collect()
        };
        assert_eq!(ids(&mut journal), ["3", "4", "7"]);
        let some = |ids: &[&str]| Chosen::Ids(ids.iter().map(|id| (*id).to_owned()).collect());
        let problem = journal.drop_dead(&some(&["3", "5"])).unwrap_err();
        assert!(problem.contains("letter 5"), "{problem}");
        assert_eq!(ids(&mut journal), ["3", "4", "7"], "nothing was done");
        assert_eq!(journal.drop_dead(&some(&["4"])), Ok(1));
        assert_eq!(journal.replay_dead(&some(&["7"])), Ok(1));
        assert_eq!(ids(&mut journal), ["3"]);
        assert_eq!(journal.unfinished().unwrap(), [(7, b"c".to_vec())]);
        assert_eq!(journal.replay_dead(&Chosen::All), Ok(1));
        std::fs::remove_file(file).unwrap();
    }
}
