//! The lookup that finds a merchant's orders: filled to its end whoever dies and whoever else fills it, and quick with many orders.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use seckill::app::RunningApp;
use seckill::config::Backend;
use seckill::model::OrderId;
use serde_json::json;
use uuid::Uuid;

use crate::app::TestApp;
use crate::command::{Folder, Server};
use crate::order_lists::{LONG_AGO, STATUSES, drawn, gaps, insert, list, lookup_is_true, note_all, row};
use crate::support::eventually_within;

#[derive(diesel::QueryableByName)]
struct Number {
    #[diesel(sql_type = diesel::sql_types::BigInt)]
    n: i64,
}

/// Guards against: two who fill the lookup and leave an order in a list that is not its own any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_fill_one_lookup_while_orders_change() {
    TestApp::run(Backend::Distributed, async |app: &mut TestApp| {
        let id = app.client.new_product(10_000).await;
        let old: Vec<String> =
            (0..20_000).map(|number| row(drawn(LONG_AGO + number, number), id, 100_000 + number, "expired")).collect();
        insert(&app.stores, &old).await;
        note_all(&app.stores).await;
        let other = RunningApp::start(&app.config).await.unwrap();
        let users: Vec<i64> = (1..=400).collect();
        for users in users.chunks(50) {
            for reply in join_all(users.iter().map(|user| app.client.buy(*user, id))).await {
                let order = reply.is(202)["order_id"].as_str().unwrap().to_owned();
                let id: OrderId = order.parse().unwrap();
                if Uuid::from(id).as_u128() % 2 == 0 {
                    // Those that are written by now.
                    let path = format!("/admin/orders/{order}/cancel");
                    app.client.post(&path, Some(&app.client.admin()), json!({})).await;
                }
            }
        }
        app.orders_written(id, 20_400).await;
        lookup_is_true(&app.stores).await;
        assert_eq!(list(&app.client, &format!("product_id={id}&status=expired&limit=100")).await.len(), 20_000);
        other.stop().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lookup_is_filled_to_its_end_whenever_the_process_is_killed() {
    const ORDERS: i64 = 40_000;
    let folder = Folder::new();
    assert!(folder.embedded().arg("migrate").status().unwrap().success());
    let file = folder.data().join("seckill.db");
    let run = |sql: &str| {
        use diesel::Connection;
        use diesel::connection::SimpleConnection;
        let mut conn = diesel::SqliteConnection::establish(file.to_str().unwrap()).unwrap();
        conn.batch_execute(&format!("PRAGMA busy_timeout = 5000; {sql}")).unwrap();
    };
    let count = |sql: &str| {
        use diesel::prelude::*;
        let mut conn = diesel::SqliteConnection::establish(file.to_str().unwrap()).unwrap();
        diesel::connection::SimpleConnection::batch_execute(&mut conn, "PRAGMA busy_timeout = 5000").unwrap();
        diesel::sql_query(sql.replace("COUNT(*)", "COUNT(*) AS n")).get_result::<Number>(&mut conn).unwrap().n
    };
    let columns = "id, product_id, user_id, live_user, status, price_cents, created_at, updated_at, revision, quantity";
    let rows: Vec<String> = (0..ORDERS)
        .map(|number| row(drawn(LONG_AGO + number, number), 1 + number % 3, number + 1, STATUSES[number as usize % 5]))
        .collect();
    for rows in rows.chunks(1_000) {
        run(&format!("INSERT INTO orders ({columns}) VALUES {}", rows.join(", ")));
    }
    run(
        "INSERT INTO order_lookup_gaps (first_order, last_order, orders, changed) SELECT MIN(id), MAX(id), COUNT(*), 1 FROM orders",
    );
    for _ in 0..3 {
        let mut server = Server::start(&folder, folder.embedded()).await;
        let before = count("SELECT COUNT(*) FROM order_lookup");
        let begun = Instant::now();
        while count("SELECT COUNT(*) FROM order_lookup") < before + 4_000 && begun.elapsed() < Duration::from_secs(20) {
            std::thread::sleep(Duration::from_millis(1));
        }
        server.kill();
    }
    let filled = count("SELECT COUNT(*) FROM order_lookup");
    assert!(filled > 0 && filled < 3 * ORDERS, "{filled}: it was killed in the middle");
    let _server = Server::start(&folder, folder.embedded()).await;
    let begun = Instant::now();
    while count("SELECT COUNT(*) FROM order_lookup_gaps") > 0 {
        assert!(begun.elapsed() < Duration::from_secs(60), "it is filled");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(count("SELECT COUNT(*) FROM order_lookup"), 3 * ORDERS);
    let number =
        "CASE status WHEN 'unpaid' THEN 1 WHEN 'paid' THEN 2 WHEN 'cancelled' THEN 3 WHEN 'expired' THEN 4 ELSE 5 END";
    let listed = format!(
        "SELECT COUNT(*) FROM orders JOIN order_lookup ON order_id = id AND list IN ({number}, product_id * 8 + {number}, -user_id)"
    );
    assert_eq!(count(&listed), 3 * ORDERS);
}

/// Orders by SQL: of 150 sales, of each status, 1,000 of one buyer.
async fn insert_many(app: &TestApp, count: i64) {
    let is_file = app.config.backend == Backend::Embedded;
    let id = if is_file {
        "unhex(printf('%012x7000800000%010x', 1790000000000 + 2 * n, n))"
    } else {
        "UNHEX(CONCAT(LPAD(HEX(1790000000000 + 2 * n), 12, '0'), '7000800000', LPAD(HEX(n), 10, '0')))"
    };
    let at = "'2026-09-21 12:00:00.000'";
    for first in (1..=count).step_by(250_000) {
        let last = (first + 249_999).min(count);
        let settings = if is_file { "" } else { "SET SESSION max_recursive_iterations = 10000000; " };
        let insert = format!(
            "{settings}INSERT INTO orders \
             (id, product_id, user_id, live_user, status, price_cents, created_at, updated_at, revision, quantity) \
             WITH RECURSIVE number(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM number WHERE n < {last}) \
             SELECT {id}, 1 + (n * 7919) % 150, CASE WHEN n % ({count} / 1000) = 0 THEN 7 ELSE 1000 + n END, NULL, \
                 CASE WHEN n < 4 THEN 'rejected' WHEN n % 10 < 8 THEN 'expired' ELSE 'cancelled' END, 5, {at}, {at}, 1, 1 FROM number"
        );
        app.stores.execute(&insert).await;
    }
    note_all(&app.stores).await;
}

/// `SECKILL_ORDERS` says how many, five million unless it does. The first look of each is at pages that nobody has read yet.
async fn lists_of_many_orders_are_quick(backend: Backend) {
    let count: i64 = std::env::var("SECKILL_ORDERS").map_or(5_000_000, |orders| orders.parse().unwrap());
    TestApp::run(backend, async |app: &mut TestApp| {
        for _ in 0..150 {
            app.client.new_product(1).await;
        }
        insert_many(app, count).await;
        let begun = Instant::now();
        let queries = [
            "",
            "product_id=1",
            "product_id=150&limit=100",
            "product_id=999",
            "status=expired",
            "status=rejected",
            "status=paid",
            "product_id=3&status=cancelled",
            "product_id=3&status=paid",
            "user_id=7&limit=100",
            "user_id=4711",
            "user_id=7&status=paid",
            "user_id=7&product_id=3",
            "q=nobody",
            "q=01a0c4a0-0000-7000-8000-000000000000",
        ];
        let mut slow = Vec::new();
        for filled in [false, true] {
            if filled {
                eventually_within(3_600, "the lookup is filled", || async {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    gaps(&app.stores).await == 0
                })
                .await;
                println!("{count} orders were filled in within {:?}", begun.elapsed());
            }
            for query in queries {
                let mut times = Vec::new();
                for _ in 0..7 {
                    let begun = Instant::now();
                    let request = app.client.request(Method::GET, &format!("/admin/orders?{query}"));
                    let reply = request.bearer_auth(app.client.admin()).send().await.unwrap();
                    assert_eq!(reply.status(), 200);
                    reply.bytes().await.unwrap();
                    times.push(begun.elapsed());
                }
                let first = times[0];
                times.sort_unstable();
                println!("filled: {filled:5}  {query:32} first {first:9.1?}  median {:9.1?}", times[3]);
                slow.extend((times[3] > Duration::from_millis(50)).then_some((filled, query, times[3])));
            }
        }
        assert!(slow.is_empty(), "{slow:?}");
        export(app, "status=cancelled", count / 5).await;
    })
    .await;
}

/// Reads so many orders as CSV, and sees that whoever sends them does not collect them first.
async fn export(app: &TestApp, filter: &str, orders: i64) {
    const MOST_MORE_KIB: u64 = 32 * 1024;
    let (begun, before) = (Instant::now(), resident_kib());
    let request = app.client.request(Method::GET, &format!("/admin/orders.csv?{filter}"));
    let mut reply = request.bearer_auth(app.client.admin()).timeout(Duration::from_secs(600)).send().await.unwrap();
    assert_eq!(reply.status(), 200);
    let (mut lines, mut bytes, mut most) = (0, 0, before);
    while let Some(piece) = reply.chunk().await.unwrap() {
        lines += piece.iter().filter(|byte| **byte == b'\n').count() as i64;
        bytes += piece.len();
        most = most.max(resident_kib());
    }
    println!("{orders} orders as CSV: {bytes} bytes within {:?}, memory {before} -> {most} KiB", begun.elapsed());
    assert_eq!(lines, orders + 1, "each, and the names of the columns");
    assert!(most < before + MOST_MORE_KIB, "{before} -> {most} KiB");
}

/// Of this process, in which the server is.
fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes many minutes and a gigabyte"]
async fn lists_of_five_million_orders_in_a_file_are_quick() {
    lists_of_many_orders_are_quick(Backend::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes many minutes and a gigabyte"]
async fn lists_of_five_million_orders_on_a_server_are_quick() {
    lists_of_many_orders_are_quick(Backend::Distributed).await;
}
