//! The embedded backend: one process and its folder.

use seckill::config::Backend;

use crate::crowd::Plan;
use crate::distributed::terminate_under_load;
use crate::server::{self, Server};
use crate::trial::Trial;

/// Guards against: success told from memory (peers 3, 4), a start that forgets the buyers or sells their units once
/// more (peers 16), an acknowledgement before the commit (peers 10).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_survives_kill_9() {
    let mut trial = Trial::begin("embedded: process killed -9", Backend::Embedded).await;
    let mut server = Server::start(&trial.config).await;
    let mut sales = Vec::new();
    for _ in 0..10 {
        let crowd = trial.open_sale(&[&server], Plan::rush(300, 450)).await;
        crowd.sold(trial.dice.among(5..95)).await;
        tokio::time::sleep(trial.dice.millis(0..20)).await;
        trial.kill(&mut server).await;
        server.restart().await;
        trial.recount(&sales).await;
        sales.push(trial.judge(crowd).await);
    }
    trial.recount(&sales).await;
    trial.finish(vec![server]).await;
}

/// Guards against: SIGTERM that is ignored or ends what is on its way (peers 19).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load_exits_0_within_15_s() {
    terminate_under_load(Trial::begin("embedded: SIGTERM under load", Backend::Embedded).await).await;
}

/// Guards against: two processes that each believe to be the only one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_process_on_the_same_folder_is_turned_away() {
    let mut trial = Trial::begin("embedded: a second process on its folder", Backend::Embedded).await;
    let server = Server::start(&trial.config).await;
    let crowd = trial.open_sale(&[&server], Plan::rush(300, 450)).await;
    let mut same_folder = trial.config.clone();
    // A cost for production, or a warning about it would be a second line.
    same_folder.auth.bcrypt_cost = 10;
    let (status, said) = server::run(&same_folder).await;
    trial.injected += 1;
    assert!(!status.success(), "{status}");
    let folder = same_folder.embedded.data_dir.display().to_string();
    assert!(said.lines().count() == 1 && said.contains(&folder), "{said}");
    trial.judge(crowd).await;
    trial.finish(vec![server]).await;
}
