//! Orders that are not paid in time: each unit is back on sale soon after its time, once, whatever happens meanwhile.

use std::time::{Duration, Instant};

use deadpool_redis::redis;
use futures_util::future::join_all;
use reqwest::Method;
use seckill::app::RunningApp;
use seckill::config::Backend;
use seckill::model::Timestamp;
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::broker::{Broker, message};
use crate::client::Client;
use crate::on_both_backends;
use crate::support::{eventually, eventually_within};

/// The shortest time to pay, in seconds.
const WINDOW: i64 = 5;
/// A unit is back within this of its time. A machine that runs other tests beside this one takes longer than a free one.
const BACK_WITHIN: u64 = 4;

async fn new_product(app: &TestApp, stock: i64, window: impl Into<Value>) -> i64 {
    let product = json!({"name": "Sneaker", "price_cents": 5, "stock": stock, "payment_window_seconds": window.into()});
    app.client.post("/products", Some(&app.client.admin()), product).await.is(201)["id"].as_i64().unwrap()
}

async fn buy(app: &TestApp, user: i64, id: i64) -> String {
    app.client.buy(user, id).await.is(202)["order_id"].as_str().unwrap().to_owned()
}

async fn buy_all(client: &Client, users: std::ops::RangeInclusive<i64>, id: i64) {
    let users: Vec<i64> = users.collect();
    for users in users.chunks(100) {
        for reply in join_all(users.iter().map(|user| client.buy(*user, id))).await {
            reply.is(202);
        }
    }
}

async fn orders(app: &TestApp, which: &str) -> i64 {
    app.stores.number(&format!("SELECT COUNT(*) AS n FROM orders WHERE {which}")).await
}

async fn sold(app: &TestApp, id: i64) -> i64 {
    app.stores.number(&format!("SELECT sold AS n FROM products WHERE id = {id}")).await
}

async fn deadlines(app: &TestApp) -> i64 {
    app.stores.number("SELECT COUNT(*) AS n FROM payment_deadlines").await
}

async fn changes(app: &TestApp) -> i64 {
    app.stores.number("SELECT COUNT(*) AS n FROM order_changes WHERE to_status = 'expired'").await
}

/// Waits until all units of a product are back, `seconds` at most, and checks that each came back once.
async fn all_are_back(app: &TestApp, id: i64, count: i64, seconds: u64) {
    eventually_within(seconds, "all units are back", || async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        sold(app, id).await == 0
    })
    .await;
    let expired = format!("product_id = {id} AND status = 'expired' AND live_user IS NULL AND updated_at > created_at");
    assert_eq!((orders(app, &expired).await, changes(app).await), (count, count));
    eventually("the gate has them", || async { orders(app, "release_due = 1").await == 0 }).await;
    app.balanced(id).await;
    eventually("nothing is left to look for", || async { deadlines(app).await == 0 }).await;
}

async fn metric(app: &TestApp, name: &str) -> Option<f64> {
    let text = app.client.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// An order's id that was drawn so long ago.
fn drawn(ago: Duration) -> String {
    let ms = Timestamp::now().before(ago).unix_ms() as u64;
    let random = *uuid::Uuid::new_v4().as_bytes();
    uuid::Builder::from_unix_timestamp_millis(ms, &random[..10].try_into().unwrap()).into_uuid().to_string()
}

on_both_backends! {
    async fn an_order_that_is_not_paid_in_time_expires_and_its_unit_is_sold_again(app) {
        let id = new_product(app, 1, WINDOW).await;
        let begun = Instant::now();
        let first = buy(app, 7, id).await;
        app.orders_written(id, 1).await;
        assert_eq!(deadlines(app).await, 1);
        tokio::time::sleep(Duration::from_millis(4_500).saturating_sub(begun.elapsed())).await;
        assert_eq!(app.client.order(7, &first).await.is(200)["status"], "unpaid", "not before its time");
        app.client.buy(8, id).await.is_problem(409, "sold_out");
        eventually_within(BACK_WITHIN, "the unit is back", || async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            app.client.product(id).await["remaining"] == 1
        })
        .await;
        assert!(begun.elapsed() >= Duration::from_secs(5), "not before its time");
        let expired = app.client.order(7, &first).await.is(200);
        assert_eq!(expired["status"], "expired");
        assert!(expired["updated_at"].as_str() >= expired["expires_at"].as_str(), "{expired}");
        let path = format!("/admin/orders/{first}/history");
        let history = app.client.get(&path, Some(&app.client.admin())).await.is(200)["items"].clone();
        let only = &history[0];
        assert_eq!(
            json!([history.as_array().unwrap().len(), only["from"], only["to"], only["by"], only["user_id"], only["reason"]]),
            json!([1, "unpaid", "expired", "expiry", null, null])
        );
        let refused = app.client.call(Method::POST, &format!("/orders/{first}/cancel"), Some(&app.client.buyer(7)), None).await;
        refused.is_problem(409, "not_cancellable");
        assert_eq!(refused.body["order_status"], "expired");
        // Also to the same buyer.
        buy(app, 7, id).await;
        app.orders_written(id, 2).await;
        app.balanced(id).await;
        assert_eq!(metric(app, r#"seckill_order_changes_total{to="expired"}"#).await, Some(1.0));
        assert!(metric(app, "seckill_payment_deadline_overdue_seconds").await.is_some());
    }

    async fn a_sale_of_a_thousand_units_that_nobody_pays_is_back_in_time_and_sold_again(app) {
        let id = new_product(app, 1_000, WINDOW).await;
        buy_all(&app.client, 1..=1_000, id).await;
        app.orders_written(id, 1_000).await;
        assert!(deadlines(app).await <= 100, "one for all that are written together");
        all_are_back(app, id, 1_000, WINDOW as u64 + BACK_WITHIN).await;
        buy_all(&app.client, 501..=1_500, id).await;
        app.client.buy(1_501, id).await.is_problem(409, "sold_out");
        app.orders_written(id, 2_000).await;
        app.balanced(id).await;
    }

    async fn a_paid_order_never_expires_and_one_without_a_deadline_waits(app) {
        let (id, patient) = (new_product(app, 10, WINDOW).await, new_product(app, 10, Value::Null).await);
        let paid = buy(app, 1, id).await;
        for user in 2..=4 {
            buy(app, user, id).await;
        }
        buy(app, 5, patient).await;
        app.orders_written(id, 4).await;
        app.orders_written(patient, 1).await;
        let (path, reference) = (format!("/admin/orders/{paid}/mark-paid"), json!({"reference": "cash"}));
        app.client.post(&path, Some(&app.client.admin()), reference).await.is(200);
        eventually_within(WINDOW as u64 + BACK_WITHIN, "the others expire", || async { sold(app, id).await == 1 }).await;
        eventually("nothing is left to look for", || async { deadlines(app).await == 0 }).await;
        assert_eq!(app.client.order(1, &paid).await.is(200)["status"], "paid");
        assert_eq!((orders(app, "status = 'unpaid'").await, sold(app, patient).await), (1, 1));
        app.balanced(id).await;
        app.balanced(patient).await;
        let product = app.client.product(id).await;
        assert_eq!((&product["remaining"], &product["held"]), (&json!(9), &json!(0)));
    }

    /// A sale without deadlines must not pay for them.
    async fn orders_without_a_deadline_leave_no_note(app) {
        let id = new_product(app, 10, Value::Null).await;
        buy_all(&app.client, 1..=10, id).await;
        app.orders_written(id, 10).await;
        assert_eq!(app.stores.number("SELECT COUNT(*) AS n FROM payment_deadlines").await, 0);
    }

    /// The time to pay is that of the click, whatever the merchant changes later.
    async fn an_order_keeps_the_deadline_of_its_revision(app) {
        let id = new_product(app, 10, WINDOW).await;
        let first = buy(app, 1, id).await;
        app.orders_written(id, 1).await;
        let change = json!({"payment_window_seconds": null});
        app.client.patch(&format!("/products/{id}"), Some(&app.client.admin()), change).await.is(200);
        let second = buy(app, 2, id).await;
        app.orders_written(id, 2).await;
        assert!(app.client.order(1, &first).await.is(200)["expires_at"].is_string());
        assert_eq!(app.client.order(2, &second).await.is(200)["expires_at"], Value::Null);
        eventually_within(WINDOW as u64 + BACK_WITHIN, "the first expires", || async { sold(app, id).await == 1 }).await;
        assert_eq!(app.client.order(1, &first).await.is(200)["status"], "expired");
        assert_eq!(app.client.order(2, &second).await.is(200)["status"], "unpaid");
        app.balanced(id).await;
    }

    /// An order that was written after its time, as after a long outage, expires at once.
    async fn an_order_that_is_written_late_expires_at_once(app) {
        let id = new_product(app, 10, 60).await;
        // So that this process has written orders of this revision before.
        let timely = buy(app, 1, id).await;
        app.orders_written(id, 1).await;
        let late = drawn(Duration::from_secs(600));
        let body = message(id, 1, &[(late.clone(), 7), (drawn(Duration::ZERO), 8)]).replacen(r#""epoch":1"#, r#""epoch":1,"revision":1"#, 1);
        match app.config.backend {
            Backend::Distributed => Broker::connect(&app.config.rabbitmq).await.publish(&app.config.rabbitmq.queue, body).await,
            Backend::Embedded => {
                app.stop().await;
                let file = app.config.embedded.data_dir.join("journal.db");
                let mut journal = <diesel::SqliteConnection as diesel::Connection>::establish(file.to_str().unwrap()).unwrap();
                let insert = format!("INSERT INTO batches (seq, body) SELECT COALESCE(MAX(seq), 0) + 1, CAST('{body}' AS BLOB) FROM batches");
                diesel::connection::SimpleConnection::batch_execute(&mut journal, &insert).unwrap();
                drop(journal);
                app.restart().await;
            }
        }
        eventually_within(5, "it is written and expires", || async { orders(app, "status = 'expired'").await == 1 }).await;
        assert_eq!(app.client.order(7, &late).await.is(200)["status"], "expired");
        app.orders_written(id, 3).await;
        assert_eq!(app.client.order(1, &timely).await.is(200)["status"], "unpaid");
        assert_eq!((sold(app, id).await, orders(app, "status = 'unpaid'").await), (2, 2));
        assert_eq!(deadlines(app).await, 2, "one of them for the order that was written with the late one");
        if app.config.backend == Backend::Embedded {
            // No gate has admitted these purchases; this one was filled from the database since.
            app.balanced(id).await;
        }
    }

    /// Nobody was there when it was time.
    async fn what_became_due_while_nothing_ran_expires_at_the_next_start(app) {
        let id = new_product(app, 20, WINDOW).await;
        buy_all(&app.client, 1..=20, id).await;
        app.orders_written(id, 20).await;
        app.stop().await;
        tokio::time::sleep(Duration::from_secs(WINDOW as u64)).await;
        app.restart().await;
        all_are_back(app, id, 20, BACK_WITHIN).await;
    }

    async fn a_thousand_lapsed_orders_of_one_buyer_are_in_nobodys_way(app) {
        let id = new_product(app, 5, WINDOW).await;
        let statuses = ["expired", "cancelled"];
        let time = "2026-01-01 00:00:00.000";
        let rows = (0..1_000).map(|number| {
            let (order, status) = (drawn(Duration::from_secs(1_000 + number)).replace('-', ""), statuses[number as usize % 2]);
            format!("(X'{order}', {id}, 7, NULL, '{status}', 5, '{time}', '{time}', 1)")
        });
        let rows = rows.collect::<Vec<_>>().join(",");
        app.stores.execute(&format!("INSERT INTO orders (id, product_id, user_id, live_user, status, price_cents, created_at, updated_at, revision) VALUES {rows}")).await;
        // As whoever writes orders notes them for the lists of buyers.
        app.stores.execute("INSERT INTO order_lookup_gaps (first_order, last_order, orders, changed) SELECT MIN(id), MAX(id), COUNT(*), 0 FROM orders").await;
        let begun = Instant::now();
        let order = buy(app, 7, id).await;
        app.orders_written(id, 1_001).await;
        let listed = app.client.get("/orders?limit=100", Some(&app.client.buyer(7))).await.is(200);
        assert_eq!((listed["items"].as_array().unwrap().len(), &listed["items"][0]["id"]), (100, &json!(order)));
        app.client.call(Method::POST, &format!("/orders/{order}/cancel"), Some(&app.client.buyer(7)), None).await.is(200);
        eventually_within(3, "the buyer buys again", || async { app.client.buy(7, id).await.status == 202 }).await;
        assert!(begun.elapsed() < Duration::from_secs(4), "it took {:?}", begun.elapsed());
        app.orders_written(id, 1_002).await;
        eventually_within(WINDOW as u64 + BACK_WITHIN, "that one expires", || async { sold(app, id).await == 0 }).await;
        assert_eq!(changes(app).await, 1, "the older ones stay as they are");
        app.balanced(id).await;
    }

    /// One row of an order, of a revision or of a product that somebody has spoiled keeps the others from nothing.
    async fn spoiled_rows_keep_no_other_order_from_expiring(app) {
        let ids = [new_product(app, 5, WINDOW).await, new_product(app, 5, WINDOW).await, new_product(app, 5, WINDOW).await, new_product(app, 5, WINDOW).await];
        for id in ids {
            buy_all(&app.client, 1..=3, id).await;
        }
        for id in ids {
            app.orders_written(id, 3).await;
        }
        let [bad_order, bad_revision, bad_count, sound] = ids;
        app.stores.execute(&format!("UPDATE orders SET quantity = 77 WHERE product_id = {bad_order} AND user_id = 2")).await;
        app.stores.execute(&format!("UPDATE product_revisions SET payment_window_seconds = 1 WHERE product_id = {bad_revision}")).await;
        // None at all: the deadlines of the three may be a moment apart, and each is looked for at its own.
        app.stores.execute(&format!("UPDATE products SET sold = 0 WHERE id = {bad_count}")).await;
        eventually_within(WINDOW as u64 + BACK_WITHIN, "the others expire", || async { sold(app, sound).await == 0 }).await;
        eventually("and all but one of the other", || async { sold(app, bad_order).await == 1 }).await;
        assert_eq!(orders(app, &format!("product_id = {bad_revision} AND status = 'unpaid'")).await, 3);
        assert_eq!(orders(app, &format!("product_id = {bad_count} AND status = 'unpaid'")).await, 3);
        assert!(deadlines(app).await > 0, "they are tried again");

        app.stores.execute("UPDATE orders SET quantity = 1").await;
        app.stores.execute(&format!("UPDATE product_revisions SET payment_window_seconds = {WINDOW}")).await;
        app.stores.execute(&format!("UPDATE products SET sold = 3 WHERE id = {bad_count}")).await;
        // As if a minute had passed.
        app.stores.execute("UPDATE payment_deadlines SET due_at = '2026-01-01 00:00:00.000'").await;
        eventually_within(BACK_WITHIN, "all expire", || async { orders(app, "status = 'unpaid'").await == 0 }).await;
        eventually("nothing is left to look for", || async { deadlines(app).await == 0 }).await;
        for id in ids {
            app.balanced(id).await;
        }
    }

    /// A product and its orders are deleted by hand.
    async fn a_note_whose_orders_are_gone_is_forgotten(app) {
        let (gone, other) = (new_product(app, 5, WINDOW).await, new_product(app, 5, WINDOW).await);
        buy_all(&app.client, 1..=3, gone).await;
        buy_all(&app.client, 1..=3, other).await;
        app.orders_written(gone, 3).await;
        app.orders_written(other, 3).await;
        app.stores.execute(&format!("DELETE FROM orders WHERE product_id = {gone}; DELETE FROM products WHERE id = {gone}")).await;
        eventually_within(WINDOW as u64 + BACK_WITHIN, "the others expire", || async { sold(app, other).await == 0 }).await;
        eventually("nothing is left to look for", || async { deadlines(app).await == 0 }).await;
    }

    /// More than one transaction's worth in one range, some of them paid and some with a later deadline.
    async fn a_range_of_many_orders_is_done_part_by_part(app) {
        let (id, later) = (new_product(app, 5_000, WINDOW).await, new_product(app, 5_000, 3_600).await);
        app.stores.execute(&format!("UPDATE products SET sold = 2500 WHERE id = {id}")).await;
        app.stores.execute(&format!("UPDATE products SET sold = 500 WHERE id = {later}")).await;
        let mut ids = Vec::new();
        for number in 0..3_000_i64 {
            let (order, product) = (drawn(Duration::from_millis(60_000 - number as u64)).replace('-', ""), if number % 6 == 0 { later } else { id });
            ids.push(order.clone());
            let status = if number % 100 == 1 { "paid" } else { "unpaid" };
            ids[number as usize] = format!("(X'{order}', {product}, {0}, {0}, '{status}', 5, '2026-01-01 00:00:00.000', '2026-01-01 00:00:00.000', 1)", number + 1);
        }
        for rows in ids.chunks(500) {
            app.stores.execute(&format!("INSERT INTO orders (id, product_id, user_id, live_user, status, price_cents, created_at, updated_at, revision) VALUES {}", rows.join(","))).await;
        }
        let paid = orders(app, &format!("status = 'paid' AND product_id = {id}")).await;
        app.stores.execute("INSERT INTO payment_deadlines (first_order, last_order, due_at) SELECT MIN(id), MAX(id), '2026-01-01 00:00:00.000' FROM orders").await;
        eventually_within(20, "all that are due expire", || async { sold(app, id).await == paid }).await;
        eventually("the rest is noted", || async { app.stores.number("SELECT COUNT(*) AS n FROM payment_deadlines WHERE due_at < '2026-01-02 00:00:00.000'").await == 0 }).await;
        assert_eq!(orders(app, &format!("status = 'unpaid' AND product_id = {later}")).await + orders(app, &format!("status = 'paid' AND product_id = {later}")).await, 500);
        assert_eq!(changes(app).await, 2_500 - paid);
        assert!(deadlines(app).await >= 1, "the others wait for their own time");
        let covered = "SELECT COUNT(*) AS n FROM orders WHERE status = 'unpaid' AND NOT EXISTS \
            (SELECT 1 FROM payment_deadlines WHERE orders.id BETWEEN first_order AND last_order)";
        assert_eq!(app.stores.number(covered).await, 0, "each of them is looked for again");
    }
}

/// Both look for the same orders at the same times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_expire_together_without_doubling() {
    TestApp::run(Backend::Distributed, async |app| {
        let other = RunningApp::start(&app.config).await.unwrap();
        let client = Client::new(other.address(), &app.config);
        let ids = [new_product(app, 300, WINDOW).await, new_product(app, 300, WINDOW).await];
        for id in ids {
            buy_all(&app.client, 1..=150, id).await;
            eventually("the other sells it, too", || async { client.buy(151, id).await.status == 202 }).await;
            buy_all(&client, 152..=300, id).await;
        }
        for id in ids {
            app.orders_written(id, 300).await;
        }
        for id in ids {
            eventually_within(WINDOW as u64 + BACK_WITHIN, "all units are back", || async { sold(app, id).await == 0 })
                .await;
        }
        assert_eq!((orders(app, "status = 'expired'").await, changes(app).await), (600, 600));
        for id in ids {
            app.balanced(id).await;
        }
        other.stop().await;
    })
    .await;
}

/// The gate is made anew from the orders that are live when it opens.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_expires_while_redis_is_emptied_is_free_in_the_new_gate() {
    TestApp::run(Backend::Distributed, async |app| {
        let id = new_product(app, 50, WINDOW).await;
        let begun = Instant::now();
        buy_all(&app.client, 1..=50, id).await;
        app.orders_written(id, 50).await;
        tokio::time::sleep(Duration::from_millis(4_500).saturating_sub(begun.elapsed())).await;
        redis::cmd("FLUSHDB").query_async::<()>(&mut app.stores.redis().await).await.unwrap();
        all_are_back(app, id, 50, 15).await;
        eventually_within(15, "it sells again", || async { app.client.buy(51, id).await.status == 202 }).await;
        buy_all(&app.client, 1..=49, id).await;
        app.client.buy(50, id).await.is_problem(409, "sold_out");
        app.orders_written(id, 100).await;
        app.balanced(id).await;
    })
    .await;
}

/// A sale of 100,000 units whose deadlines are all over at one instant.
async fn a_hundred_thousand_at_once(app: &mut TestApp) {
    const COUNT: i64 = 100_000;
    let id = new_product(app, COUNT, 60).await;
    let ids: Vec<String> = {
        // As they would be drawn within some seconds, a minute less a little before they are due.
        let mut ids: Vec<String> = (0..COUNT).map(|_| drawn(Duration::from_secs(30)).replace('-', "")).collect();
        ids.sort_unstable();
        ids
    };
    let time = "2026-01-01 00:00:00.000";
    for (part, ids) in ids.chunks(2_000).enumerate() {
        let row = |(place, order): (usize, &String)| {
            let user = part * 2_000 + place + 1;
            format!("(X'{order}', {id}, {user}, {user}, 'unpaid', 5, '{time}', '{time}', 1)")
        };
        let rows = ids.iter().enumerate().map(row).collect::<Vec<_>>().join(",");
        let columns = "id, product_id, user_id, live_user, status, price_cents, created_at, updated_at, revision";
        app.stores.execute(&format!("INSERT INTO orders ({columns}) VALUES {rows}")).await;
        let (first, last) = (&ids[0], &ids[ids.len() - 1]);
        // Moved to their time by who looks: at once is as good.
        app.stores
            .execute(&format!(
                "INSERT INTO payment_deadlines (first_order, last_order, due_at) VALUES (X'{first}', X'{last}', '{time}')"
            ))
            .await;
    }
    app.stores.execute(&format!("UPDATE products SET sold = {COUNT} WHERE id = {id}")).await;
    match app.config.backend {
        Backend::Embedded => app.restart().await,
        Backend::Distributed => {
            redis::cmd("FLUSHDB").query_async::<()>(&mut app.stores.redis().await).await.unwrap();
            eventually_within(25, "the gate is full", || async { app.client.product(id).await["remaining"] == 0 })
                .await;
        }
    }
    eventually_within(40, "it begins", || async { sold(app, id).await < COUNT }).await;
    let begun = Instant::now();
    eventually_within(120, "all are back", || async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        sold(app, id).await == 0
    })
    .await;
    let committed = begun.elapsed();
    eventually_within(60, "the gate has them", || async {
        orders(app, "release_due = 1").await == 0 && app.client.product(id).await["remaining"] == COUNT
    })
    .await;
    println!("{:?}: {COUNT} orders expired in {committed:?}, all back after {:?}", app.config.backend, begun.elapsed());
    assert_eq!(changes(app).await, COUNT);
    app.balanced(id).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute; prints how long it takes"]
async fn a_hundred_thousand_orders_expire_at_one_instant() {
    TestApp::on_both(|_| {}, a_hundred_thousand_at_once).await;
}
