//! `max_per_address`: units that buyers of one network address may take in all.

use reqwest::Method;
use seckill::config::Config;
use seckill::model::TrustedProxies;
use serde_json::{Value, json};

use crate::app::TestApp;
use crate::client::{Client, Reply};
use crate::provider::product;

fn behind_a_proxy(config: &mut Config) {
    config.server.trusted_proxies = TrustedProxies::parse(["127.0.0.1", "198.51.100.1"]).unwrap();
    config.limits.shared_addresses.add("203.0.113.0/24").unwrap();
}

/// A click that the proxy says comes from there.
async fn buy_from(client: &Client, address: &str, user: i64, product: i64) -> Reply {
    let request = client.request(Method::POST, &format!("/seckill/{product}")).bearer_auth(client.buyer(user));
    client.send(request.header("x-forwarded-for", address)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_gets_its_share_and_its_proxy_is_none() {
    TestApp::on_both(behind_a_proxy, async |app: &mut TestApp| {
        let client = &app.client;
        let id = product(app, json!({"stock": 50, "max_per_address": 2})).await;
        assert_eq!(client.product(id).await["max_per_address"], 2);
        for user in [1, 2] {
            buy_from(client, "192.0.2.7", user, id).await.is(202);
        }
        let refused = buy_from(client, "192.0.2.7", 3, id).await;
        refused.is_problem(409, "address_limit");
        assert_eq!(refused.body["remaining"], 0);
        // The first one is the client's own word.
        buy_from(client, "192.0.2.8, ::ffff:192.0.2.7", 4, id).await.is_problem(409, "address_limit");
        buy_from(client, "192.0.2.7", 1, id).await.is_problem(409, "already_purchased");
        for (user, lower) in [(10, "1"), (11, "ffff:2"), (12, "3:4")] {
            let reply = buy_from(client, &format!("2001:db8:0:1::{lower}"), user, id).await;
            assert_eq!(reply.status, if user < 12 { 202 } else { 409 }, "{reply:?}");
        }
        // Many stand behind a proxy that says nothing of its client, behind this machine's address, and in an office.
        for (number, address) in (20..).zip(["198.51.100.1", "127.0.0.1", "203.0.113.9"].repeat(3)) {
            buy_from(client, address, number, id).await.is(202);
        }
        for user in [40, 41, 42] {
            client.buy(user, id).await.is(202);
        }
        app.orders_written(id, 16).await;
        app.balanced(id).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_share_is_raised_and_taken_away_during_the_sale_and_is_not_given_back() {
    TestApp::on_both(behind_a_proxy, async |app: &mut TestApp| {
        let client = &app.client;
        let id = product(app, json!({"stock": 50, "max_per_address": 1, "max_per_order": 2})).await;
        let path = format!("/products/{id}");
        let order = buy_from(client, "192.0.2.7", 1, id).await.is(202)["order_id"].as_str().unwrap().to_owned();
        app.orders_written(id, 1).await;
        client.post(&format!("/orders/{order}/cancel"), Some(&client.buyer(1)), json!({})).await.is(200);
        buy_from(client, "192.0.2.7", 2, id).await.is_problem(409, "address_limit");

        client.patch(&path, Some(&client.admin()), json!({"max_per_address": 2})).await.is(200);
        buy_from(client, "192.0.2.7", 3, id).await.is(202);
        buy_from(client, "192.0.2.7", 4, id).await.is_problem(409, "address_limit");
        let unlimited = client.patch(&path, Some(&client.admin()), json!({"max_per_address": null})).await.is(200);
        assert_eq!(unlimited["max_per_address"], Value::Null);
        for user in [5, 6, 7] {
            buy_from(client, "192.0.2.7", user, id).await.is(202);
        }
        let log = client.get(&format!("/admin/log?object=product%20{id}"), Some(&client.admin())).await.is(200);
        assert!(log.to_string().contains(r#"max_per_address \"1\" -> \"2\""#), "{log}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_share_is_refused_by_field() {
    TestApp::on_both(behind_a_proxy, async |app: &mut TestApp| {
        let client = &app.client;
        let id = product(app, json!({"stock": 50})).await;
        assert_eq!(client.product(id).await["max_per_address"], Value::Null);
        for wrong in [json!(0), json!(-1), json!(10_000_001), json!(1.5), json!("2"), json!([1])] {
            let patch = json!({"max_per_address": wrong});
            client.patch(&format!("/products/{id}"), Some(&client.admin()), patch).await.is_invalid("max_per_address");
            let product = json!({"name": "Shoe", "price_cents": 1, "stock": 1, "max_per_address": wrong});
            client.post("/products", Some(&client.admin()), product).await.is_invalid("max_per_address");
        }
    })
    .await;
}
