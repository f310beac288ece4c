//! TLS to real servers that accept nothing else: a sale over it, and each way in which it is refused, in one line that names
//! the setting.

use seckill::config::{Backend, Config, Tls};
use secrecy::ExposeSecret;

use crate::certificates::Authority;
use crate::client::{Answer, Client};
use crate::daemon::Daemon;
use crate::link::Link;
use crate::server::{self, Server};
use crate::start::refused;
use crate::support::{Stores, eventually_within};

const LINKS: [Link; 3] = [Link::MariaDb, Link::Redis, Link::RabbitMq];

/// The section of a server, and the setting that says where it is.
fn keys(link: Link) -> (&'static str, &'static str) {
    match link {
        Link::MariaDb => ("mysql", "mysql.dsn"),
        Link::Redis => ("redis", "redis.addr"),
        Link::RabbitMq => ("rabbitmq", "rabbitmq.url"),
    }
}

/// The same configuration with another way to one of its servers.
fn with_tls(config: &Config, link: Link, tls: Tls, authority: &Authority) -> Config {
    let mut config = config.clone();
    let file = authority.file();
    let (set_tls, set_file) = match link {
        Link::MariaDb => (&mut config.mysql.tls, &mut config.mysql.tls_ca_file),
        Link::Redis => (&mut config.redis.tls, &mut config.redis.tls_ca_file),
        Link::RabbitMq => (&mut config.rabbitmq.tls, &mut config.rabbitmq.tls_ca_file),
    };
    (*set_tls, *set_file) = (tls, file);
    config
}

/// The same configuration with the name of this machine instead of its address, for which the certificate is not made out.
fn by_name(config: &Config, link: Link) -> Config {
    let mut config = config.clone();
    let renamed = |text: &str| text.replace("127.0.0.1", "localhost");
    match link {
        Link::MariaDb => config.mysql.dsn = renamed(config.mysql.dsn.expose_secret()).into(),
        Link::Redis => config.redis.addr = renamed(&config.redis.addr),
        Link::RabbitMq => config.rabbitmq.url = renamed(config.rabbitmq.url.expose_secret()).into(),
    }
    config
}

/// A start must be refused in a line with all of these words.
async fn refused_with(config: &Config, words: &[&str]) {
    let line = refused(config).await;
    assert!(words.iter().all(|word| line.contains(word)), "{words:?}: {line}");
}

/// Servers that speak nothing but TLS, each started once for all that is asked of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sale_over_tls_and_whatever_is_refused() {
    let stores = Stores::new(Backend::Distributed).await;
    let authority = Authority::new("a CA");
    // One has its name, as a CA has that was made anew.
    let strangers = [Authority::new("another CA"), Authority::new("a CA")];
    let certificate = authority.sign();
    let plain = stores.config();
    let mut config = plain.clone();
    let rabbitmq = Daemon::start_with_tls(Link::RabbitMq, &mut config, certificate.clone()).await;
    let mut mariadb = Daemon::start_with_tls(Link::MariaDb, &mut config, certificate.clone()).await;
    let mut redis = Daemon::start_with_tls(Link::Redis, &mut config, certificate.clone()).await;
    for link in LINKS {
        config = with_tls(&config, link, Tls::Verify, &authority);
    }

    let server = Server::start(&config).await;
    let client = Client::new(&config, vec![server.url()]);
    let product = client.new_product(1).await;
    let click = client.buy(&client.buyer(7), product, 0).await;
    let Answer::Promised { order } = click.answer else { panic!("{}", click.label) };
    eventually_within(20, "the order is written", || async {
        client.order(7, order).await == (200, "unpaid".to_owned())
    })
    .await;
    let (done, said) = server::run_command(&config, "deployment", &["show"]).await;
    assert!(done && said.contains("instance"), "{said}");
    let (done, said) = server::run_command(&config, "dead-letters", &["list"]).await;
    assert!(done, "{said}");
    assert!(server::migrate(&config, &[]).await.success());

    for link in LINKS {
        let (section, address) = keys(link);
        let tls = format!("{section}.tls");
        refused_with(&with_tls(&config, link, Tls::Off, &authority), &[&tls, "verify"]).await;
        let ca_file = format!("{section}.tls_ca_file");
        for stranger in &strangers {
            refused_with(&with_tls(&config, link, Tls::Verify, stranger), &[&ca_file, "signed by nobody"]).await;
        }
        refused_with(&by_name(&config, link), &[&tls, "localhost", "made out for", address]).await;
        // The servers of the other tests have no TLS.
        let without = with_tls(&plain, link, Tls::Verify, &authority);
        refused_with(&without, &[&tls, "off"]).await;
    }

    authority.expire(&certificate);
    // RabbitMQ may read the new one later, or sooner.
    rabbitmq.rabbitmqctl(&["eval", "ssl:clear_pem_cache()."]).await;
    for daemon in [&mut mariadb, &mut redis] {
        daemon.terminate().await;
        daemon.restart().await;
    }
    for link in LINKS {
        // Those before it in the start are not what is asked about.
        let mut of_one = plain.clone();
        match link {
            Link::MariaDb => of_one.mysql = config.mysql.clone(),
            Link::Redis => of_one.redis = config.redis.clone(),
            Link::RabbitMq => of_one.rabbitmq = config.rabbitmq.clone(),
        }
        refused_with(&of_one, &[&format!("{}.tls", keys(link).0), "has expired"]).await;
    }
    drop(server);
    stores.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_cannot_be_read_is_refused_before_anything_is_connected_to() {
    let stores = Stores::new(Backend::Distributed).await;
    let authority = Authority::new("a CA");
    let file = authority.folder().join("empty.pem");
    std::fs::write(&file, "nothing\n").unwrap();
    for link in LINKS {
        let mut config = with_tls(&stores.config(), link, Tls::Verify, &authority);
        let set_file = match link {
            Link::MariaDb => &mut config.mysql.tls_ca_file,
            Link::Redis => &mut config.redis.tls_ca_file,
            Link::RabbitMq => &mut config.rabbitmq.tls_ca_file,
        };
        let key = format!("{}.tls_ca_file", keys(link).0);
        set_file.clone_from(&file);
        let (done, said) = server::run_command(&config, "check-config", &[]).await;
        assert!(!done && said.contains(&key) && said.contains("empty.pem"), "{said}");
    }
    stores.remove().await;
}
