//! Half a minute without one of the servers: what the program says meanwhile, and what it piles up.

use std::time::{Duration, Instant};

use seckill::config::Backend;

use crate::crowd::Plan;
use crate::daemon::Daemon;
use crate::link::Link;
use crate::server::Server;
use crate::trial::Trial;

const OUTAGE: Duration = Duration::from_secs(30);
/// What a program may need more than before, in MiB.
const MAX_GROWTH: u64 = 30;

async fn outage(link: Link) {
    let mut trial = Trial::begin(format!("{link:?} away for 30 s"), Backend::Distributed).await;
    let mut daemon = Daemon::start(link, &mut trial.config).await;
    let server = Server::start(&trial.config).await;
    let plan = Plan { lasting: Duration::from_secs(60), patience: Duration::from_secs(150), ..Plan::rush(1500, 2000) };
    let crowd = trial.open_sale(&[&server], plan).await;
    crowd.sold(20).await;
    let before = server.memory_mib();
    daemon.kill().await;
    trial.injected += 1;
    let begun = Instant::now();
    let mut most = before;
    while begun.elapsed() < OUTAGE {
        tokio::time::sleep(Duration::from_millis(250)).await;
        most = most.max(server.memory_mib());
    }
    daemon.restart().await;
    let patience = Duration::from_secs(10);
    let after = crowd.sells_after(Instant::now(), patience).await;
    trial.sold_again(after, patience);
    trial.judge(crowd).await;
    most = most.max(server.memory_mib());
    if most > before + MAX_GROWTH {
        trial.problem(format!("memory grew from {before} to {most} MiB"));
    }
    trial.finish(vec![server]).await;
}

/// Guards against: purchases that pile up in memory or are answered from it (peers 4), messages that are given up
/// because the database was away (peers 10, 14).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn half_a_minute_without_mariadb() {
    outage(Link::MariaDb).await;
}

/// Guards against: purchases that pile up in memory, releases that are forgotten (peers 1, 5).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn half_a_minute_without_redis() {
    outage(Link::Redis).await;
}

/// Guards against: messages that pile up in memory and are told to be queued (peers 4), units that leak one a click
/// (peers 1, 7).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn half_a_minute_without_rabbitmq() {
    outage(Link::RabbitMq).await;
}
