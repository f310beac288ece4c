//! The raw limits of the three servers beneath the distributed backend: the clients the server uses, the steps of the
//! sale that cost most, and nothing of ours around them.
//!
//! What is made for it carries a name of its own and is deleted afterwards, also when a step failed.

use std::collections::VecDeque;
use std::fmt::Display;
use std::future::Future;
use std::io::ErrorKind;
use std::process::Stdio;
use std::time::{Duration, Instant};

use amqprs::callbacks::ChannelCallback;
use amqprs::channel::{
    BasicPublishArguments, Channel, ConfirmSelectArguments, QueueDeclareArguments, QueueDeleteArguments,
};
use amqprs::connection::{Connection, OpenConnectionArguments};
use amqprs::error::Error as AmqpError;
use amqprs::{Ack, BasicProperties, Cancel, CloseChannel, FieldTable, FieldValue, Nack, Return};
use async_trait::async_trait;
use deadpool_redis::redis::aio::MultiplexedConnection;
use deadpool_redis::redis::{self, AsyncConnectionConfig, IntoConnectionInfo, RedisConnectionInfo};
use futures_util::future::try_join_all;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use url::Url;
use uuid::Uuid;

use crate::config::{self, Config};
use crate::model::{OrderId, Purchase, PurchaseBatch, Timestamp, UserId};
use crate::queue;

/// For each answer of a server, and for each run of the command line client.
const STEP: Duration = Duration::from_secs(10);
/// How long calls and messages are sent.
const SENDING: Duration = Duration::from_secs(1);
/// What a killed run leaves in Redis and RabbitMQ is gone after this many seconds.
const LIFETIME_SECONDS: u32 = 60;

const REDIS: &str = "Redis";
/// Calls in a pipeline.
const CALLS: usize = 100;
/// Pipelines under way at once: Redis must not wait while the next one is made.
const PIPELINES: usize = 2;
/// Rounds of each of them at most.
const ROUNDS_MOST: usize = 10_000;
/// One user a call, as the gate would: not twice, not beyond the stock.
const RESERVE: &str = "
if redis.call('HGET', KEYS[1], ARGV[1]) then return -1 end
if redis.call('HLEN', KEYS[1]) > tonumber(ARGV[3]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1";

const RABBITMQ: &str = "RabbitMQ";
/// Purchases in a message.
const PURCHASES: u32 = 32;
/// Messages that wait for their confirm at once.
const IN_FLIGHT: usize = 8;
/// Answers of the broker at most.
const ANSWERS_MOST: usize = 100_000;

const MARIADB: &str = "MariaDB";
const TRANSACTIONS: u32 = 50;
/// Rows in a transaction.
const ROWS: u32 = 1_000;
const CREATE_TABLE: &str = "DROP TABLE IF EXISTS seckill_bench_raw; CREATE TABLE seckill_bench_raw LIKE orders;\n";
const DROP_TABLE: &str = "DROP TABLE IF EXISTS seckill_bench_raw;\n";

/// What one server does at most, asked by nobody else meanwhile.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct RawLimits {
    pub(super) evalsha_per_second: f64,
    pub(super) confirmed_purchases_per_second: f64,
    /// The start of the client and its connection are in it.
    pub(super) client_rows_per_second: f64,
}

/// Measures one server after the other.
pub(super) async fn measure(config: &Config) -> Result<RawLimits, String> {
    Ok(RawLimits {
        evalsha_per_second: evalsha_per_second(&config.redis).await?,
        confirmed_purchases_per_second: confirmed_purchases_per_second(&config.rabbitmq).await?,
        client_rows_per_second: client_rows_per_second(&config.mysql).await?,
    })
}

/// A step that must end in time; its error names the server.
async fn within<T, E: Display>(server: &str, step: impl Future<Output = Result<T, E>>) -> Result<T, String> {
    match tokio::time::timeout(STEP, step).await {
        Ok(done) => done.map_err(|error| format!("{server}: {error}").replace(['\r', '\n'], " ")),
        Err(_) => Err(format!("{server} did not answer within {STEP:?}")),
    }
}

async fn evalsha_per_second(settings: &config::Redis) -> Result<f64, String> {
    let mut login = RedisConnectionInfo::default().set_db(settings.db.into());
    let password = settings.password.expose_secret();
    if !password.is_empty() {
        login = login.set_password(password);
    }
    let address = format!("redis://{}", settings.addr).into_connection_info();
    let address = address.map_err(|error| format!("redis.addr: {error}"))?.set_redis_settings(login);
    let client = redis::Client::open(address).map_err(|error| format!("{REDIS}: {error}"))?;
    let timeouts = AsyncConnectionConfig::new().set_connection_timeout(Some(STEP)).set_response_timeout(Some(STEP));
    let mut conn = within(REDIS, client.get_multiplexed_async_connection_with_config(&timeouts)).await?;

    let key = format!("seckill:bench:{}", Uuid::new_v4());
    let measured = call_pipelined(&mut conn, &key).await;
    let deleted = within(REDIS, redis::cmd("UNLINK").arg(&key).query_async::<()>(&mut conn)).await;
    measured.and_then(|figure| deleted.map(|()| figure))
}

async fn call_pipelined(conn: &mut MultiplexedConnection, key: &str) -> Result<f64, String> {
    let mut load = redis::cmd("SCRIPT");
    let script: String = within(REDIS, load.arg("LOAD").arg(RESERVE).query_async(conn)).await?;
    let mut first = redis::pipe();
    first.atomic().hset(key, 0, 1).ignore().expire(key, LIFETIME_SECONDS.into()).ignore();
    within(REDIS, first.query_async::<()>(conn)).await?;
    let (order, script, begun) = (&OrderId::draw().to_string(), &script, Instant::now());
    let call_in_turn = |lane: usize, mut conn: MultiplexedConnection| async move {
        let mut calls = 0;
        for round in 0..ROUNDS_MOST {
            if begun.elapsed() >= SENDING {
                break;
            }
            let mut pipeline = redis::Pipeline::with_capacity(CALLS);
            for user in 1..=CALLS {
                let user = (round * PIPELINES + lane) * CALLS + user;
                pipeline.cmd("EVALSHA").arg(script).arg(1).arg(key).arg(user).arg(order).arg(u32::MAX);
            }
            let replies: Vec<i64> = within(REDIS, pipeline.query_async(&mut conn)).await?;
            if replies != [1; CALLS] {
                return Err(format!("{REDIS}: a unit was refused that was there"));
            }
            calls += CALLS;
        }
        Ok(calls)
    };
    let calls = try_join_all((0..PIPELINES).map(|lane| call_in_turn(lane, conn.clone()))).await?;
    Ok(calls.into_iter().sum::<usize>() as f64 / begun.elapsed().as_secs_f64())
}

async fn confirmed_purchases_per_second(settings: &config::RabbitMq) -> Result<f64, String> {
    let Address { host, port, user, password, path } = Address::parse("rabbitmq.url", &settings.url, 5672)?;
    let mut arguments = OpenConnectionArguments::new(&host, port, &user, &password);
    if !path.is_empty() {
        arguments.virtual_host(&path);
    }
    arguments.connection_name("seckill bench");
    let connection = within(RABBITMQ, Connection::open(&arguments)).await?;
    let queue = format!("{}.bench-{}", settings.queue, Uuid::new_v4().simple());
    let measured = publish_confirmed(&connection, &queue).await;
    let deleted = delete_queue(&connection, &queue).await;
    let _ = within(RABBITMQ, connection.close()).await;
    measured.and_then(|figure| deleted.map(|()| figure))
}

async fn publish_confirmed(connection: &Connection, queue: &str) -> Result<f64, String> {
    let channel = within(RABBITMQ, connection.open_channel(None)).await?;
    let (told, mut answers) = mpsc::unbounded_channel();
    within(RABBITMQ, channel.register_callback(OnAnswer(told))).await?;
    let mut kind = FieldTable::new();
    let lifetime = FieldValue::l(i64::from(LIFETIME_SECONDS) * 1000);
    for (key, value) in [("x-queue-type", "quorum".into()), ("x-expires", lifetime)] {
        kind.insert(key.try_into().map_err(|error| format!("{RABBITMQ}: {key}: {error}"))?, value);
    }
    let declare = QueueDeclareArguments::durable_client_named(queue).arguments(kind).finish();
    within(RABBITMQ, channel.queue_declare(declare)).await?;
    within(RABBITMQ, channel.confirm_select(ConfirmSelectArguments::default())).await?;

    let body = message()?;
    let properties = BasicProperties::default().with_content_type("application/json").with_persistence(true).finish();
    let target = BasicPublishArguments::new("", queue).mandatory(true).finish();
    let (mut last_tag, mut confirmed, mut in_flight) = (0_u64, 0, VecDeque::with_capacity(IN_FLIGHT));
    let begun = Instant::now();
    for _ in 0..ANSWERS_MOST {
        while in_flight.len() < IN_FLIGHT && begun.elapsed() < SENDING {
            last_tag += 1;
            in_flight.push_back(last_tag);
            let publish = channel.basic_publish(properties.clone(), body.clone(), target.clone());
            within(RABBITMQ, publish).await?;
        }
        if in_flight.is_empty() {
            break;
        }
        let gone = || Err("the channel is gone".to_owned());
        let (tag, multiple) = within(RABBITMQ, async { answers.recv().await.unwrap_or_else(gone) }).await?;
        let before = in_flight.len();
        in_flight.retain(|sent| *sent > tag || *sent < tag && !multiple);
        confirmed += before - in_flight.len();
    }
    let purchases = confirmed as f64 * f64::from(PURCHASES) / begun.elapsed().as_secs_f64();
    let _ = within(RABBITMQ, channel.close()).await;
    Ok(purchases)
}

/// On a channel of its own: an error closes the one it happened on.
async fn delete_queue(connection: &Connection, queue: &str) -> Result<(), String> {
    let channel = within(RABBITMQ, connection.open_channel(None)).await?;
    within(RABBITMQ, channel.queue_delete(QueueDeleteArguments::new(queue))).await?;
    let _ = within(RABBITMQ, channel.close()).await;
    Ok(())
}

/// A message as the sale writes one.
fn message() -> Result<Vec<u8>, String> {
    let purchase = |user| Ok(Purchase { order_id: OrderId::draw(), user_id: UserId::try_from(user)? });
    let items = (1..=i64::from(PURCHASES)).map(purchase).collect::<Result<_, &str>>()?;
    Ok(queue::encode(&PurchaseBatch { product_id: 1.try_into()?, epoch: 1, items }))
}

/// Passes on the delivery tag of a confirm, and whether it is for all up to it; or why there will be none.
struct OnAnswer(mpsc::UnboundedSender<Result<(u64, bool), String>>);

#[async_trait]
impl ChannelCallback for OnAnswer {
    async fn close(&mut self, _: &Channel, close: CloseChannel) -> Result<(), AmqpError> {
        let _ = self.0.send(Err(close.to_string()));
        Ok(())
    }

    async fn cancel(&mut self, _: &Channel, _: Cancel) -> Result<(), AmqpError> {
        Ok(())
    }

    async fn flow(&mut self, _: &Channel, active: bool) -> Result<bool, AmqpError> {
        Ok(active)
    }

    async fn publish_ack(&mut self, _: &Channel, ack: Ack) {
        let _ = self.0.send(Ok((ack.delivery_tag(), ack.mutiple())));
    }

    async fn publish_nack(&mut self, _: &Channel, _: Nack) {
        let _ = self.0.send(Err("a message was refused".to_owned()));
    }

    async fn publish_return(&mut self, _: &Channel, returned: Return, _: BasicProperties, _: Vec<u8>) {
        let _ = self.0.send(Err(format!("a message came back: {}", returned.reply_text())));
    }
}

async fn client_rows_per_second(settings: &config::MySql) -> Result<f64, String> {
    let address = Address::parse("mysql.dsn", &settings.dsn, 3306)?;
    let script = insert_script();
    let inserting = async {
        run_client(&address, CREATE_TABLE).await?;
        let begun = Instant::now();
        run_client(&address, &script).await?;
        Ok(f64::from(TRANSACTIONS * ROWS) / begun.elapsed().as_secs_f64())
    };
    let measured = inserting.await;
    let dropped = run_client(&address, DROP_TABLE).await;
    measured.and_then(|figure| dropped.map(|()| figure))
}

/// Unpaid orders, each statement a transaction of its own.
fn insert_script() -> String {
    let mut script = "SET SESSION autocommit = 1;\n".to_owned();
    let time = |time: Timestamp| time.to_string().replace('T', " ").replace('Z', "");
    for transaction in 0..TRANSACTIONS {
        let row = |row| {
            let (id, user) = (OrderId::draw(), transaction * ROWS + row);
            let (created, updated) = (time(id.drawn_at()), time(Timestamp::now()));
            let id = Uuid::from(id).simple();
            format!("(X'{id}',1,{user},{user},'unpaid',NULL,19900,NULL,'{created}','{updated}')")
        };
        let rows: Vec<_> = (1..=ROWS).map(row).collect();
        script += "INSERT INTO seckill_bench_raw (id, product_id, user_id, live_user, status, reason, price_cents, \
             release_due, created_at, updated_at) VALUES ";
        script += &rows.join(",");
        script += ";\n";
    }
    script
}

/// Lets the command line client carry out a script.
async fn run_client(address: &Address, script: &str) -> Result<(), String> {
    let Address { host, port, user, password, path: database } = address;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // Unencrypted as the server's own connections are; the client of MySQL has no such option.
    for (program, unencrypted) in [("mariadb", Some("--skip-ssl")), ("mysql", None)] {
        let mut command = Command::new(program);
        command.args(["--no-defaults", "--batch", "--protocol=TCP"]).args(unencrypted);
        command.args([format!("--host={host}"), format!("--port={port}"), format!("--user={user}")]);
        command.arg(format!("--database={database}")).env("MYSQL_PWD", password);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        match command.spawn() {
            Ok(client) => return within(MARIADB, feed(client, script)).await,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(format!("{MARIADB}: cannot start `{program}`: {error}")),
        }
    }
    Err(format!("{MARIADB}: its command line client is not installed, neither `mariadb` nor `mysql`"))
}

async fn feed(mut client: Child, script: &str) -> Result<(), String> {
    let input = client.stdin.take();
    let writing = async move {
        let Some(mut input) = input else { return Ok(()) };
        input.write_all(script.as_bytes()).await
    };
    let (written, ended) = tokio::join!(writing, client.wait_with_output());
    let ended = ended.map_err(|error| error.to_string())?;
    if ended.status.success() {
        return written.map_err(|error| error.to_string());
    }
    let said = String::from_utf8_lossy(&ended.stderr);
    let problem = said.lines().find(|line| line.starts_with("ERROR"));
    Err(problem.map_or_else(|| format!("its client ended: {}", ended.status), str::to_owned))
}

/// What the URL of a server says.
struct Address {
    host: String,
    port: u16,
    user: String,
    password: String,
    /// Database or vhost.
    path: String,
}

impl Address {
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
