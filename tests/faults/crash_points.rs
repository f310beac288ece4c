//! Deaths at chosen instructions. Only in builds with the feature `failpoints`, where a point that is named in the
//! environment ends the process, or makes it panic.

use std::ops::Range;
use std::time::Duration;

use seckill::config::Backend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::crowd::Plan;
use crate::link;
use crate::server::Server;
use crate::support::eventually_within;
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
            link::empty_redis(&trial.config).await;
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

/// How often a task was started again, as the program counts.
async fn restarts(server: &Server, task: &str) -> u64 {
    let metrics = reqwest::get(format!("{}/metrics", server.url())).await.unwrap().text().await.unwrap();
    let name = format!("seckill_task_restarts_total{{task=\"{task}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)).expect("it is counted").parse().unwrap()
}

/// Starts the program on stores of its own, with panics at these points.
async fn start_with(backend: Backend, points: &str) -> (Trial, Server) {
    let trial = Trial::begin(format!("{backend:?}: {points}"), backend).await;
    let mut server = Server::start(&trial.config).await;
    server.terminate().await;
    server.restart_with(&[("FAILPOINTS", points.to_owned())]).await;
    (trial, server)
}

/// A panic while purchases are served together costs the purchases of its round; the batcher goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_purchase_batcher_survives_panics() {
    for backend in [Backend::Embedded, Backend::Distributed] {
        let (mut trial, server) = start_with(backend, "before_reserve=2*off->3*panic").await;
        let crowd = trial.open_sale(&[&server], RUSH).await;
        trial.judge(crowd).await;
        trial.injected += restarts(&server, "purchases").await as usize;
        if trial.injected != 3 {
            trial.problem("three panics were not counted");
        }
        trial.finish(vec![server]).await;
    }
}

/// A task that panics is named by `/readyz` until it runs again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_background_task_that_panics_is_named_and_started_again() {
    for (backend, point, passes, task) in [
        (Backend::Embedded, "sweep", 5, "sweeper"),
        (Backend::Distributed, "sweep", 5, "sweeper"),
        (Backend::Embedded, "reconcile", 1, "reconciler"),
        (Backend::Distributed, "publisher", 10, "rabbitmq-publisher"),
        (Backend::Distributed, "consume", 1, "rabbitmq-consumer"),
    ] {
        let (mut trial, server) = start_with(backend, &format!("{point}={passes}*off->1*panic")).await;
        let ready = async || reqwest::get(format!("{}/readyz", server.url())).await.unwrap();
        // Some tasks look at something only when there is something to do.
        let crowd = trial.open_sale(&[&server], STREAM).await;
        eventually_within(25, &format!("/readyz names {task}"), || async {
            let reply = ready().await;
            reply.status() == 503 && reply.text().await.unwrap().contains(task)
        })
        .await;
        eventually_within(25, "it is ready again", || async { ready().await.status() == 200 }).await;
        assert_eq!(restarts(&server, task).await, 1);
        trial.injected += 1;
        trial.judge(crowd).await;
        trial.finish(vec![server]).await;
    }
}

/// A connection to the program, with something sent.
async fn send(server: &Server, text: &str) -> TcpStream {
    try_send(server, text).await.unwrap()
}

async fn try_send(server: &Server, text: &str) -> std::io::Result<TcpStream> {
    let mut socket = TcpStream::connect(server.url().trim_start_matches("http://")).await?;
    socket.write_all(text.as_bytes()).await?;
    Ok(socket)
}

/// Everything that comes until the connection ends.
async fn rest(mut socket: TcpStream) -> String {
    let mut rest = Vec::new();
    let ends = tokio::time::timeout(Duration::from_secs(25), socket.read_to_end(&mut rest)).await;
    // A reset is an end as well.
    let _ = ends.expect("the connection ends");
    String::from_utf8_lossy(&rest).into_owned()
}

/// Guards against: an HTTP worker whose task has died, so that it never ends a slow connection again, or never takes up a
/// request that was sent ahead, while `/readyz` says that all is well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_tasks_of_an_http_worker_are_started_again() {
    let half = "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Half: ".to_owned();
    let ahead = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(199)
        + "GET /healthz HTTP/1.1\r\nConnection: close\r\nHost: x\r\n\r\n";
    for (point, task, text, replies) in [
        ("http_look=9*off->1*panic", "http-deadlines", half, ("HTTP/1.1 408", 1)),
        ("http_turn=9*off->1*panic", "http-turns", ahead, ("HTTP/1.1 200", 200)),
    ] {
        let (mut trial, server) = start_with(Backend::Embedded, point).await;
        let mut sockets = Vec::new();
        // On each of the workers some.
        for _ in 0..8 {
            sockets.push(send(&server, &text).await);
        }
        eventually_within(10, &format!("/readyz names {task}"), || async {
            let (status, body) = server.readiness().await;
            status == 503 && body.contains(task)
        })
        .await;
        let (status, count) = replies;
        for said in futures_util::future::join_all(sockets.into_iter().map(rest)).await {
            assert_eq!(said.matches(status).count(), count, "{said}");
        }
        eventually_within(10, "it is ready again", || async { server.readiness().await.0 == 200 }).await;
        assert_eq!(restarts(&server, task).await, 1);
        trial.injected += 1;
        trial.finish(vec![server]).await;
    }
}

/// Guards against: the death of a whole HTTP worker that nobody sees.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_death_of_an_http_worker_is_counted_and_another_takes_its_place() {
    let (mut trial, server) = start_with(Backend::Embedded, "http_enter=40*off->1*panic").await;
    let crowd = trial.open_sale(&[&server], STREAM).await;
    let last = "GET /healthz HTTP/1.1\r\nConnection: close\r\nHost: x\r\n\r\n";
    let counted = async || {
        // It may be this very connection that dies with its worker.
        let Ok(metrics) = try_send(&server, &last.replace("healthz", "metrics")).await else { return false };
        rest(metrics).await.contains("seckill_task_restarts_total{task=\"http-worker\"} 1")
    };
    eventually_within(20, "it is counted", counted).await;
    for _ in 0..8 {
        assert!(rest(send(&server, last).await).await.starts_with("HTTP/1.1 200"));
    }
    trial.injected += 1;
    trial.unanswered_allowed = true;
    trial.judge(crowd).await;
    trial.finish(vec![server]).await;
}

/// What cannot be started again ends the process with an error and a line that says why; nothing promised is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_cannot_be_started_again_ends_the_process() {
    for (backend, point, task) in [
        (Backend::Embedded, "journal", "journal"),
        (Backend::Embedded, "after_commit", "consumer"),
        (Backend::Distributed, "after_commit", "consumer"),
    ] {
        let (mut trial, mut server) = start_with(backend, &format!("{point}=1*off->panic")).await;
        let crowd = trial.open_sale(&[&server], STREAM).await;
        let status = server.died(DIES_WITHIN).await;
        trial.injected += 1;
        trial.unanswered_allowed = true;
        assert_eq!(status.code(), Some(1), "{point}");
        let log = server.log();
        assert!(log.contains(&format!("seckill: task {task} panicked")), "{log}");
        server.restart().await;
        trial.judge(crowd).await;
        trial.finish(vec![server]).await;
    }
}

/// Guards against: a start that waits for ever for a consumer that has ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_ends_while_the_journal_is_drained_ends_the_start() {
    let (mut trial, mut server) = start_with(Backend::Embedded, "before_commit=return").await;
    let crowd = trial.open_sale(&[&server], STREAM).await;
    server.died(DIES_WITHIN).await;
    let status = server.restart_in_vain(&[("FAILPOINTS", "after_commit=panic".to_owned())]).await;
    assert_eq!(status.code(), Some(1), "{}", server.log());
    assert!(server.log().contains("task consumer panicked"), "{}", server.log());
    trial.injected += 2;
    trial.unanswered_allowed = true;
    server.restart().await;
    trial.judge(crowd).await;
    trial.finish(vec![server]).await;
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
