//! The queue: admitted purchases on their way to becoming orders. It carries, it does not decide.
//!
//! What [`OrderQueue::publish`] has confirmed survives; it may arrive more than once.

mod dead_letter;
mod dead_letters;
mod delivery;
mod embedded;
mod message;
mod rabbitmq;
mod report;

use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::config;
use crate::model::PurchaseGroup;
use crate::supervision::Supervisor;

pub use self::dead_letter::{Chosen, DeadLetter, Held, Kept, LetterPosition, PutBack, Replayed};
pub use self::dead_letters::DeadLetters;
pub use self::delivery::Delivery;
pub use self::embedded::EmbeddedQueue;
pub use self::message::{Barrier, MAX_PURCHASES_A_MESSAGE, MessagePart, decode, encode};
pub use self::rabbitmq::RabbitMqQueue;
use self::rabbitmq::Trouble;
pub use self::rabbitmq::connect_rabbitmq;
pub use self::report::{Depth, PublishError};

/// What a queue is called in traces.
const EMBEDDED: &str = "seckill";
const RABBITMQ: &str = "rabbitmq";

/// The queue of the backend that was configured.
pub enum OrderQueue {
    /// In this process; durable through a journal beside the database.
    Embedded(Box<EmbeddedQueue>),
    /// RabbitMQ, one quorum queue with a single active consumer.
    RabbitMq(Arc<RabbitMqQueue>),
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

    /// What carries, in the word that traces have for it.
    pub fn system(&self) -> &'static str {
        match self {
            Self::Embedded(_) => EMBEDDED,
            Self::RabbitMq(_) => RABBITMQ,
        }
    }

    /// Where messages go, without the server.
    pub fn destination(&self) -> &str {
        match self {
            Self::Embedded(_) => "journal",
            Self::RabbitMq(queue) => queue.destination(),
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

    /// Whether one message may hold the purchases of several products. A record in a journal gains nothing by that.
    pub fn bundles(&self) -> bool {
        match self {
            Self::Embedded(_) => false,
            Self::RabbitMq(queue) => queue.bundles(),
        }
    }

    /// All instances that run read such messages, or not.
    pub fn set_bundles(&self, all_read_them: bool) {
        match self {
            Self::Embedded(_) => {}
            Self::RabbitMq(queue) => queue.set_bundles(all_read_them),
        }
    }

    /// Publishes purchase groups as one message; returns once it is confirmed to be durable. Several only if the queue
    /// [bundles](Self::bundles), and [`MAX_PURCHASES_A_MESSAGE`] purchases at most.
    pub async fn publish(&self, groups: &[PurchaseGroup]) -> Result<(), PublishError> {
        match self {
            Self::Embedded(queue) => {
                for group in groups {
                    queue.publish(group).await?;
                }
                Ok(())
            }
            Self::RabbitMq(queue) => queue.publish(groups).await,
        }
    }

    /// What was set aside, while this process serves.
    pub async fn dead_letters(&self) -> Result<DeadLetters, String> {
        match self {
            Self::Embedded(queue) => Ok(DeadLetters::Served(queue.dead_letters())),
            Self::RabbitMq(queue) => Ok(DeadLetters::RabbitMq(Box::new(queue.dead_letters().await?))),
        }
    }

    /// Waits until everything unfinished of an earlier process in the queue of this one is acknowledged.
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

    /// Gives unacknowledged deliveries back and closes the connection. Consumers must have ended before.
    pub async fn stop(&self) {
        match self {
            Self::Embedded(queue) => queue.stop().await,
            Self::RabbitMq(queue) => queue.stop().await,
        }
    }
}
