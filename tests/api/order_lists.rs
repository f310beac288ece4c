//! Orders as a merchant sees them: whatever the filter, the list is what the orders themselves say, before and after the lookup knows
//! them, while they are written and change, and whoever fills it dies.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use seckill::model::{Role, Timestamp};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::app::TestApp;
use crate::client::Client;
use crate::on_both_backends;
use crate::support::{Stores, eventually, eventually_within};

pub const STATUSES: [&str; 5] = ["unpaid", "paid", "cancelled", "expired", "rejected"];
/// In milliseconds of Unix time.
pub const LONG_AGO: i64 = 1_790_000_000_000;

/// An order's id that was drawn then.
pub fn drawn(ms: i64, number: i64) -> Uuid {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&number.to_be_bytes());
    uuid::Builder::from_unix_timestamp_millis(ms as u64, &random).into_uuid()
}

/// A row of `orders`, as SQL.
pub fn row(id: Uuid, product: i64, user: i64, status: &str) -> String {
    let at = Timestamp::from_unix_ms((id.as_u128() >> 80) as i64).unwrap().to_string().replace('T', " ");
    let at = at.trim_end_matches('Z');
    let live = if ["unpaid", "paid"].contains(&status) { user.to_string() } else { "NULL".to_owned() };
    format!("(x'{}', {product}, {user}, {live}, '{status}', 5, '{at}', '{at}', 1, 1)", id.simple())
}

/// Writes rows past the program.
pub async fn insert(stores: &Stores, rows: &[String]) {
    for rows in rows.chunks(500) {
        let columns =
            "id, product_id, user_id, live_user, status, price_cents, created_at, updated_at, revision, quantity";
        stores.execute(&format!("INSERT INTO orders ({columns}) VALUES {}", rows.join(", "))).await;
    }
}

/// What the documents tell an operator who has written to `orders`.
pub async fn note_all(stores: &Stores) {
    stores
        .execute(
            "INSERT INTO order_lookup_gaps (first_order, last_order, orders, changed) \
             SELECT MIN(id), MAX(id), COUNT(*), 1 FROM orders",
        )
        .await;
}

async fn page(client: &Client, query: &str) -> Value {
    client.get(&format!("/admin/orders?{query}"), Some(&client.admin())).await.is(200)
}

/// The whole list, page by page.
pub async fn list(client: &Client, query: &str) -> Vec<Value> {
    let (mut items, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = page(client, &format!("{query}{cursor}")).await;
        items.extend(page["items"].as_array().unwrap().iter().cloned());
        let Some(next) = page["next_cursor"].as_str() else { return items };
        cursor = format!("&cursor={next}");
    }
}

fn ids(items: &[Value]) -> Vec<String> {
    items.iter().map(|item| item["id"].as_str().unwrap().to_owned()).collect()
}

pub async fn gaps(stores: &Stores) -> i64 {
    stores.number("SELECT COUNT(*) AS n FROM order_lookup_gaps").await
}

/// Waits until the lookup is filled, and checks that it says what the orders do and nothing else.
pub async fn lookup_is_true(stores: &Stores) {
    eventually_within(60, "the lookup is filled", || async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        gaps(stores).await == 0
    })
    .await;
    let number = "CASE orders.status WHEN 'unpaid' THEN 1 WHEN 'paid' THEN 2 WHEN 'cancelled' THEN 3 WHEN 'expired' THEN 4 ELSE 5 END";
    let missing = |list: &str| {
        format!(
            "SELECT COUNT(*) AS n FROM orders WHERE NOT EXISTS (SELECT 1 FROM order_lookup \
             WHERE order_lookup.order_id = orders.id AND order_lookup.list = {list})"
        )
    };
    assert_eq!(stores.number(&missing(number)).await, 0, "orders that are in no list of their status");
    let of_product = format!("orders.product_id * 8 + {number}");
    assert_eq!(stores.number(&missing(&of_product)).await, 0, "orders that are in no list of their product");
    assert_eq!(stores.number(&missing("-orders.user_id")).await, 0, "orders that are in no list of their buyer");
    let entries = stores.number("SELECT COUNT(*) AS n FROM order_lookup").await;
    let orders = stores.number("SELECT COUNT(*) AS n FROM orders").await;
    assert_eq!(entries, 3 * orders, "each order is in three lists, and in no other");
}

async fn act(app: &TestApp, order: &str, what: &str, body: Value) {
    let path = format!("/admin/orders/{order}/{what}");
    app.client.post(&path, Some(&app.client.admin()), body).await.is(200);
}

/// Three sales with orders of all kinds, of which the product's number says how many.
async fn sales(app: &TestApp) -> Vec<i64> {
    let mut products = Vec::new();
    for number in 1..=3 {
        let window =
            json!({"name": format!("Sale {number}"), "price_cents": 5, "stock": 100, "payment_window_seconds": 5});
        let id = app.client.post("/products", Some(&app.client.admin()), window).await.is(201)["id"].as_i64().unwrap();
        let buyers = join_all((10..10 + 4 * number).map(|user| app.client.buy(user, id))).await;
        app.orders_written(id, 4 * number).await;
        for (place, reply) in buyers.into_iter().enumerate() {
            let order = reply.is(202)["order_id"].as_str().unwrap().to_owned();
            match place % 4 {
                0 => act(app, &order, "mark-paid", json!({"reference": format!("bill {number}")})).await,
                1 => act(app, &order, "cancel", json!({})).await,
                2 => {
                    act(app, &order, "mark-paid", json!({"reference": "cash"})).await;
                    act(app, &order, "cancel", json!({})).await;
                }
                _ => {}
            }
        }
        products.push(id);
    }
    let unpaid = "SELECT COUNT(*) AS n FROM orders WHERE status = 'unpaid'";
    eventually_within(15, "the others have expired", || async { app.stores.number(unpaid).await == 0 }).await;
    let mut accepted = 0;
    for id in &products {
        // These stay unpaid however long the lists take.
        let longer = json!({"payment_window_seconds": 900});
        app.client.patch(&format!("/products/{id}"), Some(&app.client.admin()), longer).await.is(200);
        let live = app.client.buy(20 + id % 2, *id).await;
        assert!([202, 409].contains(&live.status), "{live:?}");
        accepted += i64::from(live.status == 202);
    }
    assert!(accepted >= 2);
    eventually("these are written", || async { app.stores.number(unpaid).await >= accepted }).await;
    let rejected = row(drawn(Timestamp::now().unix_ms(), 7), products[0], 11, "rejected");
    insert(&app.stores, &[rejected]).await;
    note_all(&app.stores).await;
    products
}

/// Every filter and combination against what all the orders say.
async fn all_filters_are_right(app: &TestApp, products: &[i64]) -> usize {
    let all = list(&app.client, "limit=100").await;
    let count = app.stores.number("SELECT COUNT(*) AS n FROM orders").await;
    assert_eq!(all.len() as i64, count);
    assert!(ids(&all).is_sorted_by(|newer, older| newer > older), "the newest first");
    let mut found = 0;
    let none = |query: &[(&str, String)]| query.is_empty();
    for product in products.iter().copied().map(Some).chain([None, Some(999)]) {
        for status in STATUSES.into_iter().map(Some).chain([None]) {
            for user in [None, Some(10), Some(11), Some(13), Some(4711)] {
                let mut query = Vec::new();
                query.extend(product.map(|product: i64| ("product_id", product.to_string())));
                query.extend(status.map(|status| ("status", status.to_owned())));
                query.extend(user.map(|user: i64| ("user_id", user.to_string())));
                if none(&query) {
                    continue;
                }
                let is_meant = |item: &&Value| {
                    product.is_none_or(|product| item["product_id"] == product)
                        && status.is_none_or(|status| item["status"] == status)
                        && user.is_none_or(|user| item["user_id"] == user)
                };
                let expected: Vec<Value> = all.iter().filter(is_meant).cloned().collect();
                let text: Vec<String> = query.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let listed = list(&app.client, &format!("{}&limit=3", text.join("&"))).await;
                assert_eq!(ids(&listed), ids(&expected), "{text:?}");
                assert_eq!(listed, expected, "{text:?}");
                found += listed.len();
            }
        }
    }
    found
}

on_both_backends! {
    async fn every_filter_finds_what_the_orders_say_before_and_after_the_lookup_knows(app) {
        let products = sales(app).await;
        let found = all_filters_are_right(app, &products).await;
        lookup_is_true(&app.stores).await;
        assert_eq!(all_filters_are_right(app, &products).await, found);
        // An order is shown as anywhere else.
        let shown = list(&app.client, "status=paid").await;
        let order = shown[0]["id"].as_str().unwrap();
        let own = app.client.get(&format!("/orders/{order}"), Some(&app.client.admin())).await.is(200);
        for (field, value) in own.as_object().unwrap() {
            assert_eq!(&shown[0][field], value, "{field}");
        }
        let payments = app.client.get(&format!("/orders/{order}/payments"), Some(&app.client.admin())).await.is(200);
        assert_eq!(shown[0]["payments"], payments["items"]);
        // They clicked at the same time; so the newest may be of any of those who have paid.
        assert!([10, 14, 18].contains(&shown[0]["user_id"].as_i64().unwrap()), "{}", shown[0]);
        assert_eq!(shown[0]["username"], Value::Null);
        // What no lookup knows, and no note tells of, is found by its id and in the whole list.
        let hidden = drawn(LONG_AGO, 1);
        insert(&app.stores, &[row(hidden, products[0], 12, "expired")]).await;
        assert_eq!(ids(&list(&app.client, &format!("q={hidden}")).await), [hidden.to_string()]);
        assert_eq!(ids(&list(&app.client, "").await).last(), Some(&hidden.to_string()));
    }

    async fn orders_are_found_by_id_reference_and_name(app) {
        let id = app.client.new_product(100).await;
        let account = json!({"username": "Ada.Lovelace", "password": "correct horse"});
        let ada = app.client.post("/register", None, account).await.is(201);
        let token = ada["access_token"].as_str().unwrap();
        let hers = app.client.call(Method::POST, &format!("/seckill/{id}"), Some(token), None).await.is(202);
        let hers = hers["order_id"].as_str().unwrap().to_owned();
        let other = app.client.buy(7, id).await.is(202)["order_id"].as_str().unwrap().to_owned();
        app.orders_written(id, 2).await;
        for order in [&hers, &other] {
            act(app, order, "mark-paid", json!({"reference": "Bank 4711"})).await;
        }
        let found = async |query: &str| ids(&list(&app.client, query).await);
        assert_eq!(found(&format!("q={hers}")).await, std::slice::from_ref(&hers));
        assert_eq!(found("q=Bank%204711").await, [other.clone(), hers.clone()]);
        assert_eq!(found("q=Bank%204711&limit=1").await, [other.clone(), hers.clone()]);
        assert_eq!(found(&format!("q=Bank%204711&user_id={}", ada["id"])).await, std::slice::from_ref(&hers));
        assert_eq!(found("q=ada.lovelace").await, std::slice::from_ref(&hers));
        assert_eq!(found("q=ada.lovelace&status=paid").await, std::slice::from_ref(&hers));
        for nothing in ["q=ada", "q=bank%204711", "q=Ada.Lovelace&status=unpaid", "q=%25", "q=Bank%204711&product_id=999"] {
            assert_eq!(found(nothing).await, [] as [String; 0], "{nothing}");
        }
        let shown = &list(&app.client, "q=ada.lovelace").await[0];
        assert_eq!((&shown["username"], &shown["user_id"]), (&json!("Ada.Lovelace"), &ada["id"]));
        // One that nobody has written yet.
        app.stores.execute("ALTER TABLE orders RENAME TO away").await;
        let queued = app.client.buy(8, id).await;
        app.stores.execute("ALTER TABLE away RENAME TO orders").await;
        if queued.status == 202 {
            let queued = queued.body["order_id"].as_str().unwrap();
            // Whether it is written by now or not.
            let listed = list(&app.client, &format!("q={queued}")).await;
            assert_eq!((ids(&listed), &listed[0]["user_id"]), (vec![queued.to_owned()], &json!(8)));
        }
        app.orders_written(id, 3).await;
    }

    async fn orders_whose_money_is_due_back_are_found_with_every_other_filter(app) {
        let (id, other) = (app.client.new_product(100).await, app.client.new_product(100).await);
        // Of seven buyers at each sale the first four have paid, and two of these orders are cancelled.
        let mut due = Vec::new();
        for product in [id, other] {
            for user in 10..17 {
                let order = app.client.buy(user, product).await.is(202)["order_id"].as_str().unwrap().to_owned();
                app.orders_written(product, user - 9).await;
                if user < 14 {
                    act(app, &order, "mark-paid", json!({"reference": format!("bill {user}")})).await;
                }
                if user < 12 {
                    act(app, &order, "cancel", json!({})).await;
                    due.insert(0, order);
                }
            }
        }
        let all = list(&app.client, "limit=100").await;
        let found = async |query: &str| ids(&list(&app.client, query).await);
        assert_eq!(found("refund_due=true").await, due);
        for (query, is_meant) in [
            (String::new(), (|_: &Value, _: i64| true) as fn(&Value, i64) -> bool),
            (format!("product_id={id}&"), |order, id| order["product_id"] == id),
            ("status=cancelled&".to_owned(), |order, _| order["status"] == "cancelled"),
            ("status=paid&".to_owned(), |order, _| order["status"] == "paid"),
            ("user_id=10&".to_owned(), |order, _| order["user_id"] == 10),
            ("user_id=12&".to_owned(), |order, _| order["user_id"] == 12),
            ("q=bill%2011&".to_owned(), |order, _| order["user_id"] == 11),
        ] {
            for is_due in [true, false] {
                let is_found = |order: &&Value| {
                    is_meant(order, id) && due.contains(&order["id"].as_str().unwrap().to_owned()) == is_due
                };
                let expected: Vec<Value> = all.iter().filter(is_found).cloned().collect();
                for limit in ["", "&limit=1", "&limit=100"] {
                    let query = format!("{query}refund_due={is_due}{limit}");
                    assert_eq!(found(&query).await, ids(&expected), "{query}");
                }
            }
        }
        let file = app.client.request(Method::GET, "/admin/orders.csv?refund_due=true").bearer_auth(app.client.admin());
        let file = file.send().await.unwrap().text().await.unwrap();
        assert!(due.iter().all(|order| file.contains(order)) && file.lines().count() == 1 + due.len(), "{file}");
        app.client.get("/admin/orders?refund_due=yes", Some(&app.client.admin())).await.is_invalid("refund_due");
    }

    async fn what_is_asked_wrongly_or_by_others_is_refused(app) {
        let admin = app.client.admin();
        for path in ["/admin/orders", "/admin/orders.csv"] {
            app.client.get(path, None).await.is_problem(401, "unauthorized");
            app.client.get(path, Some(&app.client.token(7, Role::Buyer))).await.is_problem(403, "forbidden");
            for (query, field) in [
                ("status=queued", "status"),
                ("status=PAID", "status"),
                ("product_id=0", "product_id"),
                ("user_id=x", "user_id"),
                ("q=", "q"),
                ("statuss=paid", "statuss"),
                ("status=paid&status=unpaid", "status"),
            ] {
                app.client.get(&format!("{path}?{query}"), Some(&admin)).await.is_invalid(field);
            }
            let head = app.client.request(Method::HEAD, path).bearer_auth(&admin).send().await.unwrap();
            assert_eq!((head.status().as_u16(), head.headers()["cache-control"].to_str().unwrap()), (200, "no-store"));
        }
        app.client.get("/admin/orders?limit=101", Some(&admin)).await.is_invalid("limit");
        app.client.get("/admin/orders?cursor=x", Some(&admin)).await.is_invalid("cursor");
        app.client.get("/admin/orders.csv?limit=10", Some(&admin)).await.is_invalid("limit");
        assert_eq!(page(&app.client, "").await, json!({"items": [], "next_cursor": null}));
    }

    async fn a_list_that_is_read_while_orders_are_written_and_change_repeats_none_and_loses_none(app) {
        const USERS: std::ops::Range<i64> = 1_000..5_000;
        let id = app.client.new_product(10_000).await;
        let other = app.client.new_product(10_000).await;
        let over = AtomicBool::new(false);
        // They end, however fast either side is: a crowd that buys until the last walk is over may buy more than there is.
        let buying = async {
            for user in USERS.step_by(40) {
                let orders = join_all((user..user + 40).map(|user| app.client.buy(user, id))).await;
                app.client.buy(user, other).await.is(202);
                let bought: Vec<String> = orders
                    .into_iter()
                    .map(|order| order.is(202)["order_id"].as_str().unwrap().to_owned())
                    .collect();
                for order in bought.iter().step_by(7) {
                    let path = format!("/admin/orders/{order}/cancel");
                    // One that is not written yet is not cancelled.
                    app.client.post(&path, Some(&app.client.admin()), json!({})).await;
                }
            }
            over.store(true, Ordering::Relaxed);
        };
        let walking = async {
            eventually("there are some", || async { !list(&app.client, &format!("product_id={id}&limit=100")).await.is_empty() }).await;
            let mut walks = 0;
            while !over.load(Ordering::Relaxed) {
                let before: HashSet<String> =
                    ids(&list(&app.client, "limit=100").await).into_iter().collect();
                let walked = list(&app.client, &format!("product_id={id}&limit={}", 5 + walks)).await;
                let seen = ids(&walked);
                assert!(walked.iter().all(|item| item["product_id"] == id));
                assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len(), "none is repeated");
                let seen: HashSet<String> = seen.into_iter().collect();
                let of_other = ids(&list(&app.client, &format!("product_id={other}&limit=100")).await);
                let lost: Vec<_> = before.iter().filter(|id| !seen.contains(*id) && !of_other.contains(id)).collect();
                assert!(lost.is_empty(), "lost {lost:?}");
                walks += 1;
            }
            walks
        };
        let ((), walks) = tokio::join!(buying, walking);
        assert!(walks > 0, "the list was read {walks} times meanwhile");
        let orders = USERS.end - USERS.start;
        app.orders_written(id, orders).await;
        lookup_is_true(&app.stores).await;
        let mut by_status = BTreeMap::new();
        for status in STATUSES {
            by_status.insert(status, list(&app.client, &format!("product_id={id}&status={status}&limit=100")).await.len() as i64);
        }
        assert_eq!(by_status.values().sum::<i64>(), orders, "{by_status:?}");
        assert!(by_status["cancelled"] > 0, "{by_status:?}");
    }

    /// Guards against: a list of a buyer, the unique index or the gate that slow down with what has lapsed (issue 16, 8).
    async fn a_buyer_with_a_thousand_lapsed_orders_buys_again_and_sees_them_all(app) {
        let id = app.client.new_product(10).await;
        let lapsed: Vec<String> = (0..1_000)
            .map(|number| row(drawn(LONG_AGO + number * 1_000, number), id, 7, if number % 2 == 0 { "expired" } else { "cancelled" }))
            .collect();
        insert(&app.stores, &lapsed).await;
        note_all(&app.stores).await;
        app.restart().await;
        let begun = Instant::now();
        let order = app.client.buy(7, id).await.is(202)["order_id"].as_str().unwrap().to_owned();
        app.client.buy(7, id).await.is_problem(409, "already_purchased");
        let bought_within = begun.elapsed();
        app.orders_written(id, 1_001).await;
        let live = format!("SELECT COUNT(*) AS n FROM orders WHERE product_id = {id} AND live_user = 7");
        assert_eq!(app.stores.number(&live).await, 1);
        let (mut cursor, mut seen, mut slowest) = (String::new(), Vec::new(), Duration::ZERO);
        loop {
            // Whoever looks ten times a second is not refused.
            tokio::time::sleep(Duration::from_millis(100)).await;
            let begun = Instant::now();
            let page = app.client.get(&format!("/orders?limit=100{cursor}"), Some(&app.client.buyer(7))).await.is(200);
            slowest = slowest.max(begun.elapsed());
            seen.extend(ids(page["items"].as_array().unwrap()));
            let Some(next) = page["next_cursor"].as_str() else { break };
            cursor = format!("&cursor={next}");
        }
        assert_eq!((seen.len(), &seen[0]), (1_001, &order));
        assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), 1_001);
        assert!(slowest < Duration::from_secs(1) && bought_within < Duration::from_secs(1), "{slowest:?} {bought_within:?}");
        for query in ["user_id=7&limit=100".to_owned(), format!("user_id=7&product_id={id}&limit=100")] {
            assert_eq!(ids(&list(&app.client, &query).await), seen, "{query}");
        }
        assert_eq!(list(&app.client, "user_id=7&status=expired&limit=100").await.len(), 500);
        println!("slowest page {slowest:?}, bought within {bought_within:?}");
    }
}
