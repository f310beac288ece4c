//! Faults of RabbitMQ itself.

use std::time::{Duration, Instant};

use seckill::config::Backend;

use crate::crowd::Plan;
use crate::daemon::Daemon;
use crate::link::Link;
use crate::server::Server;
use crate::trial::Trial;

/// After its return a broker is used again within this. A release build needs two seconds, a debug build some more.
const USED_WITHIN: Duration = Duration::from_secs(5);

/// Harms RabbitMQ a few times in the middle of a sale. `harm` returns when RabbitMQ was back.
async fn lose_the_queue(fault: &str, harm: impl AsyncFn(&mut Daemon) -> Instant) {
    let mut trial = Trial::begin(fault, Backend::Distributed).await;
    let mut rabbitmq = Daemon::start(Link::RabbitMq, &mut trial.config).await;
    let mut server = Server::start(&trial.config).await;
    // A queue as it is before a sale: made some time ago. RabbitMQ 3.10 writes down only seconds later, or when it is
    // stopped, which log belongs to a new quorum queue; killed before that, it comes back with an empty one.
    server.terminate().await;
    rabbitmq.terminate().await;
    rabbitmq.restart().await;
    server.restart().await;
    // Other tests start servers at the same time, and RabbitMQ starts slowly.
    let plan = Plan { patience: Duration::from_secs(240), ..Plan::rush(900, 1200) };
    let crowd = trial.open_sale(&[&server], plan).await;
    for round in 1..=3 {
        crowd.sold(trial.dice.among(round * 25 - 20..round * 25)).await;
        let back = harm(&mut rabbitmq).await;
        trial.injected += 1;
        let after = crowd.sells_after(back, USED_WITHIN).await;
        trial.sold_again(after, USED_WITHIN);
    }
    trial.refused_meanwhile(&crowd);
    trial.judge(crowd).await;
    trial.finish(vec![server]).await;
}

/// Guards against: a publish that failed and is never decided (peers 1), a confirm that never comes and a unit that is
/// released although the message arrived (peers 2), success told before the broker has it (peers 4).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn survives_a_kill() {
    lose_the_queue("RabbitMQ killed -9 and started", async |rabbitmq| {
        rabbitmq.kill().await;
        rabbitmq.restart().await
    })
    .await;
}

/// Guards against: the same, and a consumer that a broker's farewell ends for good (peers 15).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn survives_a_stop() {
    lose_the_queue("RabbitMQ stopped and started", async |rabbitmq| {
        rabbitmq.terminate().await;
        rabbitmq.restart().await
    })
    .await;
}

/// Guards against: a confirm that comes too late and a unit that is released by then (peers 2), messages delivered
/// twice that are dropped or written twice (peers 11, 13).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn survives_being_frozen() {
    lose_the_queue("RabbitMQ frozen for 5 s", async |rabbitmq| rabbitmq.freeze(Duration::from_secs(5)).await).await;
}
