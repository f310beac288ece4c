//! What people do to orders: a buyer cancels, an administrator cancels and notes payments, and the order remembers it.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use seckill::config::Backend;
use seckill::model::{OrderId, ProductId, Purchase, Quantity};
use seckill::stock::{Admission, Answer, StockGate};
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::client::Reply;
use crate::on_both_backends;
use crate::support::eventually_within;

/// An order that is written.
async fn order(app: &TestApp, user: i64, product: i64) -> String {
    let order = app.client.buy(user, product).await.is(202)["order_id"].as_str().unwrap().to_owned();
    eventually_within(10, "it is written", || async {
        // Whoever looks ten times a second is not refused.
        tokio::time::sleep(Duration::from_millis(100)).await;
        app.client.order(user, &order).await.is(200)["status"] == "unpaid"
    })
    .await;
    order
}

async fn cancel(app: &TestApp, user: i64, order: &str) -> Reply {
    app.client.call(Method::POST, &format!("/orders/{order}/cancel"), Some(&app.client.buyer(user)), None).await
}

async fn as_admin(app: &TestApp, order: &str, what: &str, body: Option<Value>) -> Reply {
    let path = format!("/admin/orders/{order}/{what}");
    app.client.call(Method::POST, &path, Some(&app.client.admin()), body).await
}

async fn mark_paid(app: &TestApp, order: &str) -> Reply {
    as_admin(app, order, "mark-paid", Some(json!({"reference": "transfer 4711"}))).await
}

/// From, to, by whom, which user, and why.
async fn history(app: &TestApp, order: &str) -> Vec<Value> {
    let page = app.client.get(&format!("/admin/orders/{order}/history"), Some(&app.client.admin())).await.is(200);
    assert_eq!(page["next_cursor"], Value::Null);
    page["items"].as_array().unwrap().clone()
}

fn change(items: &[Value], index: usize) -> Value {
    let item = &items[index];
    assert!(item["at"].as_str().unwrap().ends_with('Z'), "{item}");
    json!([item["from"], item["to"], item["by"], item["user_id"], item["reason"]])
}

/// `sold` and `paid` of a product's row.
async fn units(app: &TestApp, product: i64) -> (i64, i64) {
    let of = |column: &str| format!("SELECT {column} AS n FROM products WHERE id = {product}");
    (app.stores.number(&of("sold")).await, app.stores.number(&of("paid")).await)
}

on_both_backends! {
    async fn a_buyer_cancels_and_the_unit_is_sold_to_another(app) {
        let id = app.client.new_product(1).await;
        let first = order(app, 7, id).await;
        app.client.buy(8, id).await.is_problem(409, "sold_out");
        cancel(app, 8, &first).await.is_problem(404, "order_not_found");
        cancel(app, 1, &first).await.is_problem(404, "order_not_found");
        let cancelled = cancel(app, 7, &first).await.is(200);
        assert_eq!((&cancelled["id"], &cancelled["status"]), (&json!(first), &json!("cancelled")));
        assert!(cancelled["updated_at"].as_str() > cancelled["created_at"].as_str(), "{cancelled}");
        assert_eq!(cancel(app, 7, &first).await.is(200), cancelled, "again");
        eventually_within(2, "it is sold to another", || async { app.client.buy(8, id).await.status == 202 }).await;
        app.client.buy(7, id).await.is_problem(409, "sold_out");
        app.orders_written(id, 2).await;
        app.balanced(id).await;
        assert_eq!(app.stores.number("SELECT COUNT(*) AS n FROM orders WHERE release_due = 1").await, 0);
        let items = history(app, &first).await;
        assert_eq!((items.len(), change(&items, 0)), (1, json!(["unpaid", "cancelled", "buyer", 7, null])));
    }

    async fn an_order_shows_what_it_costs_and_until_when(app) {
        let product = json!({"name": "Sneaker", "price_cents": 250, "stock": 9, "currency": "EUR", "payment_window_seconds": 900});
        let id = app.client.post("/products", Some(&app.client.admin()), product).await.is(201)["id"].as_i64().unwrap();
        let order_id = app.client.buy(7, id).await.is(202)["order_id"].as_str().unwrap().to_owned();
        let queued = app.client.order(7, &order_id).await.is(200);
        app.orders_written(id, 1).await;
        let written = app.client.order(7, &order_id).await.is(200);
        let listed = app.client.get("/orders", Some(&app.client.buyer(7))).await.is(200)["items"][0].clone();
        assert_eq!(listed, written);
        for order in [queued, written] {
            for (field, value) in [("quantity", json!(1)), ("total_cents", json!(250)), ("currency", json!("EUR")), ("paid_at", Value::Null)] {
                assert_eq!(order[field], value, "{field} of {order}");
            }
            let time = |field: &str| serde_json::from_value::<seckill::model::Timestamp>(order[field].clone()).unwrap();
            assert_eq!(time("expires_at"), time("created_at").after(Duration::from_secs(900)));
        }
        let other = json!({"name": "Sneaker", "price_cents": 250, "stock": 1, "payment_window_seconds": null});
        let other = app.client.post("/products", Some(&app.client.admin()), other).await.is(201)["id"].as_i64().unwrap();
        let other = order(app, 7, other).await;
        let other = app.client.order(7, &other).await.is(200);
        assert_eq!((&other["expires_at"], &other["currency"]), (&Value::Null, &json!("USD")));
    }

    async fn an_administrator_marks_as_paid_and_cancels_with_a_reason(app) {
        let id = app.client.new_product(2).await;
        let first = order(app, 7, id).await;
        for path in ["cancel", "mark-paid", "history"] {
            let method = if path == "history" { Method::GET } else { Method::POST };
            let path = format!("/admin/orders/{first}/{path}");
            app.client.call(method.clone(), &path, Some(&app.client.buyer(7)), None).await.is_problem(403, "forbidden");
            app.client.call(method, &path, None, None).await.is_problem(401, "unauthorized");
        }
        as_admin(app, &first, "mark-paid", None).await.is_problem(415, "unsupported_media_type");
        as_admin(app, &first, "mark-paid", Some(json!({}))).await.is_invalid("reference");
        as_admin(app, &first, "mark-paid", Some(json!({"reference": " "}))).await.is_invalid("reference");
        as_admin(app, &first, "cancel", Some(json!({"reason": "a\nb"}))).await.is_invalid("reason");
        as_admin(app, &first, "cancel", Some(json!({"why": "x"}))).await.is_invalid("why");
        assert_eq!(units(app, id).await, (1, 0));
        let paid = mark_paid(app, &first).await.is(200);
        assert_eq!((&paid["status"], &paid["paid_at"]), (&json!("paid"), &paid["updated_at"]));
        assert!(paid["paid_at"].is_string());
        assert_eq!(units(app, id).await, (1, 1));
        assert_eq!(app.client.product(id).await["held"], 0);

        let again = mark_paid(app, &first).await;
        again.is_problem(409, "not_payable");
        assert_eq!(again.body["order_status"], "paid");
        let refused = cancel(app, 7, &first).await;
        refused.is_problem(409, "not_cancellable");
        assert_eq!(refused.body["order_status"], "paid");

        let cancelled = as_admin(app, &first, "cancel", Some(json!({"reason": "damaged"}))).await.is(200);
        assert_eq!(cancelled["status"], "cancelled");
        as_admin(app, &first, "cancel", None).await.is(200);
        let refused = mark_paid(app, &first).await;
        refused.is_problem(409, "not_payable");
        assert_eq!(refused.body["order_status"], "cancelled");
        assert_eq!(units(app, id).await, (0, 0));
        app.balanced(id).await;
        let items = history(app, &first).await;
        assert_eq!(items.len(), 2);
        assert_eq!(change(&items, 0), json!(["unpaid", "paid", "admin", 1, "transfer 4711"]));
        assert_eq!(change(&items, 1), json!(["paid", "cancelled", "admin", 1, "damaged"]));
        assert_eq!(items[0]["username"], "admin");

        let log = app.client.get("/admin/log?limit=2", Some(&app.client.admin())).await.is(200)["items"].clone();
        for (entry, action, changes, reason) in [
            (&log[0], "Cancelled an order", "status paid -> cancelled", "damaged"),
            (&log[1], "Marked an order as paid", "status unpaid -> paid", "transfer 4711"),
        ] {
            let expected = json!([1, "admin", action, format!("order {first}"), changes, reason]);
            let said = ["user_id", "username", "action", "object", "changes", "reason"].map(|field| &entry[field]);
            assert_eq!(json!(said), expected);
        }

        // Of another one nothing has changed.
        let second = order(app, 8, id).await;
        assert_eq!(history(app, &second).await, [] as [Value; 0]);
        as_admin(app, &second, "cancel", None).await.is(200);
        assert_eq!(change(&history(app, &second).await, 0), json!(["unpaid", "cancelled", "admin", 1, null]));
        let unknown = uuid::Uuid::now_v7().to_string();
        for what in ["cancel", "mark-paid"] {
            as_admin(app, &unknown, what, Some(if what == "cancel" { json!({}) } else { json!({"reference": "x"}) })).await.is_problem(404, "order_not_found");
        }
        app.client.get(&format!("/admin/orders/{unknown}/history"), Some(&app.client.admin())).await.is_problem(404, "order_not_found");
    }

    /// The row is changed by one of them, and the others are told by what it says then.
    async fn of_all_who_cancel_at_once_and_the_deadline_one_wins(app) {
        let product = json!({"name": "Sneaker", "price_cents": 5, "stock": 9, "payment_window_seconds": 5, "max_per_order": 3});
        let id = app.client.post("/products", Some(&app.client.admin()), product).await.is(201)["id"].as_i64().unwrap();
        let begun = std::time::Instant::now();
        let path = format!("/seckill/{id}");
        let first = app.client.post(&path, Some(&app.client.buyer(7)), json!({"quantity": 3})).await.is(202);
        let first = first["order_id"].as_str().unwrap().to_owned();
        let kept = order(app, 8, id).await;
        mark_paid(app, &kept).await.is(200);
        app.orders_written(id, 2).await;
        assert_eq!(units(app, id).await, (4, 1));
        let expires_at = app.client.order(7, &first).await.is(200)["expires_at"].clone();
        let expires_at: seckill::model::Timestamp = serde_json::from_value(expires_at).unwrap();
        let left = expires_at.since(seckill::model::Timestamp::now());
        assert!(begun.elapsed() < Duration::from_secs(4), "the machine is too slow for this test");
        tokio::time::sleep(left).await;
        let buyers = join_all((0..25).map(|_| cancel(app, 7, &first)));
        let admins = join_all((0..25).map(|_| as_admin(app, &first, "cancel", None)));
        let (mut replies, others) = tokio::join!(buyers, admins);
        replies.extend(others);
        eventually_within(3, "it is over", || async { units(app, id).await.0 == 1 }).await;
        let status = app.client.get(&format!("/orders/{first}"), Some(&app.client.admin())).await.is(200)["status"].clone();
        for reply in replies {
            match status.as_str().unwrap() {
                "cancelled" => assert_eq!(reply.is(200)["status"], status),
                _ => {
                    reply.is_problem(409, "not_cancellable");
                    assert_eq!(reply.body["order_status"], status);
                }
            }
        }
        assert_eq!(history(app, &first).await.len(), 1, "{status}");
        assert_eq!(units(app, id).await, (1, 1));
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!((units(app, id).await, history(app, &first).await.len()), ((1, 1), 1));
        app.balanced(id).await;
    }

    async fn a_cancel_and_a_payment_exclude_each_other(app) {
        let id = app.client.new_product(20).await;
        let orders = join_all((1..=10).map(|user| order(app, user, id))).await;
        let app: &TestApp = app;
        let races = orders.iter().zip(1..).map(|(order, user)| async move {
            let (cancelled, paid) = tokio::join!(cancel(app, user, order), mark_paid(app, order));
            assert!((cancelled.status == 200) != (paid.status == 200), "{cancelled:?} {paid:?}");
            paid.status == 200
        });
        let paid = join_all(races).await.into_iter().filter(|paid| *paid).count() as i64;
        assert_eq!(units(app, id).await, (paid, paid));
        app.balanced(id).await;
    }

    /// The gate never hears of a change whose instance dies right after the commit: the sweeper tells it.
    async fn a_unit_that_the_gate_was_not_told_of_comes_back(app) {
        let id = app.client.new_product(1).await;
        let first = order(app, 7, id).await;
        cancel(app, 7, &first).await.is(200);
        app.stores.execute("UPDATE orders SET release_due = 1").await;
        eventually_within(5, "the sweeper has looked", || async {
            app.stores.number("SELECT COUNT(*) AS n FROM orders WHERE release_due = 1").await == 0
        })
        .await;
        app.client.buy(8, id).await.is(202);
        app.orders_written(id, 2).await;
        app.balanced(id).await;
    }

    /// A row that somebody has edited counts fewer units than its orders have: that is said, and nothing is changed.
    async fn a_product_that_counts_too_few_units_changes_no_order(app) {
        let id = app.client.new_product(1).await;
        let first = order(app, 7, id).await;
        app.stores.execute(&format!("UPDATE products SET sold = 0 WHERE id = {id}")).await;
        cancel(app, 7, &first).await.is_problem(500, "internal");
        assert_eq!(app.client.order(7, &first).await.is(200)["status"], "unpaid");
        assert_eq!(history(app, &first).await, [] as [Value; 0]);
        app.stores.execute(&format!("UPDATE products SET sold = 1 WHERE id = {id}")).await;
        cancel(app, 7, &first).await.is(200);
    }
}

/// What was promised and is not written cannot be given up yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_is_not_written_yet_is_cancelled_later() {
    TestApp::run(Backend::Distributed, async |app| {
        let id = app.client.new_product(1).await;
        let gate = StockGate::redis(&app.config.redis, 1).unwrap();
        let product = ProductId::try_from(id).unwrap();
        let purchase =
            Purchase { order_id: OrderId::draw(product), user_id: 7.try_into().unwrap(), quantity: Quantity::ONE };
        match gate.reserve(product, &[purchase.into()]).await.unwrap() {
            Admission::Open { answers, .. } => assert_eq!(answers, [Answer::Reserved]),
            other => panic!("{other:?}"),
        }
        let queued = purchase.order_id.to_string();
        let refused = cancel(app, 7, &queued).await;
        refused.is_problem(503, "unavailable");
        assert_eq!(refused.headers["retry-after"], "1");
        as_admin(app, &queued, "cancel", None).await.is_problem(503, "unavailable");
        mark_paid(app, &queued).await.is_problem(503, "unavailable");
        cancel(app, 8, &queued).await.is_problem(404, "order_not_found");
        eventually_within(25, "it is written and cancelled", || async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            cancel(app, 7, &queued).await.status == 200
        })
        .await;
        app.orders_written(id, 1).await;
        app.balanced(id).await;
    })
    .await;
}
