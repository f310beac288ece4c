//! The HTTP server: its port, its workers, and what each of them has.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::available_parallelism;

use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::{App, web};
use tokio::net::TcpSocket;
use tokio::task::{JoinHandle, spawn_local};

use super::error::StartError;
use super::tasks::Background;
use crate::config::{self, Backend, Config};
use crate::handlers::{AppState, Cors, RequestTraces, routes, with_request_id};
use crate::http::{self, Doors};
use crate::services::{Checkout, PurchaseBatcher};
use crate::telemetry::Traces;

/// HTTP, served.
pub(super) struct Server {
    /// Where.
    pub(super) address: SocketAddr,
    pub(super) handle: ServerHandle,
    /// Until it ends.
    pub(super) serving: JoinHandle<std::io::Result<()>>,
}

/// Threads that serve HTTP.
pub(super) fn workers(config: &Config) -> usize {
    if config.server.workers == 0 { cores() } else { config.server.workers }
}

/// Those of the machine.
pub(super) fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// Opens the port, and serves.
pub(super) fn serve(
    config: &Config,
    state: AppState,
    checkout: Checkout,
    traces: Option<Arc<Traces>>,
    background: &Background,
) -> Result<Server, StartError> {
    let (host, port) = (&config.server.host, config.server.port);
    let listeners = http::bind(host, port);
    let listeners = listeners.map_err(|error| StartError(format!("cannot listen on {host}:{port}: {error}")))?;
    let address = listeners[0].local_addr().map_err(|error| StartError(format!("server.host: {error}")))?;
    let state = web::Data::new(state);
    let batchers = Arc::new(Batchers::new(config, checkout, background));
    let cors = Cors::new(&config.server.cors_origins);
    let proxies = config.server.trusted_proxies.clone();
    let server = http::serve(listeners, workers(config), doors(config), &background.supervisor, move || {
        let cors = cors.clone().map(Rc::new);
        let traces = traces.clone().map(|traces| Rc::new(RequestTraces::new(traces, proxies.clone())));
        App::new()
            .app_data(state.clone())
            .app_data(web::Data::new(batchers.of_worker()))
            .app_data(state.metrics.of_worker())
            .wrap(from_fn(move |request, next| with_request_id(cors.clone(), traces.clone(), request, next)))
            .configure(routes)
    });
    let server = server.map_err(|error| StartError(format!("HTTP server: {error}")))?;
    let handle = server.handle();
    let supervisor = background.supervisor.clone();
    let serving = tokio::spawn(async move {
        let ended = server.await;
        supervisor.ended("http", if ended.is_err() { "failed" } else { "ended by itself" });
        ended
    });
    tracing::info!(%address, "Serving HTTP");
    Ok(Server { address, handle, serving })
}

/// Where the purchases of HTTP workers gather.
enum Batchers {
    /// A step of a gate in this process costs less than to have another thread do it: each worker has a batcher.
    Own { checkout: Arc<Checkout>, room: usize },
    /// A step of Redis or RabbitMQ costs much the same however many purchases are in it: all workers share one.
    Shared(PurchaseBatcher),
}

impl Batchers {
    fn new(config: &Config, checkout: Checkout, background: &Background) -> Self {
        let (checkout, room) = (Arc::new(checkout), config.limits.purchases_waiting);
        match config.backend {
            Backend::Embedded => Self::Own { checkout, room },
            Backend::Distributed => {
                let (batcher, work) = PurchaseBatcher::open(&checkout, room * workers(config));
                background.tasks.spawn(work);
                Self::Shared(batcher)
            }
        }
    }

    /// That of the worker whose thread calls this.
    fn of_worker(&self) -> PurchaseBatcher {
        match self {
            Self::Own { checkout, room } => {
                let (batcher, work) = PurchaseBatcher::open(checkout, *room);
                spawn_local(work);
                batcher
            }
            Self::Shared(shared) => {
                let (batcher, replies) = shared.attach_worker();
                spawn_local(replies);
                batcher
            }
        }
    }
}

/// How many may connect.
fn doors(config: &Config) -> Doors {
    let room = config.limits.connections.min(http::raise_descriptor_limit());
    Doors::new(room, config.limits.connections_per_address, config.server.trusted_proxies.clone())
}

/// Finds out that the port is taken before anything slow is done. It is opened only when everything else is ready.
pub(super) async fn port_is_free(server: &config::Server) -> Result<(), StartError> {
    let (host, port) = (server.host.as_str(), server.port);
    let unknown = |error: std::io::Error| StartError(format!("server.host: {host}: {error}"));
    let mut problem = StartError(format!("server.host: {host} has no address"));
    for address in tokio::net::lookup_host((host, port)).await.map_err(unknown)? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        // As the listener will: an address whose old connections are only waiting to be forgotten is free.
        let bound = socket.and_then(|socket| socket.set_reuseaddr(true).and_then(|()| socket.bind(address)));
        let Err(error) = bound else { return Ok(()) };
        problem = StartError(match error.kind() {
            ErrorKind::AddrInUse => format!("server.port: another program listens on {address}"),
            ErrorKind::PermissionDenied => format!("server.port: no right to listen on {address}"),
            _ => format!("server.host: cannot listen on {address}: {error}"),
        });
    }
    Err(problem)
}
