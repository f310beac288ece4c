//! The queue in RabbitMQ, through amqprs.
//!
//! One connection: a channel that publishes with confirms and a channel that consumes. amqprs does not come back by
//! itself after a failure, so the task started here does: it connects, declares the queues, consumes, sends again what
//! was not confirmed, and begins anew, with a growing pause, when any of it fails.

mod consumer;
mod dead_letters;
mod failure;
mod link;
mod outbox;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use secrecy::SecretString;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(super) use self::consumer::Delivery;
use self::consumer::Router;
pub(super) use self::dead_letters::DeadLetters;
use self::link::Link;
use self::outbox::{Destination, Outbox};
use super::{Barrier, Depth, PublishError, message};
use crate::config;
use crate::model::PurchaseBatch;
use crate::supervision::Supervisor;

/// Pause before the first attempt to connect again; doubled after each failure.
const RECONNECT_FIRST: Duration = Duration::from_millis(100);
/// The longest pause: a broker that is back is used again within this.
const RECONNECT_MOST: Duration = Duration::from_secs(1);

/// See the module.
pub struct RabbitMqQueue {
    url: SecretString,
    queue: String,
    outbox: Arc<Outbox>,
    linked: AtomicBool,
    depth: Arc<Mutex<Depth>>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl RabbitMqQueue {
    pub(super) fn new(settings: &config::RabbitMq) -> Result<Self, String> {
        link::parse_url(&settings.url)?;
        Ok(Self {
            url: settings.url.clone(),
            queue: settings.queue.clone(),
            outbox: Arc::new(Outbox::new()),
            linked: AtomicBool::new(false),
            depth: Arc::new(Mutex::new(Depth { messages: 0, dead: 0 })),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    pub(super) fn start(
        self: &Arc<Self>,
        consumers: usize,
        supervisor: &Supervisor,
    ) -> Vec<mpsc::Receiver<super::Delivery>> {
        let (router, receivers) = Router::new(consumers);
        let (queue, router) = (self.clone(), Arc::new(router));
        supervisor.keep("rabbitmq-link", &self.tasks, &self.stop, move || {
            let (queue, router) = (queue.clone(), router.clone());
            async move { queue.keep_linked(&router).await }
        });
        self.tasks.close();
        receivers
    }

    pub(super) fn is_ready(&self) -> bool {
        self.linked.load(Ordering::Relaxed) && self.outbox.accepts()
    }

    pub(super) fn depth(&self) -> Depth {
        *self.depth.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn publish(&self, batch: &PurchaseBatch) -> Result<(), PublishError> {
        self.send(message::encode(batch)).await
    }

    pub(super) async fn publish_barrier(&self, barrier: Barrier) -> Result<(), PublishError> {
        self.send(message::encode_barrier(barrier)).await
    }

    async fn send(&self, body: Vec<u8>) -> Result<(), PublishError> {
        if !self.is_ready() {
            return Err(PublishError::Unavailable);
        }
        self.outbox.send(Destination::Orders, body, None).await
    }

    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }

    async fn keep_linked(&self, router: &Router) {
        // What a link of before left, if this task begins anew.
        self.linked.store(false, Ordering::Relaxed);
        self.outbox.unlinked();
        let mut pause = RECONNECT_FIRST;
        while !self.stop.is_cancelled() {
            match self.stop.run_until_cancelled(Link::open(&self.url, &self.queue, &self.outbox, router)).await {
                None => break,
                Some(Ok(link)) => {
                    tracing::info!(queue = %self.queue, "Connected to RabbitMQ");
                    pause = RECONNECT_FIRST;
                    self.linked.store(true, Ordering::Relaxed);
                    let reason = link.run(&self.outbox, &self.depth, &self.stop).await;
                    self.linked.store(false, Ordering::Relaxed);
                    self.outbox.unlinked();
                    if !self.stop.is_cancelled() {
                        tracing::warn!(%reason, "Lost RabbitMQ");
                    }
                    link.close().await;
                }
                Some(Err(problem)) => tracing::warn!(%problem, "Could not connect to RabbitMQ"),
            }
            self.stop.run_until_cancelled(tokio::time::sleep(jittered(pause))).await;
            pause = (pause * 2).min(RECONNECT_MOST);
        }
        self.outbox.close();
    }
}

/// Half to all of `pause`, so that instances that lost the broker together do not return together.
fn jittered(pause: Duration) -> Duration {
    let random = uuid::Uuid::new_v4().as_u128() as u32;
    pause / 2 + (pause / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
}
