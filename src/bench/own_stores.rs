//! Stores of a run's own: a folder, or a database, a queue, and keys in Redis that begin with the run's own prefix. What a
//! run fills them with is gone afterwards, millions of orders at once; nothing else is touched.

use std::path::Path;
use std::time::Duration;

use deadpool_redis::redis;
use deadpool_redis::redis::aio::MultiplexedConnection;
use diesel::SqliteConnection;
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use diesel_async::{AsyncConnection, SimpleAsyncConnection};
use secrecy::ExposeSecret;
use uuid::Uuid;

use super::log_ins;
use super::servers::{self, RABBITMQ, REDIS, delete_queue, first_server, within};
use super::target::BenchFolder;
use super::unless_stopped;
use crate::config::{self, Backend, Config};
use crate::data_dir::random_key;

/// Logical databases of Redis that are tried for one that is empty.
const REDIS_DATABASES: u16 = 64;
/// Keys that Redis looks at, and deletes, in one step.
const SCANNED_AT_ONCE: u32 = 1_000;
/// What we set ourselves, if it is configured by way of a file.
const FILES: [&str; 2] = ["SECKILL__MYSQL__DSN_FILE", "SECKILL__AUTH__JWT_SECRET_FILE"];

/// Looks at what Redis holds, until nothing in it is about to expire.
const LOOKS: u32 = 60;
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What a process finds in its environment.
pub(super) type Settings = Vec<(&'static str, String)>;

/// Who must understand the settings of the stores.
#[derive(Debug, Clone, Copy)]
pub(super) enum Known {
    /// Keys in Redis get the run's own prefix.
    ByThisBuild,
    /// Builds from before there were prefixes, too: keys are in a logical database that was empty.
    ByAnyBuild,
}

/// See the module.
pub(super) struct OwnStores {
    pub(super) config: Config,
    /// What a server must be told to use them.
    pub(super) settings: Settings,
    /// Of the database that the configuration names.
    outer: Config,
    name: String,
    folder: BenchFolder,
}

impl OwnStores {
    /// Makes stores, lets `work` use them, and deletes them whatever became of it.
    pub(super) async fn lend<T>(
        configured: &Config,
        known: Known,
        work: impl AsyncFnOnce(&Self) -> Result<T, String>,
    ) -> Result<T, String> {
        let stores = Self::make(configured, known).await?;
        let done = unless_stopped(work(&stores)).await;
        let removed = stores.remove().await;
        let done = done?;
        removed.map(|()| done)
    }

    /// A folder that is theirs.
    pub(super) fn folder(&self) -> &Path {
        &self.folder.0
    }

    async fn make(configured: &Config, known: Known) -> Result<Self, String> {
        let mut config = configured.clone();
        let (mut settings, folder) = own_settings(&mut config)?;
        let name = format!("seckill_bench_{}", Uuid::new_v4().simple());
        if config.backend == Backend::Distributed {
            match known {
                Known::ByThisBuild => {
                    config.redis.key_prefix = format!("{name}:");
                    settings.push(("SECKILL__REDIS__KEY_PREFIX", config.redis.key_prefix.clone()));
                    // Given as files they would be given twice.
                    settings.extend(FILES.map(|key| (key, String::new())));
                }
                Known::ByAnyBuild => {
                    config.redis.db = empty_database(&config.redis).await?;
                    settings.push(("SECKILL__REDIS__DB", config.redis.db.to_string()));
                }
            }
            config.rabbitmq.queue = name.clone();
            let mut dsn = first_server(&config.mysql)?;
            dsn.set_path(&name);
            servers::mysql(&config.mysql, &format!("CREATE DATABASE {name}")).await?;
            config.mysql.dsn = dsn.to_string().into();
            settings.extend([("SECKILL__MYSQL__DSN", dsn.to_string()), ("SECKILL__RABBITMQ__QUEUE", name.clone())]);
        }
        Ok(Self { config, settings, outer: configured.clone(), name, folder })
    }

    /// Carries out SQL, while no server runs or beside it.
    pub(super) async fn execute(&self, statements: &str) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| format!("SQLite: {error}");
        match self.config.backend {
            Backend::Distributed => servers::mysql(&self.config.mysql, statements).await,
            Backend::Embedded => {
                let file = self.config.embedded.data_dir.join("seckill.db");
                let opened = SyncConnectionWrapper::<SqliteConnection>::establish(&file.to_string_lossy()).await;
                let mut conn = opened.map_err(|error| failed(&error))?;
                conn.batch_execute(statements).await.map_err(|error| failed(&error))
            }
        }
    }

    /// Memory that all keys in Redis take, in bytes, as it estimates from every element; `None` without Redis. Those that
    /// expire soon are waited for.
    pub(super) async fn redis_memory(&self) -> Result<Option<u64>, String> {
        if self.config.backend == Backend::Embedded {
            return Ok(None);
        }
        let mut conn = servers::redis(&self.config.redis).await?;
        let mut sum = redis::cmd("EVAL");
        // A key with a time to live is a try that counts for the rate limit.
        sum.arg(
            "local sum, expiring = 0, 0
             for _, key in ipairs(redis.call('KEYS', ARGV[1] .. '*')) do
               if redis.call('PTTL', key) >= 0 then expiring = expiring + 1 end
               sum = sum + redis.call('MEMORY', 'USAGE', key, 'SAMPLES', 0)
             end
             return {sum, expiring}",
        );
        sum.arg(0).arg(&self.config.redis.key_prefix);
        for _ in 0..LOOKS {
            let (bytes, expiring): (u64, u64) = within(REDIS, sum.query_async(&mut conn)).await?;
            if expiring == 0 {
                return Ok(Some(bytes));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Err(format!("{REDIS}: keys that should have expired are still there"))
    }

    /// Deletes all of it. The servers on it must have ended.
    async fn remove(self) -> Result<(), String> {
        if self.config.backend == Backend::Embedded {
            return Ok(());
        }
        servers::mysql(&self.outer.mysql, &format!("DROP DATABASE {}", self.name)).await?;
        let mut conn = servers::redis(&self.config.redis).await?;
        delete_keys(&mut conn, &self.config.redis.key_prefix).await?;
        let connection = servers::rabbitmq(&self.config.rabbitmq).await?;
        for queue in [self.name.clone(), format!("{}.dead", self.name), format!("{}.deployment", self.name)] {
            delete_queue(&connection, &queue).await?;
        }
        within(RABBITMQ, connection.close()).await
    }
}

/// Deletes every key that begins with `prefix`, and no other: somebody may have come to this database meanwhile.
async fn delete_keys(conn: &mut MultiplexedConnection, prefix: &str) -> Result<(), String> {
    let mut cursor = 0;
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(format!("{prefix}*")).arg("COUNT").arg(SCANNED_AT_ONCE);
        let (next, keys): (u64, Vec<String>) = within(REDIS, scan.query_async(conn)).await?;
        if !keys.is_empty() {
            within(REDIS, redis::cmd("UNLINK").arg(keys).query_async::<()>(conn)).await?;
        }
        if next == 0 {
            return Ok(());
        }
        cursor = next;
    }
}

/// Settings of a server of our own, and its folder if it needs one.
fn own_settings(config: &mut Config) -> Result<(Settings, BenchFolder), String> {
    config.auth.jwt_secret = random_key().into();
    let folder = BenchFolder::make()?;
    config.embedded.data_dir = folder.0.clone();
    let mut settings = vec![
        ("SECKILL__AUTH__JWT_SECRET", config.auth.jwt_secret.expose_secret().to_owned()),
        ("SECKILL__EMBEDDED__DATA_DIR", folder.0.display().to_string()),
        // All log-ins come from one address.
        ("SECKILL__LIMITS__AUTH_PER_MINUTE", "0".to_owned()),
        ("SECKILL__AUTH__BCRYPT_COST", log_ins::BCRYPT_COST.to_string()),
    ];
    // Only then, for a version before does not know it.
    if config.server.for_admins().is_some() {
        settings.push(("SECKILL__SERVER__ADMIN_PORT", "0".to_owned()));
        settings.push(("SECKILL__SERVER__ADMIN_HOST", String::new()));
    }
    Ok((settings, folder))
}

/// A logical database with nothing in it.
async fn empty_database(settings: &config::Redis) -> Result<u16, String> {
    for db in settings.db.saturating_add(1)..settings.db.saturating_add(REDIS_DATABASES) {
        let mut conn = servers::redis(&config::Redis { db, ..settings.clone() }).await?;
        let keys: u64 = within(REDIS, redis::cmd("DBSIZE").query_async(&mut conn)).await?;
        if keys == 0 {
            return Ok(db);
        }
    }
    Err(format!("{REDIS}: none of the {REDIS_DATABASES} logical databases after the configured one is empty"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards against: `FLUSHDB` of a database that merely was empty at the start.
    #[tokio::test]
    async fn only_keys_of_our_own_are_deleted() {
        let Ok(config) = Config::load(None) else { return };
        if config.backend == Backend::Embedded {
            return;
        }
        let mut conn = servers::redis(&config.redis).await.unwrap();
        let (ours, theirs) =
            (format!("bench-{}:", Uuid::new_v4().simple()), format!("other-{}", Uuid::new_v4().simple()));
        for number in 0..2_500 {
            let set =
                redis::cmd("SET").arg(format!("{ours}{{{number}}}:gate")).arg(1).query_async::<()>(&mut conn).await;
            set.unwrap();
        }
        redis::cmd("SET").arg(&theirs).arg(1).query_async::<()>(&mut conn).await.unwrap();
        delete_keys(&mut conn, &ours).await.unwrap();
        let left: Vec<String> = redis::cmd("KEYS").arg(format!("{ours}*")).query_async(&mut conn).await.unwrap();
        assert_eq!(left, Vec::<String>::new());
        let kept: u64 = redis::cmd("DEL").arg(&theirs).query_async(&mut conn).await.unwrap();
        assert_eq!(kept, 1, "another's key is still there");
    }
}
