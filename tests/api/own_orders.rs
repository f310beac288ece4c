//! `GET /orders`: what it costs, however many sales there are and orders have lapsed, and that it is right while the lookup that
//! finds them is behind.

use std::any::Any;
use std::time::{Duration, Instant};

use diesel::sql_types::BigInt;
use diesel::{QueryableByName, SqliteConnection, sql_query};
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use diesel_async::{AsyncConnection, AsyncMysqlConnection, SimpleAsyncConnection};
use reqwest::Method;
use seckill::config::Backend;
use seckill::db::{Db, DbConn, DbError};
use seckill::model::Role;
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::client::Client;
use crate::on_both_backends;
use crate::order_lists::{LONG_AGO, drawn, gaps, insert, note_all, row};
use crate::support::eventually_within;

/// Looks that are taken in one turn.
const LOOKS: usize = 200;
const LAPSED: i64 = 1_000;

/// Whole requests of an administrator, who is not counted, for their own orders; the quickest and the median.
async fn look(client: &Client, query: &str, looks: usize) -> (Duration, Duration) {
    let admin = client.admin();
    let mut times = Vec::new();
    for _ in 0..looks {
        let begun = Instant::now();
        let request = client.request(Method::GET, &format!("/orders{query}")).bearer_auth(&admin);
        let reply = request.send().await.unwrap();
        assert_eq!(reply.status(), 200);
        reply.bytes().await.unwrap();
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    (times[0], times[looks / 2])
}

/// Orders of one buyer that have lapsed, of all sales in turn.
async fn let_lapse(app: &TestApp, user: i64, products: i64, count: i64) {
    let statuses = ["expired", "cancelled"];
    // Other orders each time.
    let number = products * 10_000;
    let rows: Vec<String> = (0..count)
        .map(|n| row(drawn(LONG_AGO + n * 1_000, number + n), 1 + n % products, user, statuses[n as usize % 2]))
        .collect();
    insert(&app.stores, &rows).await;
    note_all(&app.stores).await;
    filled(app).await;
}

async fn filled(app: &TestApp) {
    eventually_within(120, "the lookup is filled", || async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        gaps(&app.stores).await == 0
    })
    .await;
}

/// All pages of a buyer's list, by their ids.
async fn pages(app: &TestApp, user: i64, limit: usize) -> Vec<String> {
    // Administrators look as often as they like.
    let token = app.client.token(user, Role::Admin);
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = app.client.get(&format!("/orders?limit={limit}{cursor}"), Some(&token)).await.is(200);
        ids.extend(page["items"].as_array().unwrap().iter().map(|order| order["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_cursor"].as_str() else { return ids };
        cursor = format!("&cursor={next}");
    }
}

#[derive(QueryableByName)]
struct Counted {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

/// Rows that one look at a buyer's orders reads.
async fn rows_read(db: &Db, user: i64) -> i64 {
    let read = async |conn: &mut DbConn| {
        let DbConn::MySql(conn) = conn else { panic!("a server counts them") };
        let sum = "SELECT CAST(SUM(variable_value) AS SIGNED) AS n FROM information_schema.session_status \
            WHERE variable_name LIKE 'Handler_read%'";
        diesel_async::RunQueryDsl::get_result::<Counted>(sql_query(sum), &mut **conn).await.unwrap().n
    };
    let user = user.try_into().unwrap();
    db.read(move |conn| {
        Box::pin(async move {
            let before = read(conn).await;
            let itself = read(conn).await - before;
            conn.list_orders(user, None, 21).await?;
            Ok::<_, DbError>(read(conn).await - before - 2 * itself)
        })
    })
    .await
    .unwrap()
}

/// Products whose sales are over.
async fn ended_sales(app: &TestApp, first: i64, last: i64) {
    let rows: Vec<String> = (first..=last)
        .map(|id| format!("({id}, 'Old', '', 5, 9, '2020-01-01 00:00:00.000', '2020-01-02 00:00:00.000', 'home', '2020-01-01 00:00:00.000')"))
        .collect();
    for rows in rows.chunks(1_000) {
        let columns = "id, name, description, price_cents, stock, starts_at, ends_at, gate_home, created_at";
        app.stores.execute(&format!("INSERT INTO products ({columns}) VALUES {}", rows.join(", "))).await;
    }
}

/// Nothing of a product is written, and no order, until what this returns is dropped.
async fn hold_writes(app: &TestApp) -> Box<dyn Any + Send> {
    match app.config.backend {
        Backend::Embedded => {
            let file = app.config.embedded.data_dir.join("seckill.db");
            let file = file.to_str().unwrap();
            let mut conn = SyncConnectionWrapper::<SqliteConnection>::establish(file).await.unwrap();
            conn.batch_execute("PRAGMA busy_timeout = 5000; BEGIN IMMEDIATE").await.unwrap();
            Box::new(conn)
        }
        Backend::Distributed => {
            let mut conn = AsyncMysqlConnection::establish(app.config.mysql.dsn.expose_secret()).await.unwrap();
            let lock = "START TRANSACTION; UPDATE products SET gate_home = gate_home";
            conn.batch_execute(lock).await.unwrap();
            Box::new(conn)
        }
    }
}

on_both_backends! {
    /// Guards against: a look at each sale, or at each order that a buyer has let lapse.
    async fn own_orders_cost_the_same_however_many_sales_there_are_and_orders_lapsed(app) {
        const USER: i64 = 1;
        ended_sales(app, 1, 20).await;
        let_lapse(app, USER, 20, 20).await;
        let (before, _) = look(&app.client, "", 50).await;
        ended_sales(app, 21, 20_000).await;
        let_lapse(app, USER, 20_000, LAPSED).await;
        let (after, _) = look(&app.client, "", 50).await;
        assert!(after < 2 * before + Duration::from_millis(2), "{after:?}, and {before:?} with 20 sales");
        assert_eq!(pages(app, USER, 100).await.len() as i64, LAPSED + 20);
    }

    async fn own_orders_are_all_there_while_the_lookup_is_behind(app) {
        const USER: i64 = 1;
        ended_sales(app, 1, 50).await;
        let rows: Vec<String> = (0..300).map(|n| row(drawn(LONG_AGO + n / 3, n), 1 + n % 50, USER, "expired")).collect();
        insert(&app.stores, &rows[..150]).await;
        note_all(&app.stores).await;
        filled(app).await;
        insert(&app.stores, &rows[150..]).await;
        // As a program writes it that says which products they are of, and as one that does not.
        let noted: Vec<i64> = (1..=50).collect();
        for product_ids in [format!("'{noted:?}'"), "NULL".to_owned(), "'[]'".to_owned()] {
            app.stores.execute("DELETE FROM order_lookup").await;
            let gap = format!(
                "INSERT INTO order_lookup_gaps (first_order, last_order, orders, changed, product_ids) \
                 SELECT MIN(id), MAX(id), COUNT(*), 0, {product_ids} FROM orders"
            );
            app.stores.execute(&gap).await;
            while gaps(&app.stores).await > 0 && product_ids != "'[]'" {
                assert_eq!(pages(app, USER, 7).await.len(), rows.len());
            }
            filled(app).await;
            let mut ids = pages(app, USER, 7).await;
            assert_eq!(ids.len(), rows.len());
            assert!(ids.is_sorted_by(|newer, older| newer > older), "the newest first, and each once");
            ids.dedup();
            assert_eq!(ids.len(), rows.len());
        }
    }

    async fn several_orders_that_are_not_written_yet_are_listed_with_their_own_terms(app) {
        let mut products = Vec::new();
        for price in 1..=5 {
            let product = json!({"name": format!("Lamp {price}"), "price_cents": price, "stock": 5});
            products.push(app.client.post("/products", Some(&app.client.admin()), product).await.is(201)["id"].as_i64().unwrap());
        }
        let lock = hold_writes(app).await;
        let mut expected = Vec::new();
        for (price, product) in (1..=5).zip(&products) {
            let order = app.client.buy(7, *product).await.is(202)["order_id"].clone();
            expected.insert(0, json!([order, format!("Lamp {price}"), price, "queued"]));
        }
        let listed = app.client.get("/orders", Some(&app.client.buyer(7))).await.is(200);
        let shown = |order: &Value| json!([order["id"], order["product_name"], order["price_cents"], order["status"]]);
        assert_eq!(listed["items"].as_array().unwrap().iter().map(shown).collect::<Vec<_>>(), expected);
        let page = app.client.get("/orders?limit=2", Some(&app.client.buyer(7))).await.is(200);
        assert_eq!(page["items"].as_array().unwrap().iter().map(shown).collect::<Vec<_>>(), expected[..2]);
        assert_eq!(page["next_cursor"], expected[1][0]);
        drop(lock);
        for product in &products {
            app.orders_written(*product, 1).await;
        }
    }
}

/// The same as the server counts it, whatever else the machine does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn own_orders_read_as_many_rows_however_many_sales_there_are_and_orders_lapsed() {
    TestApp::run(Backend::Distributed, async |app: &mut TestApp| {
        const USER: i64 = 1;
        ended_sales(app, 1, 30).await;
        let_lapse(app, USER, 30, 30).await;
        let db = Db::mysql(&app.config.mysql);
        let before = rows_read(&db, USER).await;
        ended_sales(app, 31, 1_000).await;
        let_lapse(app, USER, 1_000, LAPSED).await;
        let after = rows_read(&db, USER).await;
        assert!(before >= 21 && after <= before + 5, "{after} rows, and {before} with 30 sales");
    })
    .await;
}

async fn measure(backend: Backend) {
    TestApp::run(backend, async |app: &mut TestApp| {
        let admin: i64 = app.stores.number("SELECT MIN(id) AS n FROM users").await;
        let tell = async |what: &str| {
            for query in ["", "?limit=100"] {
                let (first, median) = look(&app.client, query, LOOKS).await;
                println!("{backend:?}, {what}, GET /orders{query}: quickest {first:.1?}, median {median:.1?}");
            }
        };
        for _ in 0..20 {
            app.client.new_product(5).await;
        }
        tell("20 open sales").await;
        for _ in 20..2_000 {
            app.client.new_product(5).await;
        }
        tell("2,000 open sales").await;
        let_lapse(app, admin, 2_000, LAPSED).await;
        tell("2,000 open sales and 1,000 lapsed orders").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, on a machine that does nothing else"]
async fn own_orders_in_a_file_are_measured() {
    measure(Backend::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, on a machine that does nothing else"]
async fn own_orders_on_a_server_are_measured() {
    measure(Backend::Distributed).await;
}
