//! Drafts: sales that nobody but administrators sees until they are published.

use reqwest::Method;
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::on_both_backends;

async fn new_draft(app: &TestApp, more: Value) -> i64 {
    let mut body = json!({"name": "Secret", "price_cents": 5, "stock": 3, "draft": true});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let made = app.client.post("/products", Some(&app.client.admin()), body).await.is(201);
    assert_eq!((&made["draft"], &made["paused"]), (&json!(true), &json!(true)), "{made}");
    made["id"].as_i64().unwrap()
}

async fn change(app: &TestApp, id: i64, body: Value) -> crate::client::Reply {
    app.client.patch(&format!("/products/{id}"), Some(&app.client.admin()), body).await
}

/// What there is to see of it without rights: nothing.
async fn is_hidden(app: &TestApp, id: i64) {
    for path in [format!("/products/{id}"), format!("/events?products={id}")] {
        app.client.get(&path, None).await.is_problem(404, "product_not_found");
        app.client.get(&path, Some(&app.client.buyer(7))).await.is_problem(404, "product_not_found");
    }
    for query in ["", "?state=upcoming", "?state=live", "?state=ended"] {
        let listed = app.client.get(&format!("/products{query}"), None).await.is(200);
        assert!(listed["items"].as_array().unwrap().iter().all(|item| item["id"] != id), "{listed}");
    }
    app.client.get(&format!("/admin/products/{id}"), Some(&app.client.buyer(7))).await.is_problem(403, "forbidden");
    app.client.buy(7, id).await.is_problem(409, "paused");
}

on_both_backends! {
    async fn a_draft_is_seen_by_administrators_only_until_it_is_published(app) {
        let id = new_draft(app, json!({})).await;
        is_hidden(app, id).await;
        let admin = app.client.admin();
        let seen = app.client.get(&format!("/admin/products/{id}"), Some(&admin)).await.is(200);
        assert_eq!((&seen["draft"], &seen["state"]), (&json!(true), &json!("paused")));
        assert!(seen["server_time"].is_string());
        let listed = app.client.get("/admin/products?archived=false", Some(&admin)).await.is(200);
        assert_eq!((&listed["items"][0]["id"], &listed["items"][0]["draft"]), (&json!(id), &json!(true)));
        app.restart().await;
        is_hidden(app, id).await;
        let published = change(app, id, json!({"draft": false, "reason": "Friday"})).await.is(200);
        assert_eq!((&published["draft"], &published["paused"], &published["state"]), (&Value::Null, &json!(false), &json!("live")));
        // At once, although somebody was told a moment ago that it is not there.
        app.client.get(&format!("/products/{id}"), None).await.is(200);
        assert_eq!(app.client.get("/products", None).await.is(200)["items"][0]["id"], id);
        app.client.buy(8, id).await.is(202);
        let log = app.client.get(&format!("/admin/log?object=product%20{id}"), Some(&admin)).await.is(200);
        let actions: Vec<_> = log["items"].as_array().unwrap().iter().map(|item| item["action"].as_str().unwrap()).collect();
        assert_eq!(actions, ["Published a draft", "Made a draft"]);
        assert_eq!(log["items"][0]["reason"], "Friday");
        app.orders_written(id, 1).await;
        app.balanced(id).await;
    }

    async fn a_draft_does_not_go_on_sale_by_another_change(app) {
        let id = new_draft(app, json!({"starts_at": "2020-01-01T00:00:00Z"})).await;
        change(app, id, json!({"paused": false})).await.is_problem(409, "draft");
        change(app, id, json!({"paused": false, "draft": true})).await.is_problem(409, "draft");
        let changed = change(app, id, json!({"name": "Other", "stock": 5, "draft": true})).await.is(200);
        assert_eq!((&changed["draft"], &changed["paused"]), (&json!(true), &json!(true)));
        let restock = format!("/products/{id}/restock");
        app.client.post(&restock, Some(&app.client.admin()), json!({"units": 2})).await.is(200);
        is_hidden(app, id).await;
        // Published, but not on sale.
        let published = change(app, id, json!({"draft": false, "paused": true})).await.is(200);
        assert_eq!((&published["draft"], &published["state"]), (&Value::Null, &json!("paused")));
        change(app, id, json!({"draft": true})).await.is_problem(409, "published");
        change(app, id, json!({"draft": null})).await.is_invalid("draft");
        change(app, id, json!({"draft": false, "paused": false})).await.is(200);
        app.client.buy(7, id).await.is(202);
        app.orders_written(id, 1).await;
        app.balanced(id).await;
    }

    async fn a_draft_is_archived_without_having_been_seen(app) {
        let id = new_draft(app, json!({})).await;
        let path = format!("/admin/products/{id}/archive");
        app.client.call(Method::POST, &path, Some(&app.client.admin()), None).await.is(200);
        is_hidden(app, id).await;
        change(app, id, json!({"draft": false})).await.is_problem(409, "archived");
    }

    async fn a_draft_that_is_made_twice_with_one_key_is_one(app) {
        let make = async |draft: bool| {
            let body = json!({"name": "Secret", "price_cents": 5, "stock": 3, "draft": draft});
            let request = app.client.request(Method::POST, "/products").bearer_auth(app.client.admin());
            app.client.send(request.header("Idempotency-Key", "draft").json(&body)).await
        };
        let (first, second) = (make(true).await.is(201), make(true).await.is(201));
        assert_eq!((&first["id"], &second["draft"]), (&second["id"], &json!(true)));
        make(false).await.is_problem(409, "idempotency_conflict");
    }
}
