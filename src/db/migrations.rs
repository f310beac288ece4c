//! Brings the schema up to date, one instance at a time.

use std::path::Path;

use diesel::backend::Backend;
use diesel::sql_types::{BigInt, Nullable};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncConnection, AsyncMigrationHarness, AsyncMysqlConnection, RunQueryDsl};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::{DbError, DbResult};

const MYSQL: EmbeddedMigrations = embed_migrations!("migrations/mysql");
const SQLITE: EmbeddedMigrations = embed_migrations!("migrations/sqlite");

#[derive(QueryableByName)]
struct Locked {
    #[diesel(sql_type = Nullable<BigInt>)]
    locked: Option<i64>,
}

/// Applies what is missing. MySQL commits each statement of a schema change by itself, so a lock of the server, not a
/// transaction, keeps instances that start together apart. It ends with the connection.
pub(super) async fn run_mysql(dsn: &str) -> DbResult<()> {
    let unreachable = |error: diesel::ConnectionError| DbError::Unreachable(error.to_string());
    let connecting = AsyncMysqlConnection::establish(dsn);
    let mut conn = tokio::time::timeout(super::POOL_TIMEOUT, connecting)
        .await
        .map_err(|_| DbError::Unreachable("no answer while connecting".to_owned()))?
        .map_err(unreachable)?;
    let lock: Locked =
        sql_query("SELECT CAST(GET_LOCK(CONCAT('seckill:', LEFT(MD5(DATABASE()), 32)), 60) AS SIGNED) AS locked")
            .get_result(&mut conn)
            .await?;
    if lock.locked != Some(1) {
        return Err(DbError::Migration("another instance has held the lock for a minute".to_owned()));
    }
    apply(AsyncMigrationHarness::new(conn), MYSQL)
}

/// Applies what is missing to a file, which is made if there is none.
pub(super) async fn run_sqlite(file: &Path) -> DbResult<()> {
    let conn = super::connect_sqlite(&file.to_string_lossy())
        .await
        .map_err(|error| DbError::Migration(format!("{}: {error}", file.display())))?;
    apply(AsyncMigrationHarness::new(conn), SQLITE)
}

fn apply<DB: Backend>(mut harness: impl MigrationHarness<DB>, migrations: EmbeddedMigrations) -> DbResult<()> {
    let applied = harness.run_pending_migrations(migrations).map_err(|error| DbError::Migration(error.to_string()))?;
    for version in applied {
        tracing::info!(%version, "Applied migration");
    }
    Ok(())
}
