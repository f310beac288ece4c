//! Webhooks while the process dies: what has happened is told at least once, and again under the same id.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use seckill::config::{Backend, Config};
use seckill::model::Role;
use serde_json::json;

use crate::client::{Answer, Client};
use crate::receiver::{Behaviour, Receiver};
use crate::server::Server;
use crate::support::eventually_within;
use crate::trial::Trial;

/// As long as a process that has died may hold what it was sending, and some.
const LEASE: u64 = 45;

fn settings() -> [(&'static str, String); 2] {
    [
        ("SECKILL__WEBHOOKS__ALLOW_PRIVATE", "true".to_owned()),
        ("SECKILL__WEBHOOKS__RETRY_SECONDS", "0,1,1,1,1".to_owned()),
    ]
}

/// Registers a receiver for what becomes of orders.
async fn register(config: &Config, server: &Server, receiver: &Receiver) {
    let token = Client::new(config, vec![server.url()]).token(1, Role::Admin);
    let endpoint = json!({"url": receiver.url(), "events": ["order.created"]});
    let request = reqwest::Client::new().post(format!("{}/admin/webhooks", server.url())).bearer_auth(token);
    assert_eq!(request.json(&endpoint).send().await.unwrap().status(), 201);
}

/// So many orders, at any of these servers; those that were promised.
async fn buy(config: &Config, servers: &[&Server], product: i64, users: std::ops::Range<i64>) -> HashSet<String> {
    let mut promised = HashSet::new();
    for user in users {
        let server = servers[user as usize % servers.len()];
        let client = Client::new(config, vec![server.url()]);
        if let Answer::Promised { order } = client.buy(&client.buyer(user), product, 0).await.answer {
            promised.insert(order.to_string());
        }
    }
    promised
}

/// Whether all of them were told, each under one id.
fn all_told(receiver: &Receiver, orders: &HashSet<String>) -> bool {
    let mut ids: HashMap<String, HashSet<String>> = HashMap::new();
    for got in receiver.all() {
        ids.entry(got.data()["id"].as_str().unwrap().to_owned()).or_default().insert(got.id().to_owned());
    }
    assert!(ids.values().all(|ids| ids.len() == 1), "one event has several ids: {ids:?}");
    orders.iter().all(|order| ids.contains_key(order))
}

/// Dies at `point` while it tells of orders.
#[cfg(feature = "failpoints")]
async fn dies_at(backend: Backend, point: &str) {
    let mut trial = Trial::begin(format!("{backend:?}: dies {}", point.replace('_', " ")), backend).await;
    let receiver = Receiver::start().await;
    let mut server = Server::start_with(&trial.config, &settings()).await;
    register(&trial.config, &server, &receiver).await;
    let product = Client::new(&trial.config, vec![server.url()]).new_product(10).await;
    server.terminate().await;
    server.restart_with(&[("FAILPOINTS", format!("{point}=return"))]).await;
    let orders = buy(&trial.config, &[&server], product, 1..4).await;
    server.died(Duration::from_secs(30)).await;
    trial.injected += 1;
    server.restart().await;
    eventually_within(LEASE, "all that was promised is told", || async { all_told(&receiver, &orders) }).await;
    if orders.is_empty() {
        trial.problem("nothing was promised");
    }
    trial.finish(vec![server]).await;
}

#[cfg(feature = "failpoints")]
macro_rules! dies {
    ($($(#[doc = $doc:literal])+ $point:ident,)+) => {
        mod embedded {
            use super::*;
            $($(#[doc = $doc])+
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $point() {
                dies_at(Backend::Embedded, stringify!($point)).await;
            })+
        }

        mod distributed {
            use super::*;
            $($(#[doc = $doc])+
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $point() {
                dies_at(Backend::Distributed, stringify!($point)).await;
            })+
        }
    };
}

#[cfg(feature = "failpoints")]
dies! {
    /// It is written down, and no endpoint has a delivery.
    before_fan_out_commit,

    /// There are deliveries, and nobody sends them.
    after_fan_out_commit,

    /// It was to be sent.
    before_webhook_turn_commit,

    /// It is held by a process that is no more.
    after_webhook_claim,

    /// It was sent, and nobody knows.
    after_webhook_sent,
}

/// Processes are killed while they tell of hundreds of orders.
async fn kill_9(backend: Backend, instances: usize) {
    let mut trial = Trial::begin(format!("{backend:?}: kill -9 of {instances} that tell"), backend).await;
    let receiver = Receiver::behaving(|_, _| Behaviour::Slow(Duration::from_millis(30))).await;
    let mut servers = Vec::new();
    for _ in 0..instances {
        servers.push(Server::start_with(&trial.config, &settings()).await);
    }
    register(&trial.config, &servers[0], &receiver).await;
    // The others look within a second.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let product = Client::new(&trial.config, vec![servers[0].url()]).new_product(1_000).await;
    let mut orders = HashSet::new();
    for round in 0..3 {
        let users = 1 + round * 100..1 + (round + 1) * 100;
        orders.extend(buy(&trial.config, &servers.iter().collect::<Vec<_>>(), product, users).await);
        let victim = round as usize % servers.len();
        tokio::time::sleep(trial.dice.millis(50..600)).await;
        servers[victim].kill().await;
        trial.injected += 1;
        servers[victim].restart().await;
    }
    assert_eq!(orders.len(), 300);
    eventually_within(LEASE + 30, "all that was promised is told", || async { all_told(&receiver, &orders) }).await;
    trial.finish(servers).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_tells_all_after_kill_9() {
    kill_9(Backend::Embedded, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_instances_tell_all_after_kill_9() {
    kill_9(Backend::Distributed, 2).await;
}
