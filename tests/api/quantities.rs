//! Orders of several units, and what a product says of them.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::client::Reply;
use crate::on_both_backends;
use crate::provider::product;
use crate::support::{eventually, eventually_within};

async fn buy(app: &TestApp, user: i64, product: i64, quantity: Value) -> Reply {
    app.client.post(&format!("/seckill/{product}"), Some(&app.client.buyer(user)), json!({"quantity": quantity})).await
}

on_both_backends! {
    async fn an_order_of_two_takes_two_units_and_says_what_they_cost_and_until_when(app) {
        let id = product(app, json!({"stock": 5, "max_per_order": 2, "payment_window_seconds": 900})).await;
        let before = chrono::Utc::now();
        let accepted = buy(app, 7, id, json!(2)).await.is(202);
        assert_eq!((&accepted["quantity"], &accepted["total_cents"]), (&json!(2), &json!(3_980)));
        let expires: chrono::DateTime<chrono::Utc> = accepted["expires_at"].as_str().unwrap().parse().unwrap();
        let window = (expires - before).num_seconds();
        assert!((899..=901).contains(&window), "{window}");
        assert_eq!(app.client.product(id).await["remaining"], 3);
        app.orders_written(id, 1).await;
        app.balanced(id).await;
        let held = || async { app.client.product(id).await["held"] == 2 };
        eventually("units that are not paid for are held", held).await;
        let single = app.client.buy(8, id).await.is(202);
        assert_eq!((&single["quantity"], &single["total_cents"]), (&json!(1), &json!(1_990)));
        buy(app, 7, id, json!(1)).await.is_problem(409, "already_purchased");
        app.orders_written(id, 2).await;
        app.restart().await;
        assert_eq!(app.client.product(id).await["remaining"], 2, "a restart counts units, too");
        app.balanced(id).await;
    }

    async fn more_than_an_order_may_have_and_what_is_no_number_is_refused_by_field(app) {
        let id = product(app, json!({"stock": 50, "max_per_order": 2})).await;
        for wrong in [json!(0), json!(-1), json!(11), json!(9_223_372_036_854_775_808_u64), json!(1.5), json!("2"), Value::Null] {
            buy(app, 7, id, wrong).await.is_invalid("quantity");
        }
        buy(app, 7, id, json!(3)).await.is_invalid("quantity");
        let path = format!("/seckill/{id}");
        app.client.post(&path, Some(&app.client.buyer(7)), json!({"units": 2})).await.is_invalid("units");
        app.client.post(&path, Some(&app.client.buyer(7)), json!([2])).await.is_invalid("body");
        let form = app.client.request(Method::POST, &path).bearer_auth(app.client.buyer(7)).body("quantity=2");
        app.client.send(form).await.is_problem(415, "unsupported_media_type");
        assert_eq!(app.client.product(id).await["remaining"], 50);
        app.client.post(&path, Some(&app.client.buyer(7)), json!({})).await.is(202);
    }

    async fn fewer_than_were_asked_for_are_not_granted(app) {
        let id = product(app, json!({"stock": 3, "max_per_order": 4})).await;
        let refused = buy(app, 7, id, json!(4)).await;
        refused.is_problem(409, "not_enough_left");
        assert_eq!(refused.body["remaining"], 3);
        buy(app, 8, id, json!(2)).await.is(202);
        // Too soon after the first try, also for a single one.
        buy(app, 7, id, json!(1)).await.is_problem(429, "rate_limited");
        buy(app, 9, id, json!(2)).await.is_problem(409, "not_enough_left");
        buy(app, 10, id, json!(1)).await.is(202);
        buy(app, 11, id, json!(4)).await.is_problem(409, "sold_out");
        app.orders_written(id, 2).await;
        app.balanced(id).await;
    }

    /// Guards against: units and orders counted as the same thing.
    async fn a_crowd_of_single_and_double_buyers_gets_exactly_the_units(app) {
        let id = product(app, json!({"stock": 101, "max_per_order": 2})).await;
        let replies = join_all((1..=300_i64).map(|user| buy(app, user, id, json!(1 + user % 2)))).await;
        let granted: i64 = replies.iter().filter(|reply| reply.status == 202).map(|reply| reply.body["quantity"].as_i64().unwrap()).sum();
        assert!((100..=101).contains(&granted), "{granted}");
        let orders = replies.iter().filter(|reply| reply.status == 202).count() as i64;
        for reply in replies.iter().filter(|reply| reply.status != 202) {
            assert!(["sold_out", "not_enough_left"].contains(&reply.body["code"].as_str().unwrap()), "{reply:?}");
        }
        app.orders_written(id, orders).await;
        app.balanced(id).await;
        let units = format!("SELECT CAST(SUM(quantity) AS SIGNED) AS n FROM orders WHERE product_id = {id}");
        assert_eq!(app.stores.number(&units).await, granted);
    }

    async fn ten_clicks_of_one_buyer_with_other_numbers_are_one_order(app) {
        let id = product(app, json!({"stock": 50, "max_per_order": 2})).await;
        let replies = join_all((0..10).map(|n| buy(app, 7, id, json!(1 + n % 2)))).await;
        let accepted: Vec<_> = replies.iter().filter(|reply| reply.status == 202).collect();
        assert_eq!(accepted.len(), 1);
        app.orders_written(id, 1).await;
        app.balanced(id).await;
        assert_eq!(app.client.product(id).await["remaining"], 50 - accepted[0].body["quantity"].as_i64().unwrap());
    }

    async fn the_limit_of_an_order_is_changed_at_once(app) {
        let id = product(app, json!({"stock": 50})).await;
        assert_eq!(app.client.product(id).await["max_per_order"], 1);
        buy(app, 7, id, json!(2)).await.is_invalid("quantity");
        let path = format!("/products/{id}");
        let change = json!({"max_per_order": 3, "payment_window_seconds": 60, "currency": "EUR", "image_url": "https://shop.example/a.png"});
        let patched = app.client.patch(&path, Some(&app.client.admin()), change.clone()).await.is(200);
        for (field, value) in change.as_object().unwrap() {
            assert_eq!(patched[field], *value, "{field}");
        }
        let accepted = buy(app, 7, id, json!(3)).await.is(202);
        assert!(accepted["expires_at"].is_string(), "{accepted}");
        let none = json!({"payment_window_seconds": null, "image_url": null});
        let patched = app.client.patch(&path, Some(&app.client.admin()), none).await.is(200);
        assert_eq!((&patched["payment_window_seconds"], &patched["image_url"]), (&Value::Null, &Value::Null));
        assert_eq!(app.client.buy(8, id).await.is(202)["expires_at"], Value::Null);
        for (field, value) in [
            ("max_per_order", json!(0)), ("max_per_order", json!(11)), ("max_per_order", Value::Null),
            ("payment_window_seconds", json!(4)), ("payment_window_seconds", json!(2_592_001)), ("payment_window_seconds", json!("60")),
            ("currency", json!("usd")), ("currency", json!("XYZ")), ("currency", Value::Null),
            ("image_url", json!("http://shop.example/a.png")), ("image_url", json!("a.png")), ("image_url", json!("javascript:alert(1)")),
            ("image_url", json!(format!("https://shop.example/{}", "x".repeat(2048)))), ("stock", json!(-1)), ("stock", Value::Null),
        ] {
            app.client.patch(&path, Some(&app.client.admin()), json!({field: value})).await.is_invalid(field);
            let mut product = json!({"name": "Ticket", "price_cents": 1, "stock": 1});
            product[field] = value.clone();
            if value != Value::Null {
                app.client.post("/products", Some(&app.client.admin()), product).await.is_invalid(field);
            }
        }
    }

    async fn lowering_the_stock_breaks_no_promise(app) {
        let id = app.client.new_product(10).await;
        let (path, admin) = (format!("/products/{id}"), app.client.admin());
        for user in 1..=3 {
            app.client.buy(user, id).await.is(202);
        }
        let refused = app.client.patch(&path, Some(&admin), json!({"stock": 2})).await;
        refused.is_problem(409, "stock_below_sold");
        assert_eq!(refused.body["least"], 3);
        let lowered = app.client.patch(&path, Some(&admin), json!({"stock": 4})).await.is(200);
        assert_eq!((&lowered["stock"], &lowered["remaining"]), (&json!(4), &json!(1)));
        app.client.buy(4, id).await.is(202);
        app.client.buy(5, id).await.is_problem(409, "sold_out");
        app.orders_written(id, 4).await;
        app.balanced(id).await;
        eventually_within(3, "when it sold out is shown", async || app.client.product(id).await["sold_out_at"].is_string()).await;
        app.restart().await;
        assert_eq!(app.client.product(id).await["remaining"], 0);
        let raised = app.client.patch(&path, Some(&admin), json!({"stock": 12})).await.is(200);
        assert_eq!((&raised["stock"], &raised["remaining"]), (&json!(12), &json!(8)));
        let restocked = app.client.post(&format!("{path}/restock"), Some(&admin), json!({"units": 1})).await.is(200);
        assert_eq!(restocked["stock"], 13);
        eventually("it is not sold out any more", || async { app.client.product(id).await["sold_out_at"].is_null() }).await;
        app.balanced(id).await;
    }

    /// Guards against: a purchase that was promised while the stock came down is turned down by the database.
    async fn every_promise_is_kept_while_the_stock_is_lowered_under_a_crowd(app) {
        let id = app.client.new_product(400).await;
        let (path, admin) = (format!("/products/{id}"), app.client.admin());
        let lower = async {
            let mut lowered = 0;
            for stock in (100..=400).rev().step_by(20) {
                lowered += i64::from(app.client.patch(&path, Some(&admin), json!({"stock": stock})).await.status == 200);
            }
            lowered
        };
        let (replies, lowered) = futures_util::join!(join_all((1..=600).map(|user| app.client.buy(user, id))), lower);
        let promised = replies.iter().filter(|reply| reply.status == 202).count() as i64;
        assert!(promised > 0 && lowered > 0, "{promised} promised, lowered {lowered} times");
        app.orders_written(id, promised).await;
        let rejected = format!("SELECT COUNT(*) AS n FROM orders WHERE product_id = {id} AND status = 'rejected'");
        assert_eq!(app.stores.number(&rejected).await, 0);
        eventually("what is offered is not less than what is sold", || async {
            app.client.product(id).await["stock"].as_i64().unwrap() >= promised
        })
        .await;
        app.balanced(id).await;
    }
}
