//! Somebody who takes webhooks, well or badly.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::support::eventually_within;

/// What it does with a request.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// Answers with a status, and with these headers, each line ended.
    Answer(u16, String),
    /// Answers 200 after a while.
    Slow(Duration),
    /// Takes the request and says nothing.
    Hang,
    /// Says 200, and then a byte of the body now and then, for ever.
    Drip,
    /// Says 200, and then a body without an end.
    Endless,
    /// Answers with something that is no HTTP.
    Garbage,
    /// Hangs up.
    HangUp,
}

/// A webhook that came.
#[derive(Debug, Clone)]
pub struct Got {
    pub at: Instant,
    pub path: String,
    pub headers: HashMap<String, String>,
    pub raw: String,
    pub body: Value,
}

impl Got {
    pub fn kind(&self) -> &str {
        self.body["type"].as_str().unwrap()
    }

    pub fn id(&self) -> &str {
        &self.headers["webhook-id"]
    }

    pub fn data(&self) -> &Value {
        &self.body["data"]
    }
}

type Script = dyn Fn(usize, &Got) -> Behaviour + Send + Sync;

pub struct Receiver {
    address: SocketAddr,
    got: Arc<Mutex<Vec<Got>>>,
    /// Connections that were opened.
    connections: Arc<Mutex<usize>>,
    script: Arc<Mutex<Arc<Script>>>,
    serving: JoinHandle<()>,
}

impl Receiver {
    /// One that takes everything.
    pub async fn start() -> Self {
        Self::behaving(|_, _| Behaviour::Answer(200, String::new())).await
    }

    /// One that does with each request, counted from 0, as it is told.
    pub async fn behaving(script: impl Fn(usize, &Got) -> Behaviour + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let got: Arc<Mutex<Vec<Got>>> = Arc::default();
        let connections: Arc<Mutex<usize>> = Arc::default();
        let script: Arc<Mutex<Arc<Script>>> = Arc::new(Mutex::new(Arc::new(script)));
        let (got_, script_, connections_) = (got.clone(), script.clone(), connections.clone());
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                *connections_.lock() += 1;
                let (got, script) = (got_.clone(), script_.clone());
                tokio::spawn(async move {
                    let _ = serve(socket, got, script).await;
                });
            }
        });
        Self { address, got, connections, script, serving }
    }

    /// From now on it does this.
    pub fn behave(&self, script: impl Fn(usize, &Got) -> Behaviour + Send + Sync + 'static) {
        *self.script.lock() = Arc::new(script);
    }

    pub fn url(&self) -> String {
        format!("http://{}/hooks", self.address)
    }

    pub fn connections(&self) -> usize {
        *self.connections.lock()
    }

    pub fn all(&self) -> Vec<Got> {
        self.got.lock().clone()
    }

    /// Those of a type.
    pub fn of(&self, kind: &str) -> Vec<Got> {
        self.all().into_iter().filter(|got| got.kind() == kind).collect()
    }

    /// Waits until so many of a type have come, and checks that there are no more a while later.
    pub async fn got(&self, kind: &str, count: usize) -> Vec<Got> {
        eventually_within(20, &format!("{count} {kind} came"), || async { self.of(kind).len() >= count }).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let got = self.of(kind);
        assert_eq!(got.len(), count, "{kind}: {got:#?}");
        got
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// The next request of a connection: its path, its headers by their names in small letters, its body. `None`: there is none.
pub async fn read_request(
    socket: &mut BufReader<TcpStream>,
) -> std::io::Result<Option<(String, HashMap<String, String>, Vec<u8>)>> {
    let mut line = String::new();
    if socket.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        socket.read_line(&mut line).await?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    socket.read_exact(&mut body).await?;
    Ok(Some((path, headers, body)))
}

async fn serve(socket: TcpStream, got: Arc<Mutex<Vec<Got>>>, script: Arc<Mutex<Arc<Script>>>) -> std::io::Result<()> {
    let mut socket = BufReader::new(socket);
    while let Some((path, headers, body)) = read_request(&mut socket).await? {
        let raw = String::from_utf8(body).unwrap();
        let body = serde_json::from_str(&raw).unwrap();
        let request = Got { at: Instant::now(), path, headers, raw, body };
        let (number, script) = {
            let mut got = got.lock();
            got.push(request.clone());
            (got.len() - 1, script.lock().clone())
        };
        let answer = match script(number, &request) {
            Behaviour::Answer(status, headers) => format!("HTTP/1.1 {status} X\r\n{headers}content-length: 0\r\n\r\n"),
            Behaviour::Slow(time) => {
                tokio::time::sleep(time).await;
                "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n".to_owned()
            }
            Behaviour::Hang => return std::future::pending().await,
            Behaviour::HangUp => return Ok(()),
            Behaviour::Garbage => {
                socket.write_all(b"\x16\x03\x01 nonsense\r\n\r\n").await?;
                return Ok(());
            }
            Behaviour::Drip => {
                socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await?;
                loop {
                    socket.write_all(b"x").await?;
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
            Behaviour::Endless => {
                socket.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
                loop {
                    socket.write_all(format!("2000\r\n{}\r\n", "x".repeat(0x2000)).as_bytes()).await?;
                }
            }
        };
        socket.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}
