//! One deployment: what happens to an instance that reaches another Redis or another queue than the others.

use std::time::{Duration, Instant};

use deadpool_redis::redis;
use seckill::app::{self, RunningApp};
use seckill::config::{Backend, Config};
use serde_json::Value;

use crate::app::TestApp;
use crate::client::Client;
use crate::support::{Stores, eventually_within};

async fn run(test: impl AsyncFnOnce(&mut TestApp)) {
    TestApp::run(Backend::Distributed, test).await;
}

/// Starting with this configuration fails, in one line that begins so.
async fn does_not_start(config: &Config, line: &str) {
    let Err(problem) = RunningApp::start(config).await else { panic!("it started, in spite of {line}") };
    let problem = problem.to_string();
    assert!(problem.starts_with(line) && !problem.contains('\n'), "{problem}");
}

async fn metrics(client: &Client) -> String {
    client.request(reqwest::Method::GET, "/metrics").send().await.unwrap().text().await.unwrap()
}

async fn buys(client: &Client, product: i64, user: i64) -> Value {
    client.buy(user, product).await.is(202)["order_id"].clone()
}

/// Two gates for one database would sell apart from each other, and promises of the one be turned down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_reaches_another_redis_or_queue_does_not_start() {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(10).await;
        buys(&app.client, id, 1).await;
        let other = Stores::new(Backend::Distributed).await;
        let mut config = app.config.clone();
        config.redis.db = other.config().redis.db;
        does_not_start(&config, "redis.db: ").await;
        config.redis.db = app.config.redis.db;
        config.redis.key_prefix = "typo:".to_owned();
        does_not_start(&config, "redis.key_prefix: ").await;
        config.redis.key_prefix = app.config.redis.key_prefix.clone();
        config.rabbitmq.queue = other.config().rabbitmq.queue;
        does_not_start(&config, "rabbitmq.queue: ").await;
        buys(&app.client, id, 2).await;
        app.orders_written(id, 2).await;
        app.balanced(id).await;
        other.remove().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_deployments_do_not_share_a_gate_or_a_queue() {
    run(async |app: &mut TestApp| {
        let other = Stores::new(Backend::Distributed).await;
        let mut config = other.config();
        config.redis.db = app.config.redis.db;
        does_not_start(&config, "redis.key_prefix: ").await;
        config.redis.key_prefix = "second:".to_owned();
        config.rabbitmq.queue = app.config.rabbitmq.queue.clone();
        does_not_start(&config, "rabbitmq.queue: ").await;
        config.rabbitmq.queue = other.config().rabbitmq.queue;
        config.redis.key_prefix = app.config.redis.key_prefix.clone();
        does_not_start(&config, "redis.key_prefix: ").await;
        config.redis.key_prefix = "second:".to_owned();
        RunningApp::start(&config).await.expect("with a prefix and a queue of its own it starts").stop().await;
        other.remove().await;
    })
    .await;
}

/// An open gate that is older than the database says is found within a second, and none of its promises is turned down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_that_is_older_than_the_database_is_closed_and_rebuilt() {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(1000).await;
        let mut promised = vec![(1, buys(&app.client, id, 1).await)];
        app.orders_written(id, 1).await;
        // As an instance would begin it that uses another Redis.
        app.stores.execute(&format!("UPDATE products SET gate_epoch = gate_epoch + 1 WHERE id = {id}")).await;
        let begun = Instant::now();
        let (mut closed, mut user) = (None, 2);
        loop {
            let reply = app.client.buy(user, id).await;
            if reply.status == 202 {
                promised.push((user, reply.body["order_id"].clone()));
                if closed.is_some() {
                    break;
                }
            } else {
                reply.is_problem(503, "unavailable");
                closed = closed.or(Some(begun.elapsed()));
            }
            user += 1;
            assert!(begun.elapsed() < Duration::from_secs(15), "it does not sell again");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let closed = closed.expect("it was closed");
        assert!(closed < Duration::from_millis(1500), "closed after {closed:?}");
        app.orders_written(id, promised.len() as i64).await;
        for (user, order) in &promised {
            let order = app.client.order(*user, order.as_str().unwrap()).await.is(200);
            assert_eq!(order["status"], "unpaid", "{order}");
        }
        app.balanced(id).await;
        let metrics: String = metrics(&app.client).await;
        assert!(metrics.contains("seckill_deposed_gates_total 1"), "{metrics}");
    })
    .await;
}

/// The database came back from a backup that is older than the gate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_that_is_newer_than_the_database_is_rebuilt() {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(10).await;
        buys(&app.client, id, 1).await;
        app.orders_written(id, 1).await;
        let key = format!("seckill:{{{id}}}:gate");
        let buyers = format!("seckill:{{{id}}}:buyers");
        let mut redis = app.stores.redis().await;
        redis::cmd("HSET").arg(key).arg("epoch").arg(7).query_async::<()>(&mut redis).await.unwrap();
        redis::cmd("HSET").arg(buyers).arg("0").arg(7).query_async::<()>(&mut redis).await.unwrap();
        let epoch = format!("SELECT gate_epoch AS n FROM products WHERE id = {id}");
        eventually_within(10, "it has a newer epoch", || async { app.stores.number(&epoch).await == 8 }).await;
        eventually_within(10, "it sells again", || async { app.client.buy(2, id).await.status == 202 }).await;
        app.client.buy(1, id).await.is_problem(409, "already_purchased");
        app.orders_written(id, 2).await;
        app.balanced(id).await;
    })
    .await;
}

/// Redis is moved while a crowd buys: a new one is adopted, an instance that uses it is started, the old one stops selling and
/// is stopped. Nobody who was told yes loses it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_of_redis_under_load_loses_nothing() {
    run(async |app: &mut TestApp| {
        let other = Stores::new(Backend::Distributed).await;
        let mut moved = app.config.clone();
        moved.redis.db = other.config().redis.db;
        let id = app.client.new_product(100_000).await;
        let mut promised = Vec::new();
        let (mut user, mut next) = (0, None::<(RunningApp, Client)>);
        let begun = Instant::now();
        let mut sold_by_the_next = 0;
        while sold_by_the_next < 20 {
            assert!(begun.elapsed() < Duration::from_secs(40), "the new instance does not sell");
            user += 1;
            let newer = next.as_ref().map(|(_, client)| client).filter(|_| user % 2 == 0);
            let reply = newer.unwrap_or(&app.client).buy(user, id).await;
            if reply.status == 202 {
                promised.push((user, reply.body["order_id"].as_str().unwrap().to_owned()));
                sold_by_the_next += i32::from(newer.is_some());
            } else {
                reply.is_problem(503, "unavailable");
            }
            if promised.len() == 100 && next.is_none() {
                app::deployment(&moved).unwrap().adopt(false).await.unwrap();
                let started = RunningApp::start(&moved).await.expect("an instance with the new Redis starts");
                let client = Client::new(started.address(), &moved);
                next = Some((started, client));
            }
        }
        app.client.get("/readyz", None).await.is(503);
        app.stop().await;
        app.orders_written(id, promised.len() as i64).await;
        let (newer, client) = next.unwrap();
        for (user, order) in &promised {
            let order = client.order(*user, order).await.is(200);
            assert_eq!(order["status"], "unpaid", "{order}");
        }
        newer.stop().await;
        other.remove().await;
    })
    .await;
}
