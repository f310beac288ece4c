//! One try: a request is sent, and what is answered is judged.
//!
//! Each takes a thread of its own, which blocks. The threads are nicer than all others: a sale that takes the whole machine is not held
//! up by telling others of it.

use std::io::Read;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};
use ureq::Timeout;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};

use super::retries;
use super::target::may_connect;
use crate::model::Timestamp;
use crate::services::http_client::http_client;

/// For all of it: finding the address, connecting, sending, and reading the answer to its end.
pub(super) const TIMEOUT: Duration = Duration::from_secs(15);
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// What is read of an answer's body. It is thrown away; read to its end, the connection can be used again.
const MAX_BODY_BYTES: u64 = 64 * 1024;
const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Connections are kept for so long: less than servers keep theirs, for one that has just been closed fails a try.
const IDLE: Duration = Duration::from_secs(3);
/// A thread that has nothing to do ends after this.
const THREAD_IDLE: Duration = Duration::from_secs(10);
/// By how much the threads are nicer than the others.
#[cfg(target_os = "linux")]
const NICER: i32 = 10;

/// What was answered, or why nothing was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// 2xx.
    Taken(u16),
    /// Another status, and how long to stay away, if that was said.
    Refused(u16, Option<Duration>),
    /// None: why.
    Failed(String),
}

/// What is sent.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) url: String,
    pub(super) id: String,
    pub(super) timestamp: String,
    pub(super) signature: String,
    pub(super) body: String,
}

/// Threads for tries.
pub(super) struct Threads(Option<Runtime>);

impl Threads {
    /// At most so many.
    pub(super) fn new(most: usize) -> std::io::Result<Self> {
        let mut builder = Builder::new_current_thread();
        builder.max_blocking_threads(most).thread_keep_alive(THREAD_IDLE).thread_name("webhooks");
        // Elsewhere it would be the priority of the whole process.
        #[cfg(target_os = "linux")]
        builder.on_thread_start(|| {
            // One that stays as it is tells the shop all the same.
            let _ = rustix::process::nice(NICER);
        });
        Ok(Self(Some(builder.build()?)))
    }

    pub(super) fn handle(&self) -> Option<&Handle> {
        self.0.as_ref().map(Runtime::handle)
    }
}

/// Does not wait for tries that are begun.
impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// Connects only to addresses that it has checked.
#[derive(Debug)]
struct CheckedResolver {
    allow_private: bool,
}

impl Resolver for CheckedResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &ureq::config::Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let found = DefaultResolver::default().resolve(uri, config, timeout)?;
        match may_connect(found.iter().map(SocketAddr::ip), self.allow_private) {
            true => Ok(found),
            false => Err(ureq::Error::Other("its host has an address that is not public".into())),
        }
    }
}

/// A client for one endpoint. Cheap to clone.
#[derive(Clone)]
pub(super) struct Client(ureq::Agent);

impl Client {
    pub(super) fn new(allow_private: bool, connections: usize) -> Self {
        let config = http_client(TIMEOUT)
            .timeout_resolve(Some(RESOLVE_TIMEOUT))
            .max_idle_connections(connections)
            .max_idle_connections_per_host(connections)
            .max_idle_age(IDLE)
            .max_response_header_size(MAX_HEADER_BYTES)
            // Its own connection would be to an address that nobody has checked.
            .proxy(None)
            .build();
        Self(ureq::Agent::with_parts(config, DefaultConnector::default(), CheckedResolver { allow_private }))
    }

    /// Sends, and waits. Blocks.
    pub(super) fn send(&self, request: &Request) -> Answer {
        let Request { url, id, timestamp, signature, body } = request;
        let call = self.0.post(url).content_type("application/json").header("webhook-id", id);
        let call = call.header("webhook-timestamp", timestamp).header("webhook-signature", signature);
        let mut reply = match call.send(body) {
            Ok(reply) => reply,
            Err(error) => return Answer::Failed(said(&error)),
        };
        let status = reply.status();
        let retry_after = reply.headers().get("retry-after").and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|value| retries::retry_after(value, Timestamp::now()));
        if !status.is_success() {
            return Answer::Refused(status.as_u16(), retry_after);
        }
        // Up to a bound: who sends more has said 2xx all the same.
        let mut body = reply.body_mut().as_reader().take(MAX_BODY_BYTES);
        match std::io::copy(&mut body, &mut std::io::sink()) {
            Ok(_) => Answer::Taken(status.as_u16()),
            Err(error) => {
                Answer::Failed(format!("answered {}, but not to its end: {}", status.as_u16(), io_said(&error)))
            }
        }
    }
}

/// In words for the shop's own people, and without a word of whoever answered.
fn said(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(Timeout::Resolve) => "its name was not found in time".to_owned(),
        ureq::Error::Timeout(Timeout::Connect) => "no connection in time".to_owned(),
        ureq::Error::Timeout(_) => format!("no answer within {} seconds", TIMEOUT.as_secs()),
        ureq::Error::HostNotFound => "its name was not found".to_owned(),
        ureq::Error::Other(problem) => problem.to_string(),
        ureq::Error::Protocol(_) | ureq::Error::LargeResponseHeader(..) => "the answer is no HTTP".to_owned(),
        ureq::Error::Io(error) => io_said(error),
        _ => "no answer".to_owned(),
    }
}

fn io_said(error: &std::io::Error) -> String {
    if let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
        return said(inner);
    }
    match error.kind() {
        // What TLS does not accept: nearly always the certificate.
        std::io::ErrorKind::InvalidData => format!("TLS: {error}"),
        _ if error.to_string().starts_with("failed to lookup address") => "its name was not found".to_owned(),
        kind => kind.to_string(),
    }
}
