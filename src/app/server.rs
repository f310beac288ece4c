//! The HTTP server: its ports, their workers, and what each of them has.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::available_parallelism;

use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::{App, web};
use futures_util::future::join_all;
use tokio::net::TcpSocket;
use tokio::task::{JoinHandle, spawn_local};

use super::error::StartError;
use super::tasks::Background;
use crate::config::{self, Backend, Config};
use crate::handlers::{AppState, Audience, Cors, RequestTraces, routes, with_request_id};
use crate::http::{self, Doors};
use crate::services::{Checkout, PurchaseBatcher};
use crate::telemetry::Traces;

/// Connections of administrators at most, where they have a port of their own; fewer if the system allows few.
const ADMIN_CONNECTIONS: usize = 1_000;
/// Threads that serve it.
const ADMIN_WORKERS: usize = 1;

/// HTTP, served.
pub(super) struct Server {
    /// Where.
    pub(super) address: SocketAddr,
    /// Where administrators are served: there, or at a port of their own.
    pub(super) admin_address: SocketAddr,
    ports: Vec<Port>,
}

impl Server {
    /// Accepts nobody any more, and returns when the replies that are begun have ended.
    pub(super) async fn stop(self) {
        join_all(self.ports.iter().map(|port| port.handle.stop(true))).await;
        for port in self.ports {
            let _ = port.serving.await;
        }
    }
}

struct Port {
    handle: ServerHandle,
    /// Until it ends.
    serving: JoinHandle<std::io::Result<()>>,
}

/// Threads that serve HTTP.
pub(super) fn workers(config: &Config) -> usize {
    if config.server.workers == 0 { cores() } else { config.server.workers }
}

/// Those of the machine.
pub(super) fn cores() -> usize {
    available_parallelism().map_or(1, usize::from)
}

/// Opens the ports, and serves.
pub(super) fn serve(
    config: &Config,
    state: AppState,
    checkout: Checkout,
    traces: Option<Arc<Traces>>,
    background: &Background,
) -> Result<Server, StartError> {
    let (listeners, address) = listen("server.host", &config.server.host, config.server.port)?;
    let for_admins = config.server.for_admins();
    let for_admins = for_admins.map(|(host, port)| listen("server.admin_host", host, port)).transpose()?;
    let state = web::Data::new(state);
    let batchers = Arc::new(Batchers::new(config, checkout, background));
    let cors = Cors::new(&config.server.cors_origins);
    let proxies = config.server.trusted_proxies.clone();
    let open = |listeners, workers, doors, audience| {
        let (state, batchers, cors) = (state.clone(), batchers.clone(), cors.clone());
        let (traces, proxies) = (traces.clone(), proxies.clone());
        let server = http::serve(listeners, workers, doors, &background.supervisor, move || {
            let cors = cors.clone().map(Rc::new);
            let traces = traces.clone().map(|traces| Rc::new(RequestTraces::new(traces, proxies.clone())));
            App::new()
                .app_data(state.clone())
                .app_data(web::Data::new(batchers.of_worker()))
                .app_data(state.metrics.of_worker())
                .wrap(from_fn(move |request, next| with_request_id(cors.clone(), traces.clone(), request, next)))
                .configure(|app| routes(app, audience))
        });
        server.map(|server| Port::run(server, background)).map_err(|error| StartError(format!("HTTP server: {error}")))
    };
    let room = config.limits.connections;
    let (room_left, per_address) = (http::raise_descriptor_limit(), config.limits.connections_per_address);
    let doors = |room| Doors::new(room, per_address, config.server.trusted_proxies.clone());
    let Some((admin_listeners, admin_address)) = for_admins else {
        let port = open(listeners, workers(config), doors(room.min(room_left)), Audience::Everybody)?;
        tracing::info!(%address, "Serving HTTP");
        return Ok(Server { address, admin_address: address, ports: vec![port] });
    };
    // With room and a thread of its own: however many buyers come, the merchant sees the sale.
    let admin_room = ADMIN_CONNECTIONS.min(room_left / 4);
    let admins = open(admin_listeners, ADMIN_WORKERS, doors(admin_room), Audience::Everybody)?;
    let buyers = open(listeners, workers(config), doors(room.min(room_left - admin_room)), Audience::Buyers)?;
    tracing::info!(%address, admin.address = %admin_address, "Serving HTTP");
    Ok(Server { address, admin_address, ports: vec![buyers, admins] })
}

fn listen(key: &str, host: &str, port: u16) -> Result<(Vec<TcpListener>, SocketAddr), StartError> {
    let listeners =
        http::bind(host, port).map_err(|error| StartError(format!("cannot listen on {host}:{port}: {error}")))?;
    let address = listeners[0].local_addr().map_err(|error| StartError(format!("{key}: {error}")))?;
    Ok((listeners, address))
}

impl Port {
    fn run(server: actix_web::dev::Server, background: &Background) -> Self {
        let handle = server.handle();
        let supervisor = background.supervisor.clone();
        let serving = tokio::spawn(async move {
            let ended = server.await;
            supervisor.ended("http", if ended.is_err() { "failed" } else { "ended by itself" });
            ended
        });
        Self { handle, serving }
    }
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

/// Finds out that a port is taken before anything slow is done. They are opened only when everything else is ready.
pub(super) async fn ports_are_free(server: &config::Server) -> Result<(), StartError> {
    port_is_free("server.host", &server.host, "server.port", server.port).await?;
    match server.for_admins() {
        Some((host, port)) => port_is_free("server.admin_host", host, "server.admin_port", port).await,
        None => Ok(()),
    }
}

async fn port_is_free(host_key: &str, host: &str, port_key: &str, port: u16) -> Result<(), StartError> {
    let unknown = |error: std::io::Error| StartError(format!("{host_key}: {host}: {error}"));
    let mut problem = StartError(format!("{host_key}: {host} has no address"));
    for address in tokio::net::lookup_host((host, port)).await.map_err(unknown)? {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
        // As the listener will: an address whose old connections are only waiting to be forgotten is free.
        let bound = socket.and_then(|socket| socket.set_reuseaddr(true).and_then(|()| socket.bind(address)));
        let Err(error) = bound else { return Ok(()) };
        problem = StartError(match error.kind() {
            ErrorKind::AddrInUse => format!("{port_key}: another program listens on {address}"),
            ErrorKind::PermissionDenied => format!("{port_key}: no right to listen on {address}"),
            _ => format!("{host_key}: cannot listen on {address}: {error}"),
        });
    }
    Err(problem)
}
