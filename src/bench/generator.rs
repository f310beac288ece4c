//! The load generator: prepared requests over kept-alive connections, one at a time on each.
//!
//! Runs on two threads of its own, so that it neither waits for nor slows a runtime it is not measuring.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, LocalSet};

const THREADS: usize = 2;
const REPLY_TIMEOUT: Duration = Duration::from_secs(10);
/// How often requests fall due at a fixed rate.
const TICK: Duration = Duration::from_micros(250);

/// What is sent.
pub(super) struct Load {
    /// Connections are spread over these.
    pub(super) addresses: Vec<SocketAddr>,
    /// Sent in turn, from the first again after the last.
    pub(super) requests: Vec<Vec<u8>>,
    /// Requests in all.
    pub(super) count: usize,
    /// Connections, each with one request at a time.
    pub(super) connections: usize,
    pub(super) pace: Pace,
}

/// When the next request is sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// As soon as a connection has its reply (closed loop).
    Closed,
    /// At this rate, whatever the replies do (open loop). Latency counts from when a request was due, so one that had to
    /// wait for a free connection is as late as its user would have found it.
    Open { per_second: f64 },
}

/// What became of the requests.
pub(super) struct Run {
    /// Replies by status and problem code: `202`, `409 sold_out`.
    pub(super) replies: BTreeMap<String, u64>,
    /// In microseconds.
    pub(super) latencies: Histogram<u64>,
    /// From the first request to the last reply.
    pub(super) elapsed: Duration,
    /// CPU time of the generator itself.
    pub(super) generator_cpu: Duration,
}

impl Run {
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
        percentile_ms(&self.latencies, percentile)
    }
}

/// A percentile of a histogram of microseconds, in milliseconds.
pub(super) fn percentile_ms(latencies: &Histogram<u64>, percentile: f64) -> f64 {
    latencies.value_at_percentile(percentile) as f64 / 1000.0
}

/// For latencies in microseconds up to a minute.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are in order")
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

/// The same with what a form on a page sends.
pub(super) fn request_with_form(path: &str, form: &str) -> Vec<u8> {
    let length = form.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: seckill\r\nContent-Type: application/x-www-form-urlencoded\r\n");
    format!("{head}Content-Length: {length}\r\n\r\n{form}").into_bytes()
}

/// Sends one request on a connection of its own; status and body of the reply.
pub(super) async fn ask(address: SocketAddr, request: &[u8]) -> io::Result<(u16, String)> {
    let mut connection = Connection::open(address).await?;
    let reply = tokio::time::timeout(REPLY_TIMEOUT, connection.exchange(request)).await??;
    let body = String::from_utf8_lossy(&connection.buffer[reply.head_length..]).into_owned();
    Ok((reply.status, body))
}

/// What the connections share.
struct Shared {
    load: Load,
    begun: Instant,
    next: AtomicUsize,
    answered: Arc<AtomicUsize>,
    /// At a fixed rate: a permit for each request that is due.
    due: Semaphore,
}

impl Shared {
    /// The next request, and since when it is due.
    async fn next(&self) -> Option<(&[u8], Instant)> {
        if let Pace::Open { .. } = self.load.pace {
            self.due.acquire().await.ok()?.forget();
        }
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        if number >= self.load.count {
            return None;
        }
        let due = match self.load.pace {
            Pace::Closed => Instant::now(),
            Pace::Open { per_second } => self.begun + Duration::from_secs_f64(number as f64 / per_second),
        };
        Some((&self.load.requests[number % self.load.requests.len()], due))
    }

    /// Lets requests fall due, on a thread of its own: the timers of the runtime are too coarse.
    fn keep_pace(&self, per_second: f64) {
        let mut released = 0;
        while released < self.load.count && self.next.load(Ordering::Relaxed) < self.load.count {
            let due = (self.begun.elapsed().as_secs_f64() * per_second) as usize + 1;
            let due = due.min(self.load.count);
            self.due.add_permits(due.saturating_sub(released));
            released = due;
            std::thread::sleep(TICK);
        }
        // For each connection, to find that nothing is left.
        self.due.add_permits(self.load.connections);
    }
}

/// Ends the load when it is dropped: whoever waited for it has gone.
struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.next.store(self.0.load.count, Ordering::Relaxed);
    }
}

/// Sends every request. `answered` counts along.
pub(super) async fn fire(load: Load, answered: Arc<AtomicUsize>) -> io::Result<Run> {
    assert!(load.count == 0 || !load.requests.is_empty(), "there is something to send");
    let begun = Instant::now();
    let shared = Shared { load, begun, next: AtomicUsize::new(0), answered, due: Semaphore::new(0) };
    let shared = Arc::new(shared);
    let _end = EndOnDrop(shared.clone());
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let shared = shared.clone();
            tokio::task::spawn_blocking(move || run_thread(&shared, thread))
        })
        .collect();
    if let Pace::Open { per_second } = shared.load.pace {
        let shared = shared.clone();
        tokio::task::spawn_blocking(move || shared.keep_pace(per_second));
    }
    let mut run = Run {
        replies: BTreeMap::new(),
        latencies: histogram(),
        elapsed: Duration::ZERO,
        generator_cpu: Duration::ZERO,
    };
    for thread in threads {
        let (tally, cpu) = thread.await.map_err(io::Error::other)??;
        for (reply, count) in tally.replies {
            *run.replies.entry(reply).or_default() += count;
        }
        run.latencies.add(tally.latencies).map_err(io::Error::other)?;
        run.generator_cpu += cpu;
    }
    run.elapsed = begun.elapsed();
    Ok(run)
}

/// What a thread has seen.
struct Tally {
    replies: BTreeMap<String, u64>,
    latencies: Histogram<u64>,
}

impl Tally {
    fn note(&mut self, reply: &str, latency: Duration) {
        self.latencies.saturating_record(latency.as_micros() as u64);
        match self.replies.get_mut(reply) {
            Some(count) => *count += 1,
            None => {
                self.replies.insert(reply.to_owned(), 1);
            }
        }
    }
}

/// Runs every [`THREADS`]th connection.
fn run_thread(shared: &Arc<Shared>, thread: usize) -> io::Result<(Tally, Duration)> {
    let cpu_before = thread_cpu();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tally = Rc::new(RefCell::new(Tally { replies: BTreeMap::new(), latencies: histogram() }));
    let run = async {
        let mut tasks = JoinSet::new();
        for number in (thread..shared.load.connections).step_by(THREADS) {
            let address = shared.load.addresses[number / THREADS % shared.load.addresses.len()];
            tasks.spawn_local(run_connection(address, shared.clone(), tally.clone()));
        }
        while let Some(done) = tasks.join_next().await {
            done.map_err(io::Error::other)??;
        }
        Ok::<_, io::Error>(())
    };
    LocalSet::new().block_on(&runtime, run)?;
    let tally = Rc::into_inner(tally).ok_or_else(|| io::Error::other("a connection is still busy"))?;
    Ok((tally.into_inner(), thread_cpu() - cpu_before))
}

async fn run_connection(address: SocketAddr, shared: Arc<Shared>, tally: Rc<RefCell<Tally>>) -> io::Result<()> {
    let mut connection = Connection::open(address).await?;
    while let Some((request, due)) = shared.next().await {
        let exchange = tokio::time::timeout(REPLY_TIMEOUT, connection.exchange(request)).await;
        match exchange {
            Ok(Ok(reply)) => tally.borrow_mut().note(connection.label(&reply), due.elapsed()),
            failed => {
                let label = if failed.is_err() { "no reply in time" } else { "connection lost" };
                tally.borrow_mut().note(label, due.elapsed());
                connection = Connection::open(address).await?;
            }
        }
        shared.answered.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// The label of the last reply, which the next one mostly shares.
    last: Labelled,
}

/// A reply's status, its body if that is a problem's, and its label.
#[derive(Default)]
struct Labelled {
    status: u16,
    problem: Vec<u8>,
    label: String,
}

/// A complete reply in a connection's buffer.
#[derive(Debug, PartialEq, Eq)]
struct Reply {
    status: u16,
    head_length: usize,
}

impl Connection {
    async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(2048), last: Labelled::default() })
    }

    /// Sends a request and reads its whole reply.
    async fn exchange(&mut self, request: &[u8]) -> io::Result<Reply> {
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

    /// The status, and the code of a problem.
    fn label(&mut self, reply: &Reply) -> &str {
        let Reply { status, head_length } = *reply;
        let problem = if status >= 400 { &self.buffer[head_length..] } else { &[] };
        if self.last.status != status || self.last.problem != problem {
            let text = std::str::from_utf8(problem).unwrap_or_default();
            let label = match text.split_once("\"code\":\"") {
                Some((_, code)) => format!("{status} {}", code.split('"').next().unwrap_or_default()),
                None => status.to_string(),
            };
            self.last = Labelled { status, problem: problem.to_vec(), label };
        }
        &self.last.label
    }
}

/// The reply, once it is complete.
fn parse(bytes: &[u8]) -> io::Result<Option<Reply>> {
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
    let complete = bytes.len() >= head_length + length;
    Ok(complete.then_some(Reply { status: head.code.unwrap_or(0), head_length }))
}

/// CPU time of the calling thread; zero where the system does not tell.
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
        assert_eq!(parse(whole).unwrap(), Some(Reply { status: 409, head_length: whole.len() - 19 }));
        assert_eq!(parse(&whole[..whole.len() - 1]).unwrap(), None);
        assert_eq!(parse(&whole[..20]).unwrap(), None);
        let empty = b"HTTP/1.1 202 Accepted\r\n\r\n";
        assert_eq!(parse(empty).unwrap(), Some(Reply { status: 202, head_length: empty.len() }));
    }

    /// Answers like a server, the first request after `pause`.
    async fn slow_server(pause: Duration) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut pause = Some(pause);
            let mut buffer = vec![0; 4096];
            while stream.read(&mut buffer).await.is_ok_and(|length| length > 0) {
                tokio::time::sleep(pause.take().unwrap_or_default()).await;
                stream
                    .write_all(b"HTTP/1.1 409 Conflict\r\nContent-Length: 15\r\n\r\n{\"code\":\"ended\"}")
                    .await
                    .unwrap();
            }
        });
        address
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn at_a_fixed_rate_those_who_had_to_wait_count_as_late() {
        let address = slow_server(Duration::from_millis(500)).await;
        let requests = vec![request("GET", "/", None, None)];
        let pace = Pace::Open { per_second: 100.0 };
        let run = fire(Load { addresses: vec![address], requests, count: 50, connections: 1, pace }, Arc::default())
            .await
            .unwrap();
        assert_eq!(run.count("409 ended"), 50);
        // All fell due within the half second that the first one took: the median waited for about half of it.
        let median = run.percentile_ms(50.0);
        assert!((150.0..400.0).contains(&median), "{median} ms");
    }
}
