//! From the broker to the consumers: reads what is delivered, parks what nobody can read, sorts the rest by product.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use amqprs::channel::{BasicAckArguments, BasicConsumeArguments, BasicQosArguments, Channel, ConsumerMessage};
use amqprs::error::Error as AmqpError;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

use super::failure::Failure;
use super::outbox::{Destination, Outbox};
use crate::queue::{Message, message};

/// Unacknowledged messages at most: the only bound on what the library buffers, some 40 MiB if all are full. When many
/// sales run at once a message holds one or two purchases.
const PREFETCH: u16 = 1024;
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
    unacked: Arc<Unacked>,
    outbox: Arc<Outbox>,
}

/// What was delivered on one link and is not acknowledged. One frame acknowledges all that came before, if nothing among
/// them is missing; to the broker each frame is an entry in the log of its queue.
struct Unacked {
    tags: Mutex<BTreeSet<u64>>,
    channel: Channel,
    failure: Failure,
}

impl Delivery {
    pub(in crate::queue) fn message(&self) -> &Message {
        &self.message
    }

    pub(in crate::queue) fn is_in_order(&self) -> bool {
        !self.letter.redelivered && !self.letter.unacked.failure.token().is_cancelled()
    }

    pub(in crate::queue) async fn ack_all(deliveries: &[Self]) {
        // After a link has failed, those of two may be in one round.
        for of_one_link in deliveries.chunk_by(|a, b| Arc::ptr_eq(&a.letter.unacked, &b.letter.unacked)) {
            let tags = of_one_link.iter().map(|delivery| delivery.letter.tag).collect();
            of_one_link[0].letter.unacked.ack(tags).await;
        }
    }

    pub(in crate::queue) async fn park(self, reason: &str) {
        self.letter.park(reason).await;
    }
}

impl Unacked {
    /// Acknowledges deliveries. A failed link has given them back already: they come again, and are found to be done.
    async fn ack(&self, done: Vec<u64>) {
        // Held until all is sent: a tag that is acknowledged twice costs the link.
        let mut tags = self.tags.lock().await;
        if self.failure.token().is_cancelled() {
            return;
        }
        for tag in &done {
            tags.remove(tag);
        }
        let first_left = tags.first().copied().unwrap_or(u64::MAX);
        let (before, behind): (Vec<u64>, Vec<u64>) = done.into_iter().partition(|tag| *tag < first_left);
        let up_to = before.into_iter().max().map(|tag| (tag, true));
        for (tag, multiple) in up_to.into_iter().chain(behind.into_iter().map(|tag| (tag, false))) {
            if let Err(error) = self.channel.basic_ack(BasicAckArguments::new(tag, multiple)).await {
                tracing::debug!(%error, "Could not acknowledge deliveries");
            }
        }
    }
}

impl Letter {
    /// Copied with a confirm first, acknowledged afterwards: a crash in between leaves two copies, never none.
    async fn park(self, reason: &str) {
        tracing::error!(%reason, bytes = self.body.len(), "Parked a message in the dead-letter queue");
        let parking = async {
            while self.outbox.send(Destination::Dead, self.body.clone(), Some(reason.to_owned())).await.is_err() {
                tokio::time::sleep(PARK_PAUSE).await;
            }
        };
        if self.unacked.failure.token().clone().run_until_cancelled(parking).await.is_some() {
            self.unacked.ack(vec![self.tag]).await;
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
        let consumer = delivery.message.product_id().get() as usize % self.consumers.len();
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
    let unacked = Arc::new(Unacked { tags: Mutex::default(), channel: channel.clone(), failure: failure.clone() });
    let outbox = outbox.clone();
    let router = Router { consumers: router.consumers.clone() };
    let failed = failure.token().clone();
    let reading = async move {
        while let Some(message) = messages.recv().await {
            let ConsumerMessage { deliver: Some(deliver), content: Some(body), .. } = message else { continue };
            let tag = deliver.delivery_tag();
            unacked.tags.lock().await.insert(tag);
            let (unacked, outbox) = (unacked.clone(), outbox.clone());
            let letter = Letter { body, tag, redelivered: deliver.redelivered(), unacked, outbox };
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
