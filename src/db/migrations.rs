//! Brings the schema up to date, one instance at a time, and refuses one that it does not know.
//!
//! A schema that is up to date is only read: an account without the right to change tables serves after another one has
//! run `seckill migrate`.

use std::collections::HashSet;
use std::path::Path;

use diesel::backend::Backend;
use diesel::migration::MigrationSource;
use diesel::mysql::Mysql;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel::sqlite::Sqlite;
use diesel_async::{AsyncMigrationHarness, AsyncMysqlConnection, RunQueryDsl};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::conn::AsyncSqliteConnection;
use super::diagnosis::diagnosed;
use super::error::ErrorClass;
use super::error::{DbError, DbResult};
use super::mysql_servers::MySqlServers;
use super::{connect, schema};
use crate::config;

const MYSQL: EmbeddedMigrations = embed_migrations!("migrations/mysql");
const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");
/// Diesel's own table.
const APPLIED: &str = "SELECT version FROM __diesel_schema_migrations";

#[derive(QueryableByName)]
struct Locked {
    #[diesel(sql_type = Nullable<BigInt>)]
    locked: Option<i64>,
}

#[derive(QueryableByName)]
struct Applied {
    #[diesel(sql_type = Text)]
    version: String,
}

/// Hands every table that both databases have, and those that are named beside them, to another macro.
macro_rules! with_every_table {
    ($then:ident!($($first:expr)?; $($more:ident)*)) => {
        $then!(
            $($first)?; $($more)* users external_users token_withdrawals products product_revisions orders order_changes admin_log
            payment_deadlines order_lookup order_lookup_gaps payments payment_events idempotency_keys webhook_endpoints outbox
            webhook_deliveries
        )
    };
}

/// Reads of each table all columns that this program uses, and no row.
macro_rules! check_tables {
    ($conn:expr; $($table:ident)+) => {
        async {
            $(
                let read = schema::$table::table.limit(0).execute($conn).await;
                diagnosed($conn, read).await.map_err(|error| unlike(stringify!($table), error))?;
            )+
            DbResult::Ok(())
        }
    };
}

/// Applies what is missing. MySQL commits each statement of a schema change by itself, so a lock of the server, not a
/// transaction, keeps instances that start together apart. It ends with the connection.
pub(super) async fn run_mysql(settings: &config::MySql) -> DbResult<()> {
    let mut conn = MySqlServers::new(settings).connect().await?;
    let applied = sql_query(APPLIED).load(&mut conn).await;
    let missing = missing::<Mysql>(&MYSQL, diagnosed(&mut conn, applied).await)?;
    if !missing.is_empty() {
        lock(&mut conn).await?;
        conn = apply(AsyncMigrationHarness::new(conn), MYSQL, &missing)?.into_inner();
    }
    with_every_table!(check_tables!(&mut conn; deployment)).await
}

/// Applies what is missing to a file, which is made if there is none.
pub(super) async fn run_sqlite(file: &Path) -> DbResult<()> {
    let in_file = |error: DbError| {
        DbError::Migration(match &error {
            DbError::Migration(problem) => format!("{}: {problem}", file.display()),
            error => format!("{}: {error}; {}", file.display(), error.advice()),
        })
    };
    let mut conn: AsyncSqliteConnection = connect::sqlite(&file.to_string_lossy()).await.map_err(in_file)?;
    let applied = sql_query(APPLIED).load(&mut conn).await;
    let missing = missing::<Sqlite>(&SQLITE, diagnosed(&mut conn, applied).await).map_err(in_file)?;
    if !missing.is_empty() {
        conn = apply(AsyncMigrationHarness::new(conn), SQLITE, &missing).map_err(in_file)?.into_inner();
    }
    with_every_table!(check_tables!(&mut conn;)).await.map_err(in_file)
}

async fn lock(conn: &mut AsyncMysqlConnection) -> DbResult<()> {
    let lock =
        sql_query("SELECT CAST(GET_LOCK(CONCAT('seckill:', LEFT(MD5(DATABASE()), 32)), 60) AS SIGNED) AS locked");
    let lock = lock.get_result::<Locked>(conn).await;
    match diagnosed(conn, lock).await?.locked {
        Some(1) => Ok(()),
        _ => Err(DbError::Migration("another instance has held the lock for a minute".to_owned())),
    }
}

/// Versions that have not been applied. One that is applied and not known here was made by a newer program.
fn missing<DB: Backend>(known: &EmbeddedMigrations, applied: DbResult<Vec<Applied>>) -> DbResult<Vec<String>> {
    let applied: HashSet<String> = match applied {
        Ok(applied) => applied.into_iter().map(|row| row.version).collect(),
        Err(error) if error.class() == ErrorClass::Schema => HashSet::new(),
        Err(error) => return Err(error),
    };
    let known = MigrationSource::<DB>::migrations(known).map_err(|error| DbError::Migration(error.to_string()))?;
    let known: Vec<String> = known.iter().map(|migration| migration.name().version().to_string()).collect();
    if let Some(newer) = applied.iter().filter(|version| !known.contains(version)).max() {
        return Err(DbError::Migration(format!(
            "the schema is newer than this program (it has migration {newer}); use the version that made it, or restore a \
             backup from before"
        )));
    }
    let mut missing: Vec<String> = known.into_iter().filter(|version| !applied.contains(version)).collect();
    missing.sort();
    Ok(missing)
}

fn apply<DB: Backend, H: MigrationHarness<DB>>(
    mut harness: H,
    migrations: EmbeddedMigrations,
    missing: &[String],
) -> DbResult<H> {
    let applied = harness.run_pending_migrations(migrations).map(|applied| {
        for version in applied {
            tracing::info!(%version, "Applied migration");
        }
    });
    match applied {
        Ok(()) => Ok(harness),
        Err(error) => Err(DbError::Migration(format!(
            "cannot bring the schema up to date (from {}): {}; `seckill migrate` needs a database of its own that can be \
             written, and an account that may create and alter tables in it",
            missing[0],
            error.to_string().replace('\n', " ")
        ))),
    }
}

fn unlike(table: &str, error: DbError) -> DbError {
    match error.class() {
        ErrorClass::Schema => DbError::Migration(format!(
            "the table {table} is not as its migrations left it ({error}); restore a backup, or use an empty database"
        )),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    macro_rules! names {
        (; $($table:ident)+) => { [$(stringify!($table)),+] };
    }

    /// Guards against: a table that a migration adds and no start looks at.
    #[test]
    fn every_table_that_the_program_knows_is_checked() {
        let schema = include_str!("schema.rs");
        let of_line = |line: &'static str| line.split_once(" (").map(|(name, _)| name.trim());
        let known = schema.split("diesel::table! {\n").skip(1).filter_map(|table| of_line(table.lines().next()?));
        let known: BTreeSet<&str> = known.collect();
        let checked = with_every_table!(names!(; deployment));
        assert_eq!(known, BTreeSet::from(checked));
        assert_eq!(checked.len(), known.len(), "each once");
    }
}
