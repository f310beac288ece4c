//! What only the distributed backend has: messages from elsewhere, a server that can be emptied, two instances.

use seckill::app::RunningApp;
use seckill::config::Backend;
use serde_json::json;

use crate::app::TestApp;
use crate::broker::{Broker, message};
use crate::client::Client;
use crate::support::{Stores, eventually, eventually_within};

fn order_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

async fn run(test: impl AsyncFnOnce(&mut TestApp)) {
    TestApp::run(Backend::Distributed, test).await;
}

/// Guards against: redelivered messages that are dropped or written twice (peers 11, 13).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delivery_that_comes_again_changes_nothing() {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(10).await;
        let order = app.client.buy(7, id).await.is(202)["order_id"].as_str().unwrap().to_owned();
        app.orders_written(id, 1).await;
        let broker = Broker::connect(&app.config.rabbitmq).await;
        let again = message(id, 1, &[(order.clone(), 7), (order.clone(), 7)]);
        for _ in 0..5 {
            broker.publish(&app.config.rabbitmq.queue, again.clone()).await;
        }
        // Written after all of them.
        app.client.buy(8, id).await.is(202);
        app.orders_written(id, 2).await;
        assert_eq!(app.client.order(7, &order).await.is(200)["status"], "unpaid");
        app.balanced(id).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_can_read_is_parked_and_the_rest_goes_on() {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(10).await;
        let broker = Broker::connect(&app.config.rabbitmq).await;
        let queue = &app.config.rabbitmq.queue;
        let poison = [
            "not json".to_owned(),
            json!({"v": 2, "kind": "purchases"}).to_string(),
            message(id, 1, &[]),
            message(999_999, 1, &[(order_id(), 7)]),
        ];
        for body in &poison {
            broker.publish(queue, body.clone()).await;
        }
        app.client.buy(7, id).await.is(202);
        app.orders_written(id, 1).await;
        let dead = format!("{queue}.dead");
        let parked = tokio::sync::Mutex::new(Vec::new());
        // A product that is not there is looked for for half a minute, while others are written.
        eventually_within(45, "all of them are parked", || async {
            if let Some((reason, body)) = broker.take(&dead).await {
                assert!(reason.is_some(), "parked without a reason");
                parked.lock().await.push(String::from_utf8(body).unwrap());
            }
            parked.lock().await.len() == poison.len()
        })
        .await;
        let mut parked = parked.into_inner();
        let mut expected = poison.to_vec();
        parked.sort();
        expected.sort();
        assert_eq!(parked, expected);
        app.balanced(id).await;
    })
    .await;
}

/// What is put together for the queue is apart again when it is written: the culprit is set aside alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_product_of_a_bundle_that_cannot_be_written_does_not_hold_up_the_others() {
    run(async |app: &mut TestApp| {
        let (one, other) = (app.client.new_product(10).await, app.client.new_product(10).await);
        let broker = Broker::connect(&app.config.rabbitmq).await;
        let absent = 999_999;
        let groups = [(one, 7), (absent, 8), (other, 9)];
        let groups = groups.map(
            |(id, user)| json!({"product_id": id, "epoch": 1, "items": [{"order_id": order_id(), "user_id": user}]}),
        );
        let bundle = json!({"v": 1, "kind": "bundle", "groups": groups}).to_string();
        broker.publish(&app.config.rabbitmq.queue, bundle).await;
        app.orders_written(one, 1).await;
        app.orders_written(other, 1).await;
        let dead = format!("{}.dead", app.config.rabbitmq.queue);
        let parked = tokio::sync::Mutex::new(None);
        // It is looked for for half a minute, while others are written.
        eventually_within(45, "the product that is not there is set aside", || async {
            app.client.buy(100, one).await;
            *parked.lock().await = broker.take(&dead).await;
            parked.lock().await.is_some()
        })
        .await;
        let (_, body) = parked.into_inner().unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&body["kind"], &body["product_id"]), (&json!("purchases"), &json!(absent)), "{body}");
        assert_eq!(body["items"], groups[1]["items"]);
    })
    .await;
}

/// Also while one of the version before runs, which reads no bundles.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_products_are_sold_together_and_each_buyer_gets_one_order() {
    run(async |app: &mut TestApp| {
        const PRODUCTS: i64 = 10;
        let mut products = Vec::new();
        for _ in 0..PRODUCTS {
            products.push(app.client.new_product(2 * PRODUCTS).await);
        }
        let crowd = async |users: std::ops::Range<i64>| {
            let buy = |user: i64| app.client.buy(user, products[(user % PRODUCTS) as usize]);
            for reply in futures_util::future::join_all(users.map(buy)).await {
                reply.is(202);
            }
        };
        crowd(1..101).await;
        let older = "INSERT INTO instances (id, redis_name, queue_name, protocol, seen_at) \
                     VALUES ('older', 'x', 'x', 2, UTC_TIMESTAMP(3))";
        app.stores.execute(older).await;
        // It is noticed within a second.
        tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
        crowd(101..201).await;
        for product in &products {
            app.orders_written(*product, 20).await;
            app.balanced(*product).await;
        }
    })
    .await;
}

/// As after a failover to a replica that lags: the purchase is there before its product. Guards against: parking it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purchase_that_comes_before_its_product_waits_for_it() {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(10).await;
        let (late, order) = (id + 1, order_id());
        let broker = Broker::connect(&app.config.rabbitmq).await;
        broker.publish(&app.config.rabbitmq.queue, message(late, 1, &[(order.clone(), 7)])).await;
        // Others go on meanwhile.
        app.client.buy(7, id).await.is(202);
        app.orders_written(id, 1).await;
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        assert_eq!(app.client.new_product(10).await, late);
        app.orders_written(late, 1).await;
        assert_eq!(app.client.order(7, &order).await.is(200)["status"], "unpaid");
        assert!(broker.take(&format!("{}.dead", app.config.rabbitmq.queue)).await.is_none(), "parked");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_become_an_order_is_rejected_and_gives_nothing_away() {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(2).await;
        app.client.buy(1, id).await.is(202);
        app.orders_written(id, 1).await;
        let broker = Broker::connect(&app.config.rabbitmq).await;
        // User 1 holds a unit; of users 2 and 3 only the first finds one; epoch 0 is older than any gate.
        let (again, second, third, late) = (order_id(), order_id(), order_id(), order_id());
        let items = [(again.clone(), 1), (second.clone(), 2), (third.clone(), 3)];
        broker.publish(&app.config.rabbitmq.queue, message(id, 1, &items)).await;
        app.orders_written(id, 4).await;
        app.stores
            .execute(&format!("UPDATE products SET gate_epoch = 2, gate_fence = 2, stock = 5 WHERE id = {id}"))
            .await;
        broker.publish(&app.config.rabbitmq.queue, message(id, 1, &[(late.clone(), 4)])).await;
        app.orders_written(id, 5).await;
        for (order, user, status, reason) in [
            (&again, 1, "rejected", json!("already_purchased")),
            (&second, 2, "unpaid", json!(null)),
            (&third, 3, "rejected", json!("sold_out")),
            (&late, 4, "rejected", json!("late")),
        ] {
            let order = app.client.order(user, order).await.is(200);
            assert_eq!((order["status"].as_str(), &order["reason"]), (Some(status), &reason), "{order}");
        }
        let sold = format!("SELECT sold AS n FROM products WHERE id = {id}");
        assert_eq!(app.stores.number(&sold).await, 2);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_purchase_gives_its_unit_back_and_frees_its_buyer() {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(2).await;
        // A unit that the gate offers and the database has not: what a lost suffix of Redis would look like.
        app.stores.execute(&format!("UPDATE products SET stock = 1 WHERE id = {id}")).await;
        let first = app.client.buy(1, id).await.is(202);
        app.orders_written(id, 1).await;
        let second = app.client.buy(2, id).await.is(202);
        app.orders_written(id, 2).await;
        let order = app.client.order(2, second["order_id"].as_str().unwrap()).await.is(200);
        assert_eq!((order["status"].as_str(), order["reason"].as_str()), (Some("rejected"), Some("sold_out")));
        assert_eq!(app.client.order(1, first["order_id"].as_str().unwrap()).await.is(200)["status"], "unpaid");
        eventually("the gate has taken the unit back", || async { app.client.product(id).await["remaining"] == 1 })
            .await;
        eventually("nothing is owed any more", || async {
            app.stores.number("SELECT COUNT(*) AS n FROM orders WHERE release_due IS NOT NULL").await == 0
        })
        .await;
        app.stores.execute(&format!("UPDATE products SET stock = 2 WHERE id = {id}")).await;
        eventually("the buyer may try again", || async { app.client.buy(2, id).await.status == 202 }).await;
        app.orders_written(id, 3).await;
        app.balanced(id).await;
    })
    .await;
}

/// Guards against: EVALSHA without a way back after a restart of Redis (peers 8).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgot_its_scripts_is_told_them_again() {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(10).await;
        app.client.buy(1, id).await.is(202);
        deadpool_redis::redis::cmd("SCRIPT")
            .arg("FLUSH")
            .query_async::<()>(&mut app.stores.redis().await)
            .await
            .unwrap();
        app.client.buy(2, id).await.is(202);
        app.orders_written(id, 2).await;
        app.balanced(id).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_keys_of_a_product_share_one_slot() {
    run(async |app: &mut TestApp| {
        let id = app.client.new_product(10).await;
        app.client.buy(1, id).await.is(202);
        let keys: Vec<String> =
            deadpool_redis::redis::cmd("KEYS").arg("*").query_async(&mut app.stores.redis().await).await.unwrap();
        let keys: Vec<&String> =
            keys.iter().filter(|key| !["seckill:deployment", "seckill:flights"].contains(&key.as_str())).collect();
        assert!(keys.len() >= 3, "{keys:?}");
        let of_a_sale = |key: &&&String| !key.starts_with("seckill:{probe}:");
        assert!(keys.iter().filter(of_a_sale).all(|key| key.starts_with(&format!("seckill:{{{id}}}:"))), "{keys:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_start_together_and_sell_one_stock() {
    run(async |app: &mut TestApp| {
        // The same stores emptied, so that both bring the schema up to date.
        app.stop().await;
        // All but whose queue it is. The database has the queue's name.
        let name = &app.config.rabbitmq.queue;
        app.stores
            .execute(&format!(
                "CREATE DATABASE {name}_kept; RENAME TABLE {name}.deployment TO {name}_kept.deployment; DROP DATABASE {name}; \
                 CREATE DATABASE {name}; RENAME TABLE {name}_kept.deployment TO {name}.deployment; DROP DATABASE {name}_kept"
            ))
            .await;
        let (first, second) = tokio::join!(RunningApp::start(&app.config), RunningApp::start(&app.config));
        let (first, second) = (first.unwrap(), second.unwrap());
        let clients = [Client::new(first.address(), &app.config), Client::new(second.address(), &app.config)];
        for client in &clients {
            eventually("it is ready", || async { client.get("/readyz", None).await.status == 200 }).await;
        }
        // Whichever was faster has made the administrator; the other's try may have used up a number.
        let admin = clients[1].log_in_as_admin().await;
        let product = json!({"name": "Sneaker", "price_cents": 19_900, "stock": 30});
        let id = clients[0].post("/products", Some(&admin), product).await.is(201)["id"].as_i64().unwrap();
        let clicks = (1..=60).flat_map(|user| clients.iter().map(move |client| client.buy(user, id)));
        let replies = futures_util::future::join_all(clicks).await;
        assert_eq!(replies.iter().filter(|reply| reply.status == 202).count(), 30);
        let live = format!("SELECT COUNT(*) AS n FROM orders WHERE product_id = {id} AND live_user IS NOT NULL");
        eventually("all orders are written", || async { app.stores.number(&live).await == 30 }).await;
        assert_eq!(clients[1].product(id).await["remaining"], 0);
        assert_eq!(app.stores.number("SELECT COUNT(*) AS n FROM users").await, 1, "one administrator");
        first.stop().await;
        second.stop().await;
    })
    .await;
}

/// Both have a product 1, and its gate in the same logical database.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_deployments_with_prefixes_of_their_own_share_one_redis() {
    run(async |app: &mut TestApp| {
        let stores = Stores::new(Backend::Distributed).await;
        let mut config = stores.config();
        config.redis.db = app.config.redis.db;
        config.redis.key_prefix = "other-shop:".to_owned();
        let other = RunningApp::start(&config).await.unwrap();
        let other_client = Client::new(other.address(), &config);
        eventually("it is ready", || async { other_client.get("/readyz", None).await.status == 200 }).await;
        let mut ids = Vec::new();
        for client in [&app.client, &other_client] {
            let id = client.new_product(1).await;
            client.buy(7, id).await.is(202);
            client.buy(8, id).await.is_problem(409, "sold_out");
            ids.push(id);
        }
        assert_eq!(ids[0], ids[1], "the same product id");
        let keys: Vec<String> =
            deadpool_redis::redis::cmd("KEYS").arg("*").query_async(&mut app.stores.redis().await).await.unwrap();
        for prefix in ["seckill:", "other-shop:"] {
            for key in ["gate", "buyers"] {
                let key = format!("{prefix}{{{}}}:{key}", ids[0]);
                assert!(keys.contains(&key), "{key} is not in {keys:?}");
            }
        }
        assert!(keys.iter().all(|key| key.starts_with("seckill:") || key.starts_with("other-shop:")), "{keys:?}");
        other.stop().await;
        stores.remove().await;
    })
    .await;
}
