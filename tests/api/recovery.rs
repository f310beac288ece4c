//! What was lost or not finished is put right while the sale goes on.

use std::time::Duration;

use deadpool_redis::redis;
use seckill::config::Backend;
use seckill::model::Role;
use serde_json::json;

use crate::app::TestApp;
use crate::on_both_backends;
use crate::support::eventually_within;

async fn run(test: impl AsyncFnOnce(&mut TestApp)) {
    TestApp::run(Backend::Distributed, test).await;
}

async fn redis(app: &TestApp, command: &[&str]) {
    let (name, arguments) = command.split_first().unwrap();
    redis::cmd(name).arg(arguments).query_async::<redis::Value>(&mut app.stores.redis().await).await.unwrap();
}

on_both_backends! {
    /// Payments are taken by the shop, which marks its orders in the database. No repair of ours may undo that. (peers 18)
    async fn a_paid_order_stays_paid_whatever_is_repaired(app) {
        let id = app.client.new_product(5).await;
        let order = app.client.buy(7, id).await.is(202)["order_id"].as_str().unwrap().to_owned();
        app.orders_written(id, 1).await;
        app.stores.execute("UPDATE orders SET status = 'paid' WHERE status = 'unpaid'").await;
        if app.config.backend == Backend::Distributed {
            // The sweeper decides it once more, a consumer too, and a rebuilt gate has to know it.
            let old = format!("{}", seckill::model::Timestamp::now().unix_ms() - 11_000);
            redis(app, &["ZADD", &format!("seckill:{{{id}}}:flight"), &old, &format!("{order}:7")]).await;
            let broker = crate::broker::Broker::connect(&app.config.rabbitmq).await;
            broker.publish(&app.config.rabbitmq.queue, crate::broker::message(id, 1, &[(order.clone(), 7)])).await;
            app.client.buy(8, id).await.is(202);
            app.orders_written(id, 2).await;
            redis(app, &["FLUSHDB"]).await;
        }
        app.restart().await;
        eventually_within(10, "its buyer is known", || async { app.client.buy(7, id).await.status == 409 }).await;
        let again = app.client.buy(7, id).await;
        again.is_problem(409, "already_purchased");
        assert_eq!(again.body["order_id"], order.as_str());
        assert_eq!(app.client.order(7, &order).await.is(200)["status"], "paid");
        app.balanced(id).await;
    }

    /// The shop's time to pay is over: one statement that a payment excludes, and the unit is sold again. (peers 18)
    async fn an_expired_order_gives_its_unit_back_once(app) {
        let id = app.client.new_product(1).await;
        let order = app.client.buy(7, id).await.is(202)["order_id"].as_str().unwrap().to_owned();
        app.orders_written(id, 1).await;
        app.stores
            .execute(&format!(
                "UPDATE products SET sold = sold - 1 WHERE id = {id}; \
                 UPDATE orders SET status = 'expired', live_user = NULL, release_due = 1 WHERE status = 'unpaid'"
            ))
            .await;
        eventually_within(5, "the unit is back", || async { app.client.buy(8, id).await.status == 202 }).await;
        assert_eq!(app.client.order(7, &order).await.is(200)["status"], "expired");
        app.client.buy(9, id).await.is_problem(409, "sold_out");
        app.orders_written(id, 2).await;
        app.balanced(id).await;
    }

    async fn a_change_that_did_not_reach_the_gate_reaches_it_later(app) {
        let id = app.client.new_product(10).await;
        // As an instance would leave it that dies between the commit and the gate.
        app.stores.execute(&format!("UPDATE products SET paused = 1, ver = ver + 1 WHERE id = {id}")).await;
        eventually_within(5, "the gate is paused", || async { app.client.product(id).await["state"] == "paused" }).await;
        app.client.buy(1, id).await.is_problem(409, "paused");
    }
}

/// Purchases sell again only with every buyer remembered. (peers 8, 16)
async fn a_lost_gate_comes_back(lose: impl AsyncFn(&TestApp, i64)) {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(5).await;
        let mut orders = Vec::new();
        for user in 1..=2 {
            orders.push(app.client.buy(user, id).await.is(202)["order_id"].clone());
        }
        app.orders_written(id, 2).await;
        lose(app, id).await;
        let refused = app.client.buy(3, id).await;
        refused.is_problem(503, "unavailable");
        assert_eq!(refused.headers["retry-after"], "1");
        let unknown = uuid::Uuid::now_v7().to_string();
        app.client.order(1, &unknown).await.is_problem(503, "unavailable");

        eventually_within(10, "it sells again", || async { app.client.buy(3, id).await.status == 202 }).await;
        for (user, order) in (1..=2).zip(&orders) {
            let again = app.client.buy(user, id).await;
            again.is_problem(409, "already_purchased");
            assert_eq!(&again.body["order_id"], order);
        }
        app.client.order(1, &unknown).await.is_problem(404, "order_not_found");
        app.orders_written(id, 3).await;
        app.balanced(id).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_redis_is_filled_again() {
    a_lost_gate_comes_back(async |app, _| redis(app, &["FLUSHDB"]).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buyers_that_were_lost_alone_are_noticed() {
    a_lost_gate_comes_back(async |app, id| redis(app, &["DEL", &format!("seckill:{{{id}}}:buyers")]).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_of_another_server_is_not_believed() {
    a_lost_gate_comes_back(async |app, id| {
        redis(app, &["HSET", &format!("seckill:{{{id}}}:gate"), "home", "another server"]).await;
    })
    .await;
}

/// The process died after the gate had admitted: nobody published it. (peers 3)
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purchase_that_was_never_published_becomes_an_order() {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(5).await;
        let order = uuid::Uuid::now_v7().to_string();
        let old = format!("{}", seckill::model::Timestamp::now().unix_ms() - 11_000);
        redis(app, &["HSET", &format!("seckill:{{{id}}}:buyers"), "7", &order]).await;
        redis(app, &["ZADD", &format!("seckill:{{{id}}}:flight"), &old, &format!("{order}:7")]).await;
        eventually_within(5, "it is written", || async {
            app.client.order(7, &order).await.body["status"] == "unpaid"
        })
        .await;
        app.orders_written(id, 1).await;
        app.balanced(id).await;
    })
    .await;
}

/// The process died after an order was rejected, before its unit was given back. (peers 1)
/// One purchase that the database refuses must not keep the gate from hearing of the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purchase_that_a_constraint_refuses_leaves_only_itself_in_flight() {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(9).await;
        app.stores.execute("ALTER TABLE orders ADD CONSTRAINT no_13 CHECK (user_id <> 13)").await;
        let old = format!("{}", seckill::model::Timestamp::now().unix_ms() - 11_000);
        for user in ["12", "13", "14"] {
            let order = uuid::Uuid::now_v7().to_string();
            redis(app, &["HSET", &format!("seckill:{{{id}}}:buyers"), user, &order]).await;
            redis(app, &["ZADD", &format!("seckill:{{{id}}}:flight"), &old, &format!("{order}:{user}")]).await;
        }
        let (path, admin) = (format!("/admin/products/{id}/audit"), app.client.admin());
        eventually_within(8, "the others are written and told", || async {
            let audit = app.client.get(&path, Some(&admin)).await.is(200);
            (audit["live_orders"].as_i64(), audit["pending"].as_i64()) == (Some(2), Some(1))
        })
        .await;
        app.stores.execute("ALTER TABLE orders DROP CONSTRAINT no_13").await;
        app.orders_written(id, 3).await;
        app.balanced(id).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_that_was_never_given_back_is_given_back() {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(5).await;
        let order = app.client.buy(7, id).await.is(202)["order_id"].as_str().unwrap().to_owned();
        app.orders_written(id, 1).await;
        app.stores
            .execute(&format!(
                "UPDATE orders SET status = 'rejected', reason = 'late', live_user = NULL, release_due = 1; \
                 UPDATE products SET sold = 0 WHERE id = {id}"
            ))
            .await;
        eventually_within(5, "the unit is back", || async { app.client.product(id).await["remaining"] == 5 }).await;
        app.balanced(id).await;
        assert_eq!(app.client.order(7, &order).await.is(200)["reason"], json!("late"));
        eventually_within(5, "the buyer may try again", || async { app.client.buy(7, id).await.status == 202 }).await;
    })
    .await;
}

/// Several instances rebuild the same gate at once; one of them is enough.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_rebuild_one_gate() {
    run(async |app: &mut TestApp| {
        let other = seckill::app::RunningApp::start(&app.config).await.unwrap();
        let client = crate::client::Client::new(other.address(), &app.config);
        let id = app.client.new_product(5).await;
        app.client.buy(1, id).await.is(202);
        app.orders_written(id, 1).await;
        redis(app, &["FLUSHDB"]).await;
        for (user, client) in [(2, &app.client), (3, &client)] {
            eventually_within(10, "it sells again", || async { client.buy(user, id).await.status == 202 }).await;
        }
        client.buy(1, id).await.is_problem(409, "already_purchased");
        app.orders_written(id, 3).await;
        app.balanced(id).await;
        other.stop().await;
    })
    .await;
}

/// What is wrong with one product's keys is seen by nobody else, and mends itself.
async fn spoil_one_gate(spoil: impl AsyncFn(&TestApp, i64)) {
    run(async |app: &mut TestApp| {
        let (broken, sound) = (app.client.new_product(5).await, app.client.new_product(5).await);
        let order = app.client.buy(1, broken).await.is(202)["order_id"].as_str().unwrap().to_owned();
        let other = app.client.buy(2, sound).await.is(202)["order_id"].as_str().unwrap().to_owned();
        app.orders_written(broken, 1).await;
        app.orders_written(sound, 1).await;
        spoil(app, broken).await;
        // At once, and again and again until it is mended.
        eventually_within(15, "the broken gate sells again", || async {
            // Orders may be asked for a few times a second.
            tokio::time::sleep(Duration::from_millis(400)).await;
            assert_eq!(app.client.get("/products", None).await.is(200)["items"].as_array().unwrap().len(), 2);
            assert_eq!(app.client.order(2, &other).await.is(200)["status"], "unpaid");
            assert_eq!(app.client.get("/orders", Some(&app.client.token(2, Role::Buyer))).await.status, 200);
            app.client.buy(2, sound).await.is_problem(409, "already_purchased");
            let clicked = app.client.buy(3, broken).await;
            assert!([202, 409, 503].contains(&clicked.status), "{clicked:?}");
            clicked.status == 409
        })
        .await;
        app.client.buy(1, broken).await.is_problem(409, "already_purchased");
        assert_eq!(app.client.order(1, &order).await.is(200)["status"], "unpaid");
        app.orders_written(broken, 2).await;
        app.balanced(broken).await;
        app.balanced(sound).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_of_the_wrong_type_is_rebuilt_and_others_sell_on() {
    spoil_one_gate(async |app, id| {
        redis(app, &["SET", &format!("seckill:{{{id}}}:gate"), "x"]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buyers_of_the_wrong_type_are_rebuilt_and_others_sell_on() {
    spoil_one_gate(async |app, id| {
        redis(app, &["SET", &format!("seckill:{{{id}}}:buyers"), "x"]).await;
    })
    .await;
}

/// Guards against: a reservation without its entry in flight, a unit that nobody gives back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flight_of_the_wrong_type_is_rebuilt_and_others_sell_on() {
    spoil_one_gate(async |app, id| {
        redis(app, &["SET", &format!("seckill:{{{id}}}:flight"), "x"]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_with_half_its_fields_is_rebuilt_and_others_sell_on() {
    spoil_one_gate(async |app, id| {
        redis(app, &["HDEL", &format!("seckill:{{{id}}}:gate"), "stock", "seq"]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_with_nonsense_in_it_is_rebuilt_and_others_sell_on() {
    spoil_one_gate(async |app, id| {
        redis(app, &["HSET", &format!("seckill:{{{id}}}:gate"), "starts", "soon"]).await;
    })
    .await;
}

/// Guards against: purchases that were reserved and never published, whose units nobody looks for any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_that_lost_what_is_in_flight_leaks_nothing() {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(5).await;
        app.client.buy(1, id).await.is(202);
        app.orders_written(id, 1).await;
        // Reserved by an instance that died before it published.
        let order = seckill::model::OrderId::draw(id.try_into().unwrap()).to_string();
        redis(app, &["HSET", &format!("seckill:{{{id}}}:buyers"), "9", &order]).await;
        redis(app, &["DEL", &format!("seckill:{{{id}}}:flight")]).await;
        eventually_within(15, "the unit is for sale again", || async {
            app.client.product(id).await["remaining"] == 4
        })
        .await;
        eventually_within(15, "its buyer may have it", || async { app.client.buy(9, id).await.status == 202 }).await;
        app.orders_written(id, 2).await;
        app.balanced(id).await;
    })
    .await;
}

/// Guards against: one mark or member that nobody can read, which fails every purchase it happens to be asked with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mark_that_nobody_can_read_costs_its_own_buyer_alone() {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(100).await;
        redis(app, &["HSET", &format!("seckill:{{{id}}}:buyers"), "7", "nonsense"]).await;
        redis(app, &["ZADD", &format!("seckill:{{{id}}}:flight"), "1", "nonsense"]).await;
        let clicks = (1..=20).map(|user| app.client.buy(user, id));
        for (user, reply) in (1..=20).zip(futures_util::future::join_all(clicks).await) {
            assert_eq!(reply.status, if user == 7 { 503 } else { 202 }, "{user}: {reply:?}");
        }
        // Reserved long ago, behind the member that nobody can read.
        let order = seckill::model::OrderId::draw(id.try_into().unwrap()).to_string();
        redis(app, &["HSET", &format!("seckill:{{{id}}}:buyers"), "99", &order]).await;
        let old = format!("{}", seckill::model::Timestamp::now().unix_ms() - 11_000);
        redis(app, &["ZADD", &format!("seckill:{{{id}}}:flight"), &old, &format!("{order}:99")]).await;
        app.orders_written(id, 20).await;
    })
    .await;
}

/// Guards against: a script that stops at a field that is no number, which looks like a server that refuses everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_flight_under_a_revision_that_began_at_nonsense_is_written() {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(5).await;
        redis(app, &["HSET", &format!("seckill:{{{id}}}:gate"), "since", "soon", "past", "x"]).await;
        let order = seckill::model::OrderId::draw(id.try_into().unwrap()).to_string();
        let old = format!("{}", seckill::model::Timestamp::now().unix_ms() - 11_000);
        redis(app, &["HSET", &format!("seckill:{{{id}}}:buyers"), "7", &order]).await;
        redis(app, &["ZADD", &format!("seckill:{{{id}}}:flight"), &old, &format!("{order}:7")]).await;
        app.client.order(7, &order).await.is(200);
        app.orders_written(id, 1).await;
        let change = json!({"price_cents": 5});
        app.client.patch(&format!("/products/{id}"), Some(&app.client.admin()), change).await.is(200);
        app.client.buy(8, id).await.is(202);
        app.orders_written(id, 2).await;
    })
    .await;
}

/// Whoever is no user holds a unit until the gate is rebuilt, which the audit tells; nobody else is troubled.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_buyer_who_is_no_user_takes_a_unit_and_nothing_else() {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(2).await;
        redis(app, &["HSET", &format!("seckill:{{{id}}}:buyers"), "nobody", "nonsense"]).await;
        app.client.buy(1, id).await.is(202);
        app.orders_written(id, 1).await;
        for user in 2..20 {
            app.client.buy(user, id).await.is_problem(409, "sold_out");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        app.client.buy(1, id).await.is_problem(409, "already_purchased");
        let audit = app.client.get(&format!("/admin/products/{id}/audit"), Some(&app.client.admin())).await.is(200);
        assert_eq!((&audit["drift"], &audit["balanced"]), (&json!(1), &json!(false)), "{audit}");
    })
    .await;
}
