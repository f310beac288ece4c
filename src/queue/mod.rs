//! The queue: accepted purchases on their way to becoming orders. It carries, it does not decide.
//!
//! What [`OrderQueue::publish`] has confirmed survives; it may arrive more than once.

mod dead_letters;
mod embedded;
mod message;
mod rabbitmq;

use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::config;
use crate::model::{ProductId, Purchase, PurchaseBatch};
use crate::supervision::Supervisor;

pub use dead_letters::{Chosen, DeadLetter, DeadLetters, PutBack, Replayed};
pub use embedded::EmbeddedQueue;
pub use message::{BATCH_MAX, decode, encode};
pub use rabbitmq::RabbitMqQueue;
use rabbitmq::Trouble;

/// The queue of the backend that was configured.
pub enum OrderQueue {
    /// In this process; durable through a journal beside the database.
    Embedded(Box<EmbeddedQueue>),
    /// RabbitMQ, one quorum queue with a single active consumer.
    RabbitMq(Arc<RabbitMqQueue>),
}

/// What a queue holds, as far as this instance knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Messages that wait for a consumer, or that one of this instance has and has not acknowledged.
    pub messages: i64,
    /// Messages set aside.
    pub dead: i64,
    /// Messages that are to be set aside and cannot be.
    pub unparked: i64,
}

/// Why a batch was not confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// The queue is known to be away or full; nothing was sent.
    #[error("the queue is not available")]
    Unavailable,
    /// The queue turned the batch away.
    #[error("the queue refused the batch")]
    Refused,
    /// No confirm came in time; the batch may be queued (I5).
    #[error("the queue did not confirm in time")]
    Unclear,
}

impl PublishError {
    /// One word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
            Self::Unclear => "unclear",
        }
    }
}

/// What travels through the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Purchases that were admitted.
    Purchases(PurchaseBatch),
    /// Everything before it was admitted by an older gate.
    Barrier(Barrier),
}

impl Message {
    /// What it is about.
    pub fn product_id(&self) -> ProductId {
        match self {
            Self::Purchases(batch) => batch.product_id,
            Self::Barrier(barrier) => barrier.product_id,
        }
    }
}

/// Marks a place in the queue while the gate of a product is rebuilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Barrier {
    /// The product.
    pub product_id: ProductId,
    /// Epoch of the gate that is to be opened.
    pub epoch: i64,
}

/// A message from the queue, to be acknowledged once its purchases are in the database.
pub enum Delivery {
    /// From this process.
    Embedded(embedded::Delivery),
    /// From RabbitMQ.
    RabbitMq(rabbitmq::Delivery),
}

impl OrderQueue {
    /// A queue in this process, with its journal in `file`, which is made if there is none.
    pub fn embedded(file: &Path) -> Result<Self, String> {
        Ok(Self::Embedded(Box::new(EmbeddedQueue::open(file)?)))
    }

    /// A queue in RabbitMQ; its tasks start with [`OrderQueue::start`].
    pub fn rabbitmq(settings: &config::RabbitMq) -> Result<Self, String> {
        Ok(Self::RabbitMq(Arc::new(RabbitMqQueue::new(settings)?)))
    }

    /// Starts the tasks behind the queue and hands out its deliveries: one receiver a consumer, all purchases of one
    /// product at the same one, in the order they were published. To be called once.
    ///
    /// The embedded queue has one consumer, for its database has one writer.
    pub fn start(&self, consumers: usize, supervisor: &Supervisor) -> Vec<mpsc::Receiver<Delivery>> {
        match self {
            Self::Embedded(queue) => queue.start(supervisor).into_iter().collect(),
            Self::RabbitMq(queue) => queue.start(consumers, supervisor),
        }
    }

    /// From now on only a queue of this deployment is used. Reads whose it is, if the broker answers; an error says that it
    /// is another deployment's, which `take` does not mind.
    pub async fn join(&self, deployment: &str, take: bool) -> Result<(), String> {
        match self {
            Self::Embedded(_) => Ok(()),
            Self::RabbitMq(queue) => queue.join(deployment, take).await,
        }
    }

    /// Random id of the queue that is used, as it was read last; another one when the broker has lost it.
    pub fn identity(&self) -> Option<String> {
        match self {
            Self::Embedded(_) => None,
            Self::RabbitMq(queue) => queue.identity(),
        }
    }

    /// Where the queue is, for people.
    pub fn name(&self) -> String {
        match self {
            Self::Embedded(_) => "embedded".to_owned(),
            Self::RabbitMq(queue) => queue.name(),
        }
    }

    /// Whether purchases can be published now. Asked before a unit is taken.
    pub fn is_ready(&self) -> bool {
        match self {
            Self::Embedded(queue) => queue.is_ready(),
            Self::RabbitMq(queue) => queue.is_ready(),
        }
    }

    /// What is wrong with the queue, in one word; also what hinders only the writing of orders.
    pub fn trouble(&self) -> Option<&'static str> {
        match self {
            Self::Embedded(queue) => queue.trouble(),
            Self::RabbitMq(queue) => {
                queue.trouble().map(Trouble::as_str).or_else(|| (!queue.is_ready()).then_some("full"))
            }
        }
    }

    /// What the queue holds; for RabbitMQ as it was asked last, some seconds ago. `None`: it does not say.
    pub fn depth(&self) -> Option<Depth> {
        match self {
            Self::Embedded(queue) => Some(queue.depth()),
            Self::RabbitMq(queue) => queue.depth(),
        }
    }

    /// Publishes a batch; returns once it is confirmed to be durable.
    pub async fn publish(&self, batch: &PurchaseBatch) -> Result<(), PublishError> {
        match self {
            Self::Embedded(queue) => queue.publish(batch).await,
            Self::RabbitMq(queue) => queue.publish(batch).await,
        }
    }

    /// Waits until everything that an earlier process left in the queue of this one is acknowledged.
    pub async fn drained(&self) {
        match self {
            Self::Embedded(queue) => queue.drained().await,
            Self::RabbitMq(_) => {}
        }
    }

    /// Publishes a barrier; returns once it is confirmed. The embedded queue has no gate that could be lost, so it
    /// refuses.
    pub async fn publish_barrier(&self, barrier: Barrier) -> Result<(), PublishError> {
        match self {
            Self::Embedded(_) => Err(PublishError::Refused),
            Self::RabbitMq(queue) => queue.publish_barrier(barrier).await,
        }
    }

    /// Gives unacknowledged deliveries back and closes the link. Consumers must have ended before.
    pub async fn stop(&self) {
        match self {
            Self::Embedded(queue) => queue.stop().await,
            Self::RabbitMq(queue) => queue.stop().await,
        }
    }
}

impl Delivery {
    /// What was delivered.
    pub fn message(&self) -> &Message {
        match self {
            Self::Embedded(delivery) => delivery.message(),
            Self::RabbitMq(delivery) => delivery.message(),
        }
    }

    /// The purchases in it; none in a barrier.
    pub fn purchases(&self) -> &[Purchase] {
        match self.message() {
            Message::Purchases(batch) => &batch.items,
            Message::Barrier(_) => &[],
        }
    }

    /// Whether everything that was published before it has certainly been delivered before it. Not so when the queue
    /// has delivered it earlier: what is returned comes back in the order of its return.
    pub fn is_in_order(&self) -> bool {
        match self {
            Self::Embedded(_) => true,
            Self::RabbitMq(delivery) => delivery.is_in_order(),
        }
    }

    /// Tells the queue to forget these: their purchases are in the database.
    pub async fn ack_all(deliveries: Vec<Self>) {
        let mut from_rabbitmq = Vec::new();
        for delivery in deliveries {
            match delivery {
                Self::Embedded(delivery) => delivery.ack(),
                Self::RabbitMq(delivery) => from_rabbitmq.push(delivery),
            }
        }
        rabbitmq::Delivery::ack_all(&from_rabbitmq).await;
    }

    /// Sets a batch aside that can never become orders.
    pub async fn park(self, reason: &str) {
        match self {
            Self::Embedded(delivery) => delivery.park(reason),
            Self::RabbitMq(delivery) => delivery.park(reason).await,
        }
    }
}
