use std::time::{Duration, Instant};

use futures_util::future::join_all;
use reqwest::Method;
use serde_json::json;

use crate::on_both_backends;

on_both_backends! {
    /// Guards against: an order id that the GET does not know yet (peers 20).
    async fn the_whole_journey(app) {
        let admin = app.client.log_in_as_admin().await;
        let product = json!({"name": "Sneaker", "price_cents": 19_900, "stock": 10});
        let id = app.client.post("/products", Some(&admin), product).await.is(201)["id"].as_i64().unwrap();
        let credentials = json!({"username": "alice", "password": "correct horse"});
        app.client.post("/register", None, credentials.clone()).await.is(201);
        let login = app.client.post("/login", None, credentials).await.is(200);
        let token = login["access_token"].as_str();

        let bought = app.client.call(Method::POST, &format!("/seckill/{id}"), token, None).await;
        let location = bought.headers["location"].to_str().unwrap().to_owned();
        let accepted = bought.is(202);
        assert_eq!((accepted["product_id"].as_i64(), accepted["status"].as_str()), (Some(id), Some("queued")));
        assert_eq!(location, format!("/orders/{}", accepted["order_id"].as_str().unwrap()));

        let known_at_once = app.client.get(&location, token).await.is(200);
        assert!(["queued", "unpaid"].contains(&known_at_once["status"].as_str().unwrap()), "{known_at_once}");
        app.orders_written(id, 1).await;
        let order = app.client.get(&location, token).await.is(200);
        let expected = json!({"id": accepted["order_id"], "product_id": id, "product_name": "Sneaker",
            "price_cents": 19_900, "status": "unpaid", "reason": null});
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(order[field], *value, "{field}");
        }
        let listed = app.client.get("/orders", token).await.is(200);
        assert_eq!(listed, json!({"items": [order], "next_cursor": null}));
        app.balanced(id).await;
    }

    async fn the_last_unit_is_sold_once_under_200_concurrent_buyers(app) {
        let id = app.client.new_product(1).await;
        let replies = join_all((1..=200).map(|user| app.client.buy(user, id))).await;
        let accepted = replies.iter().filter(|reply| reply.status == 202).count();
        assert_eq!(accepted, 1);
        replies.iter().filter(|reply| reply.status != 202).for_each(|reply| reply.is_problem(409, "sold_out"));
        app.orders_written(id, 1).await;
        app.balanced(id).await;
    }

    async fn a_thousand_buyers_with_two_tries_each_get_exactly_the_stock(app) {
        let id = app.client.new_product(100).await;
        let first = join_all((1..=1000).map(|user| app.client.buy(user, id))).await;
        let winners: Vec<_> = first.iter().enumerate().filter(|(_, reply)| reply.status == 202).collect();
        assert_eq!(winners.len(), 100);
        let second = join_all((1..=1000).map(|user| app.client.buy(user, id))).await;
        assert_eq!(second.iter().filter(|reply| reply.status == 202).count(), 0);
        for (index, reply) in winners {
            second[index].is_problem(409, "already_purchased");
            assert_eq!(second[index].body["order_id"], reply.body["order_id"], "after the sale has sold out, too");
        }
        for reply in first.iter().chain(&second) {
            let code = reply.body["code"].as_str();
            assert!(matches!(code, None | Some("sold_out" | "rate_limited" | "already_purchased")), "{reply:?}");
        }
        app.orders_written(id, 100).await;
        assert_eq!(app.client.product(id).await["remaining"], 0);
        app.balanced(id).await;
        let buyers = format!("SELECT COUNT(DISTINCT user_id) AS n FROM orders WHERE product_id = {id}");
        assert_eq!(app.stores.number(&buyers).await, 100);
    }

    /// Guards against: clicks that burn stock nobody gets (peers 7).
    async fn many_clicks_of_one_buyer_take_one_unit(app) {
        let id = app.client.new_product(50).await;
        let replies = join_all((0..50).map(|_| app.client.buy(7, id))).await;
        let accepted: Vec<_> = replies.iter().filter(|reply| reply.status == 202).collect();
        assert_eq!(accepted.len(), 1);
        for reply in replies.iter().filter(|reply| reply.status != 202) {
            reply.is_problem(409, "already_purchased");
            assert_eq!(reply.body["order_id"], accepted[0].body["order_id"]);
        }
        app.orders_written(id, 1).await;
        assert_eq!(app.client.product(id).await["remaining"], 49);
        app.balanced(id).await;
    }

    /// Guards against: whoever retries stays locked out (peers 9).
    async fn one_try_a_second_and_a_refused_one_does_not_extend_the_wait(app) {
        let id = app.client.new_product(0).await;
        let begun = Instant::now();
        app.client.buy(7, id).await.is_problem(409, "sold_out");
        let mut limited = 0;
        loop {
            let reply = app.client.buy(7, id).await;
            if reply.status == 409 {
                break;
            }
            reply.is_problem(429, "rate_limited");
            assert_eq!(reply.headers["ratelimit"], "\"purchases\";r=0;t=1");
            limited += 1;
            assert!(begun.elapsed() < Duration::from_secs(3), "locked out by refused tries");
        }
        assert!(limited > 0 && begun.elapsed() >= Duration::from_millis(990), "{limited} in {:?}", begun.elapsed());
        app.client.buy(8, id).await.is_problem(409, "sold_out");
    }

    /// Guards against: calls before the start that burn stock (peers 7).
    async fn a_try_before_the_start_costs_nothing(app) {
        let soon = (chrono::Utc::now() + chrono::Duration::hours(1)).to_rfc3339();
        let body = json!({"name": "Sneaker", "price_cents": 1, "stock": 1, "starts_at": soon});
        let id = app.client.post("/products", Some(&app.client.admin()), body).await.is(201)["id"].as_i64().unwrap();
        for _ in 0..3 {
            app.client.buy(7, id).await.is_problem(409, "not_started");
        }
        let now = json!({"starts_at": chrono::Utc::now().to_rfc3339()});
        app.client.patch(&format!("/products/{id}"), Some(&app.client.admin()), now).await.is(200);
        app.client.buy(7, id).await.is(202);
    }

    async fn every_refusal_has_its_status_and_code(app) {
        let client = &app.client;
        client.call(Method::POST, "/seckill/1", None, None).await.is_problem(401, "unauthorized");
        client.buy(7, 999).await.is_problem(404, "product_not_found");
        for id in ["0", "-1", "abc", "1.0", "9223372036854775808", "%31x"] {
            let path = format!("/seckill/{id}");
            client.call(Method::POST, &path, Some(&client.buyer(7)), None).await.is_invalid("id");
        }
        let id = client.new_product(1).await;
        client.buy(7, id).await.is(202);
        client.buy(8, id).await.is_problem(409, "sold_out");
        client.buy(8, id).await.is_problem(429, "rate_limited");
        client.buy(7, id).await.is_problem(409, "already_purchased");
        client.patch(&format!("/products/{id}"), Some(&client.admin()), json!({"paused": true})).await.is(200);
        client.buy(7, id).await.is_problem(409, "paused");
    }

    async fn a_restart_keeps_the_sale(app) {
        let id = app.client.new_product(10).await;
        let bought = join_all((1..=6).map(|user| app.client.buy(user, id))).await;
        assert!(bought.iter().all(|reply| reply.status == 202));
        app.restart().await;
        assert_eq!(app.client.product(id).await["remaining"], 4);
        app.client.buy(3, id).await.is_problem(409, "already_purchased");
        let again = join_all((7..=20).map(|user| app.client.buy(user, id))).await;
        assert_eq!(again.iter().filter(|reply| reply.status == 202).count(), 4);
        app.orders_written(id, 10).await;
        app.balanced(id).await;
    }

    async fn sales_of_many_products_do_not_mix(app) {
        let ids = join_all((0..10).map(|_| app.client.new_product(5))).await;
        let clicks = ids.iter().flat_map(|id| (1..=20).map(move |user| (user, *id)));
        let replies = join_all(clicks.map(|(user, id)| app.client.buy(user, id))).await;
        assert_eq!(replies.iter().filter(|reply| reply.status == 202).count(), 50);
        for id in ids {
            app.orders_written(id, 5).await;
            app.balanced(id).await;
        }
    }
}
