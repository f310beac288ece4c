//! Late money while its gate is lost, its handler has died, an older program runs beside, or a shop does not want it.

use deadpool_redis::redis;
use seckill::config::{Backend, Config, Late};
use seckill::model::Timestamp;
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::late_payments::{LONG_AGO, agree, audit, cancelled, sql_time, told};
use crate::provider::{Callback, events, external, product, stand, standing, units};
use crate::support::eventually_within;

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
        let (begun, ended) = (sql_time(LONG_AGO + std::time::Duration::from_secs(60)), sql_time(LONG_AGO));
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
