//! Two faults at once: what one of them alone would leave for the other side to repair.

use seckill::config::Backend;

use crate::crowd::Plan;
use crate::link::{self, Link};
use crate::proxy::{Proxy, Wire};
use crate::server::Server;
use crate::trial::Trial;

async fn empty_redis(trial: &mut Trial) {
    link::empty_redis(&trial.config).await;
    trial.injected += 1;
}

/// Guards against: an acknowledgement before the commit (peers 10), which the gate would hide; a restart that fills the
/// gate from the database while purchases are in the queue (peers 16, 17).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn survives_kill_9_and_an_emptied_gate() {
    let mut trial = Trial::begin("process killed -9 and Redis emptied", Backend::Distributed).await;
    let mut server = Server::start(&trial.config).await;
    for _ in 0..5 {
        let crowd = trial.open_sale(&[&server], Plan::rush(300, 450)).await;
        crowd.sold(trial.dice.among(5..95)).await;
        trial.kill(&mut server).await;
        empty_redis(&mut trial).await;
        server.restart().await;
        trial.judge(crowd).await;
    }
    trial.finish(vec![server]).await;
}

/// Guards against: a gate that is rebuilt while another instance still promises what the old one admitted (peers 17).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn survives_a_rebuild_while_an_instance_lags() {
    let mut trial = Trial::begin("Redis emptied, one of two instances lags", Backend::Distributed).await;
    let mut behind_proxy = trial.config.clone();
    let proxy = Proxy::before(Link::RabbitMq, &mut behind_proxy).await;
    let (swift, lagging) = (Server::start(&trial.config).await, Server::start(&behind_proxy).await);
    for _ in 0..5 {
        let crowd = trial.open_sale(&[&swift, &lagging], Plan::rush(300, 450)).await;
        crowd.sold(trial.dice.among(5..40)).await;
        proxy.set(Wire::HalfOpen);
        tokio::time::sleep(trial.dice.millis(20..200)).await;
        empty_redis(&mut trial).await;
        // In time for a promise.
        tokio::time::sleep(trial.dice.millis(700..1500)).await;
        proxy.set(Wire::Good);
        trial.judge(crowd).await;
    }
    trial.finish(vec![swift, lagging]).await;
}
