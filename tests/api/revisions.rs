//! A product's name and price bind at the click: whatever becomes of the product, an order keeps them.

use std::collections::HashMap;
use std::time::Duration;

use deadpool_redis::redis;
use futures_util::future::join_all;
use reqwest::Method;
use seckill::config::Backend;
use seckill::model::{OrderId, ProductId, Purchase, Quantity};
use seckill::stock::{Admission, Answer, StockGate};
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::broker::{Broker, message};
use crate::on_both_backends;
use crate::support::{eventually, eventually_within};

const FIRST_PRICE: i64 = 19_900;

async fn patch(app: &TestApp, id: i64, change: Value) -> Value {
    app.client.patch(&format!("/products/{id}"), Some(&app.client.admin()), change).await.is(200)
}

async fn buy(app: &TestApp, user: i64, id: i64) -> String {
    app.client.buy(user, id).await.is(202)["order_id"].as_str().unwrap().to_owned()
}

/// Name, price and revision that an order shows.
async fn bought(app: &TestApp, user: i64, order: &str) -> (String, i64, i64) {
    let order = app.client.order(user, order).await.is(200);
    let number = |field: &str| order[field].as_i64().unwrap_or_else(|| panic!("{field} in {order}"));
    (order["product_name"].as_str().unwrap().to_owned(), number("price_cents"), number("revision"))
}

fn as_first() -> (String, i64, i64) {
    ("Sneaker".to_owned(), FIRST_PRICE, 1)
}

async fn run(test: impl AsyncFnOnce(&mut TestApp)) {
    TestApp::run(Backend::Distributed, test).await;
}

/// A purchase that an instance admitted before it died: nobody published it.
async fn admitted_only(app: &TestApp, id: i64, user: i64) -> String {
    let gate = StockGate::redis(&app.config.redis, 1).unwrap();
    let product = ProductId::try_from(id).unwrap();
    let purchase =
        Purchase { order_id: OrderId::draw(product), user_id: user.try_into().unwrap(), quantity: Quantity::ONE };
    match gate.reserve(product, &[purchase.into()]).await.unwrap() {
        Admission::Open { answers, .. } => assert_eq!(answers, [Answer::Reserved]),
        other => panic!("{other:?}"),
    }
    purchase.order_id.to_string()
}

on_both_backends! {
    async fn a_product_counts_its_changes(app) {
        let id = app.client.new_product(5).await;
        assert_eq!(app.client.product(id).await["revision"], 1);
        assert_eq!(patch(app, id, json!({"name": "Boot"})).await["revision"], 2);
        let units = json!({"units": 1});
        let path = format!("/products/{id}/restock");
        assert_eq!(app.client.post(&path, Some(&app.client.admin()), units).await.is(200)["revision"], 3);
        app.client.patch(&format!("/products/{id}"), Some(&app.client.admin()), json!({"price_cents": -1})).await.is_invalid("price_cents");
        assert_eq!(app.client.get(&format!("/products/{id}"), None).await.is(200)["revision"], 3);
        let kept = format!("SELECT COUNT(*) AS n FROM product_revisions WHERE product_id = {id}");
        assert_eq!(app.stores.number(&kept).await, 3);
    }

    /// The change comes before the order is written: consumers wait some moments for more purchases.
    async fn a_change_right_after_the_202_changes_no_order(app) {
        let id = app.client.new_product(50).await;
        let orders: Vec<_> = join_all((1..=20).map(|user| buy(app, user, id))).await;
        patch(app, id, json!({"name": "Boot", "price_cents": 999})).await;
        for (user, order) in (1..).zip(&orders) {
            assert_eq!(bought(app, user, order).await, as_first(), "queued or written");
        }
        app.orders_written(id, 20).await;
        for (user, order) in (1..).zip(&orders) {
            assert_eq!(bought(app, user, order).await, as_first());
            let listed = app.client.get("/orders", Some(&app.client.buyer(user))).await.is(200);
            assert_eq!((&listed["items"][0]["product_name"], &listed["items"][0]["revision"]), (&json!("Sneaker"), &json!(1)));
        }
        let later = buy(app, 21, id).await;
        app.orders_written(id, 21).await;
        assert_eq!(bought(app, 21, &later).await, ("Boot".to_owned(), 999, 2));
        patch(app, id, json!({"name": "Slipper", "price_cents": 5})).await;
        assert_eq!(bought(app, 1, &orders[0]).await, as_first());
        assert_eq!(bought(app, 21, &later).await, ("Boot".to_owned(), 999, 2));
        app.balanced(id).await;
    }

    async fn purchases_that_race_with_changes_cost_what_their_revision_says(app) {
        let id = app.client.new_product(100).await;
        let changes = async {
            let mut of = HashMap::from([(1, ("Sneaker".to_owned(), FIRST_PRICE))]);
            for number in 1..=20 {
                let name = format!("Boot {number}");
                let product = patch(app, id, json!({"name": name, "price_cents": number})).await;
                of.insert(product["revision"].as_i64().unwrap(), (name, number));
            }
            of
        };
        let clicks = async {
            let mut orders = Vec::new();
            for user in 1..=20 {
                orders.push((user, buy(app, user, id).await));
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            orders
        };
        let (of, orders) = tokio::join!(changes, clicks);
        assert_eq!(of.len(), 21);
        for (user, order) in &orders {
            let (name, price, revision) = bought(app, *user, order).await;
            assert_eq!(of[&revision], (name, price), "before it is written, perhaps");
        }
        app.orders_written(id, 20).await;
        let mut seen = Vec::new();
        for (user, order) in &orders {
            let (name, price, revision) = bought(app, *user, order).await;
            assert_eq!(of[&revision], (name, price));
            seen.push(revision);
        }
        assert!(seen.is_sorted(), "one click after another: {seen:?}");
        app.balanced(id).await;
    }

    /// Orders of the version before name no revision. Their price is their own; their name followed the product until now.
    async fn orders_of_the_version_before_keep_name_and_price_after_the_upgrade(app) {
        let id = app.client.new_product(10).await;
        let order = buy(app, 7, id).await;
        app.orders_written(id, 1).await;
        app.stop().await;
        let down = match app.config.backend {
            Backend::Embedded => include_str!("../../migrations/sqlite/2026-11-28-101700_product_revisions/down.sql"),
            Backend::Distributed => include_str!("../../migrations/mysql/2026-11-28-101700_product_revisions/down.sql"),
        };
        app.stores.execute(down).await;
        // With it goes what a later one adds to the table.
        let versions = "'20261128101700', '20261129100000'";
        app.stores.execute(&format!("DELETE FROM __diesel_schema_migrations WHERE version IN ({versions})")).await;
        // The last change that the version before makes.
        app.stores.execute(&format!("UPDATE products SET name = 'Boot', price_cents = 5, ver = ver + 1 WHERE id = {id}")).await;
        app.restart().await;
        let old = ("Boot".to_owned(), FIRST_PRICE, 0);
        assert_eq!(bought(app, 7, &order).await, old);
        patch(app, id, json!({"name": "Slipper", "price_cents": 6})).await;
        assert_eq!(bought(app, 7, &order).await, old);
        eventually("it sells", || async { app.client.buy(8, id).await.status == 202 }).await;
        app.orders_written(id, 2).await;
        let listed = app.client.get("/orders", Some(&app.client.buyer(8))).await.is(200);
        assert_eq!((&listed["items"][0]["product_name"], &listed["items"][0]["revision"]), (&json!("Slipper"), &json!(3)));
        app.balanced(id).await;
    }

    /// What was sent is kept, not what can be read from it.
    async fn the_first_answer_to_a_key_is_repeated_to_the_byte(app) {
        let ask = async |path: &str, body: Value| {
            let request = app.client.request(Method::POST, path).bearer_auth(app.client.admin());
            request.header("Idempotency-Key", "key").json(&body).send().await.unwrap()
        };
        let product = json!({"name": "Sneaker", "price_cents": 5, "stock": 1});
        let first = ask("/products", product.clone()).await;
        let (status, headers) = (first.status(), first.headers().clone());
        let text = first.text().await.unwrap();
        let again = ask("/products", product.clone()).await;
        assert_eq!((again.status(), &again.headers()["location"]), (status, &headers["location"]));
        assert_eq!(again.headers()["content-type"], headers["content-type"]);
        assert_eq!(again.text().await.unwrap(), text);

        // An answer of a version that shows other fields, in another order.
        let id = serde_json::from_str::<Value>(&text).unwrap()["id"].as_i64().unwrap();
        let other = format!(r#"{{"later": 1, "name":"Sneaker",  "id":{id}}}"#);
        app.stores.execute(&format!("UPDATE idempotency_keys SET response = '{other}'")).await;
        let again = ask("/products", product.clone()).await;
        assert_eq!((again.status(), &again.headers()["location"]), (status, &headers["location"]));
        assert_eq!(again.text().await.unwrap(), other);

        // The first request ended before it answered: what its repeat is told is the first answer, from then on.
        app.stores.execute("UPDATE idempotency_keys SET response = NULL").await;
        let first = ask("/products", product.clone()).await.text().await.unwrap();
        patch(app, id, json!({"name": "Boot"})).await;
        app.client.buy(7, id).await.is(202);
        assert_eq!(ask("/products", product).await.text().await.unwrap(), first);
    }
}

/// The instance that admitted the first click has died. The buyer asks again, at another one, after a change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_after_a_change_buys_at_the_price_of_the_first_click() {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(10).await;
        let order = admitted_only(app, id, 7).await;
        patch(app, id, json!({"name": "Boot", "price_cents": 999})).await;
        assert_eq!(bought(app, 7, &order).await, as_first(), "queued");
        let other = buy(app, 8, id).await;
        let again = app.client.buy(7, id).await;
        again.is_problem(409, "already_purchased");
        assert_eq!(again.body["order_id"], order.as_str());
        app.orders_written(id, 2).await;
        assert_eq!(bought(app, 7, &order).await, as_first());
        assert_eq!(bought(app, 8, &other).await, ("Boot".to_owned(), 999, 2));
        app.balanced(id).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purchase_that_the_sweeper_decides_costs_what_it_did_at_the_click() {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(10).await;
        let order = admitted_only(app, id, 7).await;
        patch(app, id, json!({"name": "Boot", "price_cents": 999})).await;
        patch(app, id, json!({"price_cents": 998})).await;
        let later = admitted_only(app, id, 8).await;
        patch(app, id, json!({"price_cents": 997})).await;
        let written = format!("SELECT COUNT(*) AS n FROM orders WHERE product_id = {id}");
        eventually_within(25, "they are swept", || async { app.stores.number(&written).await == 2 }).await;
        assert_eq!(bought(app, 7, &order).await, as_first());
        assert_eq!(bought(app, 8, &later).await, ("Boot".to_owned(), 998, 3));
        app.balanced(id).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rebuilt_gate_changes_no_price() {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(10).await;
        let orders = join_all((1..=5).map(|user| buy(app, user, id))).await;
        patch(app, id, json!({"name": "Boot", "price_cents": 999})).await;
        redis::cmd("FLUSHDB").query_async::<()>(&mut app.stores.redis().await).await.unwrap();
        eventually_within(15, "it sells again", || async { app.client.buy(6, id).await.status == 202 }).await;
        app.client.buy(1, id).await.is_problem(409, "already_purchased");
        app.orders_written(id, 6).await;
        for (user, order) in (1..).zip(&orders) {
            assert_eq!(bought(app, user, order).await, as_first());
        }
        let listed = app.client.get("/orders", Some(&app.client.buyer(6))).await.is(200);
        assert_eq!((&listed["items"][0]["price_cents"], &listed["items"][0]["revision"]), (&json!(999), &json!(2)));
        app.balanced(id).await;
    })
    .await;
}

/// An upgrade goes from instance to instance, and both put messages into one queue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_with_and_without_a_revision_are_read() {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(10).await;
        patch(app, id, json!({"name": "Boot", "price_cents": 999})).await;
        let broker = Broker::connect(&app.config.rabbitmq).await;
        let queue = &app.config.rabbitmq.queue;
        let new_id = || OrderId::draw(ProductId::try_from(id).unwrap()).to_string();
        let (older, ours, twice) = (new_id(), new_id(), new_id());
        let with_revision =
            |items: &[(String, i64)]| message(id, 1, items).replacen(r#""epoch":1"#, r#""epoch":1,"revision":1"#, 1);
        broker.publish(queue, message(id, 1, &[(older.clone(), 1)])).await;
        broker.publish(queue, with_revision(&[(ours.clone(), 2)])).await;
        // One that comes twice is decided by itself.
        broker.publish(queue, with_revision(&[(twice.clone(), 3), (twice.clone(), 3)])).await;
        app.orders_written(id, 3).await;
        assert_eq!(bought(app, 1, &older).await, ("Boot".to_owned(), 999, 2), "of when it was written, as before");
        assert_eq!(bought(app, 2, &ours).await, as_first());
        assert_eq!(bought(app, 3, &twice).await, as_first());
    })
    .await;
}
