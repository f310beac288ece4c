//! What a sale has come to: the summary adds up at every moment that says so, whatever buyers and merchant do meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_redis::redis;
use futures_util::future::join_all;
use reqwest::Method;
use seckill::config::Backend;
use seckill::model::Role;
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::on_both_backends;
use crate::support::{eventually, eventually_within};

const PRICE: i64 = 1_999;

async fn new_product(app: &TestApp, stock: i64, window: i64) -> i64 {
    let product = json!({
        "name": "Sneaker", "price_cents": PRICE, "stock": stock, "payment_window_seconds": window, "max_per_order": 3
    });
    app.client.post("/products", Some(&app.client.admin()), product).await.is(201)["id"].as_i64().unwrap()
}

async fn summary(app: &TestApp, id: i64) -> Value {
    app.client.get(&format!("/admin/products/{id}/summary"), Some(&app.client.admin())).await.is(200)
}

/// The status of the reply. Who is told to come again does.
async fn admin(app: &TestApp, order: &str, what: &str, body: Value) -> u16 {
    let path = format!("/admin/orders/{order}/{what}");
    loop {
        let status = app.client.post(&path, Some(&app.client.admin()), body.clone()).await.status;
        if status != 503 {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Checks that it adds up if it says so; whether it does.
fn adds_up(summary: &Value) -> bool {
    let of = |field: &str| summary[field].as_i64().unwrap_or_else(|| panic!("{field}: {summary}"));
    if summary["balanced"] != true {
        return false;
    }
    assert_eq!(of("remaining") + of("queued") + of("unpaid") + of("paid"), of("stock"), "{summary}");
    true
}

/// Checks each count against the orders themselves.
async fn is_true(app: &TestApp, id: i64, summary: &Value) {
    let of = async |what: &str, which: &str| {
        let query = format!(
            "SELECT CAST(COALESCE(SUM({what}), 0) AS SIGNED) AS n FROM orders WHERE product_id = {id} AND {which}"
        );
        app.stores.number(&query).await
    };
    for status in ["unpaid", "paid", "expired", "cancelled", "rejected"] {
        let units = of("quantity", &format!("status = '{status}'")).await;
        assert_eq!(summary[status], units, "{status}: {summary}");
    }
    assert_eq!(summary["revenue_cents"], of("quantity * price_cents", "status = 'paid'").await, "{summary}");
    let due = "id IN (SELECT order_id FROM payments WHERE status = 'refund_due')";
    assert_eq!(summary["refund_due"], of("quantity", due).await, "{summary}");
}

/// Buys, and then does one of several things with the order.
async fn customer(app: &TestApp, id: i64, user: i64) {
    let body = json!({"quantity": 1 + user % 3});
    let path = format!("/seckill/{id}");
    let reply = app.client.post(&path, Some(&app.client.buyer(user)), body).await;
    if reply.status != 202 {
        assert_eq!(reply.status, 409, "{reply:?}");
        return;
    }
    let order = reply.body["order_id"].as_str().unwrap().to_owned();
    eventually("it is written", || async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        app.client.order(user, &order).await.is(200)["status"] != "queued"
    })
    .await;
    // On a machine that is busy with other tests an order may have expired by then.
    if user % 4 < 2 {
        let status = admin(app, &order, "mark-paid", json!({"reference": "cash"})).await;
        assert!([200, 409].contains(&status), "{status}");
    }
    if user % 4 == 1 {
        let status = admin(app, &order, "cancel", json!({})).await;
        assert!([200, 409].contains(&status), "{status}");
    }
    if user % 4 == 2 {
        let path = format!("/orders/{order}/cancel");
        eventually("it is cancelled", || async {
            let cancelled = app.client.call(Method::POST, &path, Some(&app.client.buyer(user)), None).await;
            [200, 409].contains(&cancelled.status)
        })
        .await;
    }
    // The others let it lapse.
}

on_both_backends! {
    async fn a_summary_adds_up_whenever_it_says_so(app) {
        let id = new_product(app, 120, 5).await;
        let over = AtomicBool::new(false);
        let crowd = async {
            join_all((1..=60).map(|user| customer(app, id, user))).await;
            let lower = app.client.patch(&format!("/products/{id}"), Some(&app.client.admin()), json!({"stock": 100})).await;
            assert!([200, 409].contains(&lower.status), "{lower:?}");
            join_all((61..=110).map(|user| customer(app, id, user))).await;
            over.store(true, Ordering::Relaxed);
        };
        let watching = async {
            let (mut looks, mut moments) = (0, 0);
            while !over.load(Ordering::Relaxed) {
                moments += i32::from(adds_up(&summary(app, id).await));
                looks += 1;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            (looks, moments)
        };
        let ((), (looks, moments)) = tokio::join!(crowd, watching);
        assert!(looks > 5 && moments > 0, "{moments} of {looks} looks saw a moment that adds up");
        // Until all that nobody pays has expired.
        eventually_within(15, "all is quiet", || async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let unpaid = app.stores.number(&format!("SELECT COUNT(*) AS n FROM orders WHERE product_id = {id} AND status = 'unpaid'")).await;
            unpaid == 0 && adds_up(&summary(app, id).await)
        })
        .await;
        let last = summary(app, id).await;
        assert_eq!((&last["balanced"], &last["queued"], &last["unpaid"]), (&json!(true), &json!(0), &json!(0)), "{last}");
        for field in ["paid", "expired", "cancelled", "refund_due", "revenue_cents"] {
            assert!(last[field].as_i64().unwrap() > 0, "{field}: {last}");
        }
        assert_eq!((&last["currency"], &last["product_id"]), (&json!("USD"), &json!(id)));
        is_true(app, id, &last).await;
        app.balanced(id).await;
        let audit = app.client.get(&format!("/admin/products/{id}/audit"), Some(&app.client.admin())).await.is(200);
        assert_eq!(audit["findings"], json!([]), "{audit}");
        app.stores.execute(&format!("UPDATE products SET revenue_cents = 1 WHERE id = {id}")).await;
        let audit = app.client.get(&format!("/admin/products/{id}/audit"), Some(&app.client.admin())).await.is(200);
        assert_eq!(audit["findings"], json!(["counts_differ"]), "{audit}");
    }

    async fn a_summary_is_for_administrators_and_of_products_that_there_are(app) {
        let id = app.client.new_product(3).await;
        let path = format!("/admin/products/{id}/summary");
        app.client.get(&path, None).await.is_problem(401, "unauthorized");
        app.client.get(&path, Some(&app.client.token(7, Role::Buyer))).await.is_problem(403, "forbidden");
        let admin = app.client.admin();
        app.client.get("/admin/products/999999/summary", Some(&admin)).await.is_problem(404, "product_not_found");
        assert_eq!(app.client.call(Method::HEAD, &path, Some(&admin), None).await.status, 200);
        let expected = json!({
            "product_id": id, "stock": 3, "remaining": 3, "queued": 0, "unpaid": 0, "paid": 0, "expired": 0, "cancelled": 0,
            "rejected": 0, "refund_due": 0, "revenue_cents": 0, "currency": "USD", "balanced": true
        });
        assert_eq!(app.client.get(&path, Some(&admin)).await.is(200), expected);
        // What is not known is not made up.
        if app.config.backend == Backend::Distributed {
            app.client.buy(7, id).await.is(202);
            redis::cmd("FLUSHDB").query_async::<()>(&mut app.stores.redis().await).await.unwrap();
            let lost = app.client.get(&path, Some(&admin)).await.is(200);
            if lost["remaining"] == Value::Null {
                assert_eq!((&lost["queued"], &lost["balanced"]), (&Value::Null, &json!(false)), "{lost}");
            }
            eventually_within(15, "the gate is there again", || async { summary(app, id).await["balanced"] == true }).await;
        }
        // A mistyped currency that is mended while nobody could buy is no second currency.
        let early = json!({"name": "Early", "price_cents": 5, "stock": 1, "starts_at": "2099-01-01T00:00:00Z"});
        let early = app.client.post("/products", Some(&admin), early).await.is(201)["id"].as_i64().unwrap();
        app.client.patch(&format!("/products/{early}"), Some(&admin), json!({"currency": "EUR"})).await.is(200);
        assert_eq!(summary(app, early).await["currency"], "EUR");
        app.client.patch(&format!("/products/{id}"), Some(&admin), json!({"currency": "JPY"})).await.is(200);
        assert_eq!(summary(app, id).await["currency"], Value::Null);
    }

    async fn a_purchase_that_could_not_become_an_order_is_counted(app) {
        let id = new_product(app, 3, 900).await;
        app.client.buy(7, id).await.is(202);
        app.orders_written(id, 1).await;
        // As an operator's hand or a restored backup would: the gate has units that the database has not.
        app.stores.execute(&format!("UPDATE products SET stock = 1 WHERE id = {id}")).await;
        let body = json!({"quantity": 2});
        app.client.post(&format!("/seckill/{id}"), Some(&app.client.buyer(8)), body).await.is(202);
        eventually("it is rejected", || async {
            app.stores.number("SELECT COUNT(*) AS n FROM orders WHERE status = 'rejected'").await == 1
        })
        .await;
        assert_eq!(summary(app, id).await["rejected"], 2);
        is_true(app, id, &summary(app, id).await).await;
    }
}
