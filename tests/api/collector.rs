//! An OpenTelemetry collector, well or badly.

use std::collections::HashMap;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use parking_lot::Mutex;
use prost::Message;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::receiver::read_request;
use crate::support::eventually_within;

/// What it does with spans.
#[derive(Debug, Clone, Copy)]
pub enum Behaviour {
    Takes,
    Answers(u16),
    /// Reads and says nothing.
    Hangs,
}

/// A span that came, with what its process says of itself.
#[derive(Debug, Clone)]
pub struct Span {
    pub name: String,
    pub trace: String,
    pub id: String,
    /// Empty: it has none.
    pub parent: String,
    pub kind: i32,
    pub begun: u64,
    pub ended: u64,
    pub failed: bool,
    pub attributes: HashMap<String, String>,
    pub resource: HashMap<String, String>,
}

impl Span {
    #[track_caller]
    pub fn of(&self, key: &str) -> &str {
        self.attributes.get(key).unwrap_or_else(|| panic!("no {key} in {self:#?}"))
    }
}

#[derive(Default)]
struct Got {
    connections: usize,
    requests: Vec<(String, HashMap<String, String>)>,
    spans: Vec<Span>,
}

pub struct Collector {
    pub address: SocketAddr,
    got: Arc<Mutex<Got>>,
    behaviour: Arc<Mutex<Behaviour>>,
    serving: JoinHandle<()>,
}

impl Collector {
    pub async fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, got) = (listener.local_addr().unwrap(), Arc::<Mutex<Got>>::default());
        let behaviour = Arc::new(Mutex::new(behaviour));
        let (got_, behaviour_) = (got.clone(), behaviour.clone());
        let serving = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                got_.lock().connections += 1;
                let (got, behaviour) = (got_.clone(), behaviour_.clone());
                tokio::spawn(async move { serve(socket, got, behaviour).await });
            }
        });
        Self { address, got, behaviour, serving }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock() = behaviour;
    }

    pub fn connections(&self) -> usize {
        self.got.lock().connections
    }

    /// Path and headers of each request.
    pub fn requests(&self) -> Vec<(String, HashMap<String, String>)> {
        self.got.lock().requests.clone()
    }

    pub fn spans(&self) -> Vec<Span> {
        self.got.lock().spans.clone()
    }

    /// Waits until a trace has so many spans, and checks that it has no more a while later.
    pub async fn trace(&self, trace: &str, count: usize) -> Vec<Span> {
        let find = || self.spans().into_iter().filter(|span| span.trace == trace).collect::<Vec<_>>();
        eventually_within(10, &format!("{count} spans of {trace} came"), || async { find().len() >= count }).await;
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let found = find();
        assert_eq!(found.len(), count, "{found:#?}");
        found
    }

    /// Waits for a span that is one.
    pub async fn span(&self, what: &str, is_it: impl Fn(&Span) -> bool) -> Span {
        eventually_within(10, what, || async { self.spans().iter().any(&is_it) }).await;
        self.spans().into_iter().find(is_it).unwrap()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(socket: TcpStream, got: Arc<Mutex<Got>>, behaviour: Arc<Mutex<Behaviour>>) -> std::io::Result<()> {
    let mut socket = BufReader::new(socket);
    while let Some((path, headers, mut body)) = read_request(&mut socket).await? {
        if headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip") {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&*body).read_to_end(&mut plain)?;
            body = plain;
        }
        got.lock().requests.push((path, headers));
        let behaviour = *behaviour.lock();
        let status = match behaviour {
            Behaviour::Takes => 200,
            Behaviour::Answers(status) => status,
            Behaviour::Hangs => return std::future::pending().await,
        };
        if status == 200 {
            got.lock().spans.extend(spans(&body));
        }
        socket.write_all(format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n").as_bytes()).await?;
    }
    Ok(())
}

fn spans(body: &[u8]) -> Vec<Span> {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let mut spans = Vec::new();
    for of_process in request.resource_spans {
        let resource = texts(&of_process.resource.unwrap().attributes);
        for span in of_process.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.push(Span {
                name: span.name,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                kind: span.kind,
                begun: span.start_time_unix_nano,
                ended: span.end_time_unix_nano,
                failed: span.status.is_some_and(|status| status.code == 2),
                attributes: texts(&span.attributes),
                resource: resource.clone(),
            });
        }
    }
    spans
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn texts(attributes: &[KeyValue]) -> HashMap<String, String> {
    let text = |value: Value| match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let pair = |one: &KeyValue| Some((one.key.clone(), text(one.value.clone()?.value?)));
    attributes.iter().filter_map(pair).collect()
}
