//! A server that runs: what it starts, in which order, and how it stops.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::clients::Clients;
use super::error::StartError;
use super::first_admin::first_admin;
use super::server::{self, Server};
use super::tasks::Background;
use crate::config::{self, Backend, Config};
use crate::consumers::Consumer;
use crate::handlers::AppState;
use crate::model::Timestamp;
use crate::queue::OrderQueue;
use crate::services::{
    Accounts, AdminLog, Authenticator, Checkout, DeadLetterDesk, Expiry, Exports, GateOpener, Gates, Health, Holdings,
    KeyExpiry, KnownProducts, LiveFigures, LookupFiller, Membership, OrderChanges, OrderEvents, OrderList, OrderWriter,
    Orders, PasswordHasher, PaymentEventPurge, PaymentTasks, Payments, ProductCommands, ProductEvents, ProductQueries,
    Rebuilder, Reconciler, Replay, Revivals, ShopSettings, Summaries, Sweeper, Tokens, UnfinishedSales,
    WebhookDispatcher, WebhookFanOut, WebhookPurge, Webhooks, http_client,
};
use crate::telemetry::{Metrics, Traces};
use tokio::sync::Notify;

/// A server that is running.
pub struct RunningApp {
    server: Server,
    /// Its data folder stays locked as long as it runs.
    clients: Clients,
    background: Background,
    health: Arc<Health>,
    events: LiveEvents,
    traces: Option<Arc<Traces>>,
    /// How long a stop goes on serving after `/readyz` has said so.
    drain: Duration,
    new_admin: Option<config::Admin>,
}

impl RunningApp {
    /// Starts everything; serves once this returns. Must be called on a multi-threaded runtime.
    pub async fn start(config: &Config) -> Result<Self, StartError> {
        if Timestamp::is_before_1970() {
            return Err(StartError("the clock of this machine stands before 1970: set it and start again".to_owned()));
        }
        server::ports_are_free(&config.server).await?;
        let mut config = config.clone();
        let clients = Clients::open(&mut config, server::cores()).await?;
        let metrics = Arc::new(Metrics::new());
        metrics.build(match config.backend {
            Backend::Embedded => "embedded",
            Backend::Distributed => "distributed",
        });
        let background = Background::new(&metrics);
        let (accounts, authenticator) = open_accounts(&clients, &config, &metrics).await?;
        let new_admin = first_admin(&accounts, &clients.db, &mut config, clients.data_dir.as_ref()).await?;
        let webhooks = open_webhooks(&clients, &config, &metrics, &background).await?;
        let recovery = Recovery::start(&clients, &config, &metrics, &background).await?;
        authenticator.keep_fresh(&background.supervisor, &background.tasks, &background.stop);
        let keys = Arc::new(KeyExpiry::new(clients.db.clone()));
        background.keep("key-expiry", &keys, |keys, stop| async move { keys.run(stop).await });

        let Clients { db, gate, queue, .. } = &clients;
        let stores = || (db.clone(), gate.clone(), queue.clone());
        let Recovery { membership, rebuilder, unfinished_sales, gates, reconciler, order_writer, revivals, traces } =
            recovery;
        let known = Arc::new(KnownProducts::new(db.clone()));
        let currency = config.shop.currency;
        let products = Arc::new(ProductQueries::new(db.clone(), gate.clone(), known.clone(), currency));
        let catalog =
            ProductCommands::new(db.clone(), gate.clone(), gates.clone(), known.clone(), products.clone(), &config);
        let (holdings, looking) = Holdings::open(gate.clone(), unfinished_sales.clone());
        background.tasks.spawn(background.supervisor.vital("order-looks", looking));
        let (db_, gate_, queue_) = stores();
        let orders = Orders::new(db_, gate_, queue_, known.clone(), unfinished_sales, holdings, currency);
        let orders = Arc::new(orders);
        let order_changes = Arc::new(OrderChanges::new(db.clone(), orders.clone(), order_writer, metrics.clone()));
        let late = (revivals, open_gate(gates));
        let payments = open_payments(&clients, &config, &orders, &order_changes, late, &metrics, &background)?;
        let (db_, gate_, queue_) = stores();
        let health = Arc::new(Health::new(db_, gate_, queue_, background.supervisor.clone(), membership.clone()));
        background.keep("readiness", &health, |health, stop| async move { health.watch(stop).await });
        let checkout = Checkout::new(membership, rebuilder, known, background.supervisor.clone());
        let order_list = OrderList::new(db.clone(), orders.clone(), payments.clone(), &config.auth, currency);
        let order_list = Arc::new(order_list);
        let dead_letters = DeadLetterDesk::new(db.clone(), queue.clone(), Replay::new(db.clone(), gate.clone()));
        let events = LiveEvents::start(&config, &products, &orders, &background);
        let (live, settings) = (events.figures(&metrics), ShopSettings::new(&config));
        let (product_events, order_events) = (events.products.clone(), events.orders.clone());
        let (trusted_proxies, ready) = (config.server.trusted_proxies.clone(), health.clone());
        let shared_addresses = config.limits.shared_addresses.clone();
        let state = AppState {
            accounts,
            authenticator,
            catalog,
            admin_log: AdminLog::new(clients.db.clone()),
            products,
            orders,
            order_changes,
            payments: payments.clone(),
            exports: Exports::new(order_list.clone()),
            order_list,
            dead_letters,
            summaries: Summaries::new(clients.db.clone(), clients.gate.clone(), currency),
            webhooks,
            product_events,
            order_events,
            live,
            settings,
            reconciler,
            health,
            metrics,
            trusted_proxies,
            shared_addresses,
        };
        // The ports open last, because a client that can connect can buy.
        let server = server::serve(&config, state, checkout, traces.clone(), &background)?;
        payments.serves_at(server.address);
        let drain = Duration::from_secs(config.server.drain_seconds.into());
        Ok(Self { server, clients, background, health: ready, events, traces, drain, new_admin })
    }

    /// Where HTTP is served.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// Where the console and the merchant's paths are.
    pub fn admin_address(&self) -> SocketAddr {
        self.server.admin_address
    }

    /// The administrator's account, if this start has made it and its password.
    pub fn new_admin(&self) -> Option<&config::Admin> {
        self.new_admin.as_ref()
    }

    /// Waits until a task has ended that this process cannot do without; which, and how.
    pub async fn broken(&self) -> String {
        self.background.supervisor.broken().await
    }

    /// Says on `/readyz` that it is about to stop, and serves on for `server.drain_seconds`. Then stops accepting, finishes
    /// the replies that are begun, then the consumers' write batches, then gives the rest back to the queue, then sends the spans
    /// that are left, which takes less than 15 seconds.
    pub async fn stop(self) {
        self.health.begin_stopping();
        if !self.drain.is_zero() && !self.background.supervisor.is_broken() {
            tracing::info!(
                seconds = self.drain.as_secs(),
                "Not ready any more; serving on until balancers have noticed"
            );
            tokio::time::sleep(self.drain).await;
        }
        tracing::info!("Stopping");
        self.background.supervisor.stopping();
        // They would listen for ever.
        self.events.end();
        // Ends the workers, and with them their batchers.
        self.server.stop().await;
        self.background.stop(&self.clients.queue).await;
        if let Some(traces) = self.traces {
            traces.stop().await;
        }
        tracing::info!("Stopped");
    }
}

/// Who is who.
async fn open_accounts(
    clients: &Clients,
    config: &Config,
    metrics: &Arc<Metrics>,
) -> Result<(Accounts, Arc<Authenticator>), StartError> {
    let lifetime = Duration::from_secs(config.auth.token_ttl_seconds.into());
    let tokens = Arc::new(Tokens::new(&config.auth.jwt_secret, lifetime));
    let passwords = PasswordHasher::new(config.auth.bcrypt_cost, server::cores());
    let db = &clients.db;
    let authenticator = Authenticator::new(&config.auth, tokens.clone(), db.clone()).await?;
    let accounts = Accounts::new(db.clone(), tokens, authenticator.clone(), passwords, metrics.clone(), config);
    Ok((accounts, authenticator))
}

/// How a late payment gets the gate that it asks opened.
fn open_gate(gates: Arc<Gates>) -> GateOpener {
    Box::new(move |product| {
        let gates = gates.clone();
        Box::pin(async move { gates.open_for_late_payment(product).await })
    })
}

/// Who takes the money, and what writes down what they tell.
fn open_payments(
    clients: &Clients,
    config: &Config,
    orders: &Arc<Orders>,
    order_changes: &Arc<OrderChanges>,
    late: (Arc<Revivals>, GateOpener),
    metrics: &Arc<Metrics>,
    background: &Background,
) -> Result<Arc<Payments>, StartError> {
    let (db, gate) = (&clients.db, clients.gate.clone());
    let opened = Payments::open(db.clone(), gate, orders.clone(), order_changes.clone(), late, config, metrics.clone());
    let (payments, tasks) = opened.map_err(|error| StartError(format!("payments: {error}")))?;
    let PaymentTasks { callbacks, late_callbacks, follow_up } = tasks;
    background.keep("payment-callbacks", &Arc::new(callbacks), |writer, stop| async move { writer.run(stop).await });
    let late_callbacks = Arc::new(late_callbacks);
    background.keep("late-payments", &late_callbacks, |writer, stop| async move { writer.run(stop).await });
    background.keep("payment-follow-up", &Arc::new(follow_up), |asking, stop| async move { asking.run(stop).await });
    let events = Arc::new(PaymentEventPurge::new(db.clone()));
    background.keep("payment-event-expiry", &events, |events, stop| async move { events.run(stop).await });
    Ok(Arc::new(payments))
}

/// Who tells the shop what happens. Before the first order is written it is known what is wanted.
async fn open_webhooks(
    clients: &Clients,
    config: &Config,
    metrics: &Arc<Metrics>,
    background: &Background,
) -> Result<Arc<Webhooks>, StartError> {
    let (db, wake) = (&clients.db, Arc::new(Notify::new()));
    let webhooks = Arc::new(Webhooks::new(db.clone(), config, wake.clone()));
    if let Err(error) = webhooks.read_wanted_events().await {
        tracing::debug!(%error, "Could not look who listens; the dispatcher looks again");
    }
    let supervisor = background.supervisor.clone();
    let dispatcher = WebhookDispatcher::new(db.clone(), config, wake.clone(), supervisor, metrics.clone());
    let dispatcher = Arc::new(dispatcher.map_err(|error| StartError(format!("webhooks: {error}")))?);
    let fan_out = Arc::new(WebhookFanOut::new(db.clone(), config, wake));
    let purge = Arc::new(WebhookPurge::new(db.clone()));
    background.keep("webhooks", &dispatcher, |dispatcher, stop| async move { dispatcher.run(stop).await });
    background.keep("webhook-fan-out", &fan_out, |fan_out, stop| async move { fan_out.run(stop).await });
    background.keep("webhook-purge", &purge, |purge, stop| async move { purge.run(stop).await });
    Ok(webhooks)
}

/// Live events of products and of orders. Their listeners never leave by themselves, so a stop ends them first.
struct LiveEvents {
    products: Arc<ProductEvents>,
    orders: Arc<OrderEvents>,
}

impl LiveEvents {
    fn start(config: &Config, products: &Arc<ProductQueries>, orders: &Arc<Orders>, background: &Background) -> Self {
        let products = Arc::new(ProductEvents::new(products.clone(), config.limits.listeners));
        let orders = Arc::new(OrderEvents::new(orders.clone(), config.limits.listeners));
        background.keep("product-events", &products, |events, stop| async move { events.run(stop).await });
        background.keep("order-events", &orders, |events, stop| async move { events.run(stop).await });
        Self { products, orders }
    }

    fn figures(&self, metrics: &Arc<Metrics>) -> LiveFigures {
        LiveFigures::new(metrics.clone(), self.products.clone(), self.orders.clone(), Timestamp::now())
    }

    /// Lets go of what it holds, too: tasks end when nobody asks them any more.
    fn end(self) {
        self.products.end();
        self.orders.end();
    }
}

/// What an OpenTelemetry collector is told, if there is one.
fn open_traces(config: &Config, membership: &Membership, metrics: &Metrics) -> Result<Option<Arc<Traces>>, StartError> {
    // What is on this machine is not asked through a proxy.
    let http = http_client(Traces::TIMEOUT);
    let http = if config.traces.is_local() { http.proxy(None) } else { http };
    let http = http.build().into();
    let traces = Traces::open(&config.traces, http, membership.instance(), metrics);
    traces.map_err(|problem| StartError(format!("traces: {problem}")))
}

/// What writes orders, and opens and repairs gates.
struct Recovery {
    membership: Arc<Membership>,
    rebuilder: Arc<Rebuilder>,
    unfinished_sales: Arc<UnfinishedSales>,
    gates: Arc<Gates>,
    reconciler: Arc<Reconciler>,
    order_writer: Arc<OrderWriter>,
    revivals: Arc<Revivals>,
    traces: Option<Arc<Traces>>,
}

impl Recovery {
    /// Compares the stores, starts to write what an earlier process promised, and opens the gates that are in this
    /// process.
    async fn start(
        clients: &Clients,
        config: &Config,
        metrics: &Arc<Metrics>,
        background: &Background,
    ) -> Result<Self, StartError> {
        let Clients { db, gate, queue, .. } = clients;
        let Background { supervisor, stop, tasks, .. } = background;
        let order_writer = Arc::new(OrderWriter::new(db.clone(), gate.clone(), metrics.clone()));
        let (db_, gate_, queue_) = (db.clone(), gate.clone(), queue.clone());
        let membership = Arc::new(Membership::new(db_, gate_, queue_, metrics.clone(), config.redis.place()));
        membership.join().await?;
        let traces = open_traces(config, &membership, metrics)?;
        let unfinished_sales = Arc::new(UnfinishedSales::new(db.clone(), gate.clone()));
        let (membership_, sales_) = (membership.clone(), unfinished_sales.clone());
        let rebuilder = Rebuilder::new(membership_, sales_, tasks.clone(), stop.clone(), supervisor.clone());
        let rebuilder = Arc::new(rebuilder);
        start_consumers(queue, config, background, || {
            Consumer::new(
                config.rabbitmq.consumers,
                order_writer.clone(),
                rebuilder.clone(),
                metrics.clone(),
                traces.clone(),
                stop.clone(),
            )
        });
        let (rebuilder_, sales_) = (rebuilder.clone(), unfinished_sales.clone());
        let gates = Arc::new(Gates::new(db.clone(), gate.clone(), rebuilder_, sales_, metrics.clone()));
        if config.backend == Backend::Embedded {
            // First what an earlier process confirmed, then the gate from what the database holds.
            tokio::select! {
                () = queue.drained() => {}
                // Nobody would ever drain it.
                broken = supervisor.broken() => return Err(StartError(broken)),
            }
            gates.warm_up().await.map_err(|error| StartError(format!("reading the sales: {error}")))?;
        }
        let reconciler = Arc::new(Reconciler::new(db.clone(), gate.clone(), metrics.clone()));
        let (db_, gate_, gates_) = (db.clone(), gate.clone(), gates.clone());
        let (sales_, membership_) = (unfinished_sales.clone(), membership.clone());
        let expiry = Arc::new(Expiry::new(db.clone(), order_writer.clone(), metrics.clone()));
        let revivals = Arc::new(Revivals::new(db.clone(), gate.clone(), metrics.clone()));
        let writers = (order_writer.clone(), revivals.clone());
        let sweeper = Sweeper::new(db_, gate_, writers, gates_, sales_, membership_, metrics.clone());
        if gate.shared().is_some() {
            background.keep("gate-watcher", gate, |gate, stop| async move { gate.watch(stop).await });
        }
        background.keep("sweeper", &Arc::new(sweeper), |sweeper, stop| async move { sweeper.run(stop).await });
        background.keep("expiry", &expiry, |expiry, stop| async move { expiry.run(stop).await });
        let filler = Arc::new(LookupFiller::new(db.clone(), metrics.clone()));
        background.keep("lookup-filler", &filler, |filler, stop| async move { filler.run(stop).await });
        background.keep("reconciler", &reconciler, |reconciler, stop| async move { reconciler.run(stop).await });
        background.keep("deployment-watcher", &membership, |it, stop| async move { it.watch(stop).await });
        Ok(Self { membership, rebuilder, unfinished_sales, gates, reconciler, order_writer, revivals, traces })
    }
}

/// One task a consumer. What one has received and not acknowledged comes again only when the queue is opened anew, so the
/// process ends with it.
fn start_consumers(queue: &OrderQueue, config: &Config, background: &Background, consumer: impl Fn() -> Consumer) {
    let Background { supervisor, consumers, .. } = background;
    for deliveries in queue.start(config.rabbitmq.consumers, supervisor) {
        consumers.spawn(supervisor.vital("consumer", consumer().run(deliveries)));
    }
}
