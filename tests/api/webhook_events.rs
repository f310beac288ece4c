//! What endpoints are told: each change once, with the object as it was, and nothing of what was not done.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use futures_util::future::join_all;
use reqwest::Method;
use seckill::app::RunningApp;
use seckill::config::Backend;
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::client::Client;
use crate::listening::{Behaviour, Receiver, deliveries, with_webhooks};
use crate::on_both_backends;
use crate::provider::{Callback, begun, begun_again, order, product};
use crate::support::{eventually, eventually_within};

const TRIES: [u32; 3] = [0, 1, 1];

async fn rows(app: &TestApp) -> i64 {
    app.stores.number("SELECT COUNT(*) AS n FROM outbox").await
}

async fn payment_status(app: &TestApp, of: &Value) -> String {
    let path = format!("/payments/{}", of["id"].as_str().unwrap());
    app.client.get(&path, Some(&app.client.admin())).await.is(200)["status"].as_str().unwrap().to_owned()
}

async fn cancel(app: &TestApp, user: i64, order: &str) {
    let path = format!("/orders/{order}/cancel");
    app.client.call(Method::POST, &path, Some(&app.client.buyer(user)), None).await.is(200);
}

/// What is told of an order, without what a receiver of it adds.
fn shown(data: &Value) -> Value {
    let mut order = data.clone();
    for field in ["sequence", "user_id", "username"] {
        order.as_object_mut().unwrap().remove(field);
    }
    order
}

on_both_backends! {
    async fn each_change_of_an_order_is_told_once_with_the_order_as_it_was(app) {
        with_webhooks(app, &TRIES).await;
        let receiver = Receiver::start().await;
        let registered = receiver.register(app, &["order.created", "order.paid", "order.cancelled", "order.expired"]).await;
        let id = product(app, json!({"max_per_order": 2, "currency": "EUR"})).await;
        let (paid, payment) = begun(app, 7, id).await;
        let created = app.client.order(7, &paid).await.is(200);
        let callback = Callback::of(&payment, "succeeded");
        for reply in join_all((0..20).map(|_| callback.send(app))).await {
            reply.is(200);
        }
        let as_paid = app.client.order(7, &paid).await.is(200);
        let given_up = order(app, 8, id).await;
        cancel(app, 8, &given_up).await;
        let soon = product(app, json!({"payment_window_seconds": 5})).await;
        let lapsed = order(app, 9, soon).await;
        eventually("it has expired", || async { app.client.order(9, &lapsed).await.body["status"] == "expired" }).await;

        assert_eq!(receiver.got("order.created", 3).await.len(), 3);
        let told = receiver.got("order.paid", 1).await.remove(0);
        assert_eq!(shown(told.data()), as_paid);
        assert_eq!((&told.data()["user_id"], &told.data()["username"]), (&json!(7), &Value::Null));
        assert_eq!(told.body["timestamp"], as_paid["updated_at"]);
        let told = receiver.of("order.created").into_iter().find(|got| got.data()["id"] == paid).unwrap();
        assert_eq!(shown(told.data()), created, "as it was, though it is paid by now");
        let told = receiver.got("order.cancelled", 1).await.remove(0);
        assert_eq!(shown(told.data()), app.client.order(8, &given_up).await.is(200));
        let told = receiver.got("order.expired", 1).await.remove(0);
        assert_eq!(shown(told.data()), app.client.order(9, &lapsed).await.is(200));

        let all = receiver.all();
        assert_eq!(all.iter().map(|got| got.id().to_owned()).collect::<HashSet<_>>().len(), all.len(), "each has an id of its own");
        let mut sequences: HashMap<String, Vec<(i64, String)>> = HashMap::new();
        for got in &all {
            assert_eq!((got.path.as_str(), got.headers["content-type"].as_str()), ("/hooks", "application/json"));
            let sequence = (got.data()["sequence"].as_i64().unwrap(), got.kind().to_owned());
            sequences.entry(got.data()["id"].as_str().unwrap().to_owned()).or_default().push(sequence);
        }
        for (order, told) in &mut sequences {
            told.sort();
            assert_eq!(told.len(), 2, "{order}");
            assert!(told[0].1 == "order.created" && told[0].0 < told[1].0, "{told:?}");
        }

        // A repeat, also after a restart, is told nobody.
        app.restart().await;
        callback.send(app).await.is(200);
        Callback::of(&payment, "succeeded").send(app).await.is(200);
        receiver.got("order.paid", 1).await;
        let told = deliveries(app, &registered, "&status=delivered").await;
        assert_eq!(told.len(), 6);
        assert!(told.iter().all(|delivery| delivery["tries"] == 1 && delivery["last_status"] == 200), "{told:?}");
        assert_eq!(told.iter().map(|delivery| delivery["event_id"].as_str().unwrap().to_owned()).collect::<HashSet<_>>(),
            all.iter().map(|got| got.id().to_owned()).collect());
    }

    async fn of_all_who_change_an_order_at_once_the_one_who_wins_is_told(app) {
        with_webhooks(app, &TRIES).await;
        let receiver = Receiver::start().await;
        receiver.register(app, &["order.paid", "order.cancelled", "order.expired", "payment.refund_due"]).await;
        let id = product(app, json!({})).await;
        let (contested, payment) = begun(app, 7, id).await;
        let callback = Callback::of(&payment, "succeeded");
        let (buyer, admin) = (app.client.buyer(7), app.client.admin());
        let (own, merchants) = (format!("/orders/{contested}/cancel"), format!("/admin/orders/{contested}/cancel"));
        let cancel = (0..20).map(|number| match number % 2 {
            0 => app.client.call(Method::POST, &own, Some(&buyer), None),
            _ => app.client.call(Method::POST, &merchants, Some(&admin), None),
        });
        futures_util::join!(join_all(cancel), join_all((0..20).map(|_| callback.send(app))));
        let order = app.client.order(7, &contested).await.is(200);
        let changes = app.stores.number("SELECT COUNT(*) AS n FROM order_changes").await as usize;
        eventually("all changes are told", || async {
            receiver.all().iter().filter(|got| got.kind().starts_with("order.")).count() >= changes
        })
        .await;
        // The last one tells how it stands.
        let mut told = receiver.all();
        told.retain(|got| got.kind().starts_with("order."));
        told.sort_by_key(|got| got.data()["sequence"].as_i64());
        assert_eq!(told.len(), changes);
        assert_eq!(shown(told.last().unwrap().data()), order);
        let due = app.stores.number("SELECT COUNT(*) AS n FROM payments WHERE status = 'refund_due'").await as usize;
        receiver.got("payment.refund_due", due).await;
    }

    async fn money_that_is_due_back_is_told_with_its_payment(app) {
        with_webhooks(app, &TRIES).await;
        let receiver = Receiver::start().await;
        receiver.register(app, &["payment.refund_due", "order.cancelled"]).await;
        let id = product(app, json!({})).await;
        // Of another amount, and of an order that the merchant calls off.
        let (paid, payment) = begun(app, 8, id).await;
        Callback::of(&payment, "succeeded").send(app).await.is(200);
        let wrong = {
            let (_, payment) = begun(app, 9, id).await;
            Callback::of(&payment, "succeeded").with("amount_cents", 1).send(app).await.is(200);
            payment
        };
        app.client.post(&format!("/admin/orders/{paid}/cancel"), Some(&app.client.admin()), json!({"reason": "broken"})).await.is(200);
        let told = receiver.got("payment.refund_due", 2).await;
        let by_id: BTreeMap<String, Value> = told.iter().map(|got| (got.data()["id"].as_str().unwrap().to_owned(), got.data().clone())).collect();
        for payment in [&payment, &wrong] {
            let id = payment["id"].as_str().unwrap();
            let mut data = by_id[id].clone();
            assert!(data.as_object_mut().unwrap().remove("sequence").unwrap().as_i64().unwrap() > 0);
            assert_eq!(data, app.client.get(&format!("/payments/{id}"), Some(&app.client.admin())).await.is(200));
        }
        receiver.got("order.cancelled", 1).await;
    }

    async fn a_late_payment_is_told_as_what_it_did(app) {
        with_webhooks(app, &TRIES).await;
        let receiver = Receiver::start().await;
        receiver.register(app, &["order.cancelled", "order.paid", "payment.refund_due"]).await;
        let id = product(app, json!({"stock": 2})).await;
        let (revived, payment) = begun(app, 7, id).await;
        let (lost, late) = begun(app, 8, id).await;
        cancel(app, 7, &revived).await;
        cancel(app, 8, &lost).await;
        // One unit is left, and both pay.
        order(app, 9, id).await;
        eventually("the first is paid all the same", || async {
            Callback::of(&payment, "succeeded").send(app).await;
            app.client.order(7, &revived).await.body["status"] == "paid"
        })
        .await;
        eventually("the second is due back", || async {
            Callback::of(&late, "succeeded").send(app).await;
            payment_status(app, &late).await == "refund_due"
        })
        .await;
        let paid = receiver.got("order.paid", 1).await.remove(0);
        assert_eq!(shown(paid.data()), app.client.order(7, &revived).await.is(200));
        let cancelled = receiver.got("order.cancelled", 2).await;
        let before = cancelled.iter().find(|got| got.data()["id"] == revived).unwrap();
        assert_eq!((&before.data()["status"], &before.data()["paid_at"]), (&json!("cancelled"), &Value::Null));
        assert!(before.data()["sequence"].as_i64() < paid.data()["sequence"].as_i64());
        assert_eq!(receiver.got("payment.refund_due", 1).await[0].data()["id"], late["id"]);
    }

    async fn a_double_payment_is_told_as_due_back(app) {
        with_webhooks(app, &TRIES).await;
        let receiver = Receiver::start().await;
        receiver.register(app, &[]).await;
        let id = product(app, json!({})).await;
        let (paid, first) = begun(app, 7, id).await;
        let second = begun_again(app, 7, &paid, &first).await;
        Callback::of(&second, "succeeded").send(app).await.is(200);
        Callback::of(&first, "succeeded").send(app).await.is(200);
        let told = receiver.got("payment.refund_due", 1).await.remove(0);
        assert_eq!((&told.data()["id"], &told.data()["status"]), (&first["id"], &json!("refund_due")));
        receiver.got("order.paid", 1).await;
    }

    async fn products_are_told_as_they_are_after_each_change_and_when_the_last_unit_is_gone(app) {
        with_webhooks(app, &TRIES).await;
        let receiver = Receiver::start().await;
        receiver.register(app, &["product.changed", "product.sold_out"]).await;
        let (id, admin) = (product(app, json!({"stock": 1})).await, app.client.admin());
        let path = format!("/products/{id}");
        app.client.patch(&path, Some(&admin), json!({"name": "Boot", "price_cents": 5})).await.is(200);
        app.client.patch(&path, Some(&admin), json!({"name": "x", "starts_at": "2030-01-01T00:00:00Z", "ends_at": "2029-01-01T00:00:00Z"})).await.is_problem(400, "invalid_request");
        let told = receiver.got("product.changed", 2).await;
        let mut revisions: Vec<_> = told.iter().map(|got| (got.data()["revision"].as_i64().unwrap(), got.data()["sequence"].as_i64().unwrap())).collect();
        revisions.sort_unstable();
        assert!(revisions[0].0 == 1 && revisions[1].0 == 2 && revisions[0].1 < revisions[1].1, "{revisions:?}");
        let changed = told.iter().find(|got| got.data()["revision"] == 2).unwrap().data().clone();
        let page = app.client.product(id).await;
        for (field, value) in page.as_object().unwrap().iter().filter(|(field, _)| *field != "server_time") {
            assert_eq!(&changed[field], value, "{field}");
        }
        assert_eq!((&changed["name"], &changed["price_cents"]), (&json!("Boot"), &json!(5)));

        let order = order(app, 7, id).await;
        let told = receiver.got("product.sold_out", 1).await.remove(0);
        assert_eq!((&told.data()["remaining"], &told.data()["state"]), (&json!(0), &json!("sold_out")));
        assert!(told.data()["sold_out_at"].is_string());
        // There are some again, which is told as well.
        cancel(app, 7, &order).await;
        let back = receiver.got("product.changed", 3).await.remove(2);
        assert_eq!((&back.data()["sold_out_at"], &back.data()["state"]), (&Value::Null, &json!("live")));
        app.client.post(&format!("{path}/restock"), Some(&admin), json!({"units": 4})).await.is(200);
        app.client.patch(&path, Some(&admin), json!({"paused": true})).await.is(200);
        app.client.call(Method::POST, &format!("/admin/products/{id}/archive"), Some(&admin), None).await.is(200);
        let told = receiver.got("product.changed", 6).await;
        assert!(told.iter().any(|got| got.data()["archived_at"].is_string()));
    }

    async fn a_purchase_that_cannot_become_an_order_is_told_as_rejected(app) {
        with_webhooks(app, &TRIES).await;
        let receiver = Receiver::start().await;
        receiver.register(app, &["order.created", "order.rejected"]).await;
        let id = product(app, json!({})).await;
        // The database knows better than the gate: it has nothing left.
        app.stores.execute(&format!("UPDATE products SET stock = 0 WHERE id = {id}")).await;
        let order = app.client.buy(7, id).await.is(202)["order_id"].as_str().unwrap().to_owned();
        let told = receiver.got("order.rejected", 1).await.remove(0);
        assert_eq!((&told.data()["id"], &told.data()["status"], &told.data()["reason"]), (&json!(order), &json!("rejected"), &json!("sold_out")));
        receiver.got("order.created", 0).await;
        app.stores.execute(&format!("UPDATE products SET stock = 10 WHERE id = {id}")).await;
    }

    async fn where_nobody_listens_nothing_is_written_down(app) {
        with_webhooks(app, &TRIES).await;
        let id = product(app, json!({})).await;
        let (_, payment) = begun(app, 7, id).await;
        Callback::of(&payment, "succeeded").send(app).await.is(200);
        assert_eq!(rows(app).await, 0);
        let receiver = Receiver::start().await;
        let endpoint = receiver.register(app, &["order.expired"]).await;
        let paid = begun(app, 8, id).await.1;
        Callback::of(&paid, "succeeded").send(app).await.is(200);
        assert_eq!(rows(app).await, 0, "others are not wanted");
        let path = format!("/admin/webhooks/{}", endpoint["id"]);
        app.client.patch(&path, Some(&app.client.admin()), json!({"events": ["order.created"]})).await.is(200);
        order(app, 9, id).await;
        receiver.got("order.created", 1).await;
        assert_eq!(rows(app).await, 1);
        app.client.patch(&path, Some(&app.client.admin()), json!({"active": false})).await.is(200);
        order(app, 10, id).await;
        assert_eq!(rows(app).await, 1);
        app.client.call(Method::DELETE, &path, Some(&app.client.admin()), None).await;
        order(app, 11, id).await;
        assert_eq!(rows(app).await, 1);
        receiver.got("order.created", 1).await;
    }

    async fn a_crowd_is_told_order_by_order_and_from_a_row_a_transaction(app) {
        with_webhooks(app, &TRIES).await;
        let receivers = [Receiver::start().await, Receiver::start().await];
        for receiver in &receivers {
            receiver.register(app, &["order.created"]).await;
        }
        let id = product(app, json!({"stock": 1500})).await;
        let mut orders = HashSet::new();
        for users in (1..=1500_i64).collect::<Vec<_>>().chunks(150) {
            for reply in join_all(users.iter().map(|user| app.client.buy(*user, id))).await {
                orders.insert(reply.is(202)["order_id"].as_str().unwrap().to_owned());
            }
        }
        app.orders_written(id, 1500).await;
        let begun = std::time::Instant::now();
        eventually_within(60, "both are told", || async { receivers.iter().all(|receiver| receiver.all().len() >= 1500) }).await;
        eprintln!("two endpoints were told of the rest of 1,500 orders {:?} after the last was written", begun.elapsed());
        for receiver in &receivers {
            let told = receiver.got("order.created", 1500).await;
            assert_eq!(told.iter().map(|got| got.data()["id"].as_str().unwrap().to_owned()).collect::<HashSet<_>>(), orders);
            assert!(receiver.connections() < 300, "connections are used again: {}", receiver.connections());
        }
        let ids = |receiver: &Receiver| receiver.all().iter().map(|got| got.id().to_owned()).collect::<HashSet<_>>();
        assert_eq!(ids(&receivers[0]), ids(&receivers[1]), "an event has the same id for all");
        assert!(rows(app).await < 300, "{} rows", rows(app).await);
        assert_eq!(app.stores.number("SELECT COUNT(*) AS n FROM outbox WHERE pending IS NOT NULL").await, 0);
    }

    async fn what_is_rolled_back_is_told_nobody(app) {
        with_webhooks(app, &TRIES).await;
        let receiver = Receiver::start().await;
        receiver.register(app, &[]).await;
        let id = product(app, json!({})).await;
        let (paid, payment) = begun(app, 7, id).await;
        receiver.got("order.created", 1).await;
        // What comes after the change of the order in its transaction is refused.
        app.stores.execute("ALTER TABLE payment_events RENAME TO payment_events_away").await;
        for _ in 0..3 {
            assert_ne!(Callback::of(&payment, "succeeded").send(app).await.status, 200);
        }
        assert_eq!(app.client.order(7, &paid).await.is(200)["status"], "unpaid");
        receiver.got("order.paid", 0).await;
        app.stores.execute("ALTER TABLE payment_events_away RENAME TO payment_events").await;
        eventually("it is taken", || async { Callback::of(&payment, "succeeded").send(app).await.status == 200 }).await;
        receiver.got("order.paid", 1).await;
    }

    async fn what_happens_while_it_is_switched_off_is_not_told_later_and_what_was_due_is(app) {
        with_webhooks(app, &[0, 2, 2, 2]).await;
        let receiver = Receiver::behaving(|_, _| Behaviour::Answer(500, String::new())).await;
        let endpoint = receiver.register(app, &["order.created"]).await;
        let id = product(app, json!({})).await;
        let first = order(app, 7, id).await;
        receiver.got("order.created", 1).await;
        let path = format!("/admin/webhooks/{}", endpoint["id"]);
        app.client.patch(&path, Some(&app.client.admin()), json!({"active": false})).await.is(200);
        let before = receiver.all().len();
        receiver.behave(|_, _| Behaviour::Answer(204, String::new()));
        order(app, 8, id).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(receiver.all().len(), before);
        app.client.patch(&path, Some(&app.client.admin()), json!({"active": true})).await.is(200);
        let told = receiver.got("order.created", before + 1).await;
        assert!(told.iter().all(|got| got.data()["id"] == first && got.id() == told[0].id()));
        assert_eq!(deliveries(app, &endpoint, "").await.len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_tell_each_event_once() {
    TestApp::run(Backend::Distributed, async |app: &mut TestApp| {
        with_webhooks(app, &TRIES).await;
        let other = RunningApp::start(&app.config).await.expect("a second instance starts");
        let second = Client::new(other.address(), &app.config);
        let receiver = Receiver::behaving(|_, _| Behaviour::Slow(Duration::from_millis(20))).await;
        receiver.register(app, &["order.created", "order.cancelled"]).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let id = product(app, json!({"stock": 400})).await;
        let mut orders = Vec::new();
        for users in (1..=400_i64).collect::<Vec<_>>().chunks(100) {
            let buy = |user: &i64| if *user % 2 == 0 { app.client.buy(*user, id) } else { second.buy(*user, id) };
            for (user, reply) in users.iter().zip(join_all(users.iter().map(buy)).await) {
                orders.push((*user, reply.is(202)["order_id"].as_str().unwrap().to_owned()));
            }
        }
        app.orders_written(id, 400).await;
        for (user, order) in &orders[..50] {
            cancel(app, *user, order).await;
        }
        let created = receiver.got("order.created", 400).await;
        assert_eq!(created.iter().map(|got| got.id()).collect::<HashSet<_>>().len(), 400);
        receiver.got("order.cancelled", 50).await;
        other.stop().await;
    })
    .await;
}
