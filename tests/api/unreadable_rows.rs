//! One row that no program of ours has written costs itself alone: every list, sweep, audit and start goes on without it.

use std::time::{Duration, Instant};

use seckill::config::Backend;
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::on_both_backends;
use crate::support::{eventually, eventually_within};

/// The ids of all entries of a list, read in pages of two.
async fn listed(app: &TestApp, path: &str, token: Option<&str>) -> Vec<Value> {
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = app.client.get(&format!("{path}?limit=2{cursor}"), token).await.is(200);
        ids.extend(page["items"].as_array().unwrap().iter().map(|item| item["id"].clone()));
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return ids,
        }
    }
}

/// Reads of such a row that were counted.
async fn counted(app: &TestApp, table: &str) -> f64 {
    let text = app.client.request(reqwest::Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
    let name = format!("seckill_unreadable_rows_total{{table=\"{table}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).expect("the counter is there")
}

/// Sets columns of a row to what the schema allows and no program of ours writes.
async fn spoil(app: &TestApp, change: &str) {
    let any_time = if app.config.backend == Backend::Distributed { "SET SESSION sql_mode = '';" } else { "" };
    app.stores.execute(&format!("{any_time} UPDATE {change}")).await;
}

async fn buy_and_have_written(app: &TestApp, user: i64, product: i64) -> String {
    let order = app.client.buy(user, product).await.is(202)["order_id"].as_str().unwrap().to_owned();
    eventually("the order is written", || async {
        let found = format!("SELECT COUNT(*) AS n FROM orders WHERE product_id = {product} AND user_id = {user}");
        app.stores.number(&found).await == 1
    })
    .await;
    order
}

/// Units in all become one more, as if an instance had died before it told the gate; only a sweep finds it.
async fn sweeps_reach(app: &TestApp, product: i64) {
    let before = app.client.product(product).await["remaining"].as_i64().unwrap();
    app.stores.execute(&format!("UPDATE products SET stock = stock + 1, ver = ver + 1 WHERE id = {product}")).await;
    eventually_within(5, "a sweep has told the gate", || async {
        app.client.product(product).await["remaining"] == before + 1
    })
    .await;
}

on_both_backends! {
    async fn a_product_that_cannot_be_read_is_left_out_and_all_others_go_on(app) {
        let first = app.client.new_product(5).await;
        let mut spoiled = Vec::new();
        for change in [
            "starts_at = '1066-10-14 00:00:00'",
            "ends_at = '1066-10-14 00:00:00', price_cents = -1",
            "created_at = '0000-00-00 00:00:00'",
            "price_cents = -1990",
        ] {
            let id = app.client.new_product(5).await;
            app.client.buy(7, id).await.is(202);
            app.orders_written(id, 1).await;
            spoil(app, &format!("products SET {change} WHERE id = {id}")).await;
            spoiled.push(id);
        }
        let last = app.client.new_product(5).await;
        // Pages made before are shown for a moment.
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
        assert_eq!(listed(app, "/products", None).await, [json!(last), json!(first)]);
        for id in &spoiled {
            let reply = app.client.get(&format!("/products/{id}"), None).await;
            reply.is_problem(503, "unavailable");
        }
        for id in [first, last] {
            app.client.buy(7, id).await.is(202);
            app.orders_written(id, 1).await;
            sweeps_reach(app, id).await;
            app.balanced(id).await;
        }
        assert!(counted(app, "products").await > 0.0);
        // Somebody who bought one of them sees what the click was about, which is kept with the order.
        assert_eq!(listed(app, "/orders", Some(&app.client.buyer(7))).await.len(), 6);

        app.restart().await;
        assert_eq!(listed(app, "/products", None).await, [json!(last), json!(first)]);
        app.client.buy(8, first).await.is(202);
        app.orders_written(first, 2).await;
        app.client.get(&format!("/products/{}", spoiled[0]), None).await.is_problem(503, "unavailable");
        // It is as good as new once it is put right.
        app.stores.execute(&format!("UPDATE products SET starts_at = '2020-01-01 00:00:00' WHERE id = {}", spoiled[0])).await;
        eventually_within(5, "it sells again", || async { app.client.buy(9, spoiled[0]).await.status == 202 }).await;
    }

    async fn a_product_beyond_the_numbers_that_browsers_read_is_nobodys(app) {
        let id = app.client.new_product(5).await;
        let beyond = "9007199254740993";
        app.stores
            .execute(&format!(
                "INSERT INTO products (id, name, description, price_cents, stock, starts_at, gate_home, created_at) \
                 VALUES ({beyond}, 'x', '', 1, 1, '2020-01-01 00:00:00', 'x', '2020-01-01 00:00:00')"
            ))
            .await;
        assert_eq!(listed(app, "/products", None).await, [json!(id)]);
        sweeps_reach(app, id).await;
        app.client.buy(7, id).await.is(202);
        app.orders_written(id, 1).await;
        app.restart().await;
        assert_eq!(listed(app, "/products", None).await, [json!(id)]);
        app.client.get("/products/8007199254740993", None).await.is_problem(404, "product_not_found");
    }

    async fn an_order_that_cannot_be_read_is_left_out_of_its_buyers_list(app) {
        let mut orders = Vec::new();
        for _ in 0..6 {
            let id = app.client.new_product(5).await;
            orders.push((id, buy_and_have_written(app, 7, id).await));
        }
        for (place, change) in
            [(1, "status = 'lost'"), (2, "reason = 'none of ours'"), (3, "price_cents = -1"), (4, "created_at = '1066-10-14 00:00:00'")]
        {
            spoil(app, &format!("orders SET {change} WHERE product_id = {}", orders[place].0)).await;
        }
        let sound = [json!(orders[5].1), json!(orders[0].1)];
        assert_eq!(listed(app, "/orders", Some(&app.client.buyer(7))).await, sound);
        for (_, spoiled) in &orders[1..5] {
            app.client.order(7, spoiled).await.is_problem(503, "unavailable");
        }
        app.client.order(7, &orders[0].1).await.is(200);
        assert!(counted(app, "orders").await > 0.0);
        app.restart().await;
        assert_eq!(listed(app, "/orders", Some(&app.client.buyer(7))).await, sound);
        // Their units stay theirs.
        for (id, _) in &orders {
            app.client.buy(7, *id).await.is_problem(409, "already_purchased");
            app.client.buy(8, *id).await.is(202);
            app.orders_written(*id, 2).await;
            app.balanced(*id).await;
        }
    }

    async fn an_account_that_cannot_be_read_is_its_owners_trouble(app) {
        let credentials = |name: &str| json!({"username": name, "password": "correct horse"});
        for name in ["spoiled", "sound"] {
            app.client.post("/register", None, credentials(name)).await.is(201);
        }
        app.stores.execute("UPDATE users SET role = 'emperor' WHERE username = 'spoiled'").await;
        app.stores
            .execute("INSERT INTO token_withdrawals (user_id, valid_from, created_at) VALUES (0, 1, '2020-01-01 00:00:00')")
            .await;
        app.client.post("/login", None, credentials("spoiled")).await.is_problem(503, "unavailable");
        let token = app.client.post("/login", None, credentials("sound")).await.is(200)["access_token"].clone();
        // Those that come behind the row are read all the same.
        assert_eq!(app.client.post("/logout", token.as_str(), json!({})).await.status, 204);
        app.restart().await;
        app.client.get("/me", token.as_str()).await.is_problem(401, "unauthorized");
        app.client.post("/login", None, credentials("sound")).await.is(200);
        assert!(counted(app, "users").await > 0.0 && counted(app, "token_withdrawals").await > 0.0);
    }
}

/// Guards against: a consumer that tries for ever to read what it need not know, while nothing becomes an order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_written_order_of_an_unknown_status_holds_no_other_up() {
    TestApp::run(Backend::Distributed, async |app: &mut TestApp| {
        let id = app.client.new_product(5).await;
        let order = buy_and_have_written(app, 7, id).await;
        app.stores.execute("UPDATE orders SET status = 'shipped'").await;
        // Delivered again, together with one that is not written.
        let other = seckill::model::OrderId::draw(id.try_into().unwrap()).to_string();
        let broker = crate::broker::Broker::connect(&app.config.rabbitmq).await;
        broker
            .publish(&app.config.rabbitmq.queue, crate::broker::message(id, 1, &[(order.clone(), 7), (other, 8)]))
            .await;
        eventually("the other one is written", || async {
            app.stores.number("SELECT COUNT(*) AS n FROM orders").await == 2
        })
        .await;
        assert_eq!(app.stores.number("SELECT COUNT(*) AS n FROM orders WHERE live_user IS NOT NULL").await, 2);
        app.client.buy(7, id).await.is_problem(409, "already_purchased");
    })
    .await;
}

/// The unit of an order whose id is none must not be sold once more, so its sale stays closed; all others open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_with_an_order_that_nobody_can_name_does_not_keep_the_others_from_opening() {
    TestApp::run(Backend::Embedded, async |app: &mut TestApp| {
        let (sound, spoiled) = (app.client.new_product(5).await, app.client.new_product(5).await);
        for id in [sound, spoiled] {
            buy_and_have_written(app, 7, id).await;
        }
        app.stores.execute(&format!("UPDATE orders SET id = x'0102' WHERE product_id = {spoiled}")).await;
        app.restart().await;
        app.client.buy(8, sound).await.is(202);
        app.client.buy(8, spoiled).await.is_problem(503, "unavailable");
        assert_eq!(listed(app, "/products", None).await, [json!(spoiled), json!(sound)]);
        app.stores.execute(&format!("DELETE FROM orders WHERE product_id = {spoiled}")).await;
        app.stores.execute(&format!("UPDATE products SET sold = 0 WHERE id = {spoiled}")).await;
        eventually_within(5, "it is open", || async { app.client.buy(8, spoiled).await.status == 202 }).await;
    })
    .await;
}

/// The gate is lost; one sale's orders cannot all be read, the others are rebuilt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_that_cannot_be_rebuilt_exactly_stays_closed_and_the_others_come_back() {
    TestApp::run(Backend::Distributed, async |app: &mut TestApp| {
        let (sound, spoiled) = (app.client.new_product(5).await, app.client.new_product(5).await);
        for id in [sound, spoiled] {
            buy_and_have_written(app, 7, id).await;
        }
        // No user, and what would be taken for the sentinel of the buyers.
        app.stores.execute(&format!("UPDATE orders SET user_id = 0, live_user = 0 WHERE product_id = {spoiled}")).await;
        deadpool_redis::redis::cmd("FLUSHDB").query_async::<()>(&mut app.stores.redis().await).await.unwrap();
        eventually_within(15, "the sound one sells", || async { app.client.buy(8, sound).await.status == 202 }).await;
        // Longer than its rebuild would take.
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(3) {
            app.client.buy(8, spoiled).await.is_problem(503, "unavailable");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        app.stores.execute(&format!("UPDATE orders SET user_id = 7, live_user = 7 WHERE product_id = {spoiled}")).await;
        eventually_within(15, "it is rebuilt", || async { app.client.buy(8, spoiled).await.status == 202 }).await;
        app.client.buy(7, spoiled).await.is_problem(409, "already_purchased");
    })
    .await;
}
