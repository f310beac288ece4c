//! Whole lives of orders under load: a crowd buys, pays, gives up and forgets, while processes are killed, Redis is emptied or a disk is
//! full. In the end every unit and every payment is counted: nobody who paid lost anything, and nothing was paid for twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use diesel::sql_types::BigInt;
use diesel::{Connection, QueryableByName, SqliteConnection, sql_query};
use diesel_async::{AsyncConnection, AsyncMysqlConnection};
use reqwest::Method;
use seckill::config::{Backend, Config};
use seckill::model::Role;
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::{Answer, Client};
use crate::link;
use crate::server::Server;
use crate::signing::{sign, test_key, timestamp};
use crate::support::eventually_within;
use crate::trial::Trial;

const STOCK: i64 = 120;
const BUYERS: i64 = 300;
/// A payment cannot begin in the last ten seconds of it.
const WINDOW_SECONDS: i64 = 16;
/// An order may be unpaid no longer than this after its deadline, while everything works.
const EXPIRES_WITHIN: Duration = Duration::from_secs(10);

/// What a buyer does with a unit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Habit {
    Pays,
    GivesUp,
    Forgets,
}

impl Habit {
    fn of(buyer: i64) -> Self {
        match buyer % 8 {
            0 | 1 => Self::Forgets,
            2 => Self::GivesUp,
            _ => Self::Pays,
        }
    }
}

/// What buyers and their provider were told.
#[derive(Default)]
struct Told {
    promised: AtomicUsize,
    /// Payments whose success was answered 200.
    taken: AtomicUsize,
    given_up: AtomicUsize,
}

struct Shop {
    client: Client,
    http: reqwest::Client,
    config: Config,
    urls: Vec<String>,
    product: i64,
    told: Told,
    /// Nobody begins anything after this.
    until: Instant,
}

impl Shop {
    async fn open(config: &Config, servers: &[&Server], lasting: Duration) -> Arc<Self> {
        let urls: Vec<String> = servers.iter().map(|server| server.url()).collect();
        let client = Client::new(config, urls.clone());
        let http = reqwest::Client::builder().timeout(Duration::from_secs(15)).no_proxy().build().unwrap();
        let product =
            json!({"name": "Sneaker", "price_cents": 1990, "stock": STOCK, "payment_window_seconds": WINDOW_SECONDS});
        let request = http.post(format!("{}/products", urls[0])).bearer_auth(client.token(1, Role::Admin));
        let product: Value = request.json(&product).send().await.unwrap().json().await.unwrap();
        let product = product["id"].as_i64().unwrap();
        let until = Instant::now() + lasting;
        Arc::new(Self { client, http, config: config.clone(), urls, product, told: Told::default(), until })
    }

    /// One request at an instance; `None`: no whole reply.
    async fn ask(&self, method: Method, path: &str, buyer: i64, instance: usize) -> Option<(u16, Value)> {
        let url = format!("{}{path}", self.urls[instance % self.urls.len()]);
        let request = self.http.request(method, url).bearer_auth(self.client.buyer(buyer));
        let reply = request.send().await.ok()?;
        let status = reply.status().as_u16();
        Some((status, reply.json().await.ok()?))
    }

    /// Buys and does what the habit is, trying again while somebody is away.
    async fn visit(self: Arc<Self>, buyer: i64) {
        let mut instance = buyer as usize;
        let order = loop {
            if Instant::now() > self.until {
                return;
            }
            instance += 1;
            match self.client.buy(&self.client.buyer(buyer), self.product, instance).await.answer {
                Answer::Promised { order } => break order,
                Answer::Foreign(reply) => panic!("{reply}"),
                _ => tokio::time::sleep(Duration::from_millis(400)).await,
            }
        };
        self.told.promised.fetch_add(1, Ordering::Relaxed);
        match Habit::of(buyer) {
            Habit::Forgets => {}
            Habit::GivesUp => {
                let path = format!("/orders/{order}/cancel");
                while Instant::now() < self.until {
                    instance += 1;
                    if let Some((200 | 409, _)) = self.ask(Method::POST, &path, buyer, instance).await {
                        self.told.given_up.fetch_add(1, Ordering::Relaxed);
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
            Habit::Pays => {
                let path = format!("/orders/{order}/payments");
                let payment = loop {
                    instance += 1;
                    match self.ask(Method::POST, &path, buyer, instance).await {
                        Some((200 | 201, payment)) => break payment,
                        // Too late.
                        Some((409 | 404, _)) => return,
                        _ if Instant::now() > self.until => return,
                        _ => tokio::time::sleep(Duration::from_millis(200)).await,
                    }
                };
                self.pay(buyer, &payment).await;
            }
        }
    }

    /// The provider tells until it is answered 200, some of it twice, and half a minute of it late.
    async fn pay(&self, buyer: i64, payment: &Value) {
        let id = payment["id"].as_str().unwrap().to_owned();
        // Some money takes longer than the order waits.
        if buyer % 16 == 3 {
            tokio::time::sleep(Duration::from_secs(WINDOW_SECONDS as u64)).await;
        }
        let data = json!({"payment_id": id, "reference": format!("pi_{id}"), "amount_cents": payment["amount_cents"],
            "currency": payment["currency"]});
        let body = json!({"type": "payment.succeeded", "timestamp": "2026-11-29T08:00:00Z", "data": data}).to_string();
        let times = if buyer % 3 == 0 { 2 } else { 1 };
        for _ in 0..times {
            let begun = Instant::now();
            let mut instance = buyer as usize;
            loop {
                instance += 1;
                let (now, event) = (timestamp(0), format!("evt_{id}"));
                let url = format!("{}/payments/webhooks/test", self.urls[instance % self.urls.len()]);
                let signature = sign(&test_key(&self.config), &event, &now, &body);
                let request = self.http.post(url).header("webhook-id", event).header("webhook-timestamp", now);
                let reply = request.header("webhook-signature", signature).body(body.clone()).send().await;
                match reply.map(|reply| reply.status().as_u16()) {
                    Ok(200) => break,
                    Ok(503) | Err(_) => {}
                    Ok(status) => panic!("a callback was answered {status}"),
                }
                assert!(begun.elapsed() < Duration::from_secs(60), "a callback is not taken");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
        self.told.taken.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    n: i64,
}

async fn number(config: &Config, query: &str) -> i64 {
    match config.backend {
        Backend::Embedded => {
            use diesel::RunQueryDsl;
            let file = config.embedded.data_dir.join("seckill.db");
            let mut conn = SqliteConnection::establish(file.to_str().unwrap()).unwrap();
            sql_query("PRAGMA busy_timeout = 5000").execute(&mut conn).unwrap();
            sql_query(query).get_result::<Number>(&mut conn).expect(query).n
        }
        Backend::Distributed => {
            use diesel_async::RunQueryDsl;
            let mut conn = AsyncMysqlConnection::establish(config.mysql.dsn.expose_secret()).await.unwrap();
            sql_query(query).get_result::<Number>(&mut conn).await.expect(query).n
        }
    }
}

/// Everything that must be true when all is quiet.
async fn judge(trial: &mut Trial, shop: &Shop) {
    let (config, product) = (&shop.config, shop.product);
    let of = |what: &str, filter: &str| {
        format!("SELECT CAST(COALESCE({what}, 0) AS SIGNED) AS n FROM orders WHERE product_id = {product} AND {filter}")
    };
    let payments = |filter: &str| {
        format!(
            "SELECT COUNT(*) AS n FROM payments JOIN orders ON orders.id = payments.order_id \
             WHERE product_id = {product} AND {filter}"
        )
    };
    let column = |column: &str| format!("SELECT {column} AS n FROM products WHERE id = {product}");
    eventually_within(60, "all deadlines are over", || async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        number(config, &of("COUNT(*)", "status = 'unpaid'")).await == 0
    })
    .await;
    let over = number(config, &of("COUNT(*)", "status <> 'paid'")).await;
    let live = number(config, &of("SUM(quantity)", "live_user IS NOT NULL")).await;
    let paid = number(config, &of("COUNT(*)", "status = 'paid'")).await;
    let orders = number(config, &of("COUNT(*)", "status <> 'rejected'")).await;
    let succeeded = number(config, &payments("payments.status = 'succeeded'")).await;
    let kept = number(config, &payments("payments.status = 'succeeded' AND orders.status = 'paid'")).await;
    let owed = number(config, &payments("payments.status = 'refund_due'")).await;
    let told = &shop.told;
    let (promised, taken) = (told.promised.load(Ordering::Relaxed) as i64, told.taken.load(Ordering::Relaxed) as i64);
    for (what, one, other) in [
        ("paid orders, and live orders", paid, live),
        ("units sold, and units of live orders", number(config, &column("sold")).await, live),
        ("units counted as paid, and paid orders", number(config, &column("paid")).await, paid),
        ("paid orders, and payments that succeeded", paid, succeeded),
        ("payments that succeeded, and those of paid orders", succeeded, kept),
        ("money that was taken, and money that is kept or owed", taken, succeeded + owed),
    ] {
        if one != other {
            trial.problem(format!("{what}: {one} and {other}"));
        }
    }
    if live > STOCK {
        trial.problem(format!("{live} units of {STOCK} are sold"));
    }
    // A reply may have been lost, so there can be more orders than promises.
    if orders < promised {
        trial.problem(format!("{promised} promises and {orders} orders"));
    }
    let begun = Instant::now();
    while shop.client.remaining(product).await != Some(STOCK - live) {
        if begun.elapsed() > EXPIRES_WITHIN {
            let shown = shop.client.remaining(product).await;
            trial.problem(format!("{shown:?} units remain, of {STOCK} with {live} sold"));
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let given_up = told.given_up.load(Ordering::Relaxed);
    eprintln!(
        "lives: {promised} promises, {orders} orders, {paid} paid, {over} over ({given_up} given up), money taken {taken}, owed {owed}, \
         units back {} ms after all was over",
        begun.elapsed().as_millis()
    );
}

/// A crowd lives while `harm` is done.
async fn live(trial: &mut Trial, shop: &Arc<Shop>, harm: impl Future<Output = ()>) {
    let mut crowd = JoinSet::new();
    for buyer in 2..2 + BUYERS {
        let (shop, pause) = (shop.clone(), trial.dice.millis(0..6_000));
        crowd.spawn(async move {
            tokio::time::sleep(pause).await;
            shop.visit(buyer).await;
        });
    }
    let everybody = async {
        while let Some(visited) = crowd.join_next().await {
            if let Err(problem) = visited {
                return Some(problem.to_string());
            }
        }
        None
    };
    let ((), problem) = tokio::join!(harm, everybody);
    if let Some(problem) = problem {
        trial.problem(problem);
    }
}

const LASTING: Duration = Duration::from_secs(14);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lives_survive_kill_9_embedded() {
    let mut trial = Trial::begin("embedded: lives, kill -9 twice", Backend::Embedded).await;
    let mut server = Server::start(&trial.config).await;
    let shop = Shop::open(&trial.config, &[&server], LASTING).await;
    let pauses = [trial.dice.millis(1_000..4_000), trial.dice.millis(2_000..5_000)];
    live(&mut trial, &shop, async {
        for pause in pauses {
            tokio::time::sleep(pause).await;
            server.kill().await;
            server.restart().await;
        }
    })
    .await;
    trial.injected += 2;
    judge(&mut trial, &shop).await;
    trial.finish(vec![server]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "minutes; make test-faults"]
async fn lives_survive_kill_9_of_one_of_two_and_an_emptied_redis() {
    let mut trial = Trial::begin("two instances: lives, kill -9, Redis emptied", Backend::Distributed).await;
    let (mut one, other) = (Server::start(&trial.config).await, Server::start(&trial.config).await);
    let shop = Shop::open(&trial.config, &[&one, &other], LASTING).await;
    let pauses = [trial.dice.millis(1_000..3_000), trial.dice.millis(1_000..3_000), trial.dice.millis(1_000..4_000)];
    let config = trial.config.clone();
    live(&mut trial, &shop, async {
        tokio::time::sleep(pauses[0]).await;
        one.kill().await;
        tokio::time::sleep(pauses[1]).await;
        one.restart().await;
        tokio::time::sleep(pauses[2]).await;
        link::empty_redis(&config).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        one.kill().await;
        one.restart().await;
    })
    .await;
    trial.injected += 3;
    judge(&mut trial, &shop).await;
    trial.finish(vec![one, other]).await;
}
