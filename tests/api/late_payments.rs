//! Money that comes for an order that has expired, or that its buyer has cancelled: it pays the order if nobody else was promised its
//! units, and is due back if somebody was.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use seckill::config::Backend;
use seckill::model::Timestamp;
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::client::Reply;
use crate::on_both_backends;
use crate::provider::{
    Callback, begun, begun_again, cancel, events, history, metric, payment, product, stand, standing, start, units,
    with_short_window,
};
use crate::support::eventually_within;

/// Longer ago than a gate is kept for.
pub const LONG_AGO: Duration = Duration::from_secs(80 * 60);

pub fn sql_time(ago: Duration) -> String {
    let mut text = String::new();
    Timestamp::now().before(ago).push_sortable(&mut text);
    text
}

/// A dead order, and the payment that is on its way for it.
pub async fn cancelled(app: &TestApp, user: i64, product: i64) -> (String, Value) {
    let (order, payment) = begun(app, user, product).await;
    cancel(app, user, &order).await;
    (order, payment)
}

/// Comes again until it is answered, as a provider's does.
pub async fn told(app: &TestApp, callback: &Callback) -> Reply {
    let begun = std::time::Instant::now();
    loop {
        match callback.send(app).await {
            reply if reply.status == 503 && begun.elapsed() < Duration::from_secs(30) => {
                assert!(reply.headers.contains_key("retry-after"));
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            reply => return reply,
        }
    }
}

async fn as_admin(app: &TestApp, path: &str, body: Value) -> Reply {
    app.client.post(path, Some(&app.client.admin()), body).await
}

pub async fn audit(app: &TestApp, id: i64) -> Value {
    app.client.get(&format!("/admin/products/{id}/audit"), Some(&app.client.admin())).await.is(200)
}

/// Gate and database agree on everything, now or in a moment.
pub async fn agree(app: &TestApp, id: i64) {
    eventually_within(15, "gate and database agree", || async {
        let audit = audit(app, id).await;
        audit["balanced"] == true && audit["pending"] == 0 && audit["release_due"] == 0 && audit["drift"] == 0
    })
    .await;
    app.balanced(id).await;
}

async fn patch(app: &TestApp, id: i64, change: Value) {
    app.client.patch(&format!("/products/{id}"), Some(&app.client.admin()), change).await.is(200);
}

/// As if the sale had ended long ago; its gate goes.
async fn retired(app: &TestApp, id: i64) {
    let (begun, ended) = (sql_time(LONG_AGO + Duration::from_secs(60)), sql_time(LONG_AGO));
    let before = metric(app, "seckill_gates_retired_total").await.unwrap();
    let end = format!("UPDATE products SET starts_at = '{begun}', ends_at = '{ended}', ver = ver + 1 WHERE id = {id}");
    app.stores.execute(&end).await;
    eventually_within(30, "the gate is taken away", || async {
        metric(app, "seckill_gates_retired_total").await.unwrap() > before
    })
    .await;
}

async fn reopen(app: &TestApp, id: i64) {
    patch(app, id, json!({"ends_at": Timestamp::now().after(Duration::from_secs(3600)).to_string()})).await;
}

/// Orders of a product by their status.
pub async fn count(app: &TestApp, product: i64, which: &str) -> i64 {
    app.stores.number(&format!("SELECT COUNT(*) AS n FROM orders WHERE product_id = {product} AND {which}")).await
}

on_both_backends! {
    async fn money_that_comes_late_pays_the_same_order_while_its_units_are_there(app) {
        let id = product(app, json!({"stock": 2, "max_per_order": 2})).await;
        let token = app.client.buyer(7);
        let clicked = app.client.post(&format!("/seckill/{id}"), Some(&token), json!({"quantity": 2})).await.is(202);
        let order = clicked["order_id"].as_str().unwrap().to_owned();
        app.orders_written(id, 1).await;
        let payment_ = start(app, 7, &order).await.is(201);
        with_short_window(app, id, 5).await;
        eventually_within(15, "it expires", || async { units(app, id).await.0 == 0 }).await;
        with_short_window(app, id, 900).await;

        let callback = Callback::of(&payment_, "succeeded");
        for reply in join_all((0..20).map(|_| told(app, &callback))).await {
            assert_eq!((reply.status, &reply.body), (200, &Value::Null));
        }
        assert_eq!(standing(app, &order, &payment_).await, stand("paid", "succeeded"));
        let reference = callback.body["data"]["reference"].clone();
        let changes = [json!(["unpaid", "expired", "expiry", null]), json!(["expired", "paid", "provider", reference])];
        assert_eq!(history(app, &order).await, changes);
        assert_eq!((units(app, id).await, events(app).await), ((2, 2), 1));
        assert_eq!(payment(app, &payment_).await["reference"], reference);
        let shown = app.client.order(7, &order).await.is(200);
        assert!(shown["paid_at"].is_string() && shown["paid_at"] == shown["updated_at"] && shown["reason"].is_null(), "{shown}");
        let listed = app.client.get("/orders", Some(&token)).await.is(200);
        assert_eq!((listed["items"].as_array().unwrap().len(), &listed["items"][0]["status"]), (1, &json!("paid")));
        let page = app.client.product(id).await;
        assert_eq!((&page["remaining"], &page["state"]), (&json!(0), &json!("sold_out")));
        let again = app.client.buy(7, id).await;
        again.is_problem(409, "already_purchased");
        assert_eq!(again.body["order_id"], order.as_str());
        app.client.buy(8, id).await.is_problem(409, "sold_out");
        let outcomes = ["revived", "repeated", "unchanged", "refund_due"].map(|outcome| format!("seckill_payment_callbacks_total{{outcome=\"{outcome}\"}}"));
        assert_eq!(metric(app, &outcomes[0]).await, Some(1.0));
        assert_eq!(metric(app, &outcomes[3]).await, Some(0.0));
        agree(app, id).await;
        // The merchant's lists say so before and after they are filled, and the sale's counts.
        for _ in 0..2 {
            for (status, count) in [("paid", 1), ("expired", 0)] {
                let path = format!("/admin/orders?product_id={id}&status={status}");
                let page = app.client.get(&path, Some(&app.client.admin())).await.is(200);
                assert_eq!(page["items"].as_array().unwrap().len(), count, "{status}: {page}");
            }
            eventually_within(10, "the lists are filled", || async { app.stores.number("SELECT COUNT(*) AS n FROM order_lookup_gaps").await == 0 }).await;
        }
        let summary = app.client.get(&format!("/admin/products/{id}/summary"), Some(&app.client.admin())).await.is(200);
        let counts = ["paid", "expired", "unpaid", "remaining", "revenue_cents"].map(|count| summary[count].as_i64().unwrap());
        assert_eq!((counts, &summary["balanced"]), ([2, 0, 0, 0, 2 * 1990], &json!(true)), "{summary}");

        // What the gate knows of it outlives a start, and of the deadline nothing comes back.
        app.restart().await;
        app.stores.execute("INSERT INTO payment_deadlines (first_order, last_order, due_at) SELECT id, id, '2026-01-01 00:00:00.000' FROM orders").await;
        eventually_within(5, "it is looked at", || async { app.stores.number("SELECT COUNT(*) AS n FROM payment_deadlines").await == 0 }).await;
        callback.send(app).await.is(200);
        assert_eq!(standing(app, &order, &payment_).await, stand("paid", "succeeded"));
        app.client.buy(18, id).await.is_problem(409, "sold_out");
        app.client.buy(7, id).await.is_problem(409, "already_purchased");
        agree(app, id).await;

        // A refund is for good, and its units come back once.
        for _ in 0..3 {
            Callback::of(&payment_, "refunded").send(app).await.is(200);
        }
        for late in ["succeeded", "failed"] {
            Callback::of(&payment_, late).send(app).await.is(200);
        }
        assert_eq!(standing(app, &order, &payment_).await, stand("cancelled", "refunded"));
        assert_eq!((units(app, id).await, history(app, &order).await.len()), ((0, 0), 3));
        let both = json!({"quantity": 2});
        eventually_within(5, "they are sold to another", || async {
            app.client.post(&format!("/seckill/{id}"), Some(&app.client.buyer(9)), both.clone()).await.status == 202
        }).await;
        app.client.buy(10, id).await.is_problem(409, "sold_out");
        app.orders_written(id, 2).await;
        agree(app, id).await;
    }

    /// The other one may come long after.
    async fn a_payment_of_a_revived_order_is_due_back_and_the_refund_of_neither_takes_the_other_s_place(app) {
        let id = product(app, json!({"stock": 1})).await;
        let (order, first) = begun(app, 7, id).await;
        let second = begun_again(app, 7, &order, &first).await;
        cancel(app, 7, &order).await;
        told(app, &Callback::of(&second, "succeeded")).await.is(200);
        told(app, &Callback::of(&first, "succeeded")).await.is(200);
        assert_eq!(standing(app, &order, &first).await, stand("paid", "refund_due"));
        Callback::of(&first, "refunded").send(app).await.is(200);
        assert_eq!(standing(app, &order, &second).await, stand("paid", "succeeded"));
        as_admin(app, &format!("/admin/orders/{order}/cancel"), json!({})).await.is(200);
        assert_eq!(standing(app, &order, &second).await, stand("cancelled", "refund_due"));
        told(app, &Callback::of(&first, "succeeded")).await.is(200);
        assert_eq!(standing(app, &order, &first).await, stand("cancelled", "refunded"));
        assert_eq!((units(app, id).await, history(app, &order).await.len()), ((0, 0), 3));
        eventually_within(5, "its unit is sold to another", || async { app.client.buy(8, id).await.status == 202 }).await;
        app.orders_written(id, 2).await;
        agree(app, id).await;
    }

    async fn what_the_merchant_has_ended_stays_so(app) {
        let id = product(app, json!({})).await;
        let (called_off, payment) = begun(app, 7, id).await;
        as_admin(app, &format!("/admin/orders/{called_off}/cancel"), json!({"reason": "a mistake"})).await.is(200);
        told(app, &Callback::of(&payment, "succeeded")).await.is(200);
        assert_eq!(standing(app, &called_off, &payment).await, stand("cancelled", "refund_due"));

        // Revived, and called off then.
        let (order, first) = begun(app, 8, id).await;
        let second = begun_again(app, 8, &order, &first).await;
        cancel(app, 8, &order).await;
        told(app, &Callback::of(&second, "succeeded")).await.is(200);
        as_admin(app, &format!("/admin/orders/{order}/cancel"), json!({})).await.is(200);
        told(app, &Callback::of(&first, "succeeded")).await.is(200);
        assert_eq!(standing(app, &order, &first).await, stand("cancelled", "refund_due"));
        assert_eq!(standing(app, &order, &second).await, stand("cancelled", "refund_due"));
        assert_eq!(units(app, id).await, (0, 0));
        agree(app, id).await;
    }

    async fn a_buyer_who_has_bought_again_keeps_that_and_gets_the_money_back(app) {
        let id = product(app, json!({})).await;
        let (old, payment) = cancelled(app, 7, id).await;
        eventually_within(5, "they buy again", || async { app.client.buy(7, id).await.status == 202 }).await;
        app.orders_written(id, 2).await;
        told(app, &Callback::of(&payment, "succeeded")).await.is(200);
        assert_eq!(standing(app, &old, &payment).await, stand("cancelled", "refund_due"));
        assert_eq!((units(app, id).await, count(app, id, "status = 'unpaid'").await), ((1, 0), 1));
        agree(app, id).await;
    }

    async fn it_is_all_units_or_none_and_the_amount_comes_first(app) {
        let id = product(app, json!({"stock": 3, "max_per_order": 2})).await;
        let buy = async |user: i64, quantity: i64| {
            let path = format!("/seckill/{id}");
            app.client.post(&path, Some(&app.client.buyer(user)), json!({"quantity": quantity})).await.is(202)["order_id"].as_str().unwrap().to_owned()
        };
        let order = buy(7, 2).await;
        app.orders_written(id, 1).await;
        let payment = start(app, 7, &order).await.is(201);
        cancel(app, 7, &order).await;
        eventually_within(5, "they are back", || async { app.client.product(id).await["remaining"] == 3 }).await;
        buy(8, 2).await;
        app.orders_written(id, 2).await;
        told(app, &Callback::of(&payment, "succeeded")).await.is(200);
        assert_eq!(standing(app, &order, &payment).await, stand("cancelled", "refund_due"), "one is left");
        assert_eq!(units(app, id).await, (2, 0));

        let (wrong, payment) = cancelled(app, 9, id).await;
        told(app, &Callback::of(&payment, "succeeded").with("amount_cents", 1)).await.is(200);
        assert_eq!(standing(app, &wrong, &payment).await, stand("cancelled", "refund_due"));
        agree(app, id).await;
    }

    async fn window_pause_and_archive_do_not_count_and_what_is_withheld_does(app) {
        let id = product(app, json!({"stock": 4})).await;
        let mut late = Vec::new();
        for user in 1..=4 {
            late.push(cancelled(app, user, id).await);
        }
        eventually_within(5, "they are back", || async { app.client.product(id).await["remaining"] == 4 }).await;
        patch(app, id, json!({"paused": true})).await;
        let pay = async |place: usize| {
            let (order, payment) = &late[place];
            told(app, &Callback::of(payment, "succeeded")).await.is(200);
            standing(app, order, payment).await
        };
        assert_eq!(pay(0).await, stand("paid", "succeeded"));
        app.client.call(Method::POST, &format!("/admin/products/{id}/archive"), Some(&app.client.admin()), None).await.is(200);
        assert_eq!(pay(1).await, stand("paid", "succeeded"));
        let lowered = product(app, json!({"stock": 2})).await;
        let (order, payment) = cancelled(app, 7, lowered).await;
        app.client.buy(8, lowered).await.is(202);
        eventually_within(5, "one remains", || async { app.client.product(lowered).await["remaining"] == 1 }).await;
        app.orders_written(lowered, 2).await;
        patch(app, lowered, json!({"stock": 1})).await;
        told(app, &Callback::of(&payment, "succeeded")).await.is(200);
        assert_eq!(standing(app, &order, &payment).await, stand("cancelled", "refund_due"), "it is not offered any more");
        agree(app, id).await;
        agree(app, lowered).await;
    }

    /// The gate is gone, and nobody else can take a unit.
    async fn a_sale_that_is_over_gives_what_is_left_and_knows_it_when_it_is_reopened(app) {
        let id = product(app, json!({"stock": 3})).await;
        let mut late = Vec::new();
        for user in 1..=3 {
            late.push(cancelled(app, user, id).await);
        }
        app.client.buy(9, id).await.is(202);
        app.orders_written(id, 4).await;
        retired(app, id).await;
        let mut ends = Vec::new();
        for (order, payment) in &late {
            told(app, &Callback::of(payment, "succeeded")).await.is(200);
            ends.push(standing(app, order, payment).await);
        }
        assert_eq!(ends, [stand("paid", "succeeded"), stand("paid", "succeeded"), stand("cancelled", "refund_due")]);
        assert_eq!(units(app, id).await, (3, 2));
        if app.config.backend == Backend::Distributed {
            assert_eq!(app.stores.number("SELECT COUNT(*) AS n FROM products WHERE gate_home = 'retired'").await, 1);
        }
        reopen(app, id).await;
        eventually_within(15, "it is open", || async { app.client.buy(20, id).await.body["code"] == "sold_out" }).await;
        app.client.buy(1, id).await.is_problem(409, "already_purchased");
        Callback::of(&late[0].1, "refunded").send(app).await.is(200);
        eventually_within(5, "its unit is sold", || async { app.client.buy(21, id).await.status == 202 }).await;
        app.client.buy(22, id).await.is_problem(409, "sold_out");
        app.orders_written(id, 5).await;
        agree(app, id).await;
    }
}
