//! The load generator: prepared requests over kept-alive connections, one at a time on each.
//!
//! Runs on two threads of its own, so that it neither waits for nor slows a runtime it is not measuring.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

const THREADS: usize = 2;
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);

/// What became of a number of requests.
pub(super) struct Volley {
    /// Replies by status and problem code: `202`, `409 sold_out`.
    pub(super) replies: BTreeMap<String, u64>,
    /// In microseconds.
    pub(super) latencies: Histogram<u64>,
    /// From the first request to the last reply.
    pub(super) elapsed: Duration,
    /// CPU time of the generator itself.
    pub(super) generator_cpu: Duration,
}

impl Volley {
    pub(super) fn count(&self, reply: &str) -> u64 {
        self.replies.get(reply).copied().unwrap_or(0)
    }

    pub(super) fn total(&self) -> u64 {
        self.replies.values().sum()
    }

    pub(super) fn per_second(&self) -> f64 {
        self.total() as f64 / self.elapsed.as_secs_f64()
    }

    pub(super) fn percentile_ms(&self, percentile: f64) -> f64 {
        self.latencies.value_at_percentile(percentile) as f64 / 1000.0
    }
}

/// A request as it goes over the wire.
pub(super) fn request(method: &str, path: &str, token: Option<&str>, body: Option<&str>) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: seckill\r\n");
    if let Some(token) = token {
        head += &format!("Authorization: Bearer {token}\r\n");
    }
    let body = body.unwrap_or_default();
    if !body.is_empty() {
        head += "Content-Type: application/json\r\n";
    }
    head += &format!("Content-Length: {}\r\n\r\n{body}", body.len());
    head.into_bytes()
}

/// Sends one request on a connection of its own; the body of the reply.
pub(super) async fn ask(address: SocketAddr, request: &[u8]) -> io::Result<String> {
    let mut connection = Connection::open(address).await?;
    tokio::time::timeout(REPLY_TIMEOUT, connection.exchange(request)).await??;
    let head = connection.buffer.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |at| at + 4);
    Ok(String::from_utf8_lossy(&connection.buffer[head..]).into_owned())
}

/// Sends every request once, `connections` at a time. `sent` counts along.
pub(super) async fn fire(
    address: SocketAddr,
    requests: Vec<Vec<u8>>,
    connections: usize,
    sent: Arc<AtomicUsize>,
) -> io::Result<Volley> {
    let requests: Arc<[Vec<u8>]> = requests.into();
    let begun = Instant::now();
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (requests, sent) = (requests.clone(), sent.clone());
            let connections = connections / THREADS + usize::from(thread < connections % THREADS);
            tokio::task::spawn_blocking(move || {
                let cpu_before = thread_cpu();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                let (replies, latencies) = runtime.block_on(run_connections(address, requests, connections, sent))?;
                Ok::<_, io::Error>((replies, latencies, thread_cpu() - cpu_before))
            })
        })
        .collect();
    let mut volley = Volley {
        replies: BTreeMap::new(),
        latencies: histogram(),
        elapsed: begun.elapsed(),
        generator_cpu: Duration::ZERO,
    };
    for thread in threads {
        let (replies, latencies, cpu) = thread.await.map_err(io::Error::other)??;
        for (reply, count) in replies {
            *volley.replies.entry(reply).or_default() += count;
        }
        volley.latencies.add(latencies).map_err(io::Error::other)?;
        volley.generator_cpu += cpu;
    }
    volley.elapsed = begun.elapsed();
    Ok(volley)
}

type Replies = (BTreeMap<String, u64>, Histogram<u64>);

async fn run_connections(
    address: SocketAddr,
    requests: Arc<[Vec<u8>]>,
    connections: usize,
    sent: Arc<AtomicUsize>,
) -> io::Result<Replies> {
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        tasks.spawn(run_connection(address, requests.clone(), sent.clone()));
    }
    let (mut all, mut latencies) = (BTreeMap::new(), histogram());
    while let Some(done) = tasks.join_next().await {
        let (replies, mine) = done.map_err(io::Error::other)??;
        for (reply, count) in replies {
            *all.entry(reply).or_default() += count;
        }
        latencies.add(mine).map_err(io::Error::other)?;
    }
    Ok((all, latencies))
}

async fn run_connection(address: SocketAddr, requests: Arc<[Vec<u8>]>, sent: Arc<AtomicUsize>) -> io::Result<Replies> {
    let (mut replies, mut latencies) = (BTreeMap::new(), histogram());
    let mut connection = Connection::open(address).await?;
    while let Some(request) = requests.get(sent.fetch_add(1, Ordering::Relaxed)) {
        let begun = Instant::now();
        let exchange = tokio::time::timeout(REPLY_TIMEOUT, connection.exchange(request));
        let reply = match exchange.await {
            Ok(Ok(reply)) => reply,
            failed => {
                let what = if failed.is_err() { "no reply in time" } else { "connection lost" };
                connection = Connection::open(address).await?;
                what.to_owned()
            }
        };
        latencies.saturating_record(begun.elapsed().as_micros() as u64);
        *replies.entry(reply).or_default() += 1;
    }
    Ok((replies, latencies))
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(2048) })
    }

    /// Sends a request and reads its whole reply: the status, and the code of a problem.
    async fn exchange(&mut self, request: &[u8]) -> io::Result<String> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Some(reply) = parse(&self.buffer)? {
                return Ok(reply);
            }
        }
    }
}

/// The reply, once it is complete.
fn parse(bytes: &[u8]) -> io::Result<Option<String>> {
    let mut headers = [httparse::EMPTY_HEADER; 24];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head_length) = head.parse(bytes).map_err(io::Error::other)? else {
        return Ok(None);
    };
    let length = head
        .headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case("content-length"))
        .and_then(|header| std::str::from_utf8(header.value).ok()?.parse::<usize>().ok())
        .unwrap_or(0);
    if bytes.len() < head_length + length {
        return Ok(None);
    }
    let status = head.code.unwrap_or(0);
    let body = String::from_utf8_lossy(&bytes[head_length..]);
    let code = body.split_once("\"code\":\"").and_then(|(_, rest)| rest.split('"').next());
    Ok(Some(match code {
        Some(code) => format!("{status} {code}"),
        None => status.to_string(),
    }))
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are in order")
}

/// CPU time of the calling thread.
fn thread_cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0);
    Duration::from_nanos(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_read_when_it_is_complete() {
        let whole = b"HTTP/1.1 409 Conflict\r\nContent-Length: 19\r\n\r\n{\"code\":\"sold_out\"}";
        assert_eq!(parse(whole).unwrap().as_deref(), Some("409 sold_out"));
        assert_eq!(parse(&whole[..whole.len() - 1]).unwrap(), None);
        assert_eq!(parse(&whole[..20]).unwrap(), None);
        assert_eq!(parse(b"HTTP/1.1 202 Accepted\r\n\r\n").unwrap().as_deref(), Some("202"));
    }
}
