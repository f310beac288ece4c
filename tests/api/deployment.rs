//! One deployment: what happens to an instance that reaches another Redis or another queue than the others.

use std::time::{Duration, Instant};

use deadpool_redis::redis;
use seckill::app::{self, RunningApp};
use seckill::config::{Backend, Config};
use seckill::queue::{Chosen, DeadLetters};
use serde_json::Value;

use crate::app::TestApp;
use crate::broker::{Broker, message};
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

/// All of these become orders. There may be more: a purchase that was answered 503 may have been taken.
async fn are_kept(client: &Client, promised: &[(i64, Value)]) {
    for (user, order) in promised {
        eventually_within(10, "what was promised is an order", || async {
            client.order(*user, order.as_str().unwrap()).await.body["status"] == "unpaid"
        })
        .await;
    }
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
        let (mut closed, mut unready, mut user) = (None, false, 2);
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
                unready |= app.client.get("/readyz", None).await.body["checks"]["deployment"] == "down";
            }
            user += 1;
            assert!(begun.elapsed() < Duration::from_secs(15), "it does not sell again");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let closed = closed.expect("it was closed");
        assert!(closed < Duration::from_millis(1500), "closed after {closed:?}");
        are_kept(&app.client, &promised).await;
        app.balanced(id).await;
        // While it was closed, no balancer would have sent anybody here.
        assert!(unready, "readiness has not told");
        eventually_within(5, "it is ready again", || async { app.client.get("/readyz", None).await.status == 200 })
            .await;
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
        let mut newer = redis::pipe();
        newer.atomic().hset(format!("seckill:{{{id}}}:gate"), "epoch", 7).hset(
            format!("seckill:{{{id}}}:buyers"),
            "0",
            7,
        );
        newer.query_async::<()>(&mut app.stores.redis().await).await.unwrap();
        let epoch = format!("SELECT gate_epoch AS n FROM products WHERE id = {id}");
        eventually_within(10, "it has a newer epoch", || async { app.stores.number(&epoch).await == 8 }).await;
        eventually_within(10, "it sells again", || async { app.client.buy(2, id).await.status == 202 }).await;
        // Between the new epoch and the close the older gate sells on.
        eventually_within(10, "the first buyer is known", || async {
            app.client.buy(1, id).await.body["code"] == "already_purchased"
        })
        .await;
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
                promised.push((user, reply.body["order_id"].clone()));
                sold_by_the_next += i32::from(newer.is_some());
            } else {
                reply.is_problem(503, "unavailable");
            }
            if promised.len() == 100 && next.is_none() {
                app::membership(&moved).unwrap().adopt(false).await.unwrap();
                let started = RunningApp::start(&moved).await.expect("an instance with the new Redis starts");
                let client = Client::new(started.address(), &moved);
                next = Some((started, client));
            }
        }
        app.client.get("/readyz", None).await.is(503);
        app.stop().await;
        let (newer, client) = next.unwrap();
        are_kept(&client, &promised).await;
        assert_eq!(app.stores.number("SELECT COUNT(*) AS n FROM orders WHERE reason = 'late'").await, 0);
        newer.stop().await;
        other.remove().await;
    })
    .await;
}

/// What was promised and set aside is not turned down as late when its gate was rebuilt since: it becomes an order, or stays
/// set aside and says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replayed_promise_becomes_an_order_or_says_why_it_cannot() {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(3).await;
        let broker = Broker::connect(&app.config.rabbitmq).await;
        let dead = format!("{}.dead", app.config.rabbitmq.queue);
        let order = || seckill::model::OrderId::draw(id.try_into().unwrap()).to_string();
        let (seventh, eighth, ninth) = (order(), order(), order());
        broker.publish(&dead, message(id, 1, &[(seventh.clone(), 7), (eighth.clone(), 8), (ninth.clone(), 9)])).await;
        // The gate is rebuilt without them, and two of their units are sold, one of them to one of them.
        redis::cmd("FLUSHDB").query_async::<()>(&mut app.stores.redis().await).await.unwrap();
        for user in [1, 9] {
            eventually_within(15, "it sells again", || async { app.client.buy(user, id).await.status == 202 }).await;
        }
        let replay = || async {
            let replay = app::replay(&app.config).unwrap().unwrap();
            let mut letters = DeadLetters::rabbitmq(&app.config.rabbitmq).await.unwrap();
            let replayed = letters.replay(&Chosen::All, async |letter| replay.readmit(letter).await).await.unwrap();
            letters.close().await;
            replayed
        };
        let replayed = replay().await;
        assert_eq!(replayed.letters, 1);
        let [reasons] = &replayed.kept[..] else { panic!("{replayed:?}") };
        assert!(reasons.contains(&format!("order {eighth} of user 8: its unit was sold")), "{reasons}");
        assert!(reasons.contains(&format!("order {ninth}: user 9 has bought again")), "{reasons}");
        app.orders_written(id, 3).await;
        assert_eq!(app.client.order(7, &seventh).await.is(200)["status"], "unpaid");
        app.balanced(id).await;
        // Once more: what stayed set aside still does, and nobody gets anything twice.
        assert_eq!(replay().await.kept.len(), 1);
        app.orders_written(id, 3).await;
        assert_eq!(app.stores.number("SELECT COUNT(*) AS n FROM orders WHERE status = 'rejected'").await, 0);
    })
    .await;
}

/// Without a gate the database says what a promise can still become, before it is sent on its way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promise_that_is_replayed_after_the_sale_is_turned_down_by_nobody() {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(2).await;
        app.client.buy(1, id).await.is(202);
        app.orders_written(id, 1).await;
        let broker = Broker::connect(&app.config.rabbitmq).await;
        let dead = format!("{}.dead", app.config.rabbitmq.queue);
        let order = || seckill::model::OrderId::draw(id.try_into().unwrap()).to_string();
        let (first, seventh, eighth) = (order(), order(), order());
        broker.publish(&dead, message(id, 1, &[(first.clone(), 1), (seventh.clone(), 7), (eighth.clone(), 8)])).await;
        // The sale is long over, and its gate was retired.
        let over = "ends_at = '2026-01-01 00:00:00', gate_home = 'retired', gate_epoch = 2, gate_fence = 2";
        app.stores.execute(&format!("UPDATE products SET {over} WHERE id = {id}")).await;
        redis::cmd("FLUSHDB").query_async::<()>(&mut app.stores.redis().await).await.unwrap();
        let replay = app::replay(&app.config).unwrap().unwrap();
        let mut letters = DeadLetters::rabbitmq(&app.config.rabbitmq).await.unwrap();
        let replayed = letters.replay(&Chosen::All, async |letter| replay.readmit(letter).await).await.unwrap();
        letters.close().await;
        let [reasons] = &replayed.kept[..] else { panic!("{replayed:?}") };
        assert!(reasons.contains(&format!("order {first}: user 1 has bought again")), "{reasons}");
        assert!(reasons.contains(&format!("order {eighth} of user 8: its unit was sold")), "{reasons}");
        let rows = async |status: &str| {
            app.stores.number(&format!("SELECT COUNT(*) AS n FROM orders WHERE status = '{status}'")).await
        };
        eventually_within(10, "what fits is an order", || async { rows("unpaid").await == 2 }).await;
        assert_eq!(rows("rejected").await, 0);
    })
    .await;
}

/// What an operator does about a gate that does not say what is true, without deleting a key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_is_rebuilt_by_a_command() {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(5).await;
        buys(&app.client, id, 1).await;
        app.orders_written(id, 1).await;
        // A mark of nobody's order: a unit that nobody can buy.
        let stray = seckill::model::OrderId::draw(id.try_into().unwrap()).to_string();
        let mut redis = app.stores.redis().await;
        redis::cmd("HSET")
            .arg(format!("seckill:{{{id}}}:buyers"))
            .arg(99)
            .arg(stray)
            .query_async::<()>(&mut redis)
            .await
            .unwrap();
        let epoch = app::membership(&app.config).unwrap().rebuild_gate(id.try_into().unwrap()).await.unwrap();
        assert_eq!(epoch, 2);
        eventually_within(15, "it sells again", || async { app.client.buy(2, id).await.status == 202 }).await;
        app.orders_written(id, 2).await;
        app.balanced(id).await;
        let unknown = app::membership(&app.config).unwrap().rebuild_gate(999_999.try_into().unwrap()).await;
        assert!(unknown.unwrap_err().contains("no product 999999"));
    })
    .await;
}

/// Seen: a sale that ended while its gate was older than the database kept `/readyz` at 503 until a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposed_gate_of_a_sale_that_ends_does_not_keep_an_instance_unready() {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(5).await;
        let deployment = async || app.client.get("/readyz", None).await.body["checks"]["deployment"].clone();
        app.stores.execute(&format!("UPDATE products SET gate_epoch = gate_epoch + 1 WHERE id = {id}")).await;
        eventually_within(5, "readiness says so", || async { deployment().await == "down" }).await;
        let over = format!("UPDATE products SET ends_at = '2001-01-01', starts_at = '2000-01-01' WHERE id = {id}");
        app.stores.execute(&over).await;
        eventually_within(15, "it is ready", || async { app.client.get("/readyz", None).await.status == 200 }).await;
    })
    .await;
}

/// Seen: a row a crash, until some instance stopped in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_that_have_died_are_forgotten_while_others_run() {
    run(async |app: &mut TestApp| {
        for (id, seen) in [("dead", "1 HOUR"), ("died just now", "1 MINUTE")] {
            let insert = format!(
                "INSERT INTO instances (id, redis_name, queue_name, seen_at) \
                 VALUES ('{id}', 'r', 'q', UTC_TIMESTAMP(3) - INTERVAL {seen})"
            );
            app.stores.execute(&insert).await;
        }
        let rows =
            async |which: &str| app.stores.number(&format!("SELECT COUNT(*) AS n FROM instances WHERE {which}")).await;
        eventually_within(15, "it is forgotten", || async { rows("id = 'dead'").await == 0 }).await;
        // Somebody may want to know what it used; and the one that runs is known.
        assert_eq!(rows("id = 'died just now'").await, 1);
        assert_eq!(rows("seen_at > UTC_TIMESTAMP(3) - INTERVAL 3 SECOND").await, 1);
    })
    .await;
}

/// Whoever cannot read which Redis this is must learn all the same that the deployment has left the one that it knew.
/// Seen: such an instance went on promising from a gate that nobody fills any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_whose_redis_does_not_say_whose_it_is_notices_that_it_was_left() {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(1000).await;
        let mut spoil = redis::pipe();
        spoil.del("seckill:deployment").rpush("seckill:deployment", "something else");
        spoil.query_async::<()>(&mut app.stores.redis().await).await.unwrap();
        eventually_within(5, "readiness says so", || async {
            let ready = app.client.get("/readyz", None).await;
            ready.status == 503 && ready.body["checks"]["gate_trouble"] == "broken"
        })
        .await;
        // Its gates are what they were.
        buys(&app.client, id, 1).await;
        let other = Stores::new(Backend::Distributed).await;
        let mut moved = app.config.clone();
        moved.redis.db = other.config().redis.db;
        app::membership(&moved).unwrap().adopt(false).await.unwrap();
        let mut user = 1;
        let begun = Instant::now();
        let mut last_promise = Duration::ZERO;
        while begun.elapsed() < Duration::from_secs(5) {
            user += 1;
            let reply = app.client.buy(user, id).await;
            if reply.status == 202 {
                last_promise = begun.elapsed();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(last_promise < Duration::from_secs(3), "promised after {last_promise:?}");
        other.remove().await;
    })
    .await;
}
