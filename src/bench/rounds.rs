//! `seckill bench`: in each round F, accepted purchases with the orders written meanwhile, and sold-out refusals, side
//! by side; at the end the medians and the proof.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use secrecy::ExposeSecret;
use serde_json::Value;

use super::generator::{Volley, fire, request};
use super::proof::Proof;
use super::server::Server;
use super::{BenchArgs, floor};
use crate::config::{Backend, Config};
use crate::data_dir::random_key;
use crate::db::Db;
use crate::model::{ProductId, Role};
use crate::services::{Identity, Tokens};

const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

/// The figures of one round.
struct Round {
    floor: Volley,
    accepted: Volley,
    cpu_us_per_accepted: f64,
    written_per_second: f64,
    refused: Volley,
    proof: Proof,
}

pub(super) async fn run(mut config: Config, args: &BenchArgs) -> Result<(), String> {
    if cfg!(debug_assertions) {
        eprintln!("This is a debug build: its figures say nothing. Use `make bench`.");
    }
    config.auth.jwt_secret = random_key().into();
    let folder = BenchFolder::make()?;
    let settings = [
        ("SECKILL__AUTH__JWT_SECRET", config.auth.jwt_secret.expose_secret().to_owned()),
        ("SECKILL__EMBEDDED__DATA_DIR", folder.0.display().to_string()),
    ];
    let server = Server::start(&settings).await?;
    let bare = Server::start_floor().await?;
    let db = match config.backend {
        Backend::Embedded => Db::sqlite(&folder.0.join("seckill.db")),
        Backend::Distributed => Db::mysql(&config.mysql),
    };
    let tokens = Tokens::new(&config.auth.jwt_secret, TOKEN_LIFETIME);
    let mut rounds = Vec::new();
    for number in 1..=args.rounds {
        rounds.push(run_round(&server, &bare, &db, &tokens, args, number).await?);
    }
    report(&config, args, &rounds, &server);
    rounds.iter().try_for_each(|round| round.proof.check())
}

async fn run_round(
    server: &Server,
    bare: &Server,
    db: &Db,
    tokens: &Tokens,
    args: &BenchArgs,
    number: u8,
) -> Result<Round, String> {
    let of = format!("round {number} of {}", args.rounds);
    let stock = i64::from(args.stock);
    let clicks = (0..args.stock).map(|_| request("POST", "/floor", None, Some(floor::BODY))).collect();
    let floor = volley(bare.address, clicks, args, &format!("{of}: floor")).await?;

    let product = new_product(server.address, tokens, stock).await?;
    let before = server.usage();
    let begun = Instant::now();
    let clicks = purchases(tokens, product, 1..=stock)?;
    let accepted = volley(server.address, clicks, args, &format!("{of}: buying")).await?;
    let proof = Proof::wait(db, product, accepted.count("202")).await?;
    let writing = accepted.elapsed + proof.drain;
    tracing::debug!(elapsed = ?begun.elapsed(), "Sold out");
    let cpu = server.usage().cpu.saturating_sub(before.cpu);
    expect_only(&accepted, "202", stock as u64)?;

    let clicks = purchases(tokens, product, stock + 1..=2 * stock)?;
    let refused = volley(server.address, clicks, args, &format!("{of}: refusing")).await?;
    expect_only(&refused, "409 sold_out", stock as u64)?;
    Ok(Round {
        floor,
        cpu_us_per_accepted: cpu.as_secs_f64() * 1e6 / stock as f64,
        written_per_second: proof.counted.live_orders as f64 / writing.as_secs_f64(),
        accepted,
        refused,
        proof,
    })
}

/// Fires requests behind a progress bar.
pub(super) async fn volley(
    address: SocketAddr,
    requests: Vec<Vec<u8>>,
    args: &BenchArgs,
    title: &str,
) -> Result<Volley, String> {
    fire_with_bar(address, requests, args.connections.into(), title).await
}

/// Fires requests behind a progress bar.
pub(super) async fn fire_with_bar(
    address: SocketAddr,
    requests: Vec<Vec<u8>>,
    connections: usize,
    title: &str,
) -> Result<Volley, String> {
    let bar = ProgressBar::new(requests.len() as u64);
    if let Ok(style) = ProgressStyle::with_template("{msg:28} {bar:40} {pos:>7}/{len} {per_sec}") {
        bar.set_style(style);
    }
    bar.set_message(title.to_owned());
    let sent = Arc::new(AtomicUsize::new(0));
    let watched = sent.clone();
    let watched_bar = bar.clone();
    let watching = tokio::spawn(async move {
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            watched_bar.set_position(watched.load(Ordering::Relaxed) as u64);
        }
    });
    let volley = fire(address, requests, connections, sent).await;
    watching.abort();
    bar.finish_and_clear();
    volley.map_err(|error| format!("{title}: {error}"))
}

/// One click of each user.
pub(super) fn purchases(
    tokens: &Tokens,
    product: ProductId,
    users: std::ops::RangeInclusive<i64>,
) -> Result<Vec<Vec<u8>>, String> {
    let path = format!("/seckill/{product}");
    users
        .map(|user| {
            let token = token(tokens, user, Role::Buyer)?;
            Ok(request("POST", &path, Some(&token), None))
        })
        .collect()
}

fn token(tokens: &Tokens, user: i64, role: Role) -> Result<String, String> {
    let user_id = user.try_into().map_err(str::to_owned)?;
    tokens.issue(Identity { user_id, role }).map_err(|error| error.to_string())
}

/// Puts a product on sale over HTTP.
pub(super) async fn new_product(address: SocketAddr, tokens: &Tokens, stock: i64) -> Result<ProductId, String> {
    let token = token(tokens, i64::MAX, Role::Admin)?;
    let client = super::generator::request(
        "POST",
        "/products",
        Some(&token),
        Some(&format!(r#"{{"name":"Sneaker, limited","price_cents":19900,"stock":{stock}}}"#)),
    );
    let reply = super::generator::ask(address, &client).await.map_err(|error| format!("new product: {error}"))?;
    let reply: Value = serde_json::from_str(&reply).map_err(|error| format!("new product: {error}"))?;
    let id = reply["id"].as_i64().ok_or_else(|| format!("new product: {reply}"))?;
    id.try_into().map_err(|problem| format!("new product: id {problem}"))
}

fn expect_only(volley: &Volley, reply: &str, count: u64) -> Result<(), String> {
    if volley.count(reply) == count && volley.total() == count {
        return Ok(());
    }
    Err(format!("expected {count} replies `{reply}`, got {:?}", volley.replies))
}

/// A folder for the embedded backend; deleted when dropped.
pub(super) struct BenchFolder(pub(super) PathBuf);

impl BenchFolder {
    pub(super) fn make() -> Result<Self, String> {
        // Under target where there is one: the system's folder for temporary files is often only in memory.
        let parent = if PathBuf::from("target").is_dir() { PathBuf::from("target") } else { std::env::temp_dir() };
        let path = parent.join(format!("bench-data-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for BenchFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn report(config: &Config, args: &BenchArgs, rounds: &[Round], server: &Server) {
    let median = |figure: &dyn Fn(&Round) -> f64| {
        let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
        figures.sort_by(f64::total_cmp);
        figures[figures.len() / 2]
    };
    let floor = median(&|round| round.floor.per_second());
    let spread = {
        let floors = || rounds.iter().map(|round| round.floor.per_second());
        let (least, most) = (floors().fold(f64::MAX, f64::min), floors().fold(0.0, f64::max));
        (most / least - 1.0) * 100.0
    };
    println!(
        "{:?} backend, {} connections, {} units a round, medians of {} rounds",
        config.backend, args.connections, args.stock, args.rounds
    );
    println!("{:34}{:>12}{:>8}{:>10}{:>10}", "", "per second", "of F", "p50 ms", "p99 ms");
    let volley = |name: &str, volley: fn(&Round) -> &Volley| {
        let rate = median(&|round| volley(round).per_second());
        let percentile = |percentile| median(&|round| volley(round).percentile_ms(percentile));
        let (ratio, p50, p99) = (rate / floor, percentile(50.0), percentile(99.0));
        println!("{name:34}{rate:>12.0}{ratio:>8.2}{p50:>10.2}{p99:>10.2}");
    };
    let written = median(&|round| round.written_per_second);
    volley("F, a bare endpoint", |round| &round.floor);
    volley("purchases accepted", |round| &round.accepted);
    println!("{:34}{written:>12.0}{:>8.2}", "orders written, to the last one", written / floor);
    volley("sold-out refusals", |round| &round.refused);
    let generator =
        median(&|round| round.accepted.generator_cpu.as_secs_f64() / round.accepted.elapsed.as_secs_f64() * 100.0);
    println!("server CPU per accepted purchase   {:.1} us", median(&|round| round.cpu_us_per_accepted));
    println!("server memory, peak                {:.1} MiB", server.usage().peak_memory_kib as f64 / 1024.0);
    println!("load generator                     {generator:.0} % of one core while buying");
    println!("F differed between rounds by       {spread:.0} %");
    let total = |figure: &dyn Fn(&Proof) -> i64| rounds.iter().map(|round| figure(&round.proof)).sum::<i64>();
    println!(
        "proof from the database: accepted {} = live orders {} = units sold {}; oversold {}, doubles {}",
        total(&|proof| proof.accepted),
        total(&|proof| proof.counted.live_orders),
        total(&|proof| proof.counted.sold),
        total(&Proof::oversold),
        total(&Proof::doubles),
    );
}
