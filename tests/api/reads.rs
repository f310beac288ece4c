//! Whoever only looks: what it costs, and whom it must not hinder.

use std::time::Duration;

use deadpool_redis::redis;
use diesel_async::{AsyncConnection, AsyncMysqlConnection, SimpleAsyncConnection};
use futures_util::future::join_all;
use seckill::app::RunningApp;
use seckill::config::Backend;
use seckill::model::{OrderId, Timestamp};
use secrecy::ExposeSecret;

use crate::app::TestApp;
use crate::client::Client;
use crate::monitor::Monitor;
use crate::on_both_backends;
use crate::support::{eventually, eventually_within};

/// Puts a purchase into a gate that nobody has published.
async fn reserve_unpublished(app: &TestApp, product: i64, user: i64, age: Duration) -> String {
    let order = OrderId::draw(product.try_into().unwrap()).to_string();
    let since = Timestamp::now().before(age).unix_ms();
    let mut reserve = redis::pipe();
    reserve.hset(format!("seckill:{{{product}}}:buyers"), user, &order).ignore();
    reserve.zadd(format!("seckill:{{{product}}}:flight"), format!("{order}:{user}"), since).ignore();
    reserve.query_async::<()>(&mut app.stores.redis().await).await.unwrap();
    order
}

async fn run(test: impl AsyncFnOnce(&mut TestApp)) {
    TestApp::run(Backend::Distributed, test).await;
}

on_both_backends! {
    async fn whoever_looks_all_the_time_is_told_to_wait_and_nobody_else_is(app) {
        let id = app.client.new_product(1).await;
        let order = app.client.buy(7, id).await.is(202)["order_id"].as_str().unwrap().to_owned();
        let (client, path, buyer) = (&app.client, format!("/orders/{order}"), app.client.buyer(7));
        let look = async |n: i32| client.get(if n % 2 == 0 { &path } else { "/orders" }, Some(&buyer)).await;
        let replies = join_all((0..100).map(look)).await;
        let refused: Vec<_> = replies.iter().filter(|reply| reply.status != 200).collect();
        assert!((30..=75).contains(&refused.len()), "{}", refused.len());
        for reply in refused {
            reply.is_problem(429, "rate_limited");
            assert_eq!(reply.headers["ratelimit"], "\"reads\";r=0;t=1");
        }
        app.client.get("/orders", Some(&app.client.buyer(8))).await.is(200);
        // An administrator is not counted.
        let admin = app.client.admin();
        assert!(join_all((0..60).map(|_| app.client.get(&path, Some(&admin)))).await.iter().all(|reply| reply.status == 200));
        tokio::time::sleep(Duration::from_secs(1)).await;
        // A page that is open in two tabs.
        for _ in 0..4 {
            app.client.order(7, &order).await.is(200);
            app.client.get("/orders", Some(&app.client.buyer(7))).await.is(200);
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    async fn a_product_that_nobody_made_is_unknown_and_one_just_made_is_known(app) {
        let id = app.client.new_product(1).await;
        for unknown in [id + 1, id + 1000, (1 << 53) - 1] {
            app.client.get(&format!("/products/{unknown}"), None).await.is_problem(404, "product_not_found");
            app.client.buy(7, unknown).await.is_problem(404, "product_not_found");
        }
        let next = app.client.new_product(1).await;
        assert_eq!(app.client.product(next).await["id"], next);
        app.client.buy(7, next).await.is(202);
    }
}

/// Seen: an order that is not written was looked for at the gates of all sales, on the links that purchases use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_is_looked_for_at_one_gate_over_another_connection_than_purchases_use() {
    const USER: i64 = 7_654_321;
    run(async |app: &mut TestApp| {
        for _ in 0..19 {
            app.client.new_product(1).await;
        }
        let id = app.client.new_product(5).await;
        let order = reserve_unpublished(app, id, USER, Duration::ZERO).await;
        let monitor = Monitor::start(&app.config.redis).await;
        app.client.buy(1, id).await.is(202);
        assert_eq!(app.client.order(USER, &order).await.is(200)["status"], "queued");
        let seen = monitor.end(app).await;
        let asked: Vec<_> = seen.iter().filter(|line| line.contains(&format!("\"{USER}\""))).collect();
        assert_eq!(asked.len(), 1, "{asked:?}");
        let connection = |line: &str| line.split(['[', ']']).nth(1).unwrap().to_owned();
        let clicks: Vec<_> = seen.iter().filter(|line| line.contains(":rate:")).map(|line| connection(line)).collect();
        assert!(!clicks.is_empty() && !clicks.contains(&connection(asked[0])), "{clicks:?} {asked:?}");

        // All who ask for what they hold everywhere are answered together, and by those gates alone that have something in flight.
        // On a machine so slow that the last sweep is too long ago all gates are asked, which is right as well: then once more.
        let mut asked = 0;
        for _ in 0..5 {
            swept(app).await;
            let monitor = Monitor::start(&app.config.redis).await;
            let lists = (1..=60)
                .map(|user| app.client.request(reqwest::Method::GET, "/orders").bearer_auth(app.client.buyer(user)));
            let replies = join_all(lists.map(|list| app.client.send(list))).await;
            assert!(replies.iter().all(|reply| reply.status == 200));
            let seen = monitor.end(app).await;
            asked = seen.iter().filter(|line| line.contains(":buyers") && line.contains("\"60\"")).count();
            let looks = seen.iter().filter(|line| line.contains(":buyers") && line.contains("HMGET")).count();
            // Those who come while one look is under way share the next one; on a slow machine they come one after the other.
            assert!(looks <= 30 * asked, "{looks} looks for 60 users at {asked} gates");
            if asked == 1 {
                break;
            }
        }
        assert_eq!(asked, 1, "one gate of twenty");
    })
    .await;
}

/// Waits until a sweep has noted what is in flight.
async fn swept(app: &TestApp) {
    eventually("a sweep has looked at every gate", || async {
        let mut ask = redis::cmd("ZRANGE");
        let noted: Vec<String> = ask
            .arg("seckill:flights")
            .arg(0)
            .arg(-1)
            .query_async(&mut app.stores.redis().await)
            .await
            .unwrap_or_default();
        noted.iter().any(|member| member.starts_with('@'))
    })
    .await;
}

/// Guards against: an index of what is in flight that lags behind a promise, is not whole, or dies with an instance.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_instance_has_promised_is_in_the_list_of_another_at_once() {
    run(async |app: &mut TestApp| {
        let mut other = Some(RunningApp::start(&app.config).await.unwrap());
        let mut client = Client::new(other.as_ref().unwrap().address(), &app.config);
        let mut products = Vec::new();
        for _ in 0..12 {
            products.push(app.client.new_product(5).await);
        }
        swept(app).await;
        // Nothing becomes an order meanwhile: somebody holds the rows of the products.
        let mut lock = AsyncMysqlConnection::establish(app.config.mysql.dsn.expose_secret()).await.unwrap();
        lock.batch_execute("START TRANSACTION; UPDATE products SET gate_home = gate_home").await.unwrap();
        let mut orders = Vec::new();
        for (place, product) in products.iter().enumerate() {
            orders.insert(0, app.client.buy(7, *product).await.is(202)["order_id"].clone());
            match place {
                3 => redis_command(app, &["DEL", "seckill:flights"]).await,
                5 => redis_command(app, &["SET", "seckill:flights", "x"]).await,
                7 => {
                    other.take().unwrap().stop().await;
                    let new = RunningApp::start(&app.config).await.unwrap();
                    client = Client::new(new.address(), &app.config);
                    other = Some(new);
                }
                9 => swept(app).await,
                _ => {}
            }
            let listed = client.get("/orders", Some(&client.buyer(7))).await.is(200);
            let ids: Vec<_> = listed["items"].as_array().unwrap().iter().map(|order| order["id"].clone()).collect();
            assert_eq!(ids, orders, "after the purchase of place {place}");
            assert!(listed["items"].as_array().unwrap().iter().all(|order| order["status"] == "queued"));
        }
        let unknown = OrderId::draw(products[0].try_into().unwrap()).to_string();
        client.order(8, &unknown).await.is_problem(404, "order_not_found");
        drop(lock);
        for product in &products {
            app.orders_written(*product, 1).await;
        }
        other.unwrap().stop().await;
    })
    .await;
}

async fn redis_command(app: &TestApp, command: &[&str]) {
    let mut redis = redis::cmd(command[0]);
    redis.arg(&command[1..]).query_async::<redis::Value>(&mut app.stores.redis().await).await.unwrap();
}

/// Rule 1: a promise is found until it is written, and is written, however long ago its sale ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purchase_that_waits_for_days_after_its_sale_is_found_and_written() {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(5).await;
        let forgotten = app.client.new_product(5).await;
        let day = Duration::from_secs(86_400);
        let (ended, begun) = (Timestamp::now().before(2 * day), Timestamp::now().before(3 * day));
        let times = |time: Timestamp| time.to_string().replace('T', " ").replace('Z', "");
        for product in [id, forgotten] {
            let change = format!("ends_at = '{}', starts_at = '{}'", times(ended), times(begun));
            app.stores.execute(&format!("UPDATE products SET {change} WHERE id = {product}")).await;
            redis::pipe()
                .hset(format!("seckill:{{{product}}}:gate"), "starts", begun.unix_ms())
                .hset(format!("seckill:{{{product}}}:gate"), "ends", ended.unix_ms())
                .query_async::<()>(&mut app.stores.redis().await)
                .await
                .unwrap();
        }
        // Reserved a moment ago by Redis' clock, so that nobody decides it yet.
        let order = reserve_unpublished(app, id, 7, Duration::ZERO).await;
        assert_eq!(app.client.order(7, &order).await.is(200)["status"], "queued");
        assert_eq!(app.client.get(&format!("/orders/{order}"), Some(&app.client.admin())).await.is(200)["id"], order);
        app.client.order(8, &order).await.is_problem(404, "order_not_found");
        let unpublished = reserve_unpublished(app, forgotten, 7, Duration::from_secs(11)).await;
        app.restart().await;
        eventually("a list shows what was never published", || async {
            let listed = app.client.get("/orders", Some(&app.client.buyer(7))).await;
            listed.body["items"].as_array().is_some_and(|items| items.len() == 2)
        })
        .await;
        eventually_within(5, "what was never published is written", || async {
            app.client.order(7, &unpublished).await.body["status"] == "unpaid"
        })
        .await;
        app.orders_written(forgotten, 1).await;
    })
    .await;
}

/// The gate is gone and nothing can come any more: the queue is empty, so what is unknown is unknown for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_of_a_sale_long_over_is_not_found_once_its_gate_is_gone() {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(5).await;
        app.stores
            .execute(&format!("UPDATE products SET ends_at = '2001-01-01', starts_at = '2000-01-01' WHERE id = {id}"))
            .await;
        redis::cmd("DEL")
            .arg(format!("seckill:{{{id}}}:gate"))
            .query_async::<()>(&mut app.stores.redis().await)
            .await
            .unwrap();
        let unknown = OrderId::draw(id.try_into().unwrap()).to_string();
        app.client.order(7, &unknown).await.is_problem(404, "order_not_found");
    })
    .await;
}

/// Seen: 600 connections on random cursors made `/readyz` and log-ins answer 503.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_leave_connections_to_log_ins_and_readiness_has_its_own() {
    run(async |app: &mut TestApp| {
        app.client.new_product(1).await;
        app.client.log_in_as_admin().await;
        // Every page of products hangs from now on.
        let mut lock = AsyncMysqlConnection::establish(app.config.mysql.dsn.expose_secret()).await.unwrap();
        lock.batch_execute("LOCK TABLES products WRITE").await.unwrap();
        let client = &app.client;
        let pages =
            (0..200).map(async |cursor| client.get(&format!("/products?limit=1&cursor={}", 1000 + cursor), None).await);
        let (replies, ()) = tokio::join!(join_all(pages), async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(700)).await;
                app.client.get("/readyz", None).await.is(200);
                app.client.log_in_as_admin().await;
            }
            drop(lock);
        });
        let refused: Vec<_> = replies.iter().filter(|reply| reply.status != 200).collect();
        assert!(refused.len() > 150, "{}", refused.len());
        for reply in refused {
            reply.is_problem(503, "unavailable");
            assert_eq!(reply.headers["retry-after"], "1");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_probes_costs_the_stores_one_look() {
    run(async |app: &mut TestApp| {
        let monitor = Monitor::start(&app.config.redis).await;
        let begun = std::time::Instant::now();
        let probes = join_all((0..300).map(|_| app.client.get("/readyz", None))).await;
        assert!(probes.iter().all(|reply| reply.status == 200));
        let looks = monitor.end(app).await.iter().filter(|line| line.contains("\"PING\"")).count() as u64;
        assert!(looks <= 2 + 2 * begun.elapsed().as_secs(), "{looks} looks");
    })
    .await;
}
