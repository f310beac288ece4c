//! The three servers behind the distributed backend: where each is configured, and whether it answers there.

use std::time::Duration;

use amqprs::BasicProperties;
use amqprs::channel::{BasicPublishArguments, QueueDeclareArguments};
use amqprs::connection::{Connection, OpenConnectionArguments};
use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{
    AsyncConnectionConfig, Client as RedisClient, IntoConnectionInfo, RedisConnectionInfo, cmd,
};
use diesel_async::{AsyncConnection, AsyncMysqlConnection};
use seckill::config::Config;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

/// What a test itself has to say to Redis.
const BUSY: Duration = Duration::from_secs(20);
/// For one question to a server.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    MariaDb,
    Redis,
    RabbitMq,
}

impl Link {
    /// Where the server is, as host and port.
    pub fn address(self, config: &Config) -> String {
        let of_url = |url: &SecretString, port: u16| {
            let url = Url::parse(url.expose_secret()).unwrap();
            format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(port))
        };
        match self {
            Self::MariaDb => of_url(&config.mysql.dsn, 3306),
            Self::Redis => config.redis.addr.clone(),
            Self::RabbitMq => of_url(&config.rabbitmq.url, 5672),
        }
    }

    /// Makes the program look for the server at another port of this machine.
    pub fn redirect(self, config: &mut Config, port: u16) {
        let moved = |url: &SecretString| {
            let mut url = Url::parse(url.expose_secret()).unwrap();
            url.set_host(Some("127.0.0.1")).unwrap();
            url.set_port(Some(port)).unwrap();
            SecretString::from(url.to_string())
        };
        match self {
            Self::MariaDb => config.mysql.dsn = moved(&config.mysql.dsn),
            Self::Redis => config.redis.addr = format!("127.0.0.1:{port}"),
            Self::RabbitMq => config.rabbitmq.url = moved(&config.rabbitmq.url),
        }
    }

    /// Whether a client can log in and get an answer.
    pub async fn answers(self, config: &Config) -> bool {
        let asking = async {
            match self {
                Self::MariaDb => AsyncMysqlConnection::establish(config.mysql.dsn.expose_secret()).await.is_ok(),
                Self::Redis => match redis(config).await {
                    Some(mut redis) => cmd("PING").query_async::<()>(&mut redis).await.is_ok(),
                    None => false,
                },
                Self::RabbitMq => {
                    let Ok(connection) = Connection::open(&amqp(config)).await else { return false };
                    connection.close().await.is_ok()
                }
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.unwrap_or(false)
    }
}

/// A connection to Redis, if it lets us in.
pub async fn redis(config: &Config) -> Option<MultiplexedConnection> {
    redis_at(&config.redis.addr, config.redis.password.expose_secret(), config.redis.db).await
}

/// Takes everything from Redis.
pub async fn empty_redis(config: &Config) {
    let mut redis = redis(config).await.expect("Redis");
    deadpool_redis::redis::cmd("FLUSHDB").query_async::<()>(&mut redis).await.unwrap();
}

/// The connection at this address.
pub async fn redis_at(address: &str, password: &str, database: u16) -> Option<MultiplexedConnection> {
    let mut login = RedisConnectionInfo::default().set_db(database.into());
    if !password.is_empty() {
        login = login.set_password(password);
    }
    let address = format!("redis://{address}").into_connection_info().unwrap().set_redis_settings(login);
    // Longer than by itself, which is half a second: the machine may be busy.
    let timeouts = AsyncConnectionConfig::new();
    let timeouts = timeouts.set_connection_timeout(Some(BUSY)).set_response_timeout(Some(BUSY));
    let client = RedisClient::open(address).unwrap();
    client.get_multiplexed_async_connection_with_config(&timeouts).await.ok()
}

fn amqp(config: &Config) -> OpenConnectionArguments {
    let url = Url::parse(config.rabbitmq.url.expose_secret()).unwrap();
    let password = url.password().unwrap_or_default();
    OpenConnectionArguments::new(url.host_str().unwrap(), url.port().unwrap(), url.username(), password)
}

/// A queue of another kind than ours.
pub async fn declare_classic_queue(config: &Config, name: &str) {
    let connection = Connection::open(&amqp(config)).await.unwrap();
    let channel = connection.open_channel(None).await.unwrap();
    channel.queue_declare(QueueDeclareArguments::durable_client_named(name)).await.unwrap();
    connection.close().await.unwrap();
}

/// Puts anything into a queue.
pub async fn publish(config: &Config, queue: &str, body: &str) {
    let connection = Connection::open(&amqp(config)).await.unwrap();
    let channel = connection.open_channel(None).await.unwrap();
    let target = BasicPublishArguments::new("", queue);
    channel.basic_publish(BasicProperties::default(), body.into(), target).await.unwrap();
    // Answers come in the order of the questions: when the channel is closed the message is there.
    channel.close().await.unwrap();
    connection.close().await.unwrap();
}
