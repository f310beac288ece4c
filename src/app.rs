//! The composition root: builds clients, services, routes and consumer tasks, and takes them down again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};
use secrecy::ExposeSecret;
use tokio::task::{JoinHandle, spawn_local};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{self, Backend, Config};
use crate::consumers::Consumer;
use crate::data_dir::{DataDir, random_key, random_password};
use crate::db::{Db, DbError, ErrorClass};
use crate::handlers::{TrustedProxies, routes, with_request_id};
use crate::metrics::Metrics;
use crate::queue::OrderQueue;
use crate::services::{
    Accounts, Audits, Catalog, Health, Holdings, KnownProducts, Lane, OnTheWay, Orders, PasswordHasher, Purchases,
    Rebuilds, Recorder, Reopening, Sweeper, Tokens,
};
use crate::stock::{GateError, StockGate};
use crate::supervision::Supervisor;

/// A database that starts together with us is waited for this long.
const DATABASE_PATIENCE: Duration = Duration::from_secs(30);
/// Replies in flight at a stop get this long.
const HTTP_STOP_SECONDS: u64 = 5;
/// Everything else at a stop, taken together.
const STOP_PATIENCE: Duration = Duration::from_secs(8);
/// Longer than the minute after which most proxies close an idle connection: were we the first to close it, a request
/// could meet its end.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// A client must have sent its request's head by then.
const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(5);

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
    new_admin: Option<config::Admin>,
    _data_dir: Option<DataDir>,
}

/// Brings the schema up to date.
pub async fn migrate(config: &Config) -> Result<(), StartError> {
    match config.backend {
        Backend::Embedded => migrate_file(&DataDir::lock(&config.embedded.data_dir)?).await,
        Backend::Distributed => migrate_server(config).await,
    }
}

async fn migrate_file(data_dir: &DataDir) -> Result<(), StartError> {
    Db::migrate_sqlite(&data_dir.database()).await.map_err(|error| StartError(format!("database: {error}")))
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

impl RunningApp {
    /// Starts everything; serves once this returns. Must be called on a multi-threaded runtime.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        let cores = available_parallelism().map_or(1, usize::from);
        let workers = if config.server.workers == 0 { cores } else { config.server.workers };
        if config.auth.bcrypt_cost < 10 {
            tracing::warn!(cost = config.auth.bcrypt_cost, "auth.bcrypt_cost under 10 is for tests");
        }
        let mut config = config.clone();
        let (db, gate, queue, data_dir) = match config.backend {
            Backend::Embedded => {
                let data_dir = DataDir::lock(&config.embedded.data_dir)?;
                fill_in_secrets(&mut config, &data_dir)?;
                migrate_file(&data_dir).await?;
                let queue = OrderQueue::embedded(&data_dir.journal())?;
                (Db::sqlite(&data_dir.database()), StockGate::memory(), queue, Some(data_dir))
            }
            Backend::Distributed => {
                migrate_server(&config).await?;
                let gate = StockGate::redis(&config.redis, cores)?;
                (Db::mysql(&config.mysql), gate, OrderQueue::rabbitmq(&config.rabbitmq)?, None)
            }
        };
        let (gate, queue) = (Arc::new(gate), Arc::new(queue));
        match gate.home().await {
            Ok(_) => {}
            Err(GateError::Misconfigured(problem)) => return Err(StartError(problem)),
            Err(error) => tracing::warn!(%error, "Starting without the gate; purchases are refused until it is back"),
        }

        let lifetime = Duration::from_secs(config.auth.token_ttl_seconds.into());
        let tokens = Arc::new(Tokens::new(&config.auth.jwt_secret, lifetime));
        let passwords = PasswordHasher::new(config.auth.bcrypt_cost, cores);
        let accounts = Accounts::new(db.clone(), tokens.clone(), passwords, config.limits.auth_per_minute);
        let stop = CancellationToken::new();
        let (tasks, consumers) = (TaskTracker::new(), TaskTracker::new());
        let metrics = Arc::new(Metrics::new());
        let supervisor = Supervisor::new(metrics.task_restarts.clone());
        let recorder = Arc::new(Recorder::new(db.clone(), gate.clone(), metrics.clone()));
        let (db_, gate_, queue_) = (db.clone(), gate.clone(), queue.clone());
        let rebuilds =
            Rebuilds::new(db_, gate_, queue_, metrics.clone(), tasks.clone(), stop.clone(), supervisor.clone());
        let rebuilds = Arc::new(rebuilds);
        for deliveries in queue.start(config.rabbitmq.consumers, &supervisor) {
            let consumer = Consumer::new(recorder.clone(), rebuilds.clone(), metrics.clone(), stop.clone());
            // What it has received and not acknowledged comes again only when the queue is opened anew.
            consumers.spawn(supervisor.vital("consumer", consumer.run(deliveries)));
        }
        consumers.close();
        if config.backend == Backend::Embedded {
            // First what an earlier process confirmed, then the gate from what the database holds.
            queue.drained().await;
            let reopening = Reopening::new(db.clone(), gate.clone());
            reopening.open_all().await.map_err(|error| StartError(format!("reading the sales: {error}")))?;
        }
        let on_the_way = Arc::new(OnTheWay::new(gate.clone()));
        let audits = Arc::new(Audits::new(db.clone(), gate.clone(), metrics.clone()));
        let (db_, gate_, on_the_way_) = (db.clone(), gate.clone(), on_the_way.clone());
        let sweeper = Sweeper::new(db_, gate_, recorder, rebuilds.clone(), on_the_way_, metrics.clone());
        let sweeper = Arc::new(sweeper);
        keep_tasks(&supervisor, &tasks, &stop, &gate, sweeper, audits.clone());
        tasks.close();

        let accounts = web::Data::new(accounts);
        let first_log_in = accounts.clone();
        let tokens = web::Data::from(tokens);
        let known = Arc::new(KnownProducts::new(db.clone()));
        let catalog = web::Data::new(Catalog::new(db.clone(), gate.clone(), known.clone()));
        let (holdings, looking) = Holdings::open(db.clone(), gate.clone(), on_the_way.clone());
        tasks.spawn(supervisor.vital("order-looks", looking));
        let (db_, gate_, queue_) = (db.clone(), gate.clone(), queue.clone());
        let orders = web::Data::new(Orders::new(db_, gate_, queue_, known.clone(), on_the_way, holdings));
        let health = web::Data::new(Health::new(db.clone(), gate.clone(), queue.clone(), supervisor.clone()));
        let (db_, gate_, queue_) = (db.clone(), gate.clone(), queue.clone());
        let purchases = Purchases::new(db_, gate_, queue_, rebuilds, known, metrics.clone(), supervisor.clone());
        let purchases = Arc::new(purchases);
        let room = config.limits.purchases_waiting;
        let shared_lane = match config.backend {
            // A step of a gate in this process costs less than to have another thread do it: each HTTP worker has a lane.
            Backend::Embedded => None,
            // A step of Redis or RabbitMQ costs much the same however many purchases are in it: all share one.
            Backend::Distributed => {
                let (lane, work) = Lane::open(&purchases, room * workers);
                tasks.spawn(work);
                Some(Arc::new(lane))
            }
        };
        let metrics = web::Data::from(metrics);
        let audits = web::Data::from(audits);
        let proxies = web::Data::new(TrustedProxies(config.server.trusted_proxies.clone()));
        let server = HttpServer::new(move || {
            let lane = match &shared_lane {
                None => {
                    let (lane, work) = Lane::open(&purchases, room);
                    spawn_local(work);
                    lane
                }
                Some(shared) => {
                    let (lane, handing) = shared.from_afar();
                    spawn_local(handing);
                    lane
                }
            };
            App::new()
                .app_data(accounts.clone())
                .app_data(tokens.clone())
                .app_data(catalog.clone())
                .app_data(orders.clone())
                .app_data(web::Data::new(lane))
                .app_data(health.clone())
                .app_data(metrics.clone())
                .app_data(metrics.of_worker())
                .app_data(proxies.clone())
                .app_data(audits.clone())
                .wrap(from_fn(with_request_id))
                .configure(routes)
        })
        .workers(workers)
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(REQUEST_HEAD_TIMEOUT)
        .shutdown_timeout(HTTP_STOP_SECONDS)
        .disable_signals()
        .bind((config.server.host.as_str(), config.server.port))
        .map_err(|error| {
            StartError(format!("cannot listen on {}:{}: {error}", config.server.host, config.server.port))
        })?;
        let address = server.addrs()[0];
        let server = server.run();
        let http = server.handle();
        let watching = supervisor.clone();
        let serving = tokio::spawn(async move {
            let ended = server.await;
            watching.ended("http", if ended.is_err() { "failed" } else { "ended by itself" });
            ended
        });
        tracing::info!(%address, "Serving HTTP");
        let mut app = Self {
            address,
            http,
            serving,
            queue,
            stop,
            tasks,
            consumers,
            supervisor,
            new_admin: None,
            _data_dir: data_dir,
        };
        // Hashing its password takes a while; log-ins wait for it, buyers do not.
        match first_log_in.ensure_admin(&config.admin).await {
            Ok(true) => app.new_admin = Some(config.admin),
            Ok(false) => {}
            Err(error) => {
                app.stop().await;
                return Err(StartError(format!("administrator: {error}")));
            }
        }
        Ok(app)
    }

    /// Where HTTP is served.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The administrator's account, if this start has made it.
    pub fn new_admin(&self) -> Option<&config::Admin> {
        self.new_admin.as_ref()
    }

    /// Waits until a task has ended that this process cannot do without; which, and how.
    pub async fn broken(&self) -> String {
        self.supervisor.broken().await
    }

    /// Stops accepting, finishes the replies in flight, then the consumers' batches, then gives the rest back to the
    /// queue. Takes less than 15 seconds.
    pub async fn stop(self) {
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
    audits: Arc<Audits>,
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
        let (audits, stop) = (audits.clone(), audit_stop.clone());
        async move { audits.run(stop).await }
    });
}

/// Secrets that the configuration leaves to us are made once and kept.
fn fill_in_secrets(config: &mut Config, data_dir: &DataDir) -> Result<(), StartError> {
    if config.auth.jwt_secret.expose_secret().is_empty() {
        config.auth.jwt_secret = data_dir.secret("jwt_secret", random_key)?;
    }
    if config.admin.password.expose_secret().is_empty() {
        config.admin.password = data_dir.secret("admin_password", random_password)?;
    }
    Ok(())
}
