//! Money that comes for an order that has expired, or that its buyer has cancelled: it pays the order if nobody else was promised its
//! units, and is due back if somebody was.

use std::time::Duration;

use deadpool_redis::redis;
use futures_util::future::join_all;
use reqwest::Method;
use seckill::config::{Backend, Config, Late};
use seckill::model::Timestamp;
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::client::Reply;
use crate::on_both_backends;
use crate::provider::{
    Callback, begun, begun_again, cancel, events, external, history, metric, payment, product, stand, standing, start,
    units, with_short_window,
};
use crate::support::eventually_within;

/// Longer ago than a gate is kept for.
const LONG_AGO: Duration = Duration::from_secs(80 * 60);

fn sql_time(ago: Duration) -> String {
    let mut text = String::new();
    Timestamp::now().before(ago).push_sortable(&mut text);
    text
}

/// A dead order, and the payment that is on its way for it.
async fn cancelled(app: &TestApp, user: i64, product: i64) -> (String, Value) {
    let (order, payment) = begun(app, user, product).await;
    cancel(app, user, &order).await;
    (order, payment)
}

/// Comes again until it is answered, as a provider's does.
async fn told(app: &TestApp, callback: &Callback) -> Reply {
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

async fn audit(app: &TestApp, id: i64) -> Value {
    app.client.get(&format!("/admin/products/{id}/audit"), Some(&app.client.admin())).await.is(200)
}

/// Gate and database agree on everything, now or in a moment.
async fn agree(app: &TestApp, id: i64) {
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
async fn count(app: &TestApp, product: i64, which: &str) -> i64 {
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

    async fn of_two_late_payments_one_pays_and_the_other_is_due_back(app) {
        const ROUNDS: i64 = 10;
        let id = product(app, json!({"stock": ROUNDS})).await;
        let mut pairs = Vec::new();
        for user in 1..=ROUNDS {
            let (order, first) = begun(app, user, id).await;
            let second = begun_again(app, user, &order, &first).await;
            cancel(app, user, &order).await;
            pairs.push((order, first, second));
        }
        let app: &TestApp = app;
        // The first one had failed, which was wrong.
        join_all(pairs.iter().flat_map(|(_, first, second)| [first, second]).map(|payment| async move {
            told(app, &Callback::of(payment, "succeeded")).await.is(200);
        })).await;
        for (order, first, second) in &pairs {
            let mut ends = [standing(app, order, first).await, standing(app, order, second).await];
            ends.sort();
            assert_eq!(ends, [stand("paid", "refund_due"), stand("paid", "succeeded")]);
            assert_eq!(history(app, order).await.len(), 2);
        }
        assert_eq!(units(app, id).await, (ROUNDS, ROUNDS));
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

    /// Whoever clicks gets a promise that is kept, whatever comes late for others. Several rounds.
    async fn a_crowd_that_buys_everything_and_late_payments_never_get_more_than_there_is(app) {
        const LATE: i64 = 20;
        let mut of_all_rounds = (0, 0);
        for (round, clicks) in [70, 40, 20].into_iter().enumerate() {
            let id = product(app, json!({"stock": LATE})).await;
            let mut late = Vec::new();
            for user in 1..=LATE {
                late.push(begun(app, user, id).await);
            }
            let app: &TestApp = app;
            // They give up while the crowd is there, and their money comes at once or a moment later.
            let paying = join_all(late.iter().zip(1..).map(|((order, payment), user)| async move {
                tokio::time::sleep(Duration::from_millis(30 * user as u64)).await;
                cancel(app, user, order).await;
                tokio::time::sleep(Duration::from_millis([0, 5, 150][user as usize % 3])).await;
                told(app, &Callback::of(payment, "succeeded")).await.is(200);
            }));
            let clicking = join_all((0..clicks).map(|click: i64| async move {
                tokio::time::sleep(Duration::from_millis((840 / clicks * click) as u64)).await;
                app.client.buy(100 + click, id).await.status == 202
            }));
            let (_, answers) = tokio::join!(paying, clicking);
            let promised = answers.iter().filter(|is_promised| **is_promised).count() as i64;
            app.orders_written(id, LATE + promised).await;
            assert_eq!(count(app, id, "status = 'rejected'").await, 0, "somebody's 202 was turned down");
            assert_eq!(count(app, id, "status = 'unpaid' AND user_id >= 100").await, promised);
            let mut revived = 0;
            for (order, payment) in &late {
                match standing(app, order, payment).await {
                    end if end == stand("paid", "succeeded") => revived += 1,
                    end => assert_eq!(end, stand("cancelled", "refund_due")),
                }
            }
            assert_eq!(units(app, id).await, (revived + promised, revived));
            println!("{:?}, round {round}: {revived} of {LATE} revived, {promised} promised", app.config.backend);
            of_all_rounds = (of_all_rounds.0 + revived, of_all_rounds.1 + promised);
            agree(app, id).await;
        }
        assert!(of_all_rounds.0 > 0 && of_all_rounds.1 > 0, "the test is about both: {of_all_rounds:?}");
    }

    /// A buyer gives up at the moment that their money comes.
    async fn a_cancel_and_a_payment_at_the_same_instant_end_with_a_paid_order(app) {
        const ROUNDS: i64 = 15;
        let id = product(app, json!({"stock": ROUNDS})).await;
        let mut rounds = Vec::new();
        for user in 1..=ROUNDS {
            rounds.push(begun(app, user, id).await);
        }
        let app: &TestApp = app;
        join_all(rounds.iter().zip(1..).map(|((order, payment), user)| async move {
            let callback = Callback::of(payment, "succeeded");
            let (token, path) = (app.client.buyer(user), format!("/orders/{order}/cancel"));
            let (paid, cancelled) = tokio::join!(told(app, &callback), app.client.call(Method::POST, &path, Some(&token), None));
            paid.is(200);
            assert!([200, 409, 503].contains(&cancelled.status), "{cancelled:?}");
        })).await;
        for (order, payment) in &rounds {
            assert_eq!(standing(app, order, payment).await, stand("paid", "succeeded"));
        }
        assert_eq!(units(app, id).await, (ROUNDS, ROUNDS));
        agree(app, id).await;
    }

    /// They can wait, and must not make others wait.
    async fn late_money_holds_up_nobody_s_payment(app) {
        const LATE: i64 = 30;
        let id = product(app, json!({"stock": 2 * LATE})).await;
        let (mut late, mut others) = (Vec::new(), Vec::new());
        for user in 1..=LATE {
            late.push(cancelled(app, user, id).await);
            others.push(begun(app, 100 + user, id).await);
        }
        let app: &TestApp = app;
        let callbacks: Vec<Callback> = late.iter().chain(&others).map(|(_, payment)| Callback::of(payment, "succeeded")).collect();
        for reply in join_all(callbacks.iter().map(|callback| told(app, callback))).await {
            reply.is(200);
        }
        assert_eq!((units(app, id).await, count(app, id, "status = 'paid'").await), ((2 * LATE, 2 * LATE), 2 * LATE));
        agree(app, id).await;
    }
}

fn refund(config: &mut Config) {
    external(config);
    config.payments.late = Late::Refund;
}

async fn is_due_back(backend: Backend) {
    TestApp::run_with(backend, refund, async |app| {
        let id = product(app, json!({})).await;
        let (order, payment) = cancelled(app, 7, id).await;
        // Also with a gate that could not say.
        if app.config.backend == Backend::Distributed {
            redis::cmd("FLUSHDB").query_async::<()>(&mut app.stores.redis().await).await.unwrap();
        }
        Callback::of(&payment, "succeeded").send(app).await.is(200);
        assert_eq!(standing(app, &order, &payment).await, stand("cancelled", "refund_due"));
        agree(app, id).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shop_that_wants_no_late_money_gives_all_of_it_back_embedded() {
    is_due_back(Backend::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shop_that_wants_no_late_money_gives_all_of_it_back_distributed() {
    is_due_back(Backend::Distributed).await;
}

async fn redis(app: &TestApp, words: &[&str]) {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]).query_async::<()>(&mut app.stores.redis().await).await.unwrap();
}

async fn distributed(test: impl AsyncFnOnce(&mut TestApp)) {
    TestApp::run(Backend::Distributed, test).await;
}

/// A gate that is lost or closed knows nothing: the provider is told to come again, and is right then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_gate_is_rebuilt_the_provider_is_told_to_come_again() {
    distributed(async |app: &mut TestApp| {
        let id = product(app, json!({"stock": 2})).await;
        let (order, payment) = cancelled(app, 7, id).await;
        app.client.buy(8, id).await.is(202);
        app.orders_written(id, 2).await;
        redis(app, &["FLUSHDB"]).await;
        let callback = Callback::of(&payment, "succeeded");
        let refused = callback.send(app).await;
        refused.is_problem(503, "unavailable");
        assert_eq!((standing(app, &order, &payment).await, events(app).await), (stand("cancelled", "pending"), 0));
        told(app, &callback).await.is(200);
        assert_eq!(standing(app, &order, &payment).await, stand("paid", "succeeded"));
        app.client.buy(9, id).await.is_problem(409, "sold_out");
        app.client.buy(7, id).await.is_problem(409, "already_purchased");
        // The next gate knows under what the order is held.
        redis(app, &["FLUSHDB"]).await;
        eventually_within(15, "the gate is there", || async { app.client.buy(9, id).await.status == 409 }).await;
        Callback::of(&payment, "refunded").send(app).await.is(200);
        eventually_within(5, "the unit is back", || async { app.client.buy(10, id).await.status == 202 }).await;
        app.client.buy(11, id).await.is_problem(409, "sold_out");
        app.orders_written(id, 3).await;
        agree(app, id).await;
    })
    .await;
}

/// Its gate was lost when it was over: what was promised then may only be in the queue, so the gate is rebuilt first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_that_was_lost_after_its_sale_is_rebuilt_for_a_late_payment() {
    distributed(async |app: &mut TestApp| {
        let id = product(app, json!({"stock": 1})).await;
        let (order, payment) = cancelled(app, 7, id).await;
        let (begun, ended) = (sql_time(LONG_AGO + Duration::from_secs(60)), sql_time(LONG_AGO));
        app.stores
            .execute(&format!("UPDATE products SET starts_at = '{begun}', ends_at = '{ended}' WHERE id = {id}"))
            .await;
        redis(app, &["FLUSHDB"]).await;
        let callback = Callback::of(&payment, "succeeded");
        callback.send(app).await.is_problem(503, "unavailable");
        told(app, &callback).await.is(200);
        assert_eq!(standing(app, &order, &payment).await, stand("paid", "succeeded"));
        assert_eq!(units(app, id).await, (1, 1));
    })
    .await;
}

fn bare(id: &Value) -> String {
    id.as_str().unwrap().replace('-', "")
}

/// As a handler leaves it that dies after the gate has admitted its payment.
async fn leave_in_flight(app: &TestApp, id: i64, user: i64, order: &str, payment: &str, ago: i64) {
    let mark = format!("{order}@{payment}");
    redis(app, &["HSET", &format!("seckill:{{{id}}}:buyers"), &user.to_string(), &mark]).await;
    let since = (Timestamp::now().unix_ms() - ago).to_string();
    redis(app, &["ZADD", &format!("seckill:{{{id}}}:flight"), &since, &format!("{mark}:{user}:77")]).await;
}

/// Nobody knows yet whether its buyer holds the unit, so nobody is promised it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_handler_left_is_decided_by_the_payment_s_row() {
    distributed(async |app: &mut TestApp| {
        let id = product(app, json!({"stock": 9})).await;
        let mut late = Vec::new();
        for user in 1..=4 {
            late.push(cancelled(app, user, id).await);
        }
        eventually_within(5, "they are back", || async { audit(app, id).await["release_due"] == 0 }).await;
        for ((order, payment), user) in late.iter().zip(1..) {
            leave_in_flight(app, id, user, order, payment["id"].as_str().unwrap(), 5_000).await;
        }
        // Of one nobody knows any more, as after a backup was restored.
        let (forgotten, _) = cancelled(app, 5, id).await;
        eventually_within(5, "it is back", || async { audit(app, id).await["release_due"] == 0 }).await;
        leave_in_flight(app, id, 5, &forgotten, &uuid::Uuid::now_v7().to_string(), 5_000).await;
        let undecided = audit(app, id).await;
        assert_eq!(
            (&undecided["balanced"], &undecided["queued"], &undecided["pending"]),
            (&json!(true), &json!(5), &json!(5)),
            "{undecided}"
        );
        app.client.buy(1, id).await.is_problem(503, "unavailable");
        // The second one was given back, and the third one's order has been called off since.
        Callback::of(&late[1].1, "refunded").send(app).await.is(200);
        let final_now =
            format!("UPDATE order_changes SET changed_by = 'admin' WHERE order_id = X'{}'", bare(&json!(late[2].0)));
        app.stores.execute(&final_now).await;
        eventually_within(15, "all is decided", || async { audit(app, id).await["pending"] == 0 }).await;
        let mut ends = Vec::new();
        for (order, payment) in &late {
            ends.push(standing(app, order, payment).await);
        }
        let paid = stand("paid", "succeeded");
        let expected = [paid.clone(), stand("cancelled", "refunded"), stand("cancelled", "refund_due"), paid];
        assert_eq!(ends, expected);
        let again = app.client.buy(1, id).await;
        again.is_problem(409, "already_purchased");
        assert_eq!(again.body["order_id"], late[0].0.as_str());
        // The provider comes again, and finds it.
        for (_, payment) in &late {
            Callback::of(payment, "succeeded").send(app).await.is(200);
        }
        assert_eq!(units(app, id).await, (2, 2));
        agree(app, id).await;
    })
    .await;
}

/// A program of the version before would take a revived order for one in its first life.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_order_is_revived_beside_an_instance_that_does_not_know_how() {
    distributed(async |app: &mut TestApp| {
        let id = product(app, json!({})).await;
        let (order, payment) = cancelled(app, 7, id).await;
        // As it says so itself.
        let old =
            "INSERT INTO instances (id, redis_name, queue_name, seen_at) VALUES ('old', '', '', UTC_TIMESTAMP(3))";
        app.stores.execute(old).await;
        let callback = Callback::of(&payment, "succeeded");
        callback.send(app).await.is_problem(503, "unavailable");
        assert_eq!(standing(app, &order, &payment).await, stand("cancelled", "pending"));
        let mut held = redis::cmd("HLEN");
        held.arg(format!("seckill:{{{id}}}:buyers"));
        assert_eq!(held.query_async::<i64>(&mut app.stores.redis().await).await.unwrap(), 1, "the gate was not asked");
        app.stores.execute("DELETE FROM instances WHERE id = 'old'").await;
        told(app, &callback).await.is(200);
        assert_eq!(standing(app, &order, &payment).await, stand("paid", "succeeded"));
        agree(app, id).await;
    })
    .await;
}
