//! A start on what the version before left, and the way back.

use std::fs;
use std::path::Path;

use seckill::app::RunningApp;
use seckill::config::Backend;
use seckill::model::Role;
use serde_json::json;

use crate::client::Client;
use crate::receiver::Receiver;
use crate::support::{Stores, eventually};

/// Migrations of version 0.1.0; those after them came with this one.
const OLD_SCHEMA: &str = "20261125000000";

/// Orders in the fixtures: the buyer's id and the order's. Their ids do not name their product, as new ones do.
const WRITTEN_EMBEDDED: [(i64, &str); 2] =
    [(2, "01a222fa-554c-746c-a6d6-716b06ad2f54"), (3, "01a222fa-574c-7257-8f8c-4ec2125e8829")];
const PROMISED_EMBEDDED: (i64, &str) = (4, "01a222fa-594d-72cd-bdd3-411ac7d77d16");

fn fixture(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

fn make_file(file: &Path, sql: &str) {
    use diesel::Connection;
    use diesel::connection::SimpleConnection;
    let mut conn = diesel::SqliteConnection::establish(file.to_str().unwrap()).unwrap();
    conn.batch_execute(sql).unwrap();
}

/// Stores as version 0.1.0 left them.
async fn old_stores(backend: Backend) -> Stores {
    let stores = Stores::new(backend).await;
    match backend {
        Backend::Embedded => {
            let folder = stores.config().embedded.data_dir;
            fs::create_dir(&folder).unwrap();
            make_file(&folder.join("seckill.db"), &fixture("v0_1_0_database.sql"));
            make_file(&folder.join("journal.db"), &fixture("v0_1_0_journal.sql"));
        }
        Backend::Distributed => stores.execute(&fixture("v0_1_0_mysql.sql")).await,
    }
    stores
}

async fn upgrade(backend: Backend) {
    let stores = old_stores(backend).await;
    let mut config = stores.config();
    config.webhooks.allow_private = true;
    let running = RunningApp::start(&config).await.expect("it starts on the data of the version before");
    let client = Client::new(running.address(), &config);
    eventually("it is ready", || async { client.get("/readyz", None).await.status == 200 }).await;

    let mut orders: Vec<(i64, String)> = match backend {
        Backend::Embedded => WRITTEN_EMBEDDED.iter().map(|(user, id)| (*user, (*id).to_owned())).collect(),
        Backend::Distributed => Vec::new(),
    };
    if backend == Backend::Embedded {
        // It was promised by the old version and only in its journal, in its words.
        orders.push((PROMISED_EMBEDDED.0, PROMISED_EMBEDDED.1.to_owned()));
    }
    for (user, order) in &orders {
        let token = client.token(*user, Role::Buyer);
        let order = client.get(&format!("/orders/{order}"), Some(&token)).await.is(200);
        assert_eq!((&order["status"], &order["price_cents"]), (&"unpaid".into(), &1999.into()), "{order}");
        assert_eq!(order["product_name"], "a lamp");
    }
    // Orders of the old version count, whoever asks.
    let sold = orders.len().max(2) as i64;
    for user in [2, 3] {
        eventually("an old buyer is known", || async { client.buy(user, 1).await.status == 409 }).await;
        let token = client.token(user, Role::Buyer);
        let list = client.get("/orders", Some(&token)).await.is(200);
        assert_eq!(list["items"].as_array().unwrap().len(), 1, "{list}");
    }
    assert_eq!(client.product(1).await["remaining"], 5 - sold);
    merchants_see_old_orders(&client, &stores, sold).await;
    for user in 100..100 + 5 - sold {
        client.buy(user, 1).await.is(202);
    }
    client.buy(200, 1).await.is_problem(409, "sold_out");
    let query = "SELECT COUNT(*) AS n FROM orders WHERE product_id = 1 AND live_user IS NOT NULL";
    eventually("all are written", || async { stores.number(query).await == 5 }).await;
    // What becomes of an old order is told as of any other.
    let receiver = Receiver::start().await;
    let admin = Some(client.admin());
    let endpoint = json!({"url": receiver.url(), "events": ["order.cancelled"]});
    client.post("/admin/webhooks", admin.as_deref(), endpoint).await.is(201);
    let token = client.token(2, Role::Buyer);
    let old = client.get("/orders", Some(&token)).await.is(200)["items"][0]["id"].as_str().unwrap().to_owned();
    let cancelled = client.post(&format!("/orders/{old}/cancel"), Some(&token), json!({})).await.is(200);
    let told = receiver.got("order.cancelled", 1).await.remove(0);
    for field in ["id", "status", "product_name", "price_cents", "revision", "updated_at"] {
        assert_eq!(told.data()[field], cancelled[field], "{field}");
    }
    running.stop().await;
    stores.remove().await;
}

/// Counted by a migration, and found before and after the lookup knows them.
async fn merchants_see_old_orders(client: &Client, stores: &Stores, count: i64) {
    let admin = client.admin();
    let summary = client.get("/admin/products/1/summary", Some(&admin)).await.is(200);
    assert_eq!((&summary["unpaid"], &summary["paid"], &summary["stock"]), (&count.into(), &0.into(), &5.into()));
    let listed = async |query: &str| {
        let list = client.get(&format!("/admin/orders?{query}"), Some(&admin)).await.is(200);
        assert_eq!(list["next_cursor"], serde_json::Value::Null, "{list}");
        list["items"].as_array().unwrap().len() as i64
    };
    for filled in [false, true] {
        for query in ["", "product_id=1", "status=unpaid", "product_id=1&status=unpaid"] {
            assert_eq!(listed(query).await, count, "{query}, filled: {filled}");
        }
        assert_eq!(listed("status=paid").await, 0);
        eventually("the lookup is filled", || async {
            stores.number("SELECT COUNT(*) AS n FROM order_lookup_gaps").await == 0
        })
        .await;
        assert_eq!(stores.number("SELECT COUNT(*) AS n FROM order_lookup").await, 3 * count);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_data_of_the_version_before_is_taken_over() {
    upgrade(Backend::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed_data_of_the_version_before_is_taken_over() {
    upgrade(Backend::Distributed).await;
}

/// Guards against: two that change the schema at once. An old order is paid at one of them, and expires at none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_that_start_at_once_take_over_the_data_of_the_version_before() {
    let stores = old_stores(Backend::Distributed).await;
    let config = stores.config();
    let (one, other) = tokio::join!(RunningApp::start(&config), RunningApp::start(&config));
    let running = [one.expect("one starts"), other.expect("the other one starts")];
    let clients = running.each_ref().map(|running| Client::new(running.address(), &config));
    for client in &clients {
        eventually("it is ready", || async { client.get("/readyz", None).await.status == 200 }).await;
        eventually("an old buyer is known", || async { client.buy(2, 1).await.status == 409 }).await;
    }
    let token = clients[0].token(2, Role::Buyer);
    let orders = clients[0].get("/orders", Some(&token)).await.is(200);
    let order = &orders["items"][0];
    assert_eq!((&order["status"], &order["expires_at"]), (&"unpaid".into(), &serde_json::Value::Null), "{order}");
    let id = order["id"].as_str().unwrap();
    let paid = serde_json::json!({"reference": "transfer 1"});
    let admin = clients[1].token(1, Role::Admin);
    let paid = clients[1].post(&format!("/admin/orders/{id}/mark-paid"), Some(&admin), paid).await.is(200);
    assert_eq!(paid["status"], "paid");
    for (user, client) in (100..103).zip(clients.iter().cycle()) {
        client.buy(user, 1).await.is(202);
    }
    clients[1].buy(200, 1).await.is_problem(409, "sold_out");
    let query = "SELECT COUNT(*) AS n FROM orders WHERE product_id = 1 AND live_user IS NOT NULL";
    eventually("all are written", || async { stores.number(query).await == 5 }).await;
    for running in running {
        running.stop().await;
    }
    stores.remove().await;
}

/// The way back, as the documents describe it: `down.sql` of each newer migration, the newest first. The old orders and
/// the old shape of the tables are there again.
async fn downgrade(backend: Backend) {
    let stores = old_stores(backend).await;
    let config = stores.config();
    let (kind, columns) = match backend {
        Backend::Embedded => ("sqlite", "SELECT COUNT(*) AS n FROM pragma_table_info('orders')"),
        Backend::Distributed => (
            "mysql",
            "SELECT COUNT(*) AS n FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = 'orders'",
        ),
    };
    let before = stores.number(columns).await;
    seckill::app::migrate(&config, false).await.expect("the schema is brought up to date");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations").join(kind);
    let mut newer: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    newer.sort();
    for migration in newer.iter().rev() {
        let name = migration.file_name().unwrap().to_str().unwrap();
        let version: String = name.split('_').next().unwrap().chars().filter(char::is_ascii_digit).collect();
        if version.as_str() <= OLD_SCHEMA {
            break;
        }
        stores.execute(&fs::read_to_string(migration.join("down.sql")).unwrap()).await;
        stores.execute(&format!("DELETE FROM __diesel_schema_migrations WHERE version = '{version}'")).await;
    }
    assert_eq!(stores.number(columns).await, before, "columns of an order");
    assert_eq!(stores.number("SELECT COUNT(*) AS n FROM orders WHERE live_user IS NOT NULL").await, 2);
    assert_eq!(stores.number("SELECT SUM(sold) AS n FROM products").await, 2);
    // And forward again.
    seckill::app::migrate(&config, false).await.expect("the schema is brought up to date again");
    assert_eq!(stores.number("SELECT COUNT(*) AS n FROM orders WHERE live_user IS NOT NULL").await, 2);
    stores.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_data_can_be_taken_back_to_the_version_before() {
    downgrade(Backend::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed_data_can_be_taken_back_to_the_version_before() {
    downgrade(Backend::Distributed).await;
}
