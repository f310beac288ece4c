//! The composition root: builds clients, services, routes and consumer tasks, and takes them down again.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::{App, web};
use secrecy::ExposeSecret;
use tokio::net::TcpSocket;
use tokio::task::{JoinHandle, spawn_local};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{self, Backend, Config};
use crate::consumers::Consumer;
use crate::data_dir::{self, ADMIN_PASSWORD, DataDir, JWT_SECRET, forget_secret, random_key, random_password};
use crate::db::{Db, DbError, ErrorClass, Pairing};
use crate::handlers::{Cors, routes, with_request_id};
use crate::http::{self, Doors};
use crate::model::{Account, Timestamp, Username};
use crate::queue::OrderQueue;
use crate::services::{
    Accounts, Authenticator, Catalog, Deployment, Health, Holdings, KeyExpiry, KnownProducts, OrderWriter, Orders,
    PasswordHasher, PurchaseBatcher, Purchases, Rebuilder, Reconciler, Replay, Sweeper, Tokens, UnfinishedSales,
    WarmUp,
};
use crate::stock::{GateError, StockGate};
use crate::supervision::Supervisor;
use crate::telemetry::Metrics;

/// A database that starts together with us is waited for this long.
const DATABASE_PATIENCE: Duration = Duration::from_secs(30);
/// Everything else at a stop, taken together.
const STOP_PATIENCE: Duration = Duration::from_secs(8);
/// Why the process could not start, in one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

impl From<String> for StartError {
    fn from(problem: String) -> Self {
        Self(problem)
    }
}

/// A server that is running.
pub struct RunningApp {
    address: SocketAddr,
    http: ServerHandle,
    serving: JoinHandle<std::io::Result<()>>,
    queue: Arc<OrderQueue>,
    stop: CancellationToken,
    tasks: TaskTracker,
    consumers: TaskTracker,
    supervisor: Supervisor,
    health: Arc<Health>,
    /// How long a stop goes on serving after `/readyz` has said so.
    drain: Duration,
    new_admin: Option<config::Admin>,
    _data_dir: Option<DataDir>,
}

/// Brings the schema up to date. `new_journal`: goes on without what the journal of the embedded backend holds.
pub async fn migrate(config: &Config, new_journal: bool) -> Result<(), StartError> {
    match config.backend {
        Backend::Embedded => {
            let data_dir = DataDir::lock(&config.embedded.data_dir)?;
            if !new_journal {
                return migrate_file(&data_dir).await;
            }
            let (pairing, moved) = Pairing::renew(&data_dir.database(), &data_dir.journal())?;
            if let Some(moved) = moved {
                tracing::warn!(journal = %moved.display(), "Moved the journal away: what it holds does not become orders");
            }
            migrate_paired(&data_dir, pairing).await
        }
        Backend::Distributed if new_journal => {
            Err(StartError("--new-journal is for the embedded backend, which has one".to_owned()))
        }
        Backend::Distributed => migrate_server(config).await,
    }
}

async fn migrate_file(data_dir: &DataDir) -> Result<(), StartError> {
    migrate_paired(data_dir, Pairing::check(&data_dir.database(), &data_dir.journal())?).await
}

async fn migrate_paired(data_dir: &DataDir, pairing: Pairing) -> Result<(), StartError> {
    Db::migrate_sqlite(&data_dir.database()).await.map_err(|error| StartError(format!("database: {error}")))?;
    Ok(pairing.seal()?)
}

async fn migrate_server(config: &Config) -> Result<(), StartError> {
    let begun = tokio::time::Instant::now();
    loop {
        match Db::migrate_mysql(&config.mysql.dsn).await {
            Err(error) if is_starting(&error) && begun.elapsed() < DATABASE_PATIENCE => {
                tracing::warn!(%error, "The database does not answer yet");
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            other => return other.map_err(|error| StartError(database_problem(&error))),
        }
    }
}

/// Whether a database may be about to come up. Everything else is a mistake that does not go away by itself.
fn is_starting(error: &DbError) -> bool {
    matches!(error.class(), ErrorClass::Unreachable | ErrorClass::Lost | ErrorClass::TimedOut | ErrorClass::Overloaded)
}

/// One line that names the setting, without what is secret in it.
fn database_problem(error: &DbError) -> String {
    match error {
        DbError::Misconfigured(problem) | DbError::Migration(problem) => format!("mysql.dsn: {problem}"),
        error => format!("mysql.dsn: {error}; {}", error.class().advice()),
    }
}

/// What puts dead letters back under the gate of now; `None` where there is no gate outside a server's process. Must be called
/// on a multi-threaded runtime.
pub fn replay(config: &Config) -> Result<Option<Replay>, StartError> {
    match config.backend {
        Backend::Embedded => Ok(None),
        Backend::Distributed => {
            let gate = StockGate::redis(&config.redis, 1)?;
            Ok(Some(Replay::new(Db::mysql(&config.mysql), Arc::new(gate))))
        }
    }
}

/// The deployment that a configuration leads to, for the command line. Must be called on a multi-threaded runtime.
pub fn deployment(config: &Config) -> Result<Deployment, StartError> {
    let queue = OrderQueue::rabbitmq(&config.rabbitmq)?;
    let gate = StockGate::redis(&config.redis, 1)?;
    let metrics = Arc::new(Metrics::new());
    Ok(Deployment::new(Db::mysql(&config.mysql), gate.into(), queue.into(), metrics, config.redis.place()))
}

impl RunningApp {
    /// Starts everything; serves once this returns. Must be called on a multi-threaded runtime.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        if Timestamp::is_before_1970() {
            return Err(StartError("the clock of this machine stands before 1970: set it and start again".to_owned()));
        }
        let cores = available_parallelism().map_or(1, usize::from);
        let workers = if config.server.workers == 0 { cores } else { config.server.workers };
        port_is_free(&config.server).await?;
        let mut config = config.clone();
        let (db, gate, queue, data_dir) = match config.backend {
            Backend::Embedded => {
                let data_dir = DataDir::lock(&config.embedded.data_dir)?;
                introduce(&config);
                if config.auth.jwt_secret.expose_secret().is_empty() {
                    config.auth.jwt_secret = data_dir.secret(JWT_SECRET, config::check_jwt_secret, random_key)?;
                }
                migrate_file(&data_dir).await?;
                let queue = OrderQueue::embedded(&data_dir.journal())?;
                (Db::sqlite(&data_dir.database()), StockGate::memory(), queue, Some(data_dir))
            }
            Backend::Distributed => {
                introduce(&config);
                migrate_server(&config).await?;
                let gate = StockGate::redis(&config.redis, cores)?;
                (Db::mysql(&config.mysql), gate, OrderQueue::rabbitmq(&config.rabbitmq)?, None)
            }
        };
        let (gate, queue) = (Arc::new(gate), Arc::new(queue));
        match gate.server_id().await {
            Ok(_) => {}
            Err(GateError::Misconfigured(problem)) => return Err(StartError(problem)),
            // The gate has said so itself.
            Err(error) => tracing::debug!(%error, "Starting without the gate; purchases are refused until it is back"),
        }

        let lifetime = Duration::from_secs(config.auth.token_ttl_seconds.into());
        let tokens = Arc::new(Tokens::new(&config.auth.jwt_secret, lifetime));
        let passwords = PasswordHasher::new(config.auth.bcrypt_cost, cores);
        let stop = CancellationToken::new();
        let (tasks, consumers) = (TaskTracker::new(), TaskTracker::new());
        let metrics = Arc::new(Metrics::new());
        metrics.build(match config.backend {
            Backend::Embedded => "embedded",
            Backend::Distributed => "distributed",
        });
        let supervisor = Supervisor::new(metrics.task_restarts.clone());
        let authenticator = Authenticator::new(&config.auth, tokens.clone(), db.clone()).await?;
        let accounts = Accounts::new(db.clone(), tokens, authenticator.clone(), passwords, metrics.clone(), &config);
        let new_admin = first_admin(&accounts, &db, &mut config, data_dir.as_ref()).await?;
        let order_writer = Arc::new(OrderWriter::new(db.clone(), gate.clone(), metrics.clone()));
        let (db_, gate_, queue_) = (db.clone(), gate.clone(), queue.clone());
        let deployment = Arc::new(Deployment::new(db_, gate_, queue_, metrics.clone(), config.redis.place()));
        deployment.join().await?;
        let rebuilder = Rebuilder::new(deployment.clone(), tasks.clone(), stop.clone(), supervisor.clone());
        let rebuilder = Arc::new(rebuilder);
        for deliveries in queue.start(config.rabbitmq.consumers, &supervisor) {
            let consumer = Consumer::new(order_writer.clone(), rebuilder.clone(), metrics.clone(), stop.clone());
            // What it has received and not acknowledged comes again only when the queue is opened anew.
            consumers.spawn(supervisor.vital("consumer", consumer.run(deliveries)));
        }
        consumers.close();
        let unfinished_sales = Arc::new(UnfinishedSales::new(gate.clone()));
        let warm_up = WarmUp::new(db.clone(), gate.clone(), rebuilder.clone(), unfinished_sales.clone());
        let warm_up = Arc::new(warm_up);
        if config.backend == Backend::Embedded {
            // First what an earlier process confirmed, then the gate from what the database holds.
            tokio::select! {
                () = queue.drained() => {}
                // Nobody would ever drain it.
                broken = supervisor.broken() => return Err(StartError(broken)),
            }
            warm_up.open_all().await.map_err(|error| StartError(format!("reading the sales: {error}")))?;
        }
        let reconciler = Arc::new(Reconciler::new(db.clone(), gate.clone(), metrics.clone()));
        let (db_, gate_, unfinished_sales_) = (db.clone(), gate.clone(), unfinished_sales.clone());
        let (rebuilder_, warm_up_) = (rebuilder.clone(), warm_up.clone());
        let sweeper = Sweeper::new(db_, gate_, order_writer, rebuilder_, unfinished_sales_, warm_up_, metrics.clone());
        let sweeper = Arc::new(sweeper);
        keep_tasks(&supervisor, &tasks, &stop, &gate, sweeper, reconciler.clone());
        authenticator.keep_fresh(&supervisor, &tasks, &stop);
        let (watched, watch_stop) = (deployment.clone(), stop.clone());
        supervisor.keep("deployment-watcher", &tasks, &stop, move || {
            let (deployment, stop) = (watched.clone(), watch_stop.clone());
            async move { deployment.watch(stop).await }
        });
        let (keys, keys_stop) = (Arc::new(KeyExpiry::new(db.clone())), stop.clone());
        supervisor.keep("key-expiry", &tasks, &stop, move || {
            let (keys, stop) = (keys.clone(), keys_stop.clone());
            async move { keys.run(stop).await }
        });
        tasks.close();

        let accounts = web::Data::new(accounts);
        let authenticator = web::Data::from(authenticator);
        let known = Arc::new(KnownProducts::new(db.clone()));
        let catalog = web::Data::new(Catalog::new(db.clone(), gate.clone(), warm_up, known.clone()));
        let (holdings, looking) = Holdings::open(db.clone(), gate.clone(), unfinished_sales.clone(), rebuilder.clone());
        tasks.spawn(supervisor.vital("order-looks", looking));
        let (db_, gate_, queue_) = (db.clone(), gate.clone(), queue.clone());
        let orders = web::Data::new(Orders::new(db_, gate_, queue_, known.clone(), unfinished_sales, holdings));
        let (db_, gate_, queue_) = (db.clone(), gate.clone(), queue.clone());
        let ready = Arc::new(Health::new(db_, gate_, queue_, supervisor.clone(), deployment));
        let (watched, watch_stop) = (ready.clone(), stop.clone());
        supervisor.keep("readiness", &tasks, &stop, move || {
            let (health, stop) = (watched.clone(), watch_stop.clone());
            async move { health.watch(stop).await }
        });
        let health = web::Data::from(ready.clone());
        let (db_, gate_, queue_) = (db.clone(), gate.clone(), queue.clone());
        let purchases = Purchases::new(db_, gate_, queue_, rebuilder, known, metrics.clone(), supervisor.clone());
        let purchases = Arc::new(purchases);
        let room = config.limits.purchases_waiting;
        let shared_batcher = match config.backend {
            // A step of a gate in this process costs less than to have another thread do it: each HTTP worker has a lane.
            Backend::Embedded => None,
            // A step of Redis or RabbitMQ costs much the same however many purchases are in it: all share one.
            Backend::Distributed => {
                let (batcher, work) = PurchaseBatcher::open(&purchases, room * workers);
                tasks.spawn(work);
                Some(Arc::new(batcher))
            }
        };
        let metrics = web::Data::from(metrics);
        let reconciler = web::Data::from(reconciler);
        let proxies = web::Data::new(config.server.trusted_proxies.clone());
        let cors = Cors::new(&config.server.cors_origins);
        let listeners = http::bind(&config.server.host, config.server.port).map_err(|error| {
            StartError(format!("cannot listen on {}:{}: {error}", config.server.host, config.server.port))
        })?;
        let address = listeners[0].local_addr().map_err(|error| StartError(format!("server.host: {error}")))?;
        let server = http::serve(listeners, workers, doors(&config), &supervisor, move || {
            let batcher = match &shared_batcher {
                None => {
                    let (batcher, work) = PurchaseBatcher::open(&purchases, room);
                    spawn_local(work);
                    batcher
                }
                Some(shared) => {
                    let (batcher, handing) = shared.attach_worker();
                    spawn_local(handing);
                    batcher
                }
            };
            let cors = cors.clone().map(Rc::new);
            App::new()
                .app_data(accounts.clone())
                .app_data(authenticator.clone())
                .app_data(catalog.clone())
                .app_data(orders.clone())
                .app_data(web::Data::new(batcher))
                .app_data(health.clone())
                .app_data(metrics.clone())
                .app_data(metrics.of_worker())
                .app_data(proxies.clone())
                .app_data(reconciler.clone())
                .wrap(from_fn(move |request, next| with_request_id(cors.clone(), request, next)))
                .configure(routes)
        })
        .map_err(|error| StartError(format!("HTTP server: {error}")))?;
        let http = server.handle();
        let watching = supervisor.clone();
        let serving = tokio::spawn(async move {
            let ended = server.await;
            watching.ended("http", if ended.is_err() { "failed" } else { "ended by itself" });
            ended
        });
        tracing::info!(%address, "Serving HTTP");
        let drain = Duration::from_secs(config.server.drain_seconds.into());
        Ok(Self {
            address,
            http,
            serving,
            queue,
            stop,
            tasks,
            consumers,
            supervisor,
            health: ready,
            drain,
            new_admin,
            _data_dir: data_dir,
        })
    }

    /// Where HTTP is served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The administrator's account, if this start has made it and its password.
    pub fn new_admin(&self) -> Option<&config::Admin> {
        self.new_admin.as_ref()
    }

    /// Waits until a task has ended that this process cannot do without; which, and how.
    pub async fn broken(&self) -> String {
        self.supervisor.broken().await
    }

    /// Says on `/readyz` that it is about to stop, and serves on for `server.drain_seconds`. Then stops accepting, finishes
    /// the replies in flight, then the consumers' batches, then gives the rest back to the queue, which takes less than 15
    /// seconds.
    pub async fn stop(self) {
        self.health.begin_stopping();
        if !self.drain.is_zero() && !self.supervisor.is_broken() {
            tracing::info!(
                seconds = self.drain.as_secs(),
                "Not ready any more; serving on until balancers have noticed"
            );
            tokio::time::sleep(self.drain).await;
        }
        tracing::info!("Stopping");
        self.supervisor.stopping();
        self.http.stop(true).await;
        // Ends the workers, and with them the lanes.
        let _ = self.serving.await;
        self.stop.cancel();
        let ending = async {
            self.tasks.wait().await;
            self.consumers.wait().await;
            self.queue.stop().await;
        };
        if tokio::time::timeout(STOP_PATIENCE, ending).await.is_err() {
            tracing::warn!("Stopped without waiting any longer; what was not acknowledged is delivered again");
        }
        tracing::info!("Stopped");
    }
}

/// Starts the tasks that can begin anew at any time.
fn keep_tasks(
    supervisor: &Supervisor,
    tasks: &TaskTracker,
    stop: &CancellationToken,
    gate: &Arc<StockGate>,
    sweeper: Arc<Sweeper>,
    reconciler: Arc<Reconciler>,
) {
    if gate.shared().is_some() {
        let (gate, watch_stop) = (gate.clone(), stop.clone());
        supervisor.keep("gate-watcher", tasks, stop, move || {
            let (gate, stop) = (gate.clone(), watch_stop.clone());
            async move { gate.watch(stop).await }
        });
    }
    let sweep_stop = stop.clone();
    supervisor.keep("sweeper", tasks, stop, move || {
        let (sweeper, stop) = (sweeper.clone(), sweep_stop.clone());
        async move { sweeper.run(stop).await }
    });
    let audit_stop = stop.clone();
    supervisor.keep("reconciler", tasks, stop, move || {
        let (reconciler, stop) = (reconciler.clone(), audit_stop.clone());
        async move { reconciler.run(stop).await }
    });
}

/// How many may connect.
fn doors(config: &Config) -> Doors {
    let room = config.limits.connections.min(http::raise_descriptor_limit());
    Doors::new(room, config.limits.connections_per_address, config.server.trusted_proxies.clone())
}

/// The first line of the log: what runs, and on what. No secrets.
fn introduce(config: &Config) {
    let version = env!("CARGO_PKG_VERSION");
    match config.backend {
        Backend::Embedded => {
            let data_dir = std::path::absolute(&config.embedded.data_dir);
            let data_dir = data_dir.as_deref().unwrap_or(&config.embedded.data_dir).display();
            tracing::info!(%version, backend = "embedded", %data_dir, "Starting seckill");
        }
        Backend::Distributed => {
            let (mysql, redis, rabbitmq) = config.servers();
            tracing::info!(%version, backend = "distributed", %mysql, %redis, %rabbitmq, "Starting seckill");
        }
    }
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
}

/// Finds out that the port is taken before anything slow is done. It is opened only when everything else is ready.
async fn port_is_free(server: &config::Server) -> Result<(), StartError> {
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

/// Makes the administrator, before anybody can connect. Returns it if the password, too, was made here.
///
/// A password is made, and kept in the data folder, only for an account that is made with it: what the file says is
/// never wrong.
async fn first_admin(
    accounts: &Accounts,
    db: &Db,
    config: &mut Config,
    data_dir: Option<&DataDir>,
) -> Result<Option<config::Admin>, StartError> {
    let failed = |error: crate::error::Error| StartError(format!("administrator: {error}"));
    let configured = !config.admin.password.expose_secret().is_empty();
    let name =
        Username::parse(&config.admin.username).map_err(|error| StartError(format!("admin.username: {error}")))?;
    let existing = db.read(|conn| Box::pin(async move { conn.find_user_by_name(&name).await })).await;
    let existing = existing.map_err(|error: DbError| StartError(format!("administrator: {error}")))?;
    // One whose password is still to be hashed is not there yet.
    let existing = existing.filter(Account::has_password);
    if let (false, None, Some(data_dir)) = (configured, &existing, data_dir) {
        config.admin.password = data_dir.secret(ADMIN_PASSWORD, config::check_password, random_password)?;
    }
    let made = accounts.ensure_admin(&config.admin).await.map_err(failed)?;
    if let Some(data_dir) = data_dir {
        match existing {
            // What a start that was cut short has made.
            None if configured => forget_secret(data_dir.path(), ADMIN_PASSWORD)?,
            None => {}
            Some(account) => forget_if_false(data_dir.path(), account.password_hash),
        }
    }
    Ok((made && !configured).then(|| config.admin.clone()))
}

/// Removes a kept password of the administrator that is not, or not any more, the account's. It takes as long as a log-in,
/// so nobody waits for it.
fn forget_if_false(folder: &Path, hash: String) {
    let folder = folder.to_owned();
    tokio::task::spawn_blocking(move || {
        let kept = data_dir::kept_secret(&folder, ADMIN_PASSWORD, config::check_password);
        let is_false = match &kept {
            Ok(None) => return,
            Ok(Some(kept)) => bcrypt::verify(kept.expose_secret(), &hash).is_ok_and(|correct| !correct),
            Err(_) => false,
        };
        let outcome = match kept {
            Err(problem) => Err(problem),
            Ok(_) if is_false => forget_secret(&folder, ADMIN_PASSWORD)
                .map(|()| tracing::info!("Removed admin_password: it was not the administrator's password")),
            Ok(_) => Ok(()),
        };
        if let Err(problem) = outcome {
            tracing::warn!(%problem, "Cannot tell whether admin_password is right");
        }
    });
}
