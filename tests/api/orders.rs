use serde_json::{Value, json};

use crate::on_both_backends;

on_both_backends! {
    async fn an_order_is_its_buyers_and_the_administrators(app) {
        let id = app.client.new_product(1).await;
        let order = app.client.buy(7, id).await.is(202)["order_id"].as_str().unwrap().to_owned();
        app.client.order(7, &order).await.is(200);
        app.client.order(8, &order).await.is_problem(404, "order_not_found");
        assert_eq!(app.client.get(&format!("/orders/{order}"), Some(&app.client.admin())).await.is(200)["id"], order);
        app.client.get(&format!("/orders/{order}"), None).await.is_problem(401, "unauthorized");
        app.client.get("/orders", None).await.is_problem(401, "unauthorized");
        assert_eq!(app.client.get("/orders", Some(&app.client.buyer(8))).await.is(200)["items"], json!([]));
    }

    async fn an_unknown_order_is_not_found_and_a_malformed_id_is_refused(app) {
        app.client.new_product(1).await;
        let unknown = uuid::Uuid::now_v7().to_string();
        app.client.order(7, &unknown).await.is_problem(404, "order_not_found");
        for id in ["7", "not-a-uuid", &unknown.replace('-', ""), "6fa459ea-ee8a-4ca4-894e-db77e160355e"] {
            app.client.order(7, id).await.is_invalid("id");
        }
    }

    async fn orders_come_newest_first_in_pages(app) {
        let mut ids = Vec::new();
        for _ in 0..5 {
            let product = app.client.new_product(1).await;
            ids.push(app.client.buy(7, product).await.is(202)["order_id"].clone());
            let listed = app.client.get("/orders", Some(&app.client.buyer(7))).await.is(200);
            assert_eq!(listed["items"][0]["id"], *ids.last().unwrap(), "known from the 202 on");
        }
        ids.reverse();
        let mut seen: Vec<Value> = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = app.client.get(&format!("/orders?limit=2{cursor}"), Some(&app.client.buyer(7))).await.is(200);
            seen.extend(page["items"].as_array().unwrap().iter().map(|order| order["id"].clone()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(seen, ids);
        app.client.get("/orders?cursor=x", Some(&app.client.buyer(7))).await.is_invalid("cursor");
        app.client.get("/orders?limit=0", Some(&app.client.buyer(7))).await.is_invalid("limit");
    }

    async fn the_price_of_an_order_stays(app) {
        let id = app.client.new_product(2).await;
        let first = app.client.buy(7, id).await.is(202)["order_id"].as_str().unwrap().to_owned();
        app.orders_written(id, 1).await;
        let change = json!({"price_cents": 5});
        app.client.patch(&format!("/products/{id}"), Some(&app.client.admin()), change).await.is(200);
        let second = app.client.buy(8, id).await.is(202)["order_id"].as_str().unwrap().to_owned();
        app.orders_written(id, 2).await;
        assert_eq!(app.client.order(7, &first).await.is(200)["price_cents"], 19_900);
        assert_eq!(app.client.order(8, &second).await.is(200)["price_cents"], 5);
    }
}
