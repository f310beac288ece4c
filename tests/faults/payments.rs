//! Callbacks of payment providers while the process dies or the database refuses: what was answered 200 is done, and what was not is
//! done when it comes again.

use std::time::{Duration, Instant};

use reqwest::Method;
use seckill::config::{Backend, Config};
use seckill::model::Role;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Answer, Client};
use crate::daemon::Daemon;
use crate::link::Link;
use crate::refusing_file::SmallDisk;
use crate::server::Server;
use crate::signing::{sign, test_key, timestamp};
use crate::support::eventually_within;
use crate::trial::Trial;

/// An order with a pending payment, and who asks of it.
pub struct Buyer {
    config: Config,
    pub url: String,
    #[cfg(feature = "failpoints")]
    pub product: i64,
    pub order: Uuid,
    payment: Value,
}

async fn ask(config: &Config, url: &str, method: Method, path: &str, user: (i64, Role), body: Value) -> (u16, Value) {
    let token = Client::new(config, vec![url.to_owned()]).token(user.0, user.1);
    let request = reqwest::Client::new().request(method, format!("{url}{path}")).bearer_auth(token);
    let reply = request.json(&body).send().await.unwrap();
    (reply.status().as_u16(), reply.json().await.unwrap_or_default())
}

impl Buyer {
    async fn buys(config: &Config, server: &Server) -> Self {
        Self::buys_of(config, server, 5).await
    }

    /// One of so many units.
    pub async fn buys_of(config: &Config, server: &Server, stock: i64) -> Self {
        let (config, url) = (config.clone(), server.url());
        let client = Client::new(&config, vec![url.clone()]);
        let product = client.new_product(stock).await;
        let Answer::Promised { order } = client.buy(&client.buyer(7), product, 0).await.answer else {
            panic!("a click was not answered 202");
        };
        let path = format!("/orders/{order}/payments");
        let begun = async || ask(&config, &url, Method::POST, &path, (7, Role::Buyer), json!({})).await;
        eventually_within(10, "its order is written", || async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            matches!(begun().await.0, 200 | 201)
        })
        .await;
        let (_, payment) = begun().await;
        Self {
            config,
            url,
            #[cfg(feature = "failpoints")]
            product,
            order,
            payment,
        }
    }

    /// Gives the order up.
    #[cfg(feature = "failpoints")]
    pub async fn cancels(&self) {
        let path = format!("/orders/{}/cancel", self.order);
        assert_eq!(ask(&self.config, &self.url, Method::POST, &path, (7, Role::Buyer), json!({})).await.0, 200);
    }

    /// The status of the reply, if there was one, and its `Retry-After`.
    pub async fn told(&self, id: &str) -> Option<(u16, bool)> {
        let data = json!({"payment_id": self.payment["id"], "reference": "pi_1", "amount_cents": self.payment["amount_cents"],
            "currency": self.payment["currency"]});
        let body = json!({"type": "payment.succeeded", "timestamp": "2026-11-29T08:00:00Z", "data": data}).to_string();
        let now = timestamp(0);
        let signature = sign(&test_key(&self.config), id, &now, &body);
        let request = reqwest::Client::new().post(format!("{}/payments/webhooks/test", self.url));
        let request = request.header("webhook-id", id).header("webhook-timestamp", now);
        let reply = request.header("webhook-signature", signature).body(body).send().await.ok()?;
        Some((reply.status().as_u16(), reply.headers().contains_key("retry-after")))
    }

    /// Where the order stands, and how often it has changed.
    pub async fn order(&self) -> (String, usize) {
        let admin = (1, Role::Admin);
        let get = async |path: String| ask(&self.config, &self.url, Method::GET, &path, admin, json!({})).await.1;
        let order = get(format!("/orders/{}", self.order)).await;
        let history = get(format!("/admin/orders/{}/history", self.order)).await;
        let changes = history["items"].as_array().map_or(0, Vec::len);
        (order["status"].as_str().unwrap_or_default().to_owned(), changes)
    }
}

/// Dies at `point` while a callback is written; `before` is where the order stands then.
#[cfg(feature = "failpoints")]
async fn dies_at(backend: Backend, point: &str, before: (&str, usize)) {
    let mut trial = Trial::begin(format!("{backend:?}: dies {}", point.replace('_', " ")), backend).await;
    let mut server = Server::start(&trial.config).await;
    let buyer = Buyer::buys(&trial.config, &server).await;
    server.terminate().await;
    server.restart_with(&[("FAILPOINTS", format!("{point}=return"))]).await;
    if let Some(answer) = buyer.told("evt_1").await {
        trial.problem(format!("a callback was answered {answer:?} by a process that had died"));
    }
    server.died(Duration::from_secs(30)).await;
    trial.injected += 1;
    server.restart().await;
    let (status, changes) = buyer.order().await;
    if (status.as_str(), changes) != before {
        trial.problem(format!("after the death the order is {status} after {changes} changes"));
    }
    for _ in 0..2 {
        if buyer.told("evt_1").await != Some((200, false)) {
            trial.problem("the repeat was not answered 200");
        }
    }
    if buyer.order().await != ("paid".to_owned(), 1) {
        trial.problem(format!("in the end the order is {:?}", buyer.order().await));
    }
    trial.finish(vec![server]).await;
}

#[cfg(feature = "failpoints")]
macro_rules! dies {
    ($($(#[doc = $doc:literal])+ $point:ident: $before:expr;)+) => {
        mod embedded {
            use super::*;
            $($(#[doc = $doc])+
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $point() {
                dies_at(Backend::Embedded, stringify!($point), $before).await;
            })+
        }

        mod distributed {
            use super::*;
            $($(#[doc = $doc])+
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $point() {
                dies_at(Backend::Distributed, stringify!($point), $before).await;
            })+
        }
    };
}

#[cfg(feature = "failpoints")]
dies! {
    /// Nothing of it is written.
    before_callback_commit: ("unpaid", 0);

    /// All of it is written, and nobody was told.
    after_callback_commit: ("paid", 1);
}

/// As a failover leaves the old primary. The provider is told to come again, and then it is right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_database_is_told_again() {
    let mut trial = Trial::begin("MariaDB read-only: a callback comes", Backend::Distributed).await;
    let mariadb = Daemon::start_with(Link::MariaDb, &mut trial.config, &[]).await;
    let server = Server::start(&trial.config).await;
    let buyer = Buyer::buys(&trial.config, &server).await;
    mariadb.operate("SET GLOBAL read_only = 1").await;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(2) {
        if buyer.told("evt_1").await != Some((503, true)) {
            trial.problem("a callback was not answered 503 with Retry-After");
        }
        trial.injected += 1;
    }
    mariadb.operate("SET GLOBAL read_only = 0").await;
    eventually_within(10, "the repeat is answered 200", || async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        buyer.told("evt_1").await == Some((200, false))
    })
    .await;
    if buyer.order().await != ("paid".to_owned(), 1) {
        trial.problem(format!("in the end the order is {:?}", buyer.order().await));
    }
    trial.finish(vec![server]).await;
}

/// The file of the embedded backend cannot grow: the provider is told to come again, and then it is right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_again() {
    let mut trial = Trial::begin("embedded: disk full, a callback comes", Backend::Embedded).await;
    let folder = trial.config.embedded.data_dir.clone();
    let Some(disk) = SmallDisk::mount(&folder) else {
        eprintln!("skipped: only root can mount a small disk");
        return;
    };
    let server = Server::start(&trial.config).await;
    let buyer = Buyer::buys(&trial.config, &server).await;
    let filler = folder.join("filler");
    let _ = std::fs::write(&filler, vec![0; 200 << 20]);
    for number in 0..400 {
        // The first ones may find room in pages that the file has already.
        let answer = buyer.told(&format!("evt_{number}")).await;
        trial.injected += 1;
        match answer {
            Some((200, false)) => {}
            Some((503, true)) => break,
            other => trial.problem(format!("a callback was answered {other:?}")),
        }
        if number == 399 {
            trial.problem("the disk was never full");
        }
    }
    std::fs::remove_file(&filler).unwrap();
    eventually_within(15, "the repeat is answered 200", || async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        buyer.told("evt_again").await == Some((200, false))
    })
    .await;
    if buyer.order().await != ("paid".to_owned(), 1) {
        trial.problem(format!("in the end the order is {:?}", buyer.order().await));
    }
    trial.finish(vec![server]).await;
    drop(disk);
}
