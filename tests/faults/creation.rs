//! A product that is put on sale while a step of it fails: it is there and sells, or it never goes on sale unasked.

use reqwest::{Method, StatusCode};
use seckill::config::Backend;
use seckill::model::Role;
use serde_json::{Value, json};

use crate::client::Client;
use crate::crowd::{Crowd, Plan, Sale};
use crate::daemon::Daemon;
use crate::link::Link;
use crate::server::Server;
use crate::support::eventually_within;
use crate::trial::Trial;

const STOCK: i64 = 5;

/// `POST /products`, once.
async fn create(trial: &Trial, server: &Server, key: Option<&str>) -> (StatusCode, Value) {
    let client = Client::new(&trial.config, vec![server.url()]);
    let mut request = reqwest::Client::new()
        .request(Method::POST, format!("{}/products", server.url()))
        .bearer_auth(client.token(1, Role::Admin))
        .json(&json!({"name": "Sneaker", "price_cents": 19_900, "stock": STOCK}));
    if let Some(key) = key {
        request = request.header("Idempotency-Key", key);
    }
    let reply = request.send().await.unwrap();
    (reply.status(), reply.json().await.unwrap())
}

async fn products(server: &Server) -> Vec<Value> {
    let reply = reqwest::get(format!("{}/products", server.url())).await.unwrap();
    reply.json::<Value>().await.unwrap()["items"].as_array().unwrap().clone()
}

async fn start_with(backend: Backend, points: &str) -> (Trial, Server) {
    let trial = Trial::begin(format!("{backend:?}: {points}"), backend).await;
    let mut server = Server::start(&trial.config).await;
    server.terminate().await;
    server.restart_with(&[("FAILPOINTS", points.to_owned())]).await;
    (trial, server)
}

/// Sells all of it, without a restart.
async fn sells(trial: &mut Trial, server: &Server, product: i64) {
    let plan = Plan::rush(STOCK, 20);
    let client = Client::new(&trial.config, vec![server.url()]);
    let sale = Sale::new(client, product, plan);
    let crowd = Crowd::gather(&sale, plan, &mut trial.dice);
    trial.judge(crowd).await;
}

/// Between the commit and the gate nothing is lost: the product exists, the answer says so, and it sells.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_product_whose_gate_did_not_open_sells_without_a_restart() {
    for backend in [Backend::Embedded, Backend::Distributed] {
        let (mut trial, server) = start_with(backend, "open_new=1*return").await;
        let (status, product) = create(&trial, &server, None).await;
        assert_eq!((status.as_u16(), &product["remaining"]), (201, &json!(STOCK)), "{product}");
        trial.injected += 1;
        sells(&mut trial, &server, product["id"].as_i64().unwrap()).await;
        trial.finish(vec![server]).await;
    }
}

/// An answer to the commit that was lost is found out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_product_whose_commit_has_an_unknown_result_is_looked_for() {
    for backend in [Backend::Embedded, Backend::Distributed] {
        let (mut trial, server) = start_with(backend, "lose_commit=1*return").await;
        let (status, product) = create(&trial, &server, None).await;
        assert_eq!(status, 201, "{product}");
        trial.injected += 1;
        sells(&mut trial, &server, product["id"].as_i64().unwrap()).await;
        trial.finish(vec![server]).await;
    }
}

/// Where it cannot be found out the answer is 503; then a repeat with the same key finds the product, and without a key
/// nothing goes on sale by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_product_that_was_answered_503_does_not_go_on_sale_unasked() {
    for backend in [Backend::Embedded, Backend::Distributed] {
        let (mut trial, server) = start_with(backend, "lose_commit=2*return;hide_created=return").await;
        let (status, problem) = create(&trial, &server, None).await;
        assert_eq!(status, 503, "{problem}");
        eventually_within(5, "it is paused", || async {
            products(&server).await.iter().all(|product| product["paused"] == true)
        })
        .await;
        let unasked = products(&server).await;
        assert_eq!(unasked.len(), 1);

        let (status, problem) = create(&trial, &server, Some("key")).await;
        assert_eq!(status, 503, "{problem}");
        let (status, product) = create(&trial, &server, Some("key")).await;
        assert_eq!(status, 201, "{product}");
        assert_eq!(products(&server).await.len(), 2, "one more, not two");
        trial.injected += 2;
        sells(&mut trial, &server, product["id"].as_i64().unwrap()).await;
        let unasked = products(&server).await.into_iter().find(|product| product["id"] == unasked[0]["id"]).unwrap();
        assert_eq!((&unasked["paused"], &unasked["remaining"]), (&json!(true), &json!(STOCK)));
        trial.finish(vec![server]).await;
    }
}

/// Without Redis nothing is made; afterwards a product can be made as ever, and one that was made before can be restocked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_a_product_is_refused_and_a_restock_is_kept() {
    let mut trial = Trial::begin("a product is made without Redis", Backend::Distributed).await;
    let mut redis = Daemon::start(Link::Redis, &mut trial.config).await;
    let server = Server::start(&trial.config).await;
    let (status, product) = create(&trial, &server, None).await;
    assert_eq!(status, 201, "{product}");
    redis.kill().await;
    trial.injected += 1;
    let (status, problem) = create(&trial, &server, None).await;
    assert_eq!(status, 503, "{problem}");
    let client = Client::new(&trial.config, vec![server.url()]);
    let restock = reqwest::Client::new()
        .post(format!("{}/products/{}/restock", server.url(), product["id"]))
        .bearer_auth(client.token(1, Role::Admin))
        .json(&json!({"units": 3}));
    let reply = restock.send().await.unwrap();
    assert_eq!(reply.status(), 200, "the units are in the database: a repeat would add them twice");
    assert_eq!(reply.json::<Value>().await.unwrap()["stock"], STOCK + 3);
    redis.restart().await;
    eventually_within(20, "the gate is open again", || async {
        let reply = reqwest::get(format!("{}/products/{}", server.url(), product["id"])).await.unwrap();
        reply.status() == 200 && reply.json::<Value>().await.unwrap()["remaining"] == STOCK + 3
    })
    .await;
    assert_eq!(products(&server).await.len(), 1, "what was answered 503 is not there");
    trial.finish(vec![server]).await;
}
