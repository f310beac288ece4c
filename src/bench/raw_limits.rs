//! The raw limits of the three servers beneath the distributed backend: the clients the server uses, the steps of the
//! sale that cost most, and nothing of ours around them.
//!
//! What is made for it carries a name of its own and is deleted afterwards, also when a step failed.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::process::Stdio;
use std::time::{Duration, Instant};

use amqprs::callbacks::ChannelCallback;
use amqprs::channel::{BasicPublishArguments, Channel, ConfirmSelectArguments, QueueDeclareArguments};
use amqprs::connection::Connection;
use amqprs::error::Error as AmqpError;
use amqprs::{Ack, BasicProperties, Cancel, CloseChannel, FieldTable, FieldValue, Nack, Return};
use async_trait::async_trait;
use deadpool_redis::redis;
use deadpool_redis::redis::aio::MultiplexedConnection;
use futures_util::future::try_join_all;
use serde::Serialize;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use uuid::Uuid;

use super::servers::{self, Address, MARIADB, RABBITMQ, REDIS, delete_queue, within};
use super::target::buyer;
use crate::config::{self, Config};
use crate::model::{OrderId, ProductId, Purchase, PurchaseGroup, Quantity, Revision, Timestamp, UserId};
use crate::queue;

/// How long calls and messages are sent.
const SENDING: Duration = Duration::from_secs(1);
/// What a killed run leaves in Redis and RabbitMQ is gone after this many seconds.
const LIFETIME_SECONDS: u32 = 60;

/// Calls in a pipeline.
const CALLS: usize = 100;
/// Pipelines under way at once: Redis must not wait while the next one is made.
const PIPELINES: usize = 2;
/// Rounds of each of them at most.
const MAX_ROUNDS: usize = 10_000;
/// One user a call, as the gate would: not twice, not beyond the stock.
const RESERVE: &str = "
if redis.call('HGET', KEYS[1], ARGV[1]) then return -1 end
if redis.call('HLEN', KEYS[1]) > tonumber(ARGV[3]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
return 1";

/// Purchases in a message.
const PURCHASES: u32 = 32;
/// Messages that wait for their confirm at once.
const UNCONFIRMED: usize = 8;
/// Answers of the broker at most.
const MAX_ANSWERS: usize = 100_000;

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

async fn evalsha_per_second(settings: &config::Redis) -> Result<f64, String> {
    let mut conn = servers::redis(settings).await?;
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
    let (order, script, begun) = (&OrderId::draw(any_product()).to_string(), &script, Instant::now());
    let call_in_turn = |lane: usize, mut conn: MultiplexedConnection| async move {
        let mut calls = 0;
        for round in 0..MAX_ROUNDS {
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
    let connection = servers::rabbitmq(settings).await?;
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
    let (mut last_tag, mut confirmed, mut unconfirmed) = (0_u64, 0, VecDeque::with_capacity(UNCONFIRMED));
    let begun = Instant::now();
    for _ in 0..MAX_ANSWERS {
        while unconfirmed.len() < UNCONFIRMED && begun.elapsed() < SENDING {
            last_tag += 1;
            unconfirmed.push_back(last_tag);
            let publish = channel.basic_publish(properties.clone(), body.clone(), target.clone());
            within(RABBITMQ, publish).await?;
        }
        if unconfirmed.is_empty() {
            break;
        }
        let gone = || Err("the channel is gone".to_owned());
        let (tag, multiple) = within(RABBITMQ, async { answers.recv().await.unwrap_or_else(gone) }).await?;
        let before = unconfirmed.len();
        unconfirmed.retain(|sent| *sent > tag || *sent < tag && !multiple);
        confirmed += before - unconfirmed.len();
    }
    let purchases = confirmed as f64 * f64::from(PURCHASES) / begun.elapsed().as_secs_f64();
    let _ = within(RABBITMQ, channel.close()).await;
    Ok(purchases)
}

fn any_product() -> ProductId {
    ProductId::try_from(1).expect("1 is positive")
}

/// A message as the sale writes one.
fn message() -> Result<Vec<u8>, String> {
    let purchase = |user| {
        let user_id = UserId::try_from(user)?;
        Ok(Purchase { order_id: OrderId::draw(any_product()), user_id, quantity: Quantity::ONE })
    };
    let items = (1..=i64::from(PURCHASES)).map(purchase).collect::<Result<_, &str>>()?;
    Ok(queue::encode(&PurchaseGroup {
        product_id: any_product(),
        epoch: 1,
        revision: Some(Revision::FIRST),
        items,
        traced: Vec::new(),
    }))
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
    let address = Address::mysql(settings)?;
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
            let (id, user) = (OrderId::draw(any_product()), buyer(transaction * ROWS + row));
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
    let Address { host, port, user, password, database, tls } = address;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    // Encrypted if the server's own connections are; the client of MySQL has no option for "not".
    let (of_mariadb, of_mysql): (&[&str], &[&str]) = match tls {
        None => (&["--skip-ssl"], &[]),
        Some(_) => (&["--ssl", "--ssl-verify-server-cert"], &["--ssl-mode=VERIFY_IDENTITY"]),
    };
    let ca_file = tls.as_ref().and_then(|tls| tls.0.as_ref()).map(|file| format!("--ssl-ca={}", file.display()));
    for (program, options) in [("mariadb", of_mariadb), ("mysql", of_mysql)] {
        let mut command = Command::new(program);
        command.args(["--no-defaults", "--batch", "--protocol=TCP"]).args(options).args(&ca_file);
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
