//! The queue in RabbitMQ, through amqprs.
//!
//! Two connections: one publishes with confirms, one consumes. amqprs does not come back by itself after a failure, so the
//! tasks started here do: each connects, declares the queues, publishes or consumes, and begins anew, with a growing
//! pause, when any of it fails. What was not confirmed is sent again, if somebody still waits for it.

mod condition;
mod connection;
mod consumer;
mod dead_letters;
mod delivery;
mod depth;
mod failure;
mod identity;
mod login;
mod nodes;
mod problem;
mod publisher;
mod topology;
mod unconfirmed;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder, ConstantBuilder, ExponentialBuilder};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::condition::Condition;
use self::connection::QueueAddress;
pub use self::connection::connect_rabbitmq;
use self::consumer::{Router, Subscriber};
pub(super) use self::dead_letters::DeadLetters;
pub(super) use self::delivery::DeliveredPart;
use self::depth::DepthKept;
use self::problem::BrokerProblem;
pub(super) use self::problem::Trouble;
use self::publisher::Publisher;
use self::unconfirmed::{Destination, Unconfirmed};
use crate::config;
use crate::model::PurchaseGroup;
use crate::queue::message::{self, Barrier};
use crate::queue::report::{Depth, PublishError};
use crate::supervision::Supervisor;

/// Pauses between attempts to connect: 500 ms at most, which jitter may double. So a broker that is back is tried again within
/// a second, and instances that lost it together do not return together.
const RECONNECTS: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(50))
    .with_max_delay(Duration::from_millis(500))
    .with_jitter()
    .without_max_times();
/// The same while somebody must change something first, up to 3 s: each attempt is a line in the broker's own log.
const RECONNECTS_REFUSED: ConstantBuilder =
    ConstantBuilder::new().with_delay(Duration::from_millis(1500)).with_jitter().without_max_times();

/// See the module.
pub struct RabbitMqQueue {
    address: QueueAddress,
    unconfirmed: Arc<Unconfirmed>,
    publish_link: Condition,
    consuming: Condition,
    depth: Arc<DepthKept>,
    /// Not before it is known that all instances read them.
    bundles: AtomicBool,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl RabbitMqQueue {
    pub(super) fn new(settings: &config::RabbitMq) -> Result<Self, String> {
        Ok(Self {
            address: QueueAddress::new(settings)?,
            unconfirmed: Arc::new(Unconfirmed::new()),
            publish_link: Condition::new("publish"),
            consuming: Condition::new("consume"),
            depth: Arc::default(),
            bundles: AtomicBool::new(false),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    pub(super) fn start<D: From<DeliveredPart> + Send + 'static>(
        self: &Arc<Self>,
        consumers: usize,
        supervisor: &Supervisor,
    ) -> Vec<mpsc::Receiver<D>> {
        let (router, receivers) = Router::new(consumers);
        let queue = self.clone();
        supervisor.keep("rabbitmq-publisher", &self.tasks, &self.stop, move || {
            let queue = queue.clone();
            async move { queue.keep_publishing().await }
        });
        let (queue, router) = (self.clone(), Arc::new(router));
        supervisor.keep("rabbitmq-consumer", &self.tasks, &self.stop, move || {
            let (queue, router) = (queue.clone(), router.clone());
            async move { queue.keep_consuming(&router).await }
        });
        self.tasks.close();
        receivers
    }

    pub(super) fn is_ready(&self) -> bool {
        self.publish_link.is_linked() && self.unconfirmed.accepts()
    }

    /// What is wrong, also what hinders only the writing of orders.
    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.publish_link.trouble().or_else(|| self.consuming.trouble())
    }

    pub(super) fn depth(&self) -> Option<Depth> {
        self.depth.read()
    }

    pub(super) fn bundles(&self) -> bool {
        self.bundles.load(Ordering::Relaxed)
    }

    pub(super) fn set_bundles(&self, all_read_them: bool) {
        self.bundles.store(all_read_them, Ordering::Relaxed);
    }

    pub(super) async fn publish(&self, groups: &[PurchaseGroup]) -> Result<(), PublishError> {
        self.send(message::encode_bundle(groups)).await
    }

    pub(super) async fn publish_barrier(&self, barrier: Barrier) -> Result<(), PublishError> {
        self.send(message::encode_barrier(barrier)).await
    }

    async fn send(&self, body: Vec<u8>) -> Result<(), PublishError> {
        if !self.is_ready() {
            return Err(PublishError::Unavailable);
        }
        self.unconfirmed.send(Destination::Orders, body, None).await
    }

    /// Only a queue of this deployment is used from now on. Reads whose it is, if the broker answers; an error says that it
    /// is another deployment's, which `take` does not mind.
    pub(super) async fn join(&self, deployment: &str, take: bool) -> Result<(), String> {
        self.address.identity.expect(deployment);
        match self.address.check_identity(take).await {
            Err(problem) if problem.trouble == Trouble::Misconfigured => Err(problem.text),
            Err(problem) => {
                self.publish_link.ill(problem);
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    pub(super) fn identity(&self) -> Option<String> {
        self.address.identity.queue()
    }

    /// Where the queue is, without a secret.
    pub(super) fn name(&self) -> String {
        self.address.name()
    }

    pub(super) fn destination(&self) -> &str {
        &self.address.orders
    }

    /// What was set aside, over a connection of its own.
    pub(super) async fn dead_letters(&self) -> Result<DeadLetters, String> {
        DeadLetters::connect(self.address.clone()).await
    }

    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }

    async fn keep_publishing(&self) {
        let mut pauses = Pauses::default();
        // What an earlier connection has not confirmed, if this task begins anew.
        self.publish_link.unlinked();
        self.unconfirmed.unlinked();
        while !self.stop.is_cancelled() {
            let opening = Publisher::open(&self.address, &self.unconfirmed, &self.publish_link);
            let problem = match self.stop.run_until_cancelled(opening).await {
                None => break,
                Some(Ok(publisher)) => {
                    self.publish_link.well();
                    pauses = Pauses::default();
                    let problem = publisher.run(&self.unconfirmed, &self.publish_link, &self.stop).await;
                    self.publish_link.unlinked();
                    self.unconfirmed.unlinked();
                    publisher.close().await;
                    problem
                }
                Some(Err(problem)) => Some(problem),
            };
            pauses.after(problem, &self.publish_link, &self.stop).await;
        }
        self.unconfirmed.close();
    }

    async fn keep_consuming<D: From<DeliveredPart> + Send + 'static>(&self, router: &Router<D>) {
        let mut pauses = Pauses::default();
        self.consuming.unlinked();
        while !self.stop.is_cancelled() {
            let opening = Subscriber::open(&self.address, &self.unconfirmed, router, &self.depth);
            let problem = match self.stop.run_until_cancelled(opening).await {
                None => break,
                Some(Ok(mut subscriber)) => {
                    self.consuming.well();
                    pauses = Pauses::default();
                    let problem = subscriber.run(&self.depth, &self.stop).await;
                    self.consuming.unlinked();
                    self.depth.unacknowledged(0);
                    subscriber.close().await;
                    problem
                }
                Some(Err(problem)) => Some(problem),
            };
            pauses.after(problem, &self.consuming, &self.stop).await;
        }
    }
}

/// Pauses between attempts to connect.
struct Pauses {
    growing: <ExponentialBuilder as BackoffBuilder>::Backoff,
    refused: <ConstantBuilder as BackoffBuilder>::Backoff,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { growing: RECONNECTS.build(), refused: RECONNECTS_REFUSED.build() }
    }
}

impl Pauses {
    /// Says what went wrong, and waits.
    async fn after(&mut self, problem: Option<BrokerProblem>, condition: &Condition, stop: &CancellationToken) {
        if stop.is_cancelled() {
            return;
        }
        let problem = problem.unwrap_or_else(|| BrokerProblem::broken_link("the connection ended"));
        let pause = if problem.trouble.needs_an_operator() { self.refused.next() } else { self.growing.next() };
        condition.ill(problem);
        stop.run_until_cancelled(tokio::time::sleep(pause.unwrap_or_default())).await;
    }
}
