//! A merchant's orders as a file, read by a program that is not ours.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::app::TestApp;
use crate::on_both_backends;

/// Reads a file strictly; prints its rows as JSON.
const READER: &str = "import csv, io, json, sys
text = sys.stdin.buffer.read().decode('utf-8')
assert text.startswith('\\ufeff') and text.endswith('\\r\\n')
rows = list(csv.DictReader(io.StringIO(text[1:], newline=''), strict=True))
print(json.dumps(rows))";

fn parsed(file: &[u8]) -> Vec<Value> {
    let mut child = Command::new("python3")
        .args(["-c", READER])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3, which reads the file");
    child.stdin.take().unwrap().write_all(file).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn export(app: &TestApp, query: &str) -> Vec<u8> {
    let request = app.client.request(Method::GET, &format!("/admin/orders.csv?{query}"));
    let reply = request.bearer_auth(app.client.admin()).send().await.unwrap();
    assert_eq!(reply.status(), 200);
    assert_eq!(reply.headers()["content-type"], "text/csv; charset=utf-8");
    let name = reply.headers()["content-disposition"].to_str().unwrap().to_owned();
    assert!(name.starts_with("attachment; filename=\"orders-20") && name.ends_with(".csv\""), "{name}");
    reply.bytes().await.unwrap().to_vec()
}

/// Orders of a product, past the program.
async fn insert(app: &TestApp, product: i64, count: i64) {
    let hex = if app.config.backend == seckill::config::Backend::Embedded {
        "unhex(printf('%012x7000800000%06x', 1790000000000 + n, n))"
    } else {
        "UNHEX(CONCAT(LPAD(HEX(1790000000000 + n), 12, '0'), '7000800000', LPAD(HEX(n), 10, '0')))"
    };
    let hex = hex.replace("%06x", "%010x");
    let columns = "id, product_id, user_id, live_user, status, price_cents, created_at, updated_at, revision, quantity";
    let at = "'2026-09-21 12:00:00.000'";
    let insert = format!(
        "INSERT INTO orders ({columns}) WITH RECURSIVE number(n) AS \
         (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {count}) \
         SELECT {hex}, {product}, 1000000 + n, NULL, 'expired', 1999, {at}, {at}, 1, 1 FROM number"
    );
    let settings = if app.config.backend == seckill::config::Backend::Embedded {
        ""
    } else {
        "SET SESSION max_recursive_iterations = 10000000; "
    };
    app.stores.execute(&format!("{settings}{insert}")).await;
}

on_both_backends! {
    /// Guards against: a name that a spreadsheet runs, or that moves what follows into other columns.
    async fn a_file_has_every_order_as_the_list_shows_it_and_no_formula(app) {
        let admin = app.client.admin();
        let names = ["=cmd|' /C calc'!A0", "+1+1", "-5", "@x", "say \"hi\", twice", "plain", "two", "日本"];
        let mut products = Vec::new();
        for (place, name) in names.iter().enumerate() {
            let product = json!({"name": name, "price_cents": 1_999, "stock": 5, "max_per_order": 2});
            let id = app.client.post("/products", Some(&admin), product).await.is(201)["id"].as_i64().unwrap();
            let body = json!({"quantity": 2});
            let reply = app.client.post(&format!("/seckill/{id}"), Some(&app.client.buyer(7 + place as i64)), body).await;
            let order = reply.is(202)["order_id"].as_str().unwrap().to_owned();
            app.orders_written(id, 1).await;
            if place % 2 == 0 {
                let path = format!("/admin/orders/{order}/mark-paid");
                app.client.post(&path, Some(&admin), json!({"reference": "=HYPERLINK(\"x\")"})).await.is(200);
            }
            products.push(id);
        }
        // As an older version may have let in.
        app.stores.execute(&format!("UPDATE product_revisions SET name = 'two\nlines' WHERE product_id = {}", products[6])).await;

        let rows = parsed(&export(app, "").await);
        let listed = app.client.get("/admin/orders?limit=100", Some(&admin)).await.is(200)["items"].clone();
        let listed = listed.as_array().unwrap();
        assert_eq!((rows.len(), listed.len()), (names.len(), names.len()));
        let unguarded = |text: &str| text.strip_prefix('\'').unwrap_or(text).to_owned();
        for (row, item) in rows.iter().zip(listed) {
            for (column, cell) in row.as_object().unwrap() {
                let cell = cell.as_str().unwrap();
                let is_number = cell.parse::<f64>().is_ok();
                assert!(is_number || !cell.starts_with(['=', '+', '-', '@', '\t', '\r']), "{column}: {cell}");
                match &item[column] {
                    Value::Null if column.starts_with("payment_") || column == "total" => {}
                    Value::Null => assert_eq!(cell, "", "{column}"),
                    Value::String(text) => assert_eq!(&unguarded(cell), text, "{column}"),
                    Value::Array(all) => assert_eq!(cell, all.len().to_string()),
                    other => assert_eq!(cell, other.to_string(), "{column}"),
                }
            }
            assert_eq!((&row["total"], &row["currency"]), (&json!("39.98"), &json!("USD")));
            let payment = &item["payments"][0];
            let reference = payment["reference"].as_str().unwrap_or_default();
            assert_eq!(unguarded(row["payment_reference"].as_str().unwrap()), reference);
            assert_eq!(row["payment_id"], payment["id"].as_str().unwrap_or_default());
        }
        let paid = parsed(&export(app, "status=paid").await);
        assert_eq!(paid.len(), 4);
        assert!(paid.iter().all(|row| row["status"] == "paid" && row["payment_status"] == "succeeded"));
        assert_eq!(parsed(&export(app, &format!("product_id={}&status=expired", products[0])).await), [] as [Value; 0]);
    }

    async fn a_long_file_is_sent_whole_and_a_few_at_a_time(app) {
        let id = app.client.new_product(5).await;
        insert(app, id, 20_000).await;
        let whole = export(app, "").await;
        assert_eq!(parsed(&whole).len(), 20_000);
        // Readers that do not read hold a place each until they are dropped.
        let request = |app: &TestApp| {
            format!("GET /admin/orders.csv HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", app.client.admin())
        };
        let mut lazy = Vec::new();
        for _ in 0..2 {
            let mut connection = app.client.connect().await;
            connection.write_all(request(app).as_bytes()).await.unwrap();
            let mut head = vec![0; 15];
            connection.read_exact(&mut head).await.unwrap();
            assert_eq!(&head, b"HTTP/1.1 200 OK");
            lazy.push(connection);
        }
        let third = app.client.get("/admin/orders.csv", Some(&app.client.admin())).await;
        third.is_problem(503, "unavailable");
        assert!(third.headers.contains_key("retry-after"));
        // A list is still to be had.
        app.client.get("/admin/orders", Some(&app.client.admin())).await.is(200);
        drop(lazy);
        crate::support::eventually_within(20, "their places are free again", || async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let head = app.client.request(Method::GET, "/admin/orders.csv?status=paid").bearer_auth(app.client.admin());
            head.send().await.unwrap().status() == 200
        })
        .await;
    }

    /// Guards against: a file that looks whole and is not.
    async fn a_file_that_breaks_off_does_not_look_whole_and_keeps_no_stop_waiting(app) {
        let id = app.client.new_product(5).await;
        insert(app, id, 60_000).await;
        let begin = async |app: &TestApp| {
            let mut connection = app.client.connect().await;
            let request =
                format!("GET /admin/orders.csv HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n", app.client.admin());
            connection.write_all(request.as_bytes()).await.unwrap();
            let mut some = vec![0; 64 * 1024];
            connection.read_exact(&mut some).await.unwrap();
            (connection, some)
        };
        let (mut connection, mut read) = begin(app).await;
        app.stores.execute("ALTER TABLE orders RENAME TO away").await;
        let ended = tokio::time::timeout(Duration::from_secs(20), connection.read_to_end(&mut read)).await;
        let _ = ended.expect("the connection ends");
        app.stores.execute("ALTER TABLE away RENAME TO orders").await;
        assert!(!read.ends_with(b"\r\n0\r\n\r\n"), "a last chunk would say that this is all of it");

        let (mut connection, _) = begin(app).await;
        let begun = Instant::now();
        app.stop().await;
        assert!(begun.elapsed() < Duration::from_secs(15));
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(5), connection.read_to_end(&mut rest)).await;
        let _ = ended.expect("the connection ends with the server");
        assert!(!rest.ends_with(b"\r\n0\r\n\r\n"));
    }
}
