use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::client::Reply;
use crate::on_both_backends;
use crate::support::eventually_within;

/// RFC 3339, this many seconds from now.
fn in_seconds(seconds: i64) -> String {
    (chrono::Utc::now() + chrono::Duration::seconds(seconds)).to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

async fn with_key(app: &TestApp, path: &str, key: &str, body: &Value) -> Reply {
    let request = app.client.request(Method::POST, path).bearer_auth(app.client.admin());
    app.client.send(request.header("Idempotency-Key", key).json(body)).await
}

on_both_backends! {
    async fn a_page_that_has_not_changed_is_not_sent_again(app) {
        let id = app.client.new_product(5).await;
        let get = async |path: &str, tag: &str| {
            app.client.request(Method::GET, path).header("if-none-match", tag).send().await.unwrap()
        };
        for path in ["/products".to_owned(), format!("/products/{id}")] {
            let first = get(&path, "\"another\"").await;
            assert_eq!(first.status(), 200);
            assert_eq!(first.headers()["cache-control"], "no-cache");
            let tag = first.headers()["etag"].to_str().unwrap().to_owned();
            assert!(tag.starts_with("W/"), "the time that a page shows is another one each time: {tag}");
            for known in [tag.clone(), tag[2..].to_owned(), format!("\"x\", {tag}"), "*".to_owned()] {
                let again = get(&path, &known).await;
                assert_eq!((again.status().as_u16(), &again.headers()["etag"]), (304, &tag.parse().unwrap()), "{known}");
                assert_eq!(again.bytes().await.unwrap().len(), 0);
            }
            let restock = json!({"units": 1});
            app.client.post(&format!("/products/{id}/restock"), Some(&app.client.admin()), restock).await.is(200);
            assert_eq!(get(&path, &tag).await.status(), 200, "a change here is seen at once");
        }
        app.client.buy(7, id).await.is(202);
        let shown = async || app.client.product(id).await["remaining"] == 6;
        eventually_within(1, "the unit is seen to be taken", shown).await;
    }

    async fn a_new_product_is_on_sale_at_once(app) {
        let body = json!({"name": "Sneaker", "price_cents": 19_900, "stock": 3});
        let created = app.client.post("/products", Some(&app.client.admin()), body).await;
        assert_eq!(created.headers["location"], format!("/products/{}", created.body["id"]));
        let mut product = created.is(201);
        let mut shown = app.client.product(product["id"].as_i64().unwrap()).await;
        for product in [&mut shown, &mut product] {
            assert!(product["server_time"].take().is_string());
        }
        assert_eq!(shown, product);
        let expected = json!({"name": "Sneaker", "description": "", "price_cents": 19_900, "stock": 3, "remaining": 3,
            "state": "live", "ends_at": null, "paused": false});
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(product[field], *value, "{field}");
        }
        assert!(product["starts_at"].as_str().unwrap().ends_with('Z'));
    }

    /// Guards against: administration without authentication (peers 21).
    async fn only_an_administrator_changes_products(app) {
        let id = app.client.new_product(1).await;
        let product = json!({"name": "Sneaker", "price_cents": 1, "stock": 1});
        let (change, restock) = (json!({"paused": true}), json!({"units": 1}));
        let one = format!("/products/{id}");
        for (method, path, body) in [
            (Method::POST, "/products".to_owned(), product),
            (Method::PATCH, one.clone(), change),
            (Method::POST, format!("{one}/restock"), restock),
        ] {
            let buyer = app.client.buyer(2);
            app.client.call(method.clone(), &path, None, Some(body.clone())).await.is_problem(401, "unauthorized");
            app.client.call(method, &path, Some(&buyer), Some(body)).await.is_problem(403, "forbidden");
        }
        assert_eq!(app.client.product(id).await["paused"], false);
    }

    async fn bad_products_are_refused_by_field(app) {
        let good = json!({"name": "Sneaker", "price_cents": 1, "stock": 1});
        for (field, value) in [
            ("name", json!("")), ("name", json!("  ")), ("name", json!("x".repeat(201))), ("name", json!(5)),
            ("name", Value::Null), ("description", json!("x".repeat(5001))), ("price_cents", json!(-1)),
            ("price_cents", json!(1.5)), ("price_cents", json!("1")), ("stock", json!(-1)),
            ("stock", json!(10_000_001)), ("stock", json!(9_223_372_036_854_775_808_u64)),
            ("starts_at", json!("tomorrow")), ("ends_at", json!("2001-01-01T00:00:00Z")), ("id", json!(7)),
        ] {
            let mut body = good.clone();
            body[field] = value;
            app.client.post("/products", Some(&app.client.admin()), body).await.is_invalid(field);
        }
        let missing = json!({"name": "Sneaker", "stock": 1});
        app.client.post("/products", Some(&app.client.admin()), missing).await.is_invalid("price_cents");
        assert_eq!(app.stores.number("SELECT COUNT(*) AS n FROM products").await, 0);
    }

    async fn the_window_is_shown_and_filtered(app) {
        let sale = |name: &str, starts: i64, ends: Option<i64>| {
            json!({"name": name, "price_cents": 1, "stock": 1, "starts_at": in_seconds(starts),
                "ends_at": ends.map(in_seconds)})
        };
        for (name, starts, ends, state) in [
            ("later", 3600, None, "upcoming"),
            ("now", -60, Some(3600), "live"),
            ("over", -3600, Some(-60), "ended"),
        ] {
            let product = app.client.post("/products", Some(&app.client.admin()), sale(name, starts, ends)).await.is(201);
            assert_eq!(product["state"], state, "{name}");
            let listed = app.client.get(&format!("/products?state={state}"), None).await.is(200);
            let names: Vec<_> = listed["items"].as_array().unwrap().iter().map(|item| item["name"].clone()).collect();
            assert_eq!(names, [name]);
        }
        app.client.get("/products?state=sold", None).await.is_invalid("state");
    }

    async fn lists_come_in_pages(app) {
        let ids = [app.client.new_product(1).await, app.client.new_product(1).await, app.client.new_product(1).await];
        let first = app.client.get("/products?limit=2", None).await.is(200);
        let of = |page: &Value| page["items"].as_array().unwrap().iter().map(|item| item["id"].as_i64().unwrap()).collect::<Vec<_>>();
        assert_eq!(of(&first), [ids[2], ids[1]], "newest first");
        let cursor = first["next_cursor"].as_str().unwrap();
        let second = app.client.get(&format!("/products?limit=2&cursor={cursor}"), None).await.is(200);
        assert_eq!((of(&second), &second["next_cursor"]), (vec![ids[0]], &Value::Null));
        for limit in ["0", "101", "-1", "x", ""] {
            app.client.get(&format!("/products?limit={limit}"), None).await.is_invalid("limit");
        }
        app.client.get("/products?cursor=x", None).await.is_invalid("cursor");
    }

    async fn a_patch_changes_what_it_names_and_the_gate_follows(app) {
        let id = app.client.new_product(2).await;
        let path = format!("/products/{id}");
        let admin = app.client.admin();
        let patched = app.client.patch(&path, Some(&admin), json!({"name": "Boot", "price_cents": 5})).await.is(200);
        assert_eq!((&patched["name"], &patched["price_cents"], &patched["stock"]), (&json!("Boot"), &json!(5), &json!(2)));

        assert_eq!(app.client.patch(&path, Some(&admin), json!({"paused": true})).await.is(200)["state"], "paused");
        app.client.buy(7, id).await.is_problem(409, "paused");
        assert_eq!(app.client.patch(&path, Some(&admin), json!({"paused": false})).await.is(200)["state"], "live");

        let later = in_seconds(3600);
        let patched = app.client.patch(&path, Some(&admin), json!({"starts_at": later})).await.is(200);
        assert_eq!(patched["state"], "upcoming");
        let refused = app.client.buy(7, id).await;
        refused.is_problem(409, "not_started");
        assert_eq!(refused.body["starts_at"], later);

        let window = json!({"starts_at": in_seconds(-60), "ends_at": in_seconds(-1)});
        assert_eq!(app.client.patch(&path, Some(&admin), window).await.is(200)["state"], "ended");
        app.client.buy(7, id).await.is_problem(409, "ended");
        assert_eq!(app.client.patch(&path, Some(&admin), json!({"ends_at": null})).await.is(200)["state"], "live");
        app.client.buy(7, id).await.is(202);
    }

    async fn a_bad_patch_changes_nothing(app) {
        let id = app.client.new_product(2).await;
        let shown = async || {
            let mut product = app.client.product(id).await;
            assert!(product["server_time"].take().is_string());
            product
        };
        let before = shown().await;
        let path = format!("/products/{id}");
        let admin = app.client.admin();
        for (body, field) in [
            (json!({"name": null}), "name"), (json!({"paused": "yes"}), "paused"), (json!({"sold": 5}), "sold"),
            (json!({"ends_at": "2001-01-01T00:00:00Z"}), "ends_at"), (json!({"price_cents": -5}), "price_cents"),
            (json!({"starts_at": null}), "starts_at"),
        ] {
            app.client.patch(&path, Some(&admin), body).await.is_invalid(field);
        }
        app.client.patch("/products/999", Some(&admin), json!({"paused": true})).await.is_problem(404, "product_not_found");
        assert_eq!(shown().await, before);
    }

    async fn a_restock_puts_units_on_sale(app) {
        let id = app.client.new_product(1).await;
        app.client.buy(1, id).await.is(202);
        app.client.buy(2, id).await.is_problem(409, "sold_out");
        assert_eq!(app.client.product(id).await["state"], "sold_out");
        let path = format!("/products/{id}/restock");
        let admin = app.client.admin();
        let product = app.client.post(&path, Some(&admin), json!({"units": 2})).await.is(200);
        assert_eq!((&product["stock"], &product["remaining"], &product["state"]), (&json!(3), &json!(2), &json!("live")));
        app.client.buy(3, id).await.is(202);
        for units in [json!(0), json!(-1), json!(10_000_000), json!("2"), Value::Null] {
            app.client.post(&path, Some(&admin), json!({"units": units})).await.is_invalid("units");
        }
        app.client.post("/products/999/restock", Some(&admin), json!({"units": 1})).await.is_problem(404, "product_not_found");
        app.orders_written(id, 2).await;
        app.balanced(id).await;
    }

    async fn the_same_idempotency_key_gives_the_first_answer(app) {
        let body = json!({"name": "Sneaker", "price_cents": 1, "stock": 1});
        let first = with_key(app, "/products", "key-1", &body).await.is(201);
        let id = first["id"].as_i64().unwrap();
        app.client.buy(7, id).await.is(202);
        assert_eq!(with_key(app, "/products", "key-1", &body).await.is(201), first, "the first answer, not today's");
        let other = json!({"name": "Boot", "price_cents": 1, "stock": 1});
        with_key(app, "/products", "key-1", &other).await.is_problem(409, "idempotency_conflict");

        let path = format!("/products/{id}/restock");
        let units = json!({"units": 5});
        let tries = join_all((0..6).map(|_| with_key(app, &path, "key-2", &units))).await;
        assert!(tries.iter().all(|reply| reply.status == 200 && reply.body["stock"] == 6), "{tries:?}");
        assert_eq!(app.client.product(id).await["stock"], 6, "restocked once");
        with_key(app, &path, "key-2", &json!({"units": 6})).await.is_problem(409, "idempotency_conflict");
        with_key(app, &path, "", &units).await.is_invalid("Idempotency-Key");
        with_key(app, &path, "white space", &units).await.is_invalid("Idempotency-Key");
    }
}
