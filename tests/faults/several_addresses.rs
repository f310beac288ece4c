//! Servers at several addresses: one that is gone, or not what is needed, is passed over.

use std::time::{Duration, Instant};

use seckill::config::{Backend, Config};
use seckill::db::{Db, ErrorClass};
use secrecy::{ExposeSecret, SecretString};

use crate::crowd::Plan;
use crate::daemon::Daemon;
use crate::link::Link;
use crate::process::free_port;
use crate::proxy::{Proxy, Wire};
use crate::server::Server;
use crate::support::Stores;
use crate::trial::Trial;

/// A list of addresses in the place of the one that `link` has in `config`.
fn lead_to(config: &Config, link: Link, addresses: &[String]) -> SecretString {
    let url = match link {
        Link::MariaDb => &config.mysql.dsn,
        _ => &config.rabbitmq.url,
    };
    url.expose_secret().replace(&link.address(config), &addresses.join(",")).into()
}

fn nobody() -> String {
    format!("127.0.0.1:{}", free_port())
}

/// Guards against: an instance that stays without a queue while its broker's cluster has other nodes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_gone_is_left_for_another() {
    let mut trial = Trial::begin("RabbitMQ at three addresses, one after the other gone", Backend::Distributed).await;
    let mut behind = [trial.config.clone(), trial.config.clone()];
    let [one, other] = &mut behind;
    let wires = [Proxy::before(Link::RabbitMq, one).await, Proxy::before(Link::RabbitMq, other).await];
    let addresses = [nobody(), Link::RabbitMq.address(one), Link::RabbitMq.address(other)];
    let mut config = trial.config.clone();
    config.rabbitmq.url = lead_to(&config, Link::RabbitMq, &addresses);
    let server = Server::start(&config).await;
    let plan = Plan { lasting: Duration::from_secs(12), ..Plan::rush(600, 800) };
    let crowd = trial.open_sale(&[&server], plan).await;
    for (percent, gone) in [(20, 0), (45, 1), (70, 0)] {
        crowd.sold(percent).await;
        wires[gone].set(Wire::Cut);
        wires[1 - gone].set(Wire::Good);
        trial.injected += 1;
        let after = crowd.sells_after(Instant::now(), Duration::from_secs(5)).await;
        trial.sold_again(after, Duration::from_secs(5));
    }
    trial.judge(crowd).await;
    trial.finish(vec![server]).await;
}

/// Guards against: reading from a replica what the primary has changed since, and a list whose first server is down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_databases_the_one_that_takes_writes_is_used() {
    let stores = Stores::new(Backend::Distributed).await;
    let primary = stores.config();
    let mut replica = primary.clone();
    let mariadb = Daemon::start_with(Link::MariaDb, &mut replica, &["--read-only=ON"]).await;
    let addresses = [nobody(), Link::MariaDb.address(&replica), Link::MariaDb.address(&primary)];
    let mut config = primary.clone();
    config.mysql.dsn = lead_to(&config, Link::MariaDb, &addresses);
    let mut server = Server::start(&config).await;
    server.terminate().await;
    assert!(stores.number("SELECT COUNT(*) AS n FROM __diesel_schema_migrations").await > 0);

    // None of the others will do, and which is what is said.
    config.mysql.dsn = lead_to(&primary, Link::MariaDb, &addresses[..2]);
    let error = Db::migrate_mysql(&config.mysql).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Unreachable, "it may become the primary: {error}");
    let told = error.to_string();
    let replica_is = format!("{}: is read_only", addresses[1]);
    assert!(told.contains(&addresses[0]) && told.contains(&replica_is) && !told.contains('@'), "{told}");

    // It does become the primary, and the program that waits goes on with it.
    mariadb.operate("SET GLOBAL read_only = OFF").await;
    Db::migrate_mysql(&config.mysql).await.unwrap();
    stores.remove().await;
}
