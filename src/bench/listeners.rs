//! `seckill bench --listeners N`: a sale while N connections listen to its live events, and without them. How many purchases a second are
//! left, and how much memory a listener takes.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::generator::{Load, Pace};
use super::measures::{open_db, target_api};
use super::own_stores::{Known, OwnStores};
use super::proof::Proof;
use super::report::median;
use super::sale::expect_only;
use super::server::{Server, migrate, this_program};
use super::target::fire_with_bar;
use crate::config::Config;
use crate::model::ProductId;

/// The sale that is measured.
const PURCHASES: usize = 500_000;
const CONNECTIONS: usize = 256;
const ROUNDS: usize = 7;
/// Connections that are opened at the same time.
const OPENED_TOGETHER: usize = 64;
/// How long listeners of a sale at rest are watched.
const REST: Duration = Duration::from_secs(10);
/// The last event must have come by then.
const PATIENCE: Duration = Duration::from_secs(30);

struct Figures {
    per_second: f64,
    /// Peak of the server's memory.
    memory_mib: f64,
    /// Processor time of the server a second, while nothing is sold.
    cpu_at_rest: f64,
    /// Events that each listener was sent during the sale.
    events: f64,
    /// How long after the last click was answered all listeners knew that nothing is left.
    told_after: Duration,
}

/// What the listeners have heard, together.
#[derive(Default)]
struct Heard {
    events: AtomicU64,
    /// Those who know that nothing is left.
    know: AtomicU64,
    begun: AtomicBool,
}

pub(super) async fn run(config: &Config, file: Option<&Path>, listeners: usize) -> Result<(), String> {
    let (mut without, mut with, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        // In turn, so that a machine whose speed drifts disturbs both alike.
        let listened_first = round % 2 == 0;
        let first = lend(config, file, if listened_first { listeners } else { 0 }, round).await?;
        let second = lend(config, file, if listened_first { 0 } else { listeners }, round).await?;
        let (heard, alone) = if listened_first { (first, second) } else { (second, first) };
        let ratio = heard.per_second / alone.per_second;
        say!(
            "round {round}: {:.0} and {:.0} purchases a second without and with listeners, ratio {ratio:.2}",
            alone.per_second,
            heard.per_second
        );
        ratios.push(ratio);
        without.push(alone);
        with.push(heard);
    }
    let of = |all: &[Figures], figure: fn(&Figures) -> f64| median(all.iter().map(figure).collect()).unwrap_or(0.0);
    say!("purchases, median of {ROUNDS} pairs          {:>9.2}", median(ratios).unwrap_or(0.0));
    let memory = |all| of(all, |figures| figures.memory_mib);
    say!(
        "memory at its peak, nobody / {listeners} listen {:>5.0} / {:.0} MiB, {:.1} KiB a listener",
        memory(&without),
        memory(&with),
        (memory(&with) - memory(&without)) * 1024.0 / listeners as f64
    );
    say!("processor, a sale at rest                {:>9.2} cores", of(&with, |figures| figures.cpu_at_rest));
    say!("events to each listener during the sale  {:>9.1}", of(&with, |figures| figures.events));
    let slowest = with.iter().map(|figures| figures.told_after).max().unwrap_or_default();
    say!("all know that nothing is left within     {:>9.2} s of the last answer", slowest.as_secs_f64());
    Ok(())
}

async fn lend(config: &Config, file: Option<&Path>, listeners: usize, round: usize) -> Result<Figures, String> {
    let measured = async |stores: &OwnStores| measure(stores, file, listeners, round).await;
    OwnStores::lend(config, Known::ByThisBuild, measured).await
}

async fn measure(stores: &OwnStores, file: Option<&Path>, listeners: usize, round: usize) -> Result<Figures, String> {
    let config = &stores.config;
    migrate(file, &stores.settings).await?;
    let mut settings = stores.settings.clone();
    settings.push(("SECKILL__LIMITS__LISTENERS", listeners.max(1).to_string()));
    settings.push(("SECKILL__LIMITS__CONNECTIONS", (listeners + 1_000).to_string()));
    let server = Server::start(&this_program()?, Path::new("."), file, &settings).await?;
    let api = target_api(server.address, config);
    let product = api.new_product(PURCHASES).await?;
    let requests = api.clicks(product, 0, PURCHASES)?;
    let heard = Arc::<Heard>::default();
    let _listening = listen(server.address, product, listeners, &heard).await?;
    let mut figures =
        Figures { per_second: 0.0, memory_mib: 0.0, cpu_at_rest: 0.0, events: 0.0, told_after: Duration::ZERO };
    if listeners > 0 {
        let before = server.usage().cpu;
        tokio::time::sleep(REST).await;
        figures.cpu_at_rest = (server.usage().cpu - before).as_secs_f64() / REST.as_secs_f64();
    }
    heard.begun.store(true, Ordering::Relaxed);
    let count = requests.len();
    let load = Load { addresses: vec![server.address], requests, count, connections: CONNECTIONS, pace: Pace::Closed };
    let run = fire_with_bar(load, &format!("round {round}, {listeners} listen"), &Arc::default()).await?;
    let answered = Instant::now();
    expect_only(&run, "202", count)?;
    while heard.know.load(Ordering::Relaxed) < listeners as u64 {
        if answered.elapsed() > PATIENCE {
            let know = heard.know.load(Ordering::Relaxed);
            return Err(format!("{know} of {listeners} listeners know that nothing is left after {PATIENCE:?}"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    figures.told_after = answered.elapsed();
    Proof::wait(&open_db(config), product, count as u64, |_| ()).await?.check()?;
    figures.per_second = run.per_second();
    figures.memory_mib = server.usage().peak_memory_kib as f64 / 1024.0;
    figures.events = heard.events.load(Ordering::Relaxed) as f64 / listeners.max(1) as f64;
    server.end().await;
    Ok(figures)
}

/// Opens the connections; the tasks that read them end when they are dropped.
async fn listen(
    address: SocketAddr,
    product: ProductId,
    listeners: usize,
    heard: &Arc<Heard>,
) -> Result<JoinSet<()>, String> {
    let mut listening = JoinSet::new();
    let request = format!("GET /events?products={product} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    for first in (0..listeners).step_by(OPENED_TOGETHER) {
        let opening = (first..listeners.min(first + OPENED_TOGETHER)).map(|_| open(address, &request));
        for stream in futures_util::future::join_all(opening).await {
            let stream = stream.map_err(|error| format!("a listener: {error}"))?;
            listening.spawn(hear(stream, heard.clone()));
        }
    }
    Ok(listening)
}

async fn open(address: SocketAddr, request: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut status = [0; 12];
    stream.read_exact(&mut status).await?;
    match &status {
        b"HTTP/1.1 200" => Ok(stream),
        other => Err(std::io::Error::other(String::from_utf8_lossy(other).into_owned())),
    }
}

async fn hear(mut stream: TcpStream, heard: Arc<Heard>) {
    let mut piece = vec![0; 2048];
    let mut knows = false;
    while let Ok(length @ 1..) = stream.read(&mut piece).await {
        let text = String::from_utf8_lossy(&piece[..length]);
        if heard.begun.load(Ordering::Relaxed) {
            heard.events.fetch_add(text.matches("event: product").count() as u64, Ordering::Relaxed);
        }
        if !knows && text.contains("\"remaining\":0,") {
            knows = true;
            heard.know.fetch_add(1, Ordering::Relaxed);
        }
    }
}
