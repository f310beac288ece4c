//! An upgrade from the version before, instance by instance, while they sell.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use seckill::config::Backend;

use crate::crowd::Plan;
use crate::server::Server;
use crate::trial::Trial;

/// The other instance sells meanwhile.
const SELLS_WITHIN: Duration = Duration::from_secs(2);

/// Both versions run at once for a third of the sale: the new one migrates the database under the old one, and each writes what the other
/// has admitted.
///
/// Guards against: a message, a row or a key that the other version does not read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the program of the version before; make test-upgrade OLD=PROGRAM"]
async fn a_rolling_upgrade_under_load_loses_nothing() {
    let old =
        PathBuf::from(std::env::var_os("SECKILL_OLD").expect("SECKILL_OLD names the program of the version before"));
    let mut trial = Trial::begin("upgraded one by one from the version before", Backend::Distributed).await;
    let mut servers =
        [Server::start_old(&trial.config, old.clone()).await, Server::start_old(&trial.config, old).await];
    let plan = Plan { lasting: Duration::from_secs(25), ..Plan::rush(1_500, 2_000) };
    let crowd = trial.open_sale(&[&servers[0], &servers[1]], plan).await;
    // Between its last reply and its end an instance does not listen, and nobody stands in front who would ask the other.
    trial.unanswered_allowed = true;
    for (number, percent) in [25, 60].into_iter().enumerate() {
        crowd.sold(percent).await;
        let begun = Instant::now();
        let (status, took) = servers[number].terminate().await;
        if !status.success() {
            trial.problem(format!("the old one ended with {status} after {took:?}"));
        }
        let after = crowd.sells_after(begun, SELLS_WITHIN).await;
        trial.sold_again(after, SELLS_WITHIN);
        servers[number].restart().await;
        trial.injected += 1;
    }
    trial.judge(crowd).await;
    trial.finish(servers.into()).await;
}
