//! `seckill bench --webhooks`: what it costs a sale that one endpoint of the shop is told of each order. The endpoint is here, and as far
//! away as one in the same country: if it answered at once, the bench would measure how quickly the two of them talk.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
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

const PURCHASES: usize = 200_000;
const CONNECTIONS: usize = 256;
const ROUNDS: usize = 12;
/// How long the endpoint takes to answer.
const ANSWERED_IN: Duration = Duration::from_millis(20);

/// What a sale with an endpoint does in a second, as a share of one without.
struct Ratio {
    accepted: f64,
    written: f64,
}

struct Figures {
    accepted: f64,
    written: f64,
}

pub(super) async fn run(config: &Config, file: Option<&Path>) -> Result<(), String> {
    let mut ratios = Vec::new();
    for round in 1..=ROUNDS {
        // In turn, so that a machine whose speed drifts disturbs both alike.
        let told_first = round % 2 == 0;
        let first = lend(config, file, told_first, round).await?;
        let second = lend(config, file, !told_first, round).await?;
        let (with, without) = if told_first { (first, second) } else { (second, first) };
        let ratio = Ratio { accepted: with.accepted / without.accepted, written: with.written / without.written };
        say!(
            "round {round:>2}: {:.0} and {:.0} accepted a second without and with an endpoint, ratio {:.2}; written {:.2}",
            without.accepted,
            with.accepted,
            ratio.accepted,
            ratio.written
        );
        ratios.push(ratio);
    }
    let of = |figure: fn(&Ratio) -> f64| median(ratios.iter().map(figure).collect()).unwrap_or(0.0);
    say!("medians of {ROUNDS} pairs: accepted {:.2}, written {:.2}", of(|r| r.accepted), of(|r| r.written));
    Ok(())
}

async fn lend(config: &Config, file: Option<&Path>, is_told: bool, round: usize) -> Result<Figures, String> {
    OwnStores::lend(config, Known::ByThisBuild, async |stores: &OwnStores| measure(stores, file, is_told, round).await)
        .await
}

async fn measure(stores: &OwnStores, file: Option<&Path>, is_told: bool, round: usize) -> Result<Figures, String> {
    let config = &stores.config;
    migrate(file, &stores.settings).await?;
    let mut settings = stores.settings.clone();
    settings.push(("SECKILL__WEBHOOKS__ALLOW_PRIVATE", "true".to_owned()));
    let server = Server::start(&this_program()?, Path::new("."), file, &settings).await?;
    let receiver = TcpListener::bind("127.0.0.1:0").await.map_err(|error| format!("an endpoint: {error}"))?;
    let address = receiver.local_addr().map_err(|error| format!("an endpoint: {error}"))?;
    // It ends when it is dropped, with all its connections.
    let mut receiving = JoinSet::new();
    receiving.spawn(receive(receiver));
    let api = target_api(server.address, config);
    if is_told {
        api.new_endpoint(&format!("http://{address}/"), "order.created").await?;
    }
    let product = api.new_product(PURCHASES).await?;
    let requests = api.clicks(product, 0, PURCHASES)?;
    let count = requests.len();
    let load = Load { addresses: vec![server.address], requests, count, connections: CONNECTIONS, pace: Pace::Closed };
    let begun = Instant::now();
    let title = format!("round {round}, {}", if is_told { "an endpoint is told" } else { "nobody is told" });
    let run = fire_with_bar(load, &title, &Arc::default()).await?;
    expect_only(&run, "202", count)?;
    let proof = Proof::wait(&open_db(config), product, count as u64, |_| ()).await?;
    proof.check()?;
    let written_in = proof.written_at.duration_since(begun).as_secs_f64();
    server.end().await;
    Ok(Figures { accepted: run.per_second(), written: count as f64 / written_in })
}

/// Answers all that is sent.
async fn receive(listener: TcpListener) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(answer(stream));
    }
}

async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let mut read = Vec::new();
    loop {
        if let Some(length) = request_length(&read) {
            read.drain(..length);
            tokio::time::sleep(ANSWERED_IN).await;
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await?;
        } else if stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    }
}

/// Of the request that these bytes begin with, if it is all there.
fn request_length(bytes: &[u8]) -> Option<usize> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut request = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = request.parse(bytes).ok()? else { return None };
    let length = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let body: usize = length.and_then(|header| std::str::from_utf8(header.value).ok()?.parse().ok()).unwrap_or(0);
    (bytes.len() >= head + body).then_some(head + body)
}
