//! Copies of the embedded backend's two files, taken while it sells, and what makes a data folder of one again.
//!
//! A backup is one SQLite file: the database, and in the table `seckill_backup` the journal's file as it was. It holds no
//! secret of the data folder; it does hold the users' names and password hashes, and the secrets of webhooks.
//!
//! **The journal is copied before the database.** A promise is in the journal before its buyer hears of it, and it leaves
//! the journal only after its order is committed in the database. So for a promise given before the copy of the journal,
//! at time T1, one of two is true: it is in the journal at T1, and so in the copy; or it has left it before T1, and then
//! its order was committed before T1, and so before the database is copied at T2 > T1. Copied the other way round, an
//! order could move from the journal to the database between the two copies and be in neither. What is in both is
//! harmless: a start delivers the journal again, and an order that is there already is found by its id. Promises given
//! after T1 may be missing: that is what a backup is.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use diesel::connection::SimpleConnection;
use diesel::sql_types::{Binary, Text};
use diesel::{Connection, QueryableByName, RunQueryDsl, SqliteConnection, sql_query};

use crate::model::Timestamp;

const TABLE: &str = "CREATE TABLE seckill_backup \
     (made_at TEXT NOT NULL, version TEXT NOT NULL, journal BLOB NOT NULL) STRICT";

#[derive(QueryableByName)]
struct Backup {
    #[diesel(sql_type = Text)]
    made_at: String,
    #[diesel(sql_type = Text)]
    version: String,
    #[diesel(sql_type = Binary)]
    journal: Vec<u8>,
}

#[derive(QueryableByName)]
struct Word {
    #[diesel(sql_type = Text)]
    word: String,
}

/// Copies both files into a new one, for this user alone. Blocks; the files may be in use.
pub fn back_up(database: &Path, journal: &Path, into: &Path) -> Result<(), String> {
    for file in [database, journal] {
        if !file.is_file() {
            return Err(format!("there is no {}; is embedded.data_dir the folder of the server?", file.display()));
        }
    }
    make_new(into)?;
    let done = fill(database, journal, into);
    if done.is_err() {
        // Half of a backup must not be taken for one.
        let _ = fs::remove_file(into);
    }
    done
}

fn fill(database: &Path, journal: &Path, into: &Path) -> Result<(), String> {
    let made_at = Timestamp::now().to_string();
    // See the module: the journal first.
    let aside = beside(into, ".journal");
    make_new(&aside)?;
    let journal = copy(journal, &aside).and_then(|()| fs::read(&aside).map_err(|error| problem(&aside, &error)));
    fs::remove_file(&aside).map_err(|error| problem(&aside, &error))?;
    let journal = journal?;
    copy(database, into)?;
    let failed = |error: &dyn std::fmt::Display| problem(into, error);
    let mut conn = open(into)?;
    conn.transaction::<_, diesel::result::Error, _>(|conn| {
        conn.batch_execute(TABLE)?;
        sql_query("INSERT INTO seckill_backup (made_at, version, journal) VALUES (?, ?, ?)")
            .bind::<Text, _>(made_at)
            .bind::<Text, _>(env!("CARGO_PKG_VERSION"))
            .bind::<Binary, _>(journal)
            .execute(conn)
    })
    .map_err(|error| failed(&error))?;
    drop(conn);
    sync(into)
}

/// Makes the two files from a backup, where there must be none. Returns when it was made, and by which version.
pub fn restore(backup: &Path, database: &Path, journal: &Path) -> Result<String, String> {
    if !backup.is_file() {
        return Err(problem(backup, &"no such file"));
    }
    for file in [database, journal] {
        if file.symlink_metadata().is_ok() {
            return Err(format!("{} exists; restore into an empty folder (embedded.data_dir)", file.display()));
        }
    }
    let (new_database, new_journal) = (beside(database, ".new"), beside(journal, ".new"));
    for left in [&new_database, &new_journal] {
        let _ = fs::remove_file(left);
    }
    let made = write_both(backup, &new_database, &new_journal);
    if made.is_err() {
        let _ = fs::remove_file(&new_database);
        let _ = fs::remove_file(&new_journal);
    }
    let made = made?;
    // A database without its journal would look complete, so it comes last.
    fs::rename(&new_journal, journal).map_err(|error| problem(journal, &error))?;
    fs::rename(&new_database, database).map_err(|error| problem(database, &error))?;
    sync(database)?;
    Ok(made)
}

fn write_both(backup: &Path, database: &Path, journal: &Path) -> Result<String, String> {
    let mut from = File::open(backup).map_err(|error| problem(backup, &error))?;
    let mut head = [0; 16];
    let is_sqlite = from.read_exact(&mut head).is_ok() && &head == b"SQLite format 3\0";
    if !is_sqlite {
        return Err(problem(backup, &"is no backup of seckill"));
    }
    let mut to = make_new(database)?;
    to.write_all(&head).and_then(|()| io::copy(&mut from, &mut to)).map_err(|error| problem(database, &error))?;
    let mut conn = open(database)?;
    let failed = |error: diesel::result::Error| problem(backup, &error);
    let sound: Vec<Word> =
        sql_query("SELECT quick_check AS word FROM pragma_quick_check LIMIT 1").load(&mut conn).map_err(failed)?;
    if sound.first().is_none_or(|sound| sound.word != "ok") {
        return Err(problem(backup, &"is damaged"));
    }
    // The table is written last: a file without it is half of a backup, or none.
    let made: Backup = sql_query("SELECT made_at, version, journal FROM seckill_backup")
        .get_result(&mut conn)
        .map_err(|_| problem(backup, &"is no backup of seckill, or half of one"))?;
    conn.batch_execute("DROP TABLE seckill_backup").map_err(failed)?;
    drop(conn);
    let mut to = make_new(journal)?;
    to.write_all(&made.journal).and_then(|()| to.sync_all()).map_err(|error| problem(journal, &error))?;
    sync(database)?;
    Ok(format!("made {} by version {}", made.made_at, made.version))
}

/// A consistent copy of a database that others may be writing to; they are not held up.
fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let mut conn = open(from)?;
    let target = to.to_str().ok_or_else(|| problem(to, &"is not UTF-8"))?;
    sql_query("VACUUM INTO ?").bind::<Text, _>(target).execute(&mut conn).map_err(|error| problem(from, &error))?;
    Ok(())
}

fn open(file: &Path) -> Result<SqliteConnection, String> {
    let mut conn = SqliteConnection::establish(&file.to_string_lossy()).map_err(|error| problem(file, &error))?;
    conn.batch_execute("PRAGMA busy_timeout = 10000").map_err(|error| problem(file, &error))?;
    Ok(conn)
}

fn make_new(file: &Path) -> Result<File, String> {
    let made = OpenOptions::new().create_new(true).write(true).mode(0o600).open(file);
    made.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => problem(file, &"exists, and is not written over"),
        _ => problem(file, &error),
    })
}

/// Waits until a file and its name are on disk.
fn sync(file: &Path) -> Result<(), String> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let both = File::open(file).and_then(|file| file.sync_all()).and_then(|()| File::open(folder)?.sync_all());
    both.map_err(|error| problem(file, &error))
}

fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn problem(file: &Path, what: &dyn std::fmt::Display) -> String {
    format!("{}: {what}", file.display())
}
