//! Stores of a run's own: a folder, or a database, a queue and an empty logical database of Redis. What a run fills
//! them with is gone afterwards, millions of orders at once.

use std::path::Path;
use std::time::Duration;

use deadpool_redis::redis;
use diesel::SqliteConnection;
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use diesel_async::{AsyncConnection, SimpleAsyncConnection};
use secrecy::ExposeSecret;
use url::Url;
use uuid::Uuid;

use super::log_ins;
use super::servers::{self, RABBITMQ, REDIS, delete_queue, within};
use super::target::BenchFolder;
use super::unless_stopped;
use crate::config::{self, Backend, Config};
use crate::data_dir::random_key;

/// Logical databases of Redis that are tried.
const REDIS_DATABASES: u16 = 64;

/// Looks at what Redis holds, until nothing in it is about to expire.
const LOOKS: u32 = 60;
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What a process finds in its environment.
pub(super) type Settings = Vec<(&'static str, String)>;

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
        work: impl AsyncFnOnce(&Self) -> Result<T, String>,
    ) -> Result<T, String> {
        let stores = Self::make(configured).await?;
        let done = unless_stopped(work(&stores)).await;
        let removed = stores.remove().await;
        let done = done?;
        removed.map(|()| done)
    }

    /// A folder that is theirs.
    pub(super) fn folder(&self) -> &Path {
        &self.folder.0
    }

    async fn make(configured: &Config) -> Result<Self, String> {
        let mut config = configured.clone();
        let (mut settings, folder) = own_settings(&mut config)?;
        let name = format!("seckill_bench_{}", Uuid::new_v4().simple());
        if config.backend == Backend::Distributed {
            config.redis.db = empty_database(&config.redis).await?;
            config.rabbitmq.queue = name.clone();
            let mut dsn =
                Url::parse(config.mysql.dsn.expose_secret()).map_err(|error| format!("mysql.dsn: {error}"))?;
            dsn.set_path(&name);
            servers::mysql(&config.mysql.dsn, &format!("CREATE DATABASE {name}")).await?;
            config.mysql.dsn = dsn.to_string().into();
            settings.extend([
                ("SECKILL__MYSQL__DSN", dsn.to_string()),
                ("SECKILL__REDIS__DB", config.redis.db.to_string()),
                ("SECKILL__RABBITMQ__QUEUE", name.clone()),
            ]);
        }
        Ok(Self { config, settings, outer: configured.clone(), name, folder })
    }

    /// Carries out SQL, while no server runs or beside it.
    pub(super) async fn execute(&self, statements: &str) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| format!("SQLite: {error}");
        match self.config.backend {
            Backend::Distributed => servers::mysql(&self.config.mysql.dsn, statements).await,
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
             for _, key in ipairs(redis.call('KEYS', '*')) do
               if redis.call('PTTL', key) >= 0 then expiring = expiring + 1 end
               sum = sum + redis.call('MEMORY', 'USAGE', key, 'SAMPLES', 0)
             end
             return {sum, expiring}",
        );
        sum.arg(0);
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
        servers::mysql(&self.outer.mysql.dsn, &format!("DROP DATABASE {}", self.name)).await?;
        let mut conn = servers::redis(&self.config.redis).await?;
        within(REDIS, redis::cmd("FLUSHDB").query_async::<()>(&mut conn)).await?;
        let connection = servers::rabbitmq(&self.config.rabbitmq).await?;
        for queue in [self.name.clone(), format!("{}.dead", self.name), format!("{}.deployment", self.name)] {
            delete_queue(&connection, &queue).await?;
        }
        within(RABBITMQ, connection.close()).await
    }
}

/// Settings of a server of our own, and its folder if it needs one.
fn own_settings(config: &mut Config) -> Result<(Settings, BenchFolder), String> {
    config.auth.jwt_secret = random_key().into();
    let folder = BenchFolder::make()?;
    config.embedded.data_dir = folder.0.clone();
    let settings = vec![
        ("SECKILL__AUTH__JWT_SECRET", config.auth.jwt_secret.expose_secret().to_owned()),
        ("SECKILL__EMBEDDED__DATA_DIR", folder.0.display().to_string()),
        // All log-ins come from one address.
        ("SECKILL__LIMITS__AUTH_PER_MINUTE", "0".to_owned()),
        ("SECKILL__AUTH__BCRYPT_COST", log_ins::BCRYPT_COST.to_string()),
    ];
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
