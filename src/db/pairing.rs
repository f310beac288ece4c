//! The two files of the embedded backend belong together: the journal holds promises that the database does not have yet.
//! One without the other is not used, for it would lose them, or write orders of another sale.
//!
//! Both keep the same number in their header (`PRAGMA user_version`, which nothing else uses). The database gets its number
//! last, so a database that has one has had its journal. Folders of earlier versions have none, and get one.

use std::path::{Path, PathBuf};

use diesel::connection::SimpleConnection;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::BigInt;

/// What must be done before the two files are used.
pub struct Pairing {
    database: PathBuf,
    journal: PathBuf,
    /// For the journal, then for the database.
    number: Option<i64>,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    number: i64,
}

impl Pairing {
    /// Looks at the two files without changing them. One line that says what is wrong, and what to do.
    pub fn check(database: &Path, journal: &Path) -> Result<Self, String> {
        let of = |number| Self { database: database.to_owned(), journal: journal.to_owned(), number };
        let (has_database, has_journal) = (database.exists(), journal.exists());
        if !has_database && has_journal {
            return Err(format!(
                "{} is missing, and {} may hold promised purchases for it: put the database back, or move the journal away",
                database.display(),
                journal.display()
            ));
        }
        if !has_database {
            return Ok(of(Some(new_number()?)));
        }
        let here = number_of(database)?;
        if !has_journal {
            return match here {
                // A first start that got no further.
                0 if !has_products(database)? => Ok(of(Some(new_number()?))),
                _ => Err(format!(
                    "{} is missing: it belongs to {} and may hold promised purchases; put it back, or go on without them: \
                     `seckill migrate --new-journal`",
                    journal.display(),
                    database.display()
                )),
            };
        }
        match (here, number_of(journal)?) {
            (0, 0) => Ok(of(Some(new_number()?))),
            (0, there) => Ok(of(Some(there))),
            (here, there) if here == there => Ok(of(None)),
            _ => Err(format!(
                "{} and {} do not belong together: restore both from one backup, or go on without what the journal holds: \
                 `seckill migrate --new-journal`",
                database.display(),
                journal.display()
            )),
        }
    }

    /// Moves a journal that is not wanted away and begins a new one. Where it was moved to.
    pub fn renew(database: &Path, journal: &Path) -> Result<(Self, Option<PathBuf>), String> {
        let number = Some(new_number()?);
        let moved = journal.with_extension(format!("db.{}", uuid::Uuid::now_v7().simple()));
        let failed = |error: std::io::Error| format!("cannot move {}: {error}", journal.display());
        let had_one = journal.exists();
        // With its log, which may hold what was written last.
        for end in ["", "-wal", "-shm"] {
            let with_end = |path: &Path| PathBuf::from(format!("{}{end}", path.display()));
            if with_end(journal).exists() {
                std::fs::rename(with_end(journal), with_end(&moved)).map_err(failed)?;
            }
        }
        let pairing = Self { database: database.to_owned(), journal: journal.to_owned(), number };
        Ok((pairing, had_one.then_some(moved)))
    }

    /// Gives both files their number, if they have none. To be called once the database has its tables.
    pub fn seal(self) -> Result<(), String> {
        let Some(number) = self.number else { return Ok(()) };
        for file in [&self.journal, &self.database] {
            let statement =
                format!("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA user_version = {number};");
            open(file)?.batch_execute(&statement).map_err(|error| format!("{}: {error}", file.display()))?;
        }
        Ok(())
    }
}

/// Positive, and not 0, which is the number of a file that has none.
fn new_number() -> Result<i64, String> {
    let random = getrandom::u32().map_err(|error| format!("no random numbers: {error}"))?;
    Ok(i64::from(random >> 1).max(1))
}

fn open(file: &Path) -> Result<SqliteConnection, String> {
    let conn = SqliteConnection::establish(&file.to_string_lossy());
    let mut conn = conn.map_err(|error| format!("{}: {error}", file.display()))?;
    conn.batch_execute("PRAGMA busy_timeout = 5000").map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(conn)
}

fn read(file: &Path, query: &str) -> Result<i64, String> {
    let number: QueryResult<Number> = sql_query(query).get_result(&mut open(file)?);
    number.map(|number| number.number).map_err(|error| format!("{}: {error}", file.display()))
}

fn number_of(file: &Path) -> Result<i64, String> {
    read(file, "SELECT user_version AS number FROM pragma_user_version")
}

fn has_products(database: &Path) -> Result<bool, String> {
    let tables = "SELECT COUNT(*) AS number FROM sqlite_master WHERE name = 'products'";
    Ok(read(database, tables)? > 0 && read(database, "SELECT COUNT(*) AS number FROM products")? > 0)
}
