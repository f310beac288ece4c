//! Brings the schema up to date, one instance at a time.

use diesel::sql_types::{BigInt, Nullable};
use diesel::{QueryableByName, sql_query};
use diesel_async::{AsyncConnection, AsyncMigrationHarness, AsyncMysqlConnection, RunQueryDsl};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::{DbError, DbResult};

const MYSQL: EmbeddedMigrations = embed_migrations!("migrations/mysql");

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
    let mut harness = AsyncMigrationHarness::new(conn);
    for version in harness.run_pending_migrations(MYSQL).map_err(|error| DbError::Migration(error.to_string()))? {
        tracing::info!(%version, "Applied migration");
    }
    Ok(())
}
