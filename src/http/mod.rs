//! The HTTP server as its sockets see it: who may connect, how long a request may take to arrive, how fast a reply must
//! be taken, and whose turn it is.
//!
//! The framework parses and answers, but trusts its peers: it reads ahead of what it has answered, keeps what nobody
//! takes, and waits for ever for the rest of a body. So every connection is wrapped (`stream`), every request and reply
//! of it is noticed (`watch`), each worker looks once in half a second for those that make no progress (`worker`), and
//! those who are new or misbehave wait for their turn (`turns`), so that a buyer with an open connection need not.
//! A request costs a few comparisons here: no system call, no allocation, no timer.
//!
//! Invariants: a connection that does not take its replies is not read from; at most one request of a connection is
//! ahead of the one being answered; whatever waits for the client has a deadline (a
//! reply of ours has those of the services); an iteration of the event loop does a bounded amount of work
//! for those who have not shown yet how they behave. Nothing here knows a path or a body.

mod connection;
mod descriptors;
mod doors;
mod line;
mod refusal;
mod stream;
mod thread;
mod turns;
mod watch;
mod worker;

use std::fmt::Debug;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_http::body::MessageBody;
use actix_http::{HttpService, KeepAlive, Request, Response};
use actix_server::Server;
use actix_service::{IntoServiceFactory, Service, ServiceFactory, ServiceFactoryExt, map_config};
use actix_web::Error;
use actix_web::dev::AppConfig;
use tokio::net::TcpSocket;

pub use descriptors::raise_descriptor_limit;
pub use doors::Doors;

use self::stream::GuardedStream;
use self::watch::{GuardedFactory, WatchedFactory};
use self::worker::Worker;
use crate::supervision::Supervisor;

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;
/// What the system keeps of a reply that its client does not take. It doubles the value.
const SEND_BUFFER_BYTES: u32 = 64 * 1024;
/// A reply is handed to the socket in pieces of about this size, so that a large one is not copied whole for everybody.
const PIECE_BYTES: usize = 16 * 1024;
/// After a reply that leaves a body unread, what still comes is thrown away this long, so that the client can read it.
const LINGER: Duration = Duration::from_secs(1);
/// A thread that serves connections, as a task.
const WORKER: &str = "http-worker";
/// Replies that are begun at a stop get this long.
const STOP_SECONDS: u64 = 5;

/// Listens on every address of `host`.
pub fn bind(host: &str, port: u16) -> io::Result<Vec<TcpListener>> {
    let mut listeners = Vec::new();
    let mut problem = io::Error::other("the host has no address");
    for address in (host, port).to_socket_addrs()? {
        match listen(address) {
            Ok(listener) => listeners.push(listener),
            Err(error) => problem = error,
        }
    }
    if listeners.is_empty() { Err(problem) } else { Ok(listeners) }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    // Accepted connections inherit it.
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)?.into_std()
}

/// Serves what `factory` makes, in each of `workers` threads, to whom `doors` lets in. `supervisor` watches the tasks
/// behind it.
pub fn serve<F, I, S, B>(
    listeners: Vec<TcpListener>,
    workers: usize,
    doors: Doors,
    supervisor: &Supervisor,
    factory: F,
) -> io::Result<Server>
where
    F: Fn() -> I + Send + Clone + 'static,
    I: IntoServiceFactory<S, Request>,
    S: ServiceFactory<Request, Config = AppConfig> + 'static,
    S::Error: Into<Error> + 'static,
    S::InitError: Debug,
    S::Response: Into<Response<B>> + 'static,
    <S::Service as Service<Request>>::Future: 'static,
    B: MessageBody + 'static,
{
    let doors = Arc::new(doors);
    supervisor.register(WORKER);
    let (starts, starts_wanted) = (Arc::new(AtomicUsize::new(0)), listeners.len() * workers);
    // Ours is the limit that counts; theirs stops accepting, which would leave newcomers waiting.
    let mut builder = Server::build().workers(workers).max_concurrent_connections(usize::MAX >> 1);
    builder = builder.shutdown_timeout(STOP_SECONDS).disable_signals();
    let stopping = builder.graceful_shutdown_signal();
    for listener in listeners {
        let (factory, doors, stopping) = (factory.clone(), doors.clone(), stopping.clone());
        let (supervisor, starts) = (supervisor.clone(), starts.clone());
        builder = builder.listen("http", listener, move || {
            if starts.fetch_add(1, Ordering::Relaxed) >= starts_wanted {
                // The framework begins a worker anew when its thread has died.
                supervisor.survived(WORKER);
            }
            let worker = Worker::start(doors.clone(), &supervisor);
            let stopping = stopping.clone();
            let app = factory().into_factory().map_err(|error| error.into().error_response());
            let app = map_config(app, |()| AppConfig::default());
            let http = HttpService::build()
                .graceful_shutdown_signal(move || {
                    let stopping = stopping.clone();
                    async move { stopping.notified().await }
                })
                // The worker's own look at its connections ends the idle and the slow.
                .keep_alive(KeepAlive::Os)
                .client_request_timeout(Duration::ZERO)
                .client_disconnect_timeout(LINGER)
                .h1_write_buffer_size(PIECE_BYTES)
                .on_connect_ext(|stream: &GuardedStream, data| {
                    data.insert(stream.connection());
                })
                .finish(WatchedFactory::new(app));
            GuardedFactory::new(http, worker)
        })?;
    }
    Ok(builder.run())
}
