//! From the broker to the consumers: reads what is delivered, parks what nobody can read, sorts the rest by product.

use std::sync::Arc;
use std::time::Duration;

use amqprs::channel::{BasicAckArguments, BasicConsumeArguments, BasicQosArguments, Channel, ConsumerMessage};
use amqprs::error::Error as AmqpError;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::failure::Failure;
use super::outbox::{Destination, Outbox};
use crate::queue::{Message, message};

/// Unacknowledged messages at most: the only bound on what the library buffers.
const PREFETCH: u16 = 256;
/// Between two attempts to park a message.
const PARK_PAUSE: Duration = Duration::from_millis(200);

/// A message as it was delivered on one link. After that link has failed it comes again on the next one.
pub struct Delivery {
    message: Message,
    letter: Letter,
}

/// A message in its envelope.
struct Letter {
    body: Vec<u8>,
    tag: u64,
    redelivered: bool,
    channel: Channel,
    outbox: Arc<Outbox>,
    failure: Failure,
}

impl Delivery {
    pub(in crate::queue) fn message(&self) -> &Message {
        &self.message
    }

    pub(in crate::queue) fn is_in_order(&self) -> bool {
        !self.letter.redelivered && !self.letter.failure.token().is_cancelled()
    }

    pub(in crate::queue) async fn ack(self) {
        self.letter.ack().await;
    }

    pub(in crate::queue) async fn park(self, reason: &str) {
        self.letter.park(reason).await;
    }
}

impl Letter {
    /// A failed link has given the message back already: it comes again, and is found to be done.
    async fn ack(self) {
        if self.failure.token().is_cancelled() {
            return;
        }
        if let Err(error) = self.channel.basic_ack(BasicAckArguments::new(self.tag, false)).await {
            tracing::debug!(%error, "Could not acknowledge a delivery");
        }
    }

    /// Copied with a confirm first, acknowledged afterwards: a crash in between leaves two copies, never none.
    async fn park(self, reason: &str) {
        tracing::error!(%reason, bytes = self.body.len(), "Parked a message in the dead-letter queue");
        let parking = async {
            while self.outbox.send(Destination::Dead, self.body.clone(), Some(reason.to_owned())).await.is_err() {
                tokio::time::sleep(PARK_PAUSE).await;
            }
        };
        if self.failure.token().clone().run_until_cancelled(parking).await.is_some() {
            self.ack().await;
        }
    }
}

/// Sends each product's batches to the same consumer.
pub(super) struct Router {
    consumers: Vec<mpsc::Sender<crate::queue::Delivery>>,
}

impl Router {
    pub(super) fn new(consumers: usize) -> (Self, Vec<mpsc::Receiver<crate::queue::Delivery>>) {
        let (consumers, receivers) = (0..consumers).map(|_| mpsc::channel(PREFETCH.into())).unzip();
        (Self { consumers }, receivers)
    }

    async fn route(&self, delivery: Delivery) {
        let product = match &delivery.message {
            Message::Purchases(batch) => batch.product_id,
            Message::Barrier(barrier) => barrier.product_id,
        };
        let consumer = product.get() as usize % self.consumers.len();
        // A consumer that has ended leaves its deliveries to be given back.
        let _ = self.consumers[consumer].send(crate::queue::Delivery::RabbitMq(delivery)).await;
    }
}

/// Starts consuming on `channel`; the task ends with `failure`.
pub(super) async fn consume(
    channel: &Channel,
    queue: &str,
    outbox: &Arc<Outbox>,
    router: &Router,
    failure: &Failure,
) -> Result<JoinHandle<()>, AmqpError> {
    channel.basic_qos(BasicQosArguments::new(0, PREFETCH, false)).await?;
    let arguments = BasicConsumeArguments::new(queue, "").manual_ack(true).finish();
    let (_, mut messages) = channel.basic_consume_rx(arguments).await?;
    let (channel, outbox, failure) = (channel.clone(), outbox.clone(), failure.clone());
    let router = Router { consumers: router.consumers.clone() };
    let failed = failure.token().clone();
    let reading = async move {
        while let Some(message) = messages.recv().await {
            let ConsumerMessage { deliver: Some(deliver), content: Some(body), .. } = message else { continue };
            let letter = Letter {
                body,
                tag: deliver.delivery_tag(),
                redelivered: deliver.redelivered(),
                channel: channel.clone(),
                outbox: outbox.clone(),
                failure: failure.clone(),
            };
            match message::decode(&letter.body) {
                Ok(message) => router.route(Delivery { message, letter }).await,
                Err(problem) => letter.park(&problem).await,
            }
        }
    };
    Ok(tokio::spawn(async move {
        failed.run_until_cancelled(reading).await;
    }))
}
