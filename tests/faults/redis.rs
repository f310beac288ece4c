//! Faults of Redis itself.

use std::time::{Duration, Instant};

use deadpool_redis::redis::cmd;
use seckill::config::Backend;

use crate::crowd::Plan;
use crate::daemon::Daemon;
use crate::link::{self, Link};
use crate::server::Server;
use crate::trial::Trial;

/// A gate that was lost is rebuilt within this.
const REBUILT_WITHIN: Duration = Duration::from_secs(10);

/// What the gate admitted before the fault is still promised for this long.
const LAST_PROMISES: Duration = Duration::from_secs(1);

/// Harms Redis a few times in the middle of a sale. `harm` returns when Redis was back.
async fn lose_the_gate(fault: &str, harm: impl AsyncFn(&mut Daemon, &mut Trial) -> Instant) {
    let mut trial = Trial::begin(fault, Backend::Distributed).await;
    let mut redis = Daemon::start(Link::Redis, &mut trial.config).await;
    let server = Server::start(&trial.config).await;
    let crowd = trial.open_sale(&[&server], Plan::rush(900, 1200)).await;
    for round in 1..=3 {
        crowd.sold(trial.dice.among(round * 25 - 20..round * 25)).await;
        let back = harm(&mut redis, &mut trial).await;
        trial.injected += 1;
        let after = crowd.sells_after(back + LAST_PROMISES, REBUILT_WITHIN - LAST_PROMISES).await;
        trial.sold_again(after.map(|after| after + LAST_PROMISES), REBUILT_WITHIN);
    }
    trial.refused_meanwhile(&crowd);
    trial.judge(crowd).await;
    trial.finish(vec![server]).await;
}

/// Guards against: scripts that the new server does not know (peers 8), a gate whose last second is missing and that
/// sells on (peers 16).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn survives_a_kill_and_a_start_with_its_file() {
    lose_the_gate("Redis killed -9, started with its file", async |redis, trial| {
        redis.kill().await;
        tokio::time::sleep(trial.dice.millis(0..1500)).await;
        redis.restart().await
    })
    .await;
}

/// Guards against: an empty gate that sells the stock once more (peers 16), buyers who are forgotten (peers 16), units
/// that nobody gives back (peers 1, 3).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn survives_a_kill_and_a_start_with_nothing() {
    lose_the_gate("Redis killed -9, started empty", async |redis, trial| {
        redis.kill().await;
        redis.empty_redis();
        tokio::time::sleep(trial.dice.millis(0..1500)).await;
        redis.restart().await
    })
    .await;
}

/// Guards against: the same without a connection that breaks, so that nothing but the gate itself tells (peers 16).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn survives_a_flushall() {
    lose_the_gate("Redis emptied by FLUSHALL", async |_, trial| {
        let mut redis = link::redis(&trial.config).await.expect("Redis");
        cmd("FLUSHALL").query_async::<()>(&mut redis).await.unwrap();
        Instant::now()
    })
    .await;
}

/// Guards against: a step that timed out, was done, and is taken back or done again (peers 2, 5).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn survives_being_frozen() {
    let mut trial = Trial::begin("Redis frozen for 5 s", Backend::Distributed).await;
    let redis = Daemon::start(Link::Redis, &mut trial.config).await;
    let server = Server::start(&trial.config).await;
    let crowd = trial.open_sale(&[&server], Plan::rush(900, 1200)).await;
    for round in 1..=3 {
        crowd.sold(trial.dice.among(round * 25 - 20..round * 25)).await;
        let back = redis.freeze(Duration::from_secs(5)).await;
        trial.injected += 1;
        let after = crowd.sells_after(back, REBUILT_WITHIN).await;
        trial.sold_again(after, REBUILT_WITHIN);
    }
    trial.refused_meanwhile(&crowd);
    trial.judge(crowd).await;
    trial.finish(vec![server]).await;
}
