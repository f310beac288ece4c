//! A RabbitMQ that answers, and takes nothing, lets nobody in or gives up on a consumer. What the log says of it.

use std::time::Duration;

use seckill::config::Backend;
use secrecy::ExposeSecret;
use url::Url;

use crate::client::Client;
use crate::crowd::Plan;
use crate::daemon::Daemon;
use crate::link::Link;
use crate::server::Server;
use crate::support::eventually_within;
use crate::trial::Trial;

/// Slow enough that the fault falls into the middle of it.
const SALE: Plan =
    Plan { lasting: Duration::from_secs(20), patience: Duration::from_secs(120), ..Plan::rush(300, 400) };
/// A fault lasts this long at least; a line a second would be as many lines.
const LASTS: Duration = Duration::from_secs(8);

/// How many lines of the log hold all of these words.
fn lines(server: &Server, words: &[&str]) -> usize {
    server.log().lines().filter(|line| words.iter().all(|word| line.contains(word))).count()
}

/// Sells while `harm` is done and mended; meanwhile `/readyz` says `trouble`, and one line of the log holds `words`.
async fn refuses(fault: &str, harm: &[&[&str]], mend: &[&[&str]], trouble: &str, words: &[&str]) {
    let mut trial = Trial::begin(fault, Backend::Distributed).await;
    let rabbitmq = Daemon::start(Link::RabbitMq, &mut trial.config).await;
    let server = Server::start(&trial.config).await;
    let client = Client::new(&trial.config, vec![server.url()]);
    let other = client.new_product(10).await;
    let crowd = trial.open_sale(&[&server], SALE).await;
    crowd.sold(20).await;
    let url = Url::parse(trial.config.rabbitmq.url.expose_secret()).unwrap();
    let command = async |arguments: &[&str]| {
        let filled = arguments.iter().map(|argument| match *argument {
            "USER" => url.username(),
            "PASSWORD" => url.password().unwrap(),
            other => other,
        });
        rabbitmq.rabbitmqctl(&filled.collect::<Vec<_>>()).await;
    };
    for arguments in harm {
        command(arguments).await;
    }
    trial.injected += 1;
    eventually_within(20, &format!("/readyz says {trouble}"), || async {
        let (status, body) = server.readiness().await;
        status == 503 && body.contains(trouble)
    })
    .await;
    eventually_within(10, "the log says so", || async { lines(&server, words) > 0 }).await;
    // Of the crowd perhaps nobody: on a busy machine all is sold before the operator's command is done.
    assert_eq!(client.buy(&client.buyer(1), other, 0).await.label, "503 unavailable");
    tokio::time::sleep(LASTS).await;
    for purpose in ["publish", "consume"] {
        let told = lines(&server, &[words, &[&format!("purpose=\"{purpose}\"")]].concat());
        assert!(told <= 1, "said {told} times: {}", server.log());
    }
    for arguments in mend {
        command(arguments).await;
    }
    eventually_within(20, "it is ready again", || async { server.readiness().await.0 == 200 }).await;
    assert!(
        lines(&server, &["RabbitMQ can be used again", "seconds="]) > 0,
        "it says that it is over: {}",
        server.log()
    );
    trial.judge(crowd).await;
    trial.finish(vec![server]).await;
}

/// Guards against: a broker with an alarm that looks like one that is well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn an_alarm_is_named_and_passes() {
    refuses(
        "RabbitMQ: memory alarm",
        &[&["set_vm_memory_high_watermark", "absolute", "1"]],
        &[&["set_vm_memory_high_watermark", "0.8"]],
        "blocked",
        &["memory or disk alarm"],
    )
    .await;
}

/// The same for its disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn an_alarm_of_the_disk_is_named_and_passes() {
    refuses(
        "RabbitMQ: disk alarm",
        &[&["set_disk_free_limit", "90000GB"]],
        &[&["set_disk_free_limit", "1MB"]],
        "blocked",
        &["memory or disk alarm"],
    )
    .await;
}

/// Guards against: a start that waits for ever for a broker that takes nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn it_starts_beside_an_alarm_and_sells_when_it_has_passed() {
    let mut trial = Trial::begin("start beside an alarm of RabbitMQ", Backend::Distributed).await;
    let rabbitmq = Daemon::start(Link::RabbitMq, &mut trial.config).await;
    rabbitmq.rabbitmqctl(&["set_vm_memory_high_watermark", "absolute", "1"]).await;
    trial.injected += 1;
    let server = Server::start_unready(&trial.config).await;
    eventually_within(20, "the log and /readyz say so", || async {
        let (status, body) = server.readiness().await;
        status == 503 && body.contains("blocked") && lines(&server, &["memory or disk alarm"]) > 0
    })
    .await;
    tokio::time::sleep(LASTS).await;
    assert!(lines(&server, &["memory or disk alarm"]) <= 3, "{}", server.log());
    rabbitmq.rabbitmqctl(&["set_vm_memory_high_watermark", "0.8"]).await;
    eventually_within(20, "it is ready", || async { server.readiness().await.0 == 200 }).await;
    let crowd = trial.open_sale(&[&server], Plan::rush(100, 150)).await;
    trial.judge(crowd).await;
    trial.finish(vec![server]).await;
}

/// Guards against: a user that may no longer publish, and an instance that says that it is ready.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn a_permission_that_is_revoked_is_named() {
    for (permissions, word) in
        [(["", ".*", ".*"], "configure"), ([".*", "", ".*"], "write"), ([".*", ".*", ""], "read")]
    {
        let [configure, write, read] = permissions;
        refuses(
            &format!("RabbitMQ: no permission to {word}"),
            &[&["set_permissions", "USER", configure, write, read], &["close_all_user_connections", "USER", "test"]],
            &[&["set_permissions", "USER", ".*", ".*", ".*"]],
            "access_refused",
            &["RabbitMQ cannot be used", &format!("permission `{word}`")],
        )
        .await;
    }
}

/// Guards against: `Connection reset by peer` every three seconds, and nothing that says why.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn a_password_that_was_changed_is_named() {
    refuses(
        "RabbitMQ: another password",
        &[&["change_password", "USER", "another"], &["close_all_user_connections", "USER", "test"]],
        &[&["change_password", "USER", "PASSWORD"]],
        "access_refused",
        &["RabbitMQ cannot be used purpose=\"publish\"", "the password", "rabbitmq.url"],
    )
    .await;
}

/// What a server that starts says of a vhost that is not there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vhost_that_does_not_exist_is_named() {
    let mut trial = Trial::begin("RabbitMQ: no such vhost", Backend::Distributed).await;
    let mut config = trial.config.clone();
    let mut url = Url::parse(config.rabbitmq.url.expose_secret()).unwrap();
    url.set_path("nowhere");
    config.rabbitmq.url = url.to_string().into();
    let server = Server::start_unready(&config).await;
    eventually_within(10, "the vhost is named", || async {
        lines(&server, &["RabbitMQ cannot be used", "the vhost of rabbitmq.url"]) > 0
    })
    .await;
    assert!(server.readiness().await.1.contains("access_refused"), "{:?}", server.readiness().await);
    trial.injected += 1;
    trial.finish(vec![server]).await;
}

/// What a server that starts says of a queue that is not ours.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_with_other_settings_is_named() {
    let mut trial = Trial::begin("RabbitMQ: foreign queue", Backend::Distributed).await;
    crate::link::declare_classic_queue(&trial.config, &format!("{}.dead", trial.config.rabbitmq.queue)).await;
    let server = Server::start_unready(&trial.config).await;
    eventually_within(10, "the queue is named", || async {
        lines(&server, &["RabbitMQ cannot be used", "choose another rabbitmq.queue"]) > 0
    })
    .await;
    assert!(server.readiness().await.1.contains("misconfigured"), "{:?}", server.readiness().await);
    trial.injected += 1;
    trial.finish(vec![server]).await;
}

/// Guards against: a consumer whose broker gave up waiting for its acknowledgement (peers 13, 15).
#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn an_acknowledgement_that_takes_too_long_loses_nothing_and_does_not_loop() {
    let mut trial = Trial::begin("RabbitMQ: consumer_timeout", Backend::Distributed).await;
    let rabbitmq = Daemon::start(Link::RabbitMq, &mut trial.config).await;
    let limits =
        "application:set_env(rabbit, consumer_timeout, 1000), application:set_env(rabbit, channel_tick_interval, 500).";
    rabbitmq.rabbitmqctl(&["eval", limits]).await;
    let mut server = Server::start(&trial.config).await;
    server.terminate().await;
    server.restart_with(&[("FAILPOINTS", "before_commit=3*off->3*sleep(4000)".to_owned())]).await;
    let crowd = trial.open_sale(&[&server], SALE).await;
    eventually_within(60, "the broker gives up", || async { lines(&server, &["consumer_timeout"]) > 0 }).await;
    trial.injected += 1;
    trial.judge(crowd).await;
    assert!(lines(&server, &["consumer_timeout"]) <= 3, "{}", server.log());
    eventually_within(20, "it is ready", || async { server.readiness().await.0 == 200 }).await;
    trial.finish(vec![server]).await;
}

/// Guards against: a full dead-letter queue that stops the writing, refuses purchases, or loses what has no place in it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn a_full_dead_letter_queue_stops_nothing_and_loses_nothing() {
    let mut trial = Trial::begin("RabbitMQ: dead-letter queue full", Backend::Distributed).await;
    let rabbitmq = Daemon::start(Link::RabbitMq, &mut trial.config).await;
    let server = Server::start(&trial.config).await;
    let full = r#"{"max-length":1,"overflow":"reject-publish"}"#;
    rabbitmq.rabbitmqctl(&["set_policy", "full", "dead$", full, "--apply-to", "queues"]).await;
    let number = async |name: &str| {
        let metrics = reqwest::get(format!("{}/metrics", server.url())).await.unwrap().text().await.unwrap();
        metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<f64>().ok())
    };
    for body in 0..6 {
        crate::link::publish(&trial.config, &trial.config.rabbitmq.queue, &format!("nonsense {body}")).await;
    }
    trial.injected += 1;
    eventually_within(30, "some cannot be set aside", || async {
        number("seckill_dead_letters_refused").await.is_some_and(|refused| refused > 0.0)
    })
    .await;
    // Meanwhile everything else goes on.
    let crowd = trial.open_sale(&[&server], Plan { lasting: Duration::from_secs(5), ..SALE }).await;
    trial.judge(crowd).await;
    assert_eq!(server.readiness().await.0, 200, "{:?}", server.readiness().await);
    assert_eq!(lines(&server, &["cannot be set aside either"]), 1, "{}", server.log());
    rabbitmq.rabbitmqctl(&["clear_policy", "full"]).await;
    eventually_within(30, "all of them are set aside", || async {
        number("seckill_dead_letters").await == Some(6.0) && number("seckill_dead_letters_refused").await == Some(0.0)
    })
    .await;
    trial.finish(vec![server]).await;
}
