//! One outage is one line when it begins and one when it is over, whoever meets it and however many sales there are.

use std::time::Duration;

use seckill::config::Backend;

use crate::client::{Answer, Client};
use crate::daemon::Daemon;
use crate::link::Link;
use crate::process::free_port;
use crate::server::Server;
use crate::support::eventually_within;
use crate::trial::Trial;

const SALES: usize = 40;

/// Lines from `warn` on, and those about something that works again.
fn told(log: &str) -> Vec<String> {
    let of_interest = |line: &&str| {
        let levels = [" WARN ", " ERROR "];
        levels.iter().any(|level| line.contains(level)) || line.contains("again") || line.contains("is back")
    };
    log.lines().filter(of_interest).map(str::to_owned).collect()
}

fn count(lines: &[String], text: &str) -> usize {
    lines.iter().filter(|line| line.contains(text)).count()
}

/// Seen: a line of the links, one of readiness, one of the purchases and one of the sweeper, each again every five seconds, and
/// two lines for each sale whose gate was rebuilt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_lost_and_comes_back_is_a_few_lines() {
    let mut trial = Trial::begin("one outage of Redis, one line", Backend::Distributed).await;
    let mut redis = Daemon::start(Link::Redis, &mut trial.config).await;
    let server = Server::start(&trial.config).await;
    let client = Client::new(&trial.config, vec![server.url()]);
    let mut products = Vec::new();
    for _ in 0..SALES {
        products.push(client.new_product(5).await);
    }
    let before = server.log().len();
    redis.kill().await;
    for user in 0..60 {
        client.buy(&client.buyer(1 + user), products[0], 0).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    redis.restart().await;
    for product in &products {
        eventually_within(40, "it sells again", || async {
            matches!(client.buy(&client.buyer(100), *product, 0).await.answer, Answer::Promised { .. })
        })
        .await;
    }
    eventually_within(10, "the log says that it is over", || async {
        server.log()[before..].contains("Redis works again")
    })
    .await;
    let lines = told(&server.log()[before..]);
    let all = lines.join("\n");
    assert_eq!(count(&lines, "Redis does not answer"), 1, "{all}");
    assert_eq!(count(&lines, "Redis works again"), 1, "{all}");
    assert!(lines.len() <= 10, "{} lines:\n{all}", lines.len());
    trial.finish(vec![server]).await;
}

/// Seen: twice the same at a start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_redis_says_so_once() {
    let mut trial = Trial::begin("a start without Redis", Backend::Distributed).await;
    Link::Redis.redirect(&mut trial.config, free_port());
    let server = Server::start_unready(&trial.config).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let lines = told(&server.log());
    // What a test's settings bring; and the broker, which other tests use at the same time, may fail for a moment.
    let others = ["bcrypt_cost", "data_dir", "the broker says 541 INTERNAL_ERROR", "RabbitMQ can be used again"];
    let about: Vec<&String> = lines.iter().filter(|line| !others.iter().any(|other| line.contains(other))).collect();
    assert_eq!(about.len(), 1, "{lines:#?}");
    assert!(about[0].contains("Redis does not answer"), "{lines:#?}");
    trial.finish(vec![server]).await;
}

/// Seen: one line at the start that neither said what the database refuses nor what to do, and nothing more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_at_a_database_that_takes_no_writes_says_so_until_it_does() {
    let mut trial = Trial::begin("a start at a read-only MariaDB", Backend::Distributed).await;
    let mariadb = Daemon::start(Link::MariaDb, &mut trial.config).await;
    let mut first = Server::start(&trial.config).await;
    first.kill().await;
    mariadb.operate("SET GLOBAL read_only = 1").await;
    trial.injected += 1;
    let server = Server::start_unready(&trial.config).await;
    let refusal = "Cannot compare yet whether Redis and the queue are those of the database";
    eventually_within(15, "it is told again", || async { count(&told(&server.log()), refusal) >= 2 }).await;
    let log = server.log();
    let line = log.lines().find(|line| line.contains(refusal)).unwrap();
    assert!(line.contains("read-only") && line.contains("make it writable"), "{line}");
    mariadb.operate("SET GLOBAL read_only = 0").await;
    eventually_within(10, "it can sell", || async { server.readiness().await.0 == 200 }).await;
    assert!(server.log().contains("Redis and the queue are those of the database "), "{}", server.log());
    trial.finish(vec![server]).await;
}
