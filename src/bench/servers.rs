//! Connections to the servers beneath the distributed backend, for what is asked of them directly.

use std::fmt::Display;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use amqprs::channel::QueueDeleteArguments;
use amqprs::connection::Connection;
use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{self, AsyncConnectionConfig};
use diesel_async::SimpleAsyncConnection;
use mysql_async::Opts;
use url::Url;

use crate::config::{self, RedisMode, Tls};
use crate::{db, queue, stock};

pub(super) const REDIS: &str = "Redis";
pub(super) const RABBITMQ: &str = "RabbitMQ";
pub(super) const MARIADB: &str = "MariaDB";

/// For each answer of a server, and for each run of a command line client.
const STEP: Duration = Duration::from_secs(10);

/// A step that must end in time; its error names the server.
pub(super) async fn within<T, E: Display>(server: &str, step: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match tokio::time::timeout(STEP, step).await {
        Ok(done) => done.map_err(|error| format!("{server}: {error}").replace(['\r', '\n'], " ")),
        Err(_) => Err(format!("{server} did not answer within {STEP:?}")),
    }
}

pub(super) async fn redis(settings: &config::Redis) -> Result<MultiplexedConnection, String> {
    if settings.mode != RedisMode::Single {
        return Err("redis.mode: the bench makes stores of its own on one Redis: set redis.mode: single".to_owned());
    }
    let address = stock::redis_address(settings)?;
    let login = address.redis_settings().clone().set_db(settings.db.into());
    let client = redis::Client::open(address.set_redis_settings(login)).map_err(|error| format!("{REDIS}: {error}"))?;
    let timeouts = AsyncConnectionConfig::new().set_connection_timeout(Some(STEP)).set_response_timeout(Some(STEP));
    within(REDIS, client.get_multiplexed_async_connection_with_config(&timeouts)).await
}

pub(super) async fn rabbitmq(settings: &config::RabbitMq) -> Result<Connection, String> {
    within(RABBITMQ, queue::connect_rabbitmq(settings, "seckill bench")).await
}

/// On a channel of its own: an error closes the one it happened on.
pub(super) async fn delete_queue(connection: &Connection, queue: &str) -> Result<(), String> {
    let channel = within(RABBITMQ, connection.open_channel(None)).await?;
    within(RABBITMQ, channel.queue_delete(QueueDeleteArguments::new(queue))).await?;
    let _ = within(RABBITMQ, channel.close()).await;
    Ok(())
}

/// Carries out statements on a connection of its own, however long the database takes.
pub(super) async fn mysql(settings: &config::MySql, statements: &str) -> Result<(), String> {
    let failed = |error: &dyn Display| format!("{MARIADB}: {error}");
    let mut conn = within(MARIADB, db::connect_mysql(settings)).await?;
    conn.batch_execute(statements).await.map_err(|error| failed(&error))
}

/// What `mysql.dsn` says of the first server.
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) database: String,
    /// How a command line client is to verify the server's certificate; `None`: it connects without TLS.
    pub(super) tls: Option<Verified>,
}

/// The file of a CA, or whom the system trusts.
pub(super) struct Verified(pub(super) Option<PathBuf>);

impl Address {
    pub(super) fn mysql(settings: &config::MySql) -> Result<Self, String> {
        let server = Opts::from_url(first_server(settings)?.as_str()).map_err(|error| format!("mysql.dsn: {error}"))?;
        let text = |value: Option<&str>| value.unwrap_or_default().to_owned();
        let ca_file = &settings.tls_ca_file;
        Ok(Self {
            host: server.ip_or_hostname().to_owned(),
            port: server.tcp_port(),
            user: text(server.user()),
            password: text(server.pass()),
            database: text(server.db_name()),
            tls: match settings.tls {
                Tls::Off => None,
                Tls::Verify => Some(Verified((!ca_file.as_os_str().is_empty()).then(|| ca_file.clone()))),
            },
        })
    }
}

/// The only server of `mysql.dsn`, or the first of several.
pub(super) fn first_server(settings: &config::MySql) -> Result<Url, String> {
    let servers = settings.servers().map_err(|error| format!("mysql.dsn: {error}"))?;
    servers.into_iter().next().ok_or_else(|| "mysql.dsn: is missing".to_owned())
}
