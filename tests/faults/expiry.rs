//! Deaths between the database and the gate, while orders expire or are cancelled: the units come back all the same, once.

use std::time::Duration;

use reqwest::Method;
use seckill::config::Backend;
use seckill::model::Role;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::books::Books;
use crate::client::{Answer, Client};
use crate::server::Server;
use crate::support::eventually_within;
use crate::trial::Trial;

const STOCK: i64 = 3;
/// The shortest time to pay.
const WINDOW_SECONDS: i64 = 5;
/// A point is reached within this, or the test is about nothing.
const DIES_WITHIN: Duration = Duration::from_secs(30);

async fn request(trial: &Trial, server: &Server, path: &str, user: i64, role: Role, body: Value) -> Option<Value> {
    let client = Client::new(&trial.config, vec![server.url()]);
    let request = reqwest::Client::new().request(Method::POST, format!("{}{path}", server.url()));
    let reply = request.bearer_auth(client.token(user, role)).json(&body).send().await.ok()?;
    reply.json().await.ok()
}

/// Buys everything, lets the process die at `point` after `harm`, and sells everything again.
async fn dies_at(backend: Backend, point: &str, harm: impl AsyncFn(&Trial, &Server, &[Uuid])) {
    let mut trial = Trial::begin(format!("{backend:?}: dies {}", point.replace('_', " ")), backend).await;
    let mut server = Server::start(&trial.config).await;
    server.terminate().await;
    server.restart_with(&[("FAILPOINTS", format!("{point}=return"))]).await;
    let product =
        json!({"name": "Sneaker", "price_cents": 5, "stock": STOCK, "payment_window_seconds": WINDOW_SECONDS});
    let product = request(&trial, &server, "/products", 1, Role::Admin, product).await.expect("a product");
    let product = product["id"].as_i64().expect("a product");
    let client = Client::new(&trial.config, vec![server.url()]);
    let mut orders = Vec::new();
    for user in 1..=STOCK {
        match client.buy(&client.buyer(user), product, 0).await.answer {
            Answer::Promised { order } => orders.push(order),
            _ => trial.problem("a click was not answered 202"),
        }
    }
    eventually_within(4, "they are written", || async {
        Books::read(&trial.config, product).await.is_ok_and(|books| books.sold == STOCK)
    })
    .await;
    harm(&trial, &server, &orders).await;
    server.died(DIES_WITHIN).await;
    trial.injected += 1;
    server.restart().await;
    // Some may still have to expire.
    eventually_within(15, "all units are back", || async {
        client.remaining(product).await == Some(STOCK)
            && Books::read(&trial.config, product).await.is_ok_and(|books| books.sold == 0 && books.owed == 0)
    })
    .await;
    for user in 1..=STOCK {
        if !matches!(client.buy(&client.buyer(user + 10), product, 0).await.answer, Answer::Promised { .. }) {
            trial.problem("a unit that came back was not sold again");
        }
    }
    if !matches!(client.buy(&client.buyer(99), product, 0).await.answer, Answer::SoldOut) {
        trial.problem("a unit was sold twice");
    }
    trial.finish(vec![server]).await;
}

macro_rules! dies {
    ($($(#[doc = $doc:literal])+ $name:ident: $point:literal, $harm:expr;)+) => {
        mod embedded {
            use super::*;
            $($(#[doc = $doc])+
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                dies_at(Backend::Embedded, $point, $harm).await;
            })+
        }

        mod distributed {
            use super::*;
            $($(#[doc = $doc])+
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                dies_at(Backend::Distributed, $point, $harm).await;
            })+
        }
    };
}

/// Their time passes.
async fn wait(_: &Trial, _: &Server, _: &[Uuid]) {}

/// A buyer gives an order up; the reply is lost.
async fn cancel(trial: &Trial, server: &Server, orders: &[Uuid]) {
    request(trial, server, &format!("/orders/{}/cancel", orders[0]), 1, Role::Buyer, json!({})).await;
}

dies! {
    /// They have expired, and no gate knows (peers 1).
    after_expire_commit: "after_expire_commit", wait;

    /// The gate has the units, and the row does not know.
    after_the_release_of_what_expired: "after_release", wait;

    /// It is cancelled, and no gate knows (peers 1).
    after_change_commit: "after_change_commit", cancel;
}
