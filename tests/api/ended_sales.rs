//! Sales that are over: nothing of them stays in the gate, and a reopened one goes on as if nothing had been taken away.

use std::time::Duration;

use deadpool_redis::redis;
use futures_util::future::join_all;
use seckill::config::Backend;
use seckill::model::{OrderId, Timestamp};
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::on_both_backends;
use crate::support::eventually_within;

/// Longer ago than a gate is kept for.
const LONG_AGO: Duration = Duration::from_secs(80 * 60);

fn sql_time(ago: Duration) -> String {
    let mut text = String::new();
    Timestamp::now().before(ago).push_sortable(&mut text);
    text
}

/// As if the sale had ended then.
async fn end(app: &TestApp, which: &str, ago: Duration) {
    let (begun, ended) = (sql_time(ago + Duration::from_secs(60)), sql_time(ago));
    let change = format!("starts_at = '{begun}', ends_at = '{ended}', ver = ver + 1");
    app.stores.execute(&format!("UPDATE products SET {change} WHERE {which}")).await;
}

async fn metric(app: &TestApp, name: &str) -> i64 {
    let text = app.client.request(reqwest::Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} "))).expect("the metric is there");
    line.parse::<f64>().unwrap() as i64
}

async fn gates_go(app: &TestApp, count: i64) {
    eventually_within(60, "the gates are taken away", || async {
        metric(app, "seckill_gates_retired_total").await >= count
    })
    .await;
}

async fn audit(app: &TestApp, id: i64) -> Value {
    app.client.get(&format!("/admin/products/{id}/audit"), Some(&app.client.admin())).await.is(200)
}

async fn reopen(app: &TestApp, id: i64) {
    let later = Timestamp::now().after(Duration::from_secs(3600)).to_string();
    let patch = json!({"ends_at": later});
    app.client.patch(&format!("/products/{id}"), Some(&app.client.admin()), patch).await.is(200);
}

/// Keys of sales in Redis.
async fn keys(app: &TestApp) -> Vec<String> {
    let keys: Vec<String> =
        redis::cmd("KEYS").arg("seckill:{*").query_async(&mut app.stores.redis().await).await.unwrap();
    keys.into_iter().filter(|key| !key.starts_with("seckill:{probe}")).collect()
}

on_both_backends! {
    /// Guards against: keys that stay in a Redis that must not evict, and buyers in memory, for ever (issue 14, 10).
    async fn a_thousand_ended_sales_leave_nothing_in_the_gate(app) {
        let id = app.client.new_product(5).await;
        let running = app.client.new_product(5).await;
        app.client.buy(1, running).await.is(202);
        for _ in 0..20 {
            join_all((0..50).map(|_| app.client.new_product(1))).await;
        }
        for user in 1..=3 {
            app.client.buy(user, id).await.is(202);
        }
        app.orders_written(id, 3).await;
        end(app, &format!("id <> {running}"), LONG_AGO).await;
        gates_go(app, 1_001).await;
        if app.config.backend == Backend::Distributed {
            let left = keys(app).await;
            assert!(left.iter().all(|key| key.contains(&format!("{{{running}}}"))), "{left:?}");
            assert_eq!(app.stores.number("SELECT COUNT(*) AS n FROM products WHERE gate_home = 'retired'").await, 1_001);
        }
        // They are over, and nobody makes them anew.
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(metric(app, "seckill_gates_retired_total").await, 1_001);
        assert_eq!(metric(app, "seckill_gates_rebuilding").await, 0);
        app.client.get("/readyz", None).await.is(200);
        let audit = audit(app, id).await;
        assert_eq!((&audit["balanced"], &audit["live_orders"], &audit["taken"]), (&json!(true), &json!(3), &json!(null)), "{audit}");
        let page = app.client.product(id).await;
        assert_eq!((page["state"].as_str(), page["remaining"].as_i64()), (Some("ended"), Some(2)));
        // No gate may know an order that nobody knows.
        let unknown = OrderId::draw(id.try_into().unwrap()).to_string();
        app.client.order(1, &unknown).await.is_problem(404, "order_not_found");
        assert_eq!(app.client.get("/orders", Some(&app.client.buyer(1))).await.is(200)["items"].as_array().unwrap().len(), 2);
        app.client.buy(2, running).await.is(202);
        app.orders_written(running, 2).await;
        app.balanced(running).await;
    }

    async fn a_sale_that_is_reopened_knows_its_buyers_and_sells_exactly_the_rest(app) {
        let id = app.client.new_product(5).await;
        let order = app.client.buy(1, id).await.is(202)["order_id"].clone();
        app.client.buy(2, id).await.is(202);
        app.orders_written(id, 2).await;
        for round in 0..2 {
            end(app, &format!("id = {id}"), LONG_AGO).await;
            gates_go(app, round + 1).await;
            app.client.buy(9, id).await.is_problem(409, "ended");
            reopen(app, id).await;
            // As every other change does, it counts within a second: nothing was on its way that had to be waited for.
            let buyer = 3 + round;
            eventually_within(2, "it sells", || async { app.client.buy(buyer, id).await.status == 202 }).await;
            app.orders_written(id, 3 + round).await;
        }
        let again = app.client.buy(1, id).await;
        again.is_problem(409, "already_purchased");
        assert_eq!(again.body["order_id"], order);
        let crowd = join_all((20..60).map(|user| app.client.buy(user, id))).await;
        assert_eq!(crowd.iter().filter(|reply| reply.status == 202).count(), 1);
        app.orders_written(id, 5).await;
        app.balanced(id).await;
        assert_eq!(audit(app, id).await["balanced"], true);
        assert_eq!(app.stores.number("SELECT COUNT(*) AS n FROM orders WHERE status = 'rejected'").await, 0);
    }

    /// The database may be slow or away: the clicks of those who come too late are no reason to ask it each time.
    async fn whoever_comes_after_the_gate_is_gone_is_told_so_without_a_query_each(app) {
        let id = app.client.new_product(5).await;
        end(app, &format!("id = {id}"), LONG_AGO).await;
        gates_go(app, 1).await;
        // Asked for five times a second at most, so some of the clicks of a tenth of a second are answered without it.
        let answered = tokio::sync::Mutex::new(0);
        eventually_within(20, "clicks are answered while the database cannot be", || async {
            app.client.buy(1, id).await.is_problem(409, "ended");
            app.stores.execute("ALTER TABLE products RENAME TO away").await;
            let replies = join_all((2..40).map(|user| app.client.buy(user, id))).await;
            app.stores.execute("ALTER TABLE away RENAME TO products").await;
            let ended = replies.iter().filter(|reply| reply.status == 409).count();
            assert!(replies.iter().all(|reply| [409, 503].contains(&reply.status)), "{replies:?}");
            *answered.lock().await += ended;
            ended == replies.len()
        })
        .await;
        app.client.buy(1, id).await.is_problem(409, "ended");
        assert_eq!(metric(app, "seckill_gates_rebuilding").await, 0);
    }

    /// What is still to be given back goes with the gate: the next one is filled from the live orders.
    async fn a_unit_that_was_to_be_given_back_is_there_when_the_sale_is_reopened(app) {
        let id = app.client.new_product(2).await;
        app.client.buy(1, id).await.is(202);
        app.client.buy(2, id).await.is(202);
        app.orders_written(id, 2).await;
        end(app, &format!("id = {id}"), LONG_AGO).await;
        app.stores
            .execute(&format!(
                "UPDATE products SET sold = sold - 1, cancelled = cancelled + 1 WHERE id = {id}; \
                 UPDATE orders SET status = 'cancelled', live_user = NULL, release_due = 1 WHERE user_id = 1"
            ))
            .await;
        gates_go(app, 1).await;
        let due = "SELECT COUNT(*) AS n FROM orders WHERE release_due IS NOT NULL";
        eventually_within(5, "nothing is owed", || async { app.stores.number(due).await == 0 }).await;
        assert_eq!(audit(app, id).await["balanced"], true);
        reopen(app, id).await;
        eventually_within(2, "it sells", || async { app.client.buy(3, id).await.status == 202 }).await;
        app.client.buy(4, id).await.is_problem(409, "sold_out");
        app.client.buy(2, id).await.is_problem(409, "already_purchased");
        app.orders_written(id, 3).await;
        app.balanced(id).await;
    }

    async fn a_sale_that_ended_lately_or_never_keeps_its_gate(app) {
        let (lately, open, over) = (app.client.new_product(1).await, app.client.new_product(1).await, app.client.new_product(1).await);
        end(app, &format!("id = {lately}"), Duration::from_secs(70 * 60)).await;
        end(app, &format!("id = {over}"), LONG_AGO).await;
        gates_go(app, 1).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(metric(app, "seckill_gates_retired_total").await, 1);
        app.client.buy(1, open).await.is(202);
        app.client.buy(1, lately).await.is_problem(409, "ended");
        assert_eq!(audit(app, lately).await["taken"], 0, "its gate is there");
    }
}

/// Only a gate in Redis can hold what its process has not published.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purchase_in_flight_keeps_the_gate_until_it_is_written() {
    TestApp::run(Backend::Distributed, async |app: &mut TestApp| {
        let id = app.client.new_product(5).await;
        let order = OrderId::draw(id.try_into().unwrap()).to_string();
        let mut reserve = redis::pipe();
        reserve.hset(format!("seckill:{{{id}}}:buyers"), 7, &order).ignore();
        // Found in eight seconds.
        let since = Timestamp::now().unix_ms() - 2_000;
        reserve.zadd(format!("seckill:{{{id}}}:flight"), format!("{order}:7"), since).ignore();
        reserve.query_async::<()>(&mut app.stores.redis().await).await.unwrap();
        end(app, &format!("id = {id}"), LONG_AGO).await;
        eventually_within(5, "the gate knows of the end", || async {
            app.client.product(id).await["state"] == "ended"
        })
        .await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(metric(app, "seckill_gates_retired_total").await, 0);
        assert_eq!(app.client.order(7, &order).await.is(200)["status"], "queued");
        gates_go(app, 1).await;
        assert_eq!(app.client.order(7, &order).await.is(200)["status"], "unpaid", "found all the time");
        assert_eq!(audit(app, id).await["balanced"], true);
    })
    .await;
}

/// What an operator did by hand, or a rebuild of long ago left, must not sell.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_gate_that_comes_back_after_its_end_sells_nothing() {
    TestApp::run(Backend::Distributed, async |app: &mut TestApp| {
        let id = app.client.new_product(5).await;
        app.client.buy(1, id).await.is(202);
        app.orders_written(id, 1).await;
        let old: Vec<(String, Vec<u8>)> = {
            let mut connection = app.stores.redis().await;
            let mut old = Vec::new();
            for key in ["gate", "buyers", "flight"] {
                let key = format!("seckill:{{{id}}}:{key}");
                let dump = redis::cmd("DUMP").arg(&key).query_async(&mut connection).await.unwrap();
                old.push((key, dump));
            }
            old
        };
        end(app, &format!("id = {id}"), LONG_AGO).await;
        gates_go(app, 1).await;
        for (key, dump) in old {
            let mut restore = redis::cmd("RESTORE");
            restore.arg(key).arg(0).arg(dump);
            restore.query_async::<()>(&mut app.stores.redis().await).await.unwrap();
        }
        // By its terms it is over: a rebuild reads them before it opens a gate.
        let mut ended = redis::cmd("HSET");
        ended.arg(format!("seckill:{{{id}}}:gate")).arg("ends").arg(1);
        ended.query_async::<()>(&mut app.stores.redis().await).await.unwrap();
        reopen(app, id).await;
        eventually_within(5, "it sells", || async { app.client.buy(2, id).await.status == 202 }).await;
        app.orders_written(id, 2).await;
        let epochs = format!("SELECT gate_epoch AS n FROM products WHERE id = {id}");
        assert_eq!(app.stores.number(&epochs).await, 3, "one for the retirement, one for the new gate");
        assert_eq!(app.stores.number("SELECT COUNT(*) AS n FROM orders WHERE status = 'rejected'").await, 0);
        app.balanced(id).await;
    })
    .await;
}

/// Seen: `gate_not_open`, for ever, of a sale of which nothing is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_that_is_lost_long_after_its_sale_is_not_missed() {
    TestApp::run(Backend::Distributed, async |app: &mut TestApp| {
        let id = app.client.new_product(3).await;
        let order = app.client.buy(1, id).await.is(202)["order_id"].clone();
        app.orders_written(id, 1).await;
        // Behind the gate's back, so that it is not retired before it is lost.
        let (begun, ended) = (sql_time(LONG_AGO + Duration::from_secs(60)), sql_time(LONG_AGO));
        app.stores
            .execute(&format!("UPDATE products SET starts_at = '{begun}', ends_at = '{ended}' WHERE id = {id}"))
            .await;
        redis::cmd("FLUSHDB").query_async::<()>(&mut app.stores.redis().await).await.unwrap();
        eventually_within(10, "it is noticed", || async { app.client.buy(2, id).await.body["code"] == "ended" }).await;
        let audit = audit(app, id).await;
        assert_eq!((&audit["findings"], &audit["balanced"]), (&json!([]), &json!(true)), "{audit}");
        assert_eq!(app.client.order(1, order.as_str().unwrap()).await.is(200)["status"], "unpaid");
        reopen(app, id).await;
        eventually_within(15, "it sells", || async { app.client.buy(2, id).await.status == 202 }).await;
        app.client.buy(1, id).await.is_problem(409, "already_purchased");
        app.orders_written(id, 2).await;
        app.balanced(id).await;
    })
    .await;
}
