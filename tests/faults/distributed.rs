//! The distributed backend: processes of the program that come and go. Its servers stay up here.

use std::time::Duration;

use seckill::config::Backend;

use crate::crowd::Plan;
use crate::server::Server;
use crate::trial::Trial;

/// A stop may take this long, whatever is going on.
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// Ends a program that sells, starts it again, and counts.
pub async fn terminate_under_load(mut trial: Trial) {
    let mut server = Server::start(&trial.config).await;
    let crowd = trial.open_sale(&[&server], Plan::rush(600, 900)).await;
    crowd.sold(trial.dice.among(20..60)).await;
    let (status, took) = server.terminate().await;
    trial.injected += 1;
    // Between its last reply and its end nobody listens.
    trial.unanswered_allowed = true;
    if !status.success() || took > STOP_WITHIN {
        trial.problem(format!("ended with {status} after {took:?}"));
    }
    server.restart().await;
    trial.judge(crowd).await;
    trial.finish(vec![server]).await;
}

/// Guards against: SIGTERM that is ignored or ends what is on its way (peers 19).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_exits_0_within_15_s() {
    terminate_under_load(Trial::begin("distributed: SIGTERM under load", Backend::Distributed).await).await;
}

/// Guards against: a death between taking a unit and publishing it (peers 3), success told from memory (peers 4), an
/// acknowledgement before the commit (peers 10), a start that resets the gate in the middle of a sale (peers 16).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn survives_kill_9() {
    let mut trial = Trial::begin("distributed: process killed -9", Backend::Distributed).await;
    let mut server = Server::start(&trial.config).await;
    for _ in 0..10 {
        let crowd = trial.open_sale(&[&server], Plan::rush(300, 450)).await;
        crowd.sold(trial.dice.among(5..95)).await;
        tokio::time::sleep(trial.dice.millis(0..20)).await;
        trial.kill(&mut server).await;
        server.restart().await;
        trial.judge(crowd).await;
    }
    trial.finish(vec![server]).await;
}

/// Guards against: a start that resets the gate while another instance sells (peers 16), a reconciler that ignores what
/// is on its way elsewhere (peers 17), a processing marker that outlives the redelivery (peers 13).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn survives_kill_9_of_one_of_two_instances() {
    let mut trial = Trial::begin("distributed: one of two instances killed -9", Backend::Distributed).await;
    let steady = Server::start(&trial.config).await;
    let mut shaky = Server::start(&trial.config).await;
    let plan = Plan { lasting: Duration::from_secs(15), ..Plan::rush(1200, 1500) };
    let crowd = trial.open_sale(&[&steady, &shaky], plan).await;
    for round in 1..=6 {
        crowd.sold(round * 14).await;
        tokio::time::sleep(trial.dice.millis(0..50)).await;
        trial.kill(&mut shaky).await;
        tokio::time::sleep(trial.dice.millis(0..1000)).await;
        shaky.restart().await;
    }
    trial.judge(crowd).await;
    trial.finish(vec![steady, shaky]).await;
}
