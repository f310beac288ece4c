//! Deaths at chosen instructions. Only in builds with the feature `failpoints`, where a point that is named in the
//! environment ends the process, or makes it panic.

use std::ops::Range;
use std::time::Duration;

use seckill::config::Backend;

use crate::crowd::Plan;
use crate::link;
use crate::server::Server;
use crate::trial::Trial;

const RUSH: Plan = Plan::rush(300, 450);
/// Consumers write a rush in a few large transactions, and wait up to 100 ms for one to grow: for these points it comes
/// slowly enough that there are many.
const STREAM: Plan = Plan { lasting: Duration::from_secs(3), ..RUSH };
/// A point is reached within this, or the test is about nothing.
const DIES_WITHIN: Duration = Duration::from_secs(30);

/// Lets a crowd buy until the process has died at a point, some passes after the first; then it is started again.
async fn die_at(point: &str, backend: Backend, passes: Range<u64>, plan: Plan, harm: impl AsyncFn(&mut Trial)) {
    let mut trial = Trial::begin(format!("{backend:?}: dies {}", point.replace('_', " ")), backend).await;
    let mut server = Server::start(&trial.config).await;
    server.terminate().await;
    let passes = trial.dice.among(passes);
    server.restart_with(&[("FAILPOINTS", format!("{point}={passes}*off->return"))]).await;
    let crowd = trial.open_sale(&[&server], plan).await;
    harm(&mut trial).await;
    server.died(DIES_WITHIN).await;
    trial.injected += 1;
    trial.unanswered_allowed = true;
    server.restart().await;
    trial.judge(crowd).await;
    trial.finish(vec![server]).await;
}

macro_rules! dies {
    ($($(#[doc = $doc:literal])+ $point:ident: $plan:expr;)+) => {
        mod embedded {
            use super::*;
            $($(#[doc = $doc])+
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $point() {
                die_at(stringify!($point), Backend::Embedded, 0..8, $plan, async |_| {}).await;
            })+
        }

        mod distributed {
            use super::*;
            $($(#[doc = $doc])+
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "minutes; make test-faults"]
            async fn $point() {
                die_at(stringify!($point), Backend::Distributed, 0..8, $plan, async |_| {}).await;
            })+
        }
    };
}

dies! {
    /// A unit is taken, nobody has been told and nothing is queued (peers 3).
    before_publish: RUSH;

    /// The queue may have it, or not (peers 2, 4).
    after_publish: RUSH;

    /// The queue has it, the buyer does not know (peers 2).
    before_reply: RUSH;

    /// It is delivered, and not written (peers 10).
    before_commit: STREAM;

    /// It is written, and the queue does not know (peers 11, 13).
    after_commit: STREAM;

    /// The queue has forgotten it, the gate does not know (peers 17).
    after_ack: STREAM;
}

/// While a gate that was emptied is rebuilt (peers 16).
mod rebuilding {
    use super::*;

    async fn die_while_rebuilding(point: &str) {
        // Long enough that the gate is missed.
        let plan = Plan { lasting: Duration::from_secs(5), ..RUSH };
        die_at(point, Backend::Distributed, 0..1, plan, async |trial| {
            tokio::time::sleep(trial.dice.millis(50..300)).await;
            let mut redis = link::redis(&trial.config).await.expect("Redis");
            deadpool_redis::redis::cmd("FLUSHDB").query_async::<()>(&mut redis).await.unwrap();
        })
        .await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "minutes; make test-faults"]
    async fn after_close() {
        die_while_rebuilding("after_close").await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "minutes; make test-faults"]
    async fn after_fence() {
        die_while_rebuilding("after_fence").await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "minutes; make test-faults"]
    async fn before_install() {
        die_while_rebuilding("before_install").await;
    }
}

/// A panic in a consumer ends neither it nor the sale (peers 15).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_survives_a_panic() {
    for backend in [Backend::Embedded, Backend::Distributed] {
        let mut trial = Trial::begin(format!("{backend:?}: a consumer panics"), backend).await;
        let mut server = Server::start(&trial.config).await;
        server.terminate().await;
        server.restart_with(&[("FAILPOINTS", "before_commit=3*off->2*panic".to_owned())]).await;
        let crowd = trial.open_sale(&[&server], STREAM).await;
        trial.judge(crowd).await;
        let metrics = reqwest::get(format!("{}/metrics", server.url())).await.unwrap().text().await.unwrap();
        let panics = metrics.lines().find_map(|line| line.strip_prefix("seckill_consumer_panics_total "));
        trial.injected += panics.and_then(|count| count.parse::<usize>().ok()).unwrap_or(0);
        if trial.injected == 0 {
            trial.problem("no consumer panicked");
        }
        trial.finish(vec![server]).await;
    }
}
