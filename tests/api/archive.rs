//! Products that are archived, and the log of what administrators changed.

use reqwest::Method;
use serde_json::{Value, json};

use crate::on_both_backends;

on_both_backends! {
    async fn an_archived_product_is_gone_from_lists_and_off_sale_and_keeps_its_orders(app) {
        let (id, other) = (app.client.new_product(5).await, app.client.new_product(5).await);
        let (path, admin) = (format!("/admin/products/{id}/archive"), app.client.admin());
        let order = app.client.buy(7, id).await.is(202)["order_id"].as_str().unwrap().to_owned();
        app.orders_written(id, 1).await;
        app.client.call(Method::POST, &path, None, None).await.is_problem(401, "unauthorized");
        app.client.call(Method::POST, &path, Some(&app.client.buyer(7)), None).await.is_problem(403, "forbidden");
        app.client.call(Method::POST, "/admin/products/999/archive", Some(&admin), None).await.is_problem(404, "product_not_found");
        app.client.call(Method::POST, &path, Some(&admin), None).await.is_problem(409, "still_live");
        app.client.patch(&format!("/products/{id}"), Some(&admin), json!({"paused": true})).await.is(200);
        for _ in 0..2 {
            let archived = app.client.call(Method::POST, &path, Some(&admin), None).await.is(200);
            assert!(archived["archived_at"].is_string(), "{archived}");
        }
        let listed = app.client.get("/products", None).await.is(200);
        let ids: Vec<_> = listed["items"].as_array().unwrap().iter().map(|item| item["id"].as_i64().unwrap()).collect();
        assert_eq!(ids, [other]);
        assert!(app.client.product(id).await["archived_at"].is_string(), "who has its address still sees it");
        app.client.buy(8, id).await.is_problem(409, "paused");
        let change = app.client.patch(&format!("/products/{id}"), Some(&admin), json!({"paused": false})).await;
        change.is_problem(409, "archived");
        let restock = app.client.post(&format!("/products/{id}/restock"), Some(&admin), json!({"units": 1})).await;
        restock.is_problem(409, "archived");
        assert_eq!(app.client.order(7, &order).await.is(200)["status"], "unpaid");
        app.restart().await;
        app.client.buy(8, id).await.is_problem(409, "paused");
        app.balanced(id).await;
    }

    async fn administrators_list_archived_products_too(app) {
        let mut ids = Vec::new();
        for _ in 0..5 {
            ids.insert(0, app.client.new_product(5).await);
        }
        let admin = app.client.admin();
        for id in [ids[1], ids[3]] {
            app.client.patch(&format!("/products/{id}"), Some(&admin), json!({"paused": true})).await.is(200);
            app.client.call(Method::POST, &format!("/admin/products/{id}/archive"), Some(&admin), None).await.is(200);
        }
        let listed = async |query: &str| {
            let (mut found, mut cursor) = (Vec::new(), String::new());
            loop {
                let path = format!("/admin/products?limit=2{query}{cursor}");
                let page = app.client.get(&path, Some(&admin)).await.is(200);
                let items = page["items"].as_array().unwrap();
                assert!(items.iter().all(|item| item["server_time"].is_string()), "{page}");
                found.extend(items.iter().map(|item| item["id"].as_i64().unwrap()));
                let Some(next) = page["next_cursor"].as_str() else { return found };
                cursor = format!("&cursor={next}");
            }
        };
        assert_eq!(listed("").await, ids);
        assert_eq!(listed("&archived=true").await, [ids[1], ids[3]]);
        assert_eq!(listed("&archived=false").await, [ids[0], ids[2], ids[4]]);
        app.client.get("/admin/products", None).await.is_problem(401, "unauthorized");
        app.client.get("/admin/products", Some(&app.client.buyer(7))).await.is_problem(403, "forbidden");
        app.client.get("/admin/products?archived=1", Some(&admin)).await.is_invalid("archived");
        app.client.get("/admin/products?cursor=x", Some(&admin)).await.is_invalid("cursor");
    }

    async fn what_administrators_changed_is_listed_newest_first(app) {
        let id = app.client.new_product(5).await;
        let admin = app.client.log_in_as_admin().await;
        let path = format!("/products/{id}");
        app.client.patch(&path, Some(&admin), json!({"price_cents": 5})).await.is(200);
        app.client.patch(&path, Some(&admin), json!({"price_cents": -5})).await.is_invalid("price_cents");
        app.client.post(&format!("{path}/restock"), Some(&admin), json!({"units": 2})).await.is(200);
        app.client.get("/admin/log", None).await.is_problem(401, "unauthorized");
        app.client.get("/admin/log", Some(&app.client.buyer(7))).await.is_problem(403, "forbidden");
        let first = app.client.get("/admin/log?limit=2", Some(&admin)).await.is(200);
        let cursor = first["next_cursor"].as_str().unwrap();
        let rest = app.client.get(&format!("/admin/log?limit=2&cursor={cursor}"), Some(&admin)).await.is(200);
        assert_eq!(rest["next_cursor"], Value::Null);
        let all: Vec<&Value> = [&first, &rest].into_iter().flat_map(|page| page["items"].as_array().unwrap()).collect();
        let said: Vec<_> = all.iter().map(|item| (item["action"].as_str().unwrap(), item["changes"].as_str().unwrap())).collect();
        assert_eq!(said[..2], [("Restocked a product", "stock 5 -> 7"), ("Changed a product", "price_cents 19900 -> 5")]);
        assert_eq!(said[2].0, "Put a product on sale");
        assert_eq!(said.len(), 3, "what was refused is no change");
        assert_eq!((&all[0]["username"], &all[0]["object"]), (&json!("admin"), &json!(format!("product {id}"))));
    }

    async fn each_change_of_a_sale_takes_a_reason_that_its_log_shows(app) {
        let (id, other) = (app.client.new_product(5).await, app.client.new_product(5).await);
        let admin = app.client.log_in_as_admin().await;
        let (path, restock, archive) =
            (format!("/products/{id}"), format!("/products/{id}/restock"), format!("/admin/products/{id}/archive"));
        app.client.patch(&path, Some(&admin), json!({"paused": true, "reason": "Wrong picture"})).await.is(200);
        app.client.post(&restock, Some(&admin), json!({"units": 2, "reason": "Found a box"})).await.is(200);
        app.client.patch(&format!("/products/{other}"), Some(&admin), json!({"paused": true})).await.is(200);
        for bad in [json!(""), json!("a\nb"), json!("x".repeat(256)), json!(null), json!(7)] {
            app.client.patch(&path, Some(&admin), json!({"paused": false, "reason": bad})).await.is_invalid("reason");
            app.client.post(&restock, Some(&admin), json!({"units": 2, "reason": bad})).await.is_invalid("reason");
            app.client.post(&archive, Some(&admin), json!({"reason": bad})).await.is_invalid("reason");
        }
        app.client.post(&archive, Some(&admin), json!({"reason": "Over"})).await.is(200);
        let log = app.client.get(&format!("/admin/log?object=product%20{id}"), Some(&admin)).await.is(200);
        let said: Vec<_> = log["items"].as_array().unwrap().iter().map(|item| [&item["action"], &item["reason"]]).collect();
        let expected = json!([
            ["Archived a product", "Over"],
            ["Restocked a product", "Found a box"],
            ["Paused a product", "Wrong picture"],
            ["Put a product on sale", null],
        ]);
        assert_eq!(json!(said), expected, "newest first, and nothing of the other sale");
        let nothing = app.client.get("/admin/log?object=product%200", Some(&admin)).await.is(200);
        assert_eq!(nothing["items"], json!([]));
    }
}
