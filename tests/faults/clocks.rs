//! Clocks that are wrong: of two instances, of one that jumps, before 1970. The program's own clock is set through a file,
//! which only builds with the feature `failpoints` read.

use std::path::PathBuf;
use std::time::Duration;

use reqwest::Method;
use seckill::config::{Backend, Config};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::server::{self, Server};
use crate::support::{Stores, eventually_within};

const YEAR_MS: i64 = 365 * 86_400_000;

/// A clock that goes wrong by so many milliseconds.
struct Clock(PathBuf);

impl Clock {
    fn ahead_by(ms: i64) -> Self {
        let clock = Self(std::env::temp_dir().join(format!("seckill-clock-{}", uuid::Uuid::now_v7())));
        clock.set_ahead_by(ms);
        clock
    }

    fn set_ahead_by(&self, ms: i64) {
        // Renamed, so that nobody reads half of it.
        let new = self.0.with_extension("new");
        std::fs::write(&new, ms.to_string()).unwrap();
        std::fs::rename(&new, &self.0).unwrap();
    }

    /// The same while the program runs: it looks every 20 ms.
    async fn jump_to(&self, ms: i64) {
        self.set_ahead_by(ms);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    fn setting(&self) -> [(&'static str, String); 1] {
        [("SECKILL_WRONG_CLOCK", self.0.display().to_string())]
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A client with the token that an instance issues, for by another clock it may be over or not begun.
struct Admin {
    url: String,
    token: String,
}

impl Admin {
    async fn log_in(server: &Server, config: &Config) -> Self {
        let mut admin = Self { url: server.url(), token: String::new() };
        let password = config.admin.password.expose_secret();
        let credentials = json!({"username": config.admin.username, "password": password});
        let (status, reply) = admin.call(Method::POST, "/login", credentials).await;
        assert_eq!(status, 200, "{reply}");
        admin.token = reply["access_token"].as_str().unwrap().to_owned();
        admin
    }

    async fn call(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let mut request = reqwest::Client::new().request(method, format!("{}{path}", self.url));
        if !self.token.is_empty() {
            request = request.bearer_auth(&self.token);
        }
        if !body.is_null() {
            request = request.json(&body);
        }
        let reply = request.send().await.expect("a reply");
        (reply.status().as_u16(), reply.json().await.unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        let (status, reply) = self.call(Method::GET, path, Value::Null).await;
        assert_eq!(status, 200, "{path}: {reply}");
        reply
    }

    /// Puts a product on sale now.
    async fn new_product(&self) -> i64 {
        let product = json!({"name": "Sneaker", "price_cents": 19_900, "stock": 10});
        let (status, product) = self.call(Method::POST, "/products", product).await;
        assert_eq!((status, product["state"].as_str()), (201, Some("live")), "{product}");
        product["id"].as_i64().unwrap()
    }

    /// Buys one and waits until its order is written; its id.
    async fn buy(&self, product: i64) -> String {
        let (status, reply) = self.call(Method::POST, &format!("/seckill/{product}"), Value::Null).await;
        assert_eq!(status, 202, "{reply}");
        let order = reply["order_id"].as_str().unwrap().to_owned();
        eventually_within(10, "the order is written", || async {
            self.get(&format!("/orders/{order}")).await["status"] == "unpaid"
        })
        .await;
        let order = self.get(&format!("/orders/{order}")).await;
        let (created, updated) = (order["created_at"].as_str().unwrap(), order["updated_at"].as_str().unwrap());
        assert!(created <= updated, "{order}");
        order["id"].as_str().unwrap().to_owned()
    }
}

/// Seen: an instance 90 s ahead put products on sale that began 90 s later, and orders were changed before they were made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed_instances_90_s_apart_sell_by_one_clock() {
    let stores = Stores::new(Backend::Distributed).await;
    let config = stores.config();
    let (late, early) = (Clock::ahead_by(-45_000), Clock::ahead_by(45_000));
    let mut servers =
        [Server::start_with(&config, &late.setting()).await, Server::start_with(&config, &early.setting()).await];
    let [late, early] = [Admin::log_in(&servers[0], &config).await, Admin::log_in(&servers[1], &config).await];
    for (seller, buyer) in [(&late, &late), (&late, &early), (&early, &late), (&early, &early)] {
        let product = seller.new_product().await;
        eventually_within(2, "both know it", || async {
            let path = format!("/products/{product}");
            late.call(Method::GET, &path, Value::Null).await.0 == 200
                && early.call(Method::GET, &path, Value::Null).await.0 == 200
        })
        .await;
        for admin in [&late, &early] {
            assert_eq!(admin.get(&format!("/products/{product}")).await["state"], "live");
            eventually_within(2, "the list of those that are live has it", || async {
                let listed = admin.get("/products?state=live&limit=100").await;
                listed["items"].as_array().unwrap().iter().any(|listed| listed["id"] == product)
            })
            .await;
        }
        buyer.buy(product).await;
    }
    // By whichever clock the order was drawn and by whichever consumer it was written.
    assert_eq!(stores.number("SELECT COUNT(*) AS n FROM orders WHERE updated_at < created_at").await, 0);
    for server in &servers {
        let metrics = reqwest::get(format!("{}/metrics", server.url())).await.unwrap().text().await.unwrap();
        let negative = metrics.lines().find(|line| line.contains("seconds") && line.contains(" -"));
        assert_eq!(negative, None);
    }
    // A sale that is over is over for both, and one that is to come is to come.
    let product = late.new_product().await;
    let ends = seckill::model::Timestamp::now().after(Duration::from_secs(2));
    let (status, reply) = early.call(Method::PATCH, &format!("/products/{product}"), json!({"ends_at": ends})).await;
    assert_eq!((status, reply["state"].as_str()), (200, Some("live")), "{reply}");
    eventually_within(10, "it is over for both", || async {
        let mut over = 0;
        for admin in [&late, &early] {
            let (status, reply) = admin.call(Method::POST, &format!("/seckill/{product}"), Value::Null).await;
            over += usize::from(status == 409 && reply["code"] == "ended");
        }
        over == 2
    })
    .await;
    for server in &mut servers {
        server.terminate().await;
    }
    stores.remove().await;
}

/// A year forwards and back again while the process runs: it goes on selling, and what it sells keeps its order.
async fn a_clock_that_jumps_stops_nothing(backend: Backend) {
    let stores = Stores::new(backend).await;
    let mut config = stores.config();
    config.auth.token_ttl_seconds = 60;
    let clock = Clock::ahead_by(0);
    let mut server = Server::start_with(&config, &clock.setting()).await;
    let mut orders = Vec::new();
    for ahead in [0, YEAR_MS, 0, -YEAR_MS, 3_600_000, 0] {
        clock.jump_to(ahead).await;
        let admin = Admin::log_in(&server, &config).await;
        for _ in 0..2 {
            orders.push(admin.buy(admin.new_product().await).await);
        }
        let listed = admin.get("/orders?limit=100").await;
        let listed: Vec<_> = listed["items"].as_array().unwrap().iter().map(|order| order["id"].clone()).collect();
        assert!(orders.iter().rev().eq(listed.iter()), "newest first: {orders:?} {listed:?}");
        assert_eq!(server.readiness().await.0, 200);
    }
    let (status, took) = server.terminate().await;
    assert!(status.success() && took < Duration::from_secs(15), "{status} after {took:?}");
    assert!(!server.log().contains("panicked"), "{}", server.log());
    stores.remove().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_sells_on_when_the_clock_jumps_by_a_year() {
    a_clock_that_jumps_stops_nothing(Backend::Embedded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn distributed_sells_on_when_the_clock_jumps_by_a_year() {
    a_clock_that_jumps_stops_nothing(Backend::Distributed).await;
}

/// The HTTP server writes dates and cannot write one of then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn embedded_does_not_start_before_1970_and_ends_when_it_comes_there() {
    let stores = Stores::new(Backend::Embedded).await;
    let config = stores.config();
    let clock = Clock::ahead_by(-100 * YEAR_MS);
    let (status, said) = server::run_with(&config, &clock.setting()).await;
    assert!(!status.success() && said.contains("clock of this machine stands before 1970"), "{status}: {said}");
    clock.set_ahead_by(0);
    let mut server = Server::start_with(&config, &clock.setting()).await;
    clock.jump_to(-100 * YEAR_MS).await;
    let status = server.died(Duration::from_secs(20)).await;
    assert!(!status.success() && server.log().contains("stands before 1970"), "{status}: {}", server.log());
    assert!(!server.log().contains("panicked"), "{}", server.log());
    stores.remove().await;
}
