//! Connections to the servers beneath the distributed backend, for what is asked of them directly.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use amqprs::channel::QueueDeleteArguments;
use amqprs::connection::{Connection, OpenConnectionArguments};
use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{self, AsyncConnectionConfig, IntoConnectionInfo, RedisConnectionInfo};
use diesel_async::{AsyncConnection, AsyncMysqlConnection, SimpleAsyncConnection};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::config;

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
    let mut login = RedisConnectionInfo::default().set_db(settings.db.into());
    let password = settings.password.expose_secret();
    if !password.is_empty() {
        login = login.set_password(password);
    }
    if !settings.username.is_empty() {
        login = login.set_username(&settings.username);
    }
    let address = format!("redis://{}", settings.addr).into_connection_info();
    let address = address.map_err(|error| format!("redis.addr: {error}"))?.set_redis_settings(login);
    let client = redis::Client::open(address).map_err(|error| format!("{REDIS}: {error}"))?;
    let timeouts = AsyncConnectionConfig::new().set_connection_timeout(Some(STEP)).set_response_timeout(Some(STEP));
    within(REDIS, client.get_multiplexed_async_connection_with_config(&timeouts)).await
}

pub(super) async fn rabbitmq(settings: &config::RabbitMq) -> Result<Connection, String> {
    let Address { host, port, user, password, path } = Address::parse("rabbitmq.url", &settings.url, 5672)?;
    let mut arguments = OpenConnectionArguments::new(&host, port, &user, &password);
    if !path.is_empty() {
        arguments.virtual_host(&path);
    }
    arguments.connection_name("seckill bench");
    within(RABBITMQ, Connection::open(&arguments)).await
}

/// On a channel of its own: an error closes the one it happened on.
pub(super) async fn delete_queue(connection: &Connection, queue: &str) -> Result<(), String> {
    let channel = within(RABBITMQ, connection.open_channel(None)).await?;
    within(RABBITMQ, channel.queue_delete(QueueDeleteArguments::new(queue))).await?;
    let _ = within(RABBITMQ, channel.close()).await;
    Ok(())
}

/// Carries out statements on a connection of its own, however long the database takes.
pub(super) async fn mysql(dsn: &SecretString, statements: &str) -> Result<(), String> {
    let failed = |error: &dyn Display| format!("{MARIADB}: {error}");
    let mut conn = within(MARIADB, AsyncMysqlConnection::establish(dsn.expose_secret())).await?;
    conn.batch_execute(statements).await.map_err(|error| failed(&error))
}

/// What the URL of a server says.
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) user: String,
    pub(super) password: String,
    /// Database or vhost.
    pub(super) path: String,
}

impl Address {
    pub(super) fn mysql(settings: &config::MySql) -> Result<Self, String> {
        Self::parse("mysql.dsn", &settings.dsn, 3306)
    }

    fn parse(key: &str, url: &SecretString, port: u16) -> Result<Self, String> {
        let url = Url::parse(url.expose_secret()).map_err(|error| format!("{key}: {error}"))?;
        let decode = |text: &str| {
            let text = percent_encoding::percent_decode_str(text).decode_utf8();
            text.map(|text| text.into_owned()).map_err(|_| format!("{key}: not UTF-8"))
        };
        Ok(Self {
            host: url.host_str().unwrap_or("localhost").to_owned(),
            port: url.port().unwrap_or(port),
            user: decode(url.username())?,
            password: decode(url.password().unwrap_or_default())?,
            path: decode(url.path().strip_prefix('/').unwrap_or_default())?,
        })
    }
}
