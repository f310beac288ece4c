//! Two administrators at one sale do not undo each other's changes: `If-Match`.

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::client::Reply;
use crate::on_both_backends;

/// Changes a product on condition that it has one of `revisions`.
async fn change(app: &TestApp, method: Method, path: &str, revisions: &str, body: Value) -> Reply {
    let request = app.client.request(method, path).bearer_auth(app.client.admin()).header("If-Match", revisions);
    app.client.send(request.json(&body)).await
}

on_both_backends! {
    async fn a_change_of_another_revision_is_refused_and_says_which_one_it_is(app) {
        let id = app.client.new_product(5).await;
        let (product, archive) = (format!("/products/{id}"), format!("/admin/products/{id}/archive"));
        let restock = format!("{product}/restock");
        let changed = change(app, Method::PATCH, &product, "\"1\"", json!({"name": "Mine"})).await.is(200);
        assert_eq!(changed["revision"], 2);
        for revisions in ["\"1\"", "\"0\", \"3\"", "\"-2\""] {
            for (method, path, body) in [
                (Method::PATCH, &product, json!({"name": "Theirs", "paused": true})),
                (Method::POST, &restock, json!({"units": 3})),
                (Method::POST, &archive, json!({})),
            ] {
                let refused = change(app, method, path, revisions, body).await;
                refused.is_problem(412, "precondition_failed");
                assert_eq!(refused.body["revision"], 2);
            }
        }
        let kept = app.client.product(id).await;
        assert_eq!((&kept["name"], &kept["stock"], &kept["revision"]), (&json!("Mine"), &json!(5), &json!(2)));
        let changed = change(app, Method::POST, &restock, "\"1\", \"2\"", json!({"units": 3})).await.is(200);
        assert_eq!((&changed["stock"], &changed["revision"]), (&json!(8), &json!(3)));
        change(app, Method::PATCH, &product, "*", json!({"paused": true})).await.is(200);
        change(app, Method::POST, &archive, "\"4\"", json!({})).await.is(200);
        change(app, Method::PATCH, "/products/999", "\"1\"", json!({})).await.is_problem(404, "product_not_found");
        change(app, Method::PATCH, &product, "\"4\"", json!({})).await.is_problem(412, "precondition_failed");
        change(app, Method::PATCH, &product, "\"5\"", json!({})).await.is_problem(409, "archived");
        app.balanced(id).await;
    }

    async fn of_many_who_saw_the_same_revision_one_changes_it(app) {
        let id = app.client.new_product(5).await;
        let product = format!("/products/{id}");
        let restock = format!("{product}/restock");
        let changes = (0..8).map(|n| match n % 2 {
            0 => change(app, Method::POST, &restock, "\"1\"", json!({"units": 1})),
            _ => change(app, Method::PATCH, &product, "\"1\"", json!({"stock": 6})),
        });
        let replies = join_all(changes).await;
        assert_eq!(replies.iter().filter(|reply| reply.status == 200).count(), 1);
        for refused in replies.iter().filter(|reply| reply.status != 200) {
            refused.is_problem(412, "precondition_failed");
        }
        let product = app.client.product(id).await;
        assert_eq!((&product["stock"], &product["revision"]), (&json!(6), &json!(2)));
        app.balanced(id).await;
    }

    async fn a_restock_that_is_repeated_with_its_key_is_answered_as_at_first(app) {
        let id = app.client.new_product(5).await;
        let again = async || {
            let request = app.client.request(Method::POST, &format!("/products/{id}/restock"));
            let request = request.bearer_auth(app.client.admin()).header("If-Match", "\"1\"").header("Idempotency-Key", "once");
            app.client.send(request.json(&json!({"units": 2}))).await.is(200)["revision"].clone()
        };
        assert_eq!(join_all((0..4).map(|_| again())).await, vec![json!(2); 4]);
        assert_eq!(again().await, 2);
        assert_eq!(app.client.product(id).await["stock"], 7);
    }
}
