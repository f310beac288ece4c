//! What `/metrics` says during an outage: it must not look excellent then.

use std::time::Duration;

use seckill::config::Backend;

use crate::client::Client;
use crate::crowd::{Crowd, Plan, Sale};
use crate::daemon::Daemon;
use crate::link::Link;
use crate::server::Server;
use crate::support::eventually_within;
use crate::trial::Trial;

/// Buyers who are promised a unit while the database is away.
const PURCHASES: i64 = 9;

async fn metrics(server: &Server) -> String {
    reqwest::get(format!("{}/metrics", server.url())).await.unwrap().text().await.unwrap()
}

fn value(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// Guards against: gauges that stay at 0 because nobody can read them, tries that fail fast and count as fast commits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_database_what_waits_is_seen_and_what_is_unknown_is_absent() {
    let mut trial = Trial::begin("metrics without MariaDB", Backend::Distributed).await;
    let mut mariadb = Daemon::start(Link::MariaDb, &mut trial.config).await;
    let server = Server::start(&trial.config).await;
    let client = Client::new(&trial.config, vec![server.url()]);
    let product = client.new_product(PURCHASES).await;
    eventually_within(20, "the sale was seen", || async {
        reqwest::get(format!("{}/products/{product}", server.url())).await.unwrap().status() == 200
    })
    .await;
    // The next comparison knows the sale.
    tokio::time::sleep(Duration::from_secs(11)).await;
    let before = metrics(&server).await;
    assert_eq!(value(&before, "seckill_drift_units"), Some(0.0), "{before}");
    let commits = value(&before, "seckill_commit_seconds_count").unwrap();

    mariadb.kill().await;
    trial.injected += 1;
    let plan = Plan::rush(PURCHASES, PURCHASES);
    let sale = Sale::new(client, product, plan);
    let crowd = Crowd::gather(&sale, plan, &mut trial.dice);
    eventually_within(30, "all that waits is seen", || async {
        let now = metrics(&server).await;
        value(&now, "seckill_in_flight_purchases") == Some(PURCHASES as f64)
            && value(&now, "seckill_in_flight_oldest_seconds").is_some_and(|age| age > 1.0)
            && value(&now, "seckill_drift_units").is_none()
            && value(&now, "seckill_unbalanced_sales").is_none()
            && value(&now, r#"seckill_dependency_up{dependency="database"}"#) == Some(0.0)
            && value(&now, "seckill_queue_messages").is_some_and(|messages| messages > 0.0)
            && value(&now, "seckill_commit_failures_total").is_some_and(|failures| failures > 0.0)
    })
    .await;
    let during = metrics(&server).await;
    assert_eq!(value(&during, "seckill_orders_written_total"), Some(0.0), "{during}");
    assert_eq!(value(&during, "seckill_commit_seconds_count"), Some(commits), "{during}");
    let age = value(&during, "seckill_in_flight_oldest_seconds").unwrap();
    eventually_within(15, "the oldest grows older", || async {
        value(&metrics(&server).await, "seckill_in_flight_oldest_seconds").is_some_and(|later| later > age + 5.0)
    })
    .await;

    mariadb.restart().await;
    eventually_within(30, "all of it is written and counted once", || async {
        let now = metrics(&server).await;
        value(&now, "seckill_orders_written_total") == Some(PURCHASES as f64)
            && value(&now, "seckill_drift_units") == Some(0.0)
            && value(&now, "seckill_queue_messages") == Some(0.0)
    })
    .await;
    trial.judge(crowd).await;
    trial.finish(vec![server]).await;
}
