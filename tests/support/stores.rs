//! The stores of one test: nothing in them is shared with another.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use amqprs::channel::QueueDeleteArguments;
use amqprs::connection::{Connection, OpenConnectionArguments};
use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{
    self, AsyncCommands, AsyncConnectionConfig, Client as RedisClient, IntoConnectionInfo, RedisConnectionInfo,
};
use diesel::sql_types::BigInt;
use diesel::{QueryableByName, SqliteConnection, sql_query};
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use diesel_async::{AsyncConnection, AsyncMysqlConnection, RunQueryDsl, SimpleAsyncConnection};
use seckill::config::{self, Backend, Config};
use secrecy::ExposeSecret;

/// Databases that `scripts/services` sets Redis up with.
const REDIS_DATABASES: i64 = 4096;

/// For what a test that has failed leaves.
const REMOVED_WITHIN: Duration = Duration::from_secs(20);

pub struct Stores {
    config: Config,
    name: String,
    removed: AtomicBool,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

impl Stores {
    /// Makes a folder, or a database, a Redis database and a queue.
    pub async fn new(backend: Backend) -> Self {
        let name = format!("seckill_test_{}", uuid::Uuid::now_v7().simple());
        let mut config = Config::load(None).unwrap_or_else(|error| panic!("{error}"));
        config.backend = backend;
        config.server.port = 0;
        config.auth.bcrypt_cost = 4;
        config.limits.auth_per_minute = 0;
        config.embedded.data_dir = std::env::temp_dir().join(&name);
        if config.auth.jwt_secret.expose_secret().is_empty() {
            config.auth.jwt_secret = name.as_str().into();
            config.admin.password = "correct horse".into();
        }
        let mut stores = Self { config, name, removed: AtomicBool::new(false) };
        if backend == Backend::Distributed {
            stores.make_distributed().await;
        }
        stores
    }

    async fn make_distributed(&mut self) {
        let Self { config, name, .. } = self;
        assert!(
            !config.mysql.dsn.expose_secret().is_empty(),
            "these tests need servers: `make test` starts them and passes their settings"
        );
        let mut mysql = AsyncMysqlConnection::establish(config.mysql.dsn.expose_secret()).await.expect("MySQL");
        mysql.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("a new database");
        let mut dsn = url::Url::parse(config.mysql.dsn.expose_secret()).unwrap();
        dsn.set_path(name);
        config.mysql.dsn = dsn.to_string().into();
        config.mysql.pool_size = 8;

        let mut shared = redis_connection(config).await;
        let claimed: i64 = shared.incr("seckill-tests:claimed", 1).await.unwrap();
        config.redis.db = (1 + claimed % (REDIS_DATABASES - 1)) as u16;
        redis::cmd("FLUSHDB").query_async::<()>(&mut redis_connection(config).await).await.unwrap();

        config.rabbitmq.queue = name.clone();
    }

    pub fn config(&self) -> Config {
        self.config.clone()
    }

    /// The number that a query yields as `n`.
    pub async fn number(&self, query: &str) -> i64 {
        let number = match self.config.backend {
            Backend::Embedded => sql_query(query).get_result::<Number>(&mut self.sqlite().await).await,
            Backend::Distributed => sql_query(query).get_result::<Number>(&mut self.mysql().await).await,
        };
        number.expect(query).n
    }

    pub async fn execute(&self, statement: &str) {
        self.try_execute(statement).await.expect(statement);
    }

    pub async fn try_execute(&self, statement: &str) -> diesel::QueryResult<()> {
        match self.config.backend {
            Backend::Embedded => self.sqlite().await.batch_execute(statement).await,
            Backend::Distributed => self.mysql().await.batch_execute(statement).await,
        }
    }

    async fn mysql(&self) -> AsyncMysqlConnection {
        AsyncMysqlConnection::establish(self.config.mysql.dsn.expose_secret()).await.expect("MySQL")
    }

    async fn sqlite(&self) -> SyncConnectionWrapper<SqliteConnection> {
        let file = self.config.embedded.data_dir.join("seckill.db");
        let mut conn =
            SyncConnectionWrapper::<SqliteConnection>::establish(file.to_str().unwrap()).await.expect("SQLite");
        conn.batch_execute("PRAGMA busy_timeout = 5000").await.expect("SQLite");
        conn
    }

    pub async fn redis(&self) -> MultiplexedConnection {
        redis_connection(&self.config).await
    }

    /// Deletes everything. The application must have been stopped.
    pub async fn remove(&self) {
        self.removed.store(true, Ordering::Relaxed);
        match self.config.backend {
            Backend::Embedded => {
                // A contract of the gate or the queue alone has made no folder.
                let _ = std::fs::remove_dir_all(&self.config.embedded.data_dir);
            }
            Backend::Distributed => {
                self.execute(&format!("DROP DATABASE {}", self.name)).await;
                redis::cmd("FLUSHDB").query_async::<()>(&mut self.redis().await).await.unwrap();
                delete_queues(&self.config.rabbitmq).await;
            }
        }
    }
}

/// A test that panics leaves nothing behind either.
impl Drop for Stores {
    fn drop(&mut self) {
        if AtomicBool::load(&self.removed, Ordering::Relaxed) {
            return;
        }
        // On a thread of its own: the test's runtime may be unwinding.
        std::thread::scope(|scope| {
            let removing = scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async { tokio::time::timeout(REMOVED_WITHIN, self.remove()).await.unwrap() });
            });
            if removing.join().is_err() {
                eprintln!("{} is left behind", self.name);
            }
        });
    }
}

async fn redis_connection(config: &Config) -> MultiplexedConnection {
    let login = RedisConnectionInfo::default()
        .set_db(config.redis.db.into())
        .set_password(config.redis.password.expose_secret());
    let address = format!("redis://{}", config.redis.addr).into_connection_info().unwrap().set_redis_settings(login);
    let client = RedisClient::open(address).unwrap();
    // Longer than by itself: other tests may keep the machine busy.
    let patience = Some(Duration::from_secs(5));
    let settings = AsyncConnectionConfig::new().set_connection_timeout(patience).set_response_timeout(patience);
    client.get_multiplexed_async_connection_with_config(&settings).await.expect("Redis")
}

async fn delete_queues(settings: &config::RabbitMq) {
    let url = url::Url::parse(settings.url.expose_secret()).unwrap();
    let (host, port) = (url.host_str().unwrap(), url.port().unwrap());
    let arguments = OpenConnectionArguments::new(host, port, url.username(), url.password().unwrap());
    let connection = Connection::open(&arguments).await.expect("RabbitMQ");
    let channel = connection.open_channel(None).await.expect("a channel");
    for queue in [settings.queue.clone(), format!("{}.dead", settings.queue), format!("{}.deployment", settings.queue)]
    {
        channel.queue_delete(QueueDeleteArguments::new(&queue)).await.expect("the queue is deleted");
    }
}
