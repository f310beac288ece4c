//! The connection that consumes, and the way from it to the consumers: reads what is delivered, parks what nobody can
//! read, sorts the rest by product.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use amqprs::callbacks::ChannelCallback;
use amqprs::channel::{
    BasicAckArguments, BasicConsumeArguments, BasicQosArguments, Channel, ConsumerMessage, QueueDeclareArguments,
};
use amqprs::connection::Connection;
use amqprs::error::Error as AmqpError;
use amqprs::{Ack, BasicProperties, Cancel, CloseChannel, Nack, Return};
use async_trait::async_trait;
use tokio::sync::{Mutex, mpsc};
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use super::depth::{Counted, DepthKept};
use super::failure::Failure;
use super::link::{CHECK_INTERVAL, OPEN_TIMEOUT, OnConnection, Place, broken, close, declare_queues, opened};
use super::problem::Problem;
use super::unconfirmed::{Destination, Unconfirmed};
use crate::queue::{Message, message};

/// Unacknowledged messages at most: the only bound on what the library buffers, some 40 MiB if all are full. When many
/// sales run at once a message holds one or two purchases.
const PREFETCH: u16 = 1024;
/// Between two attempts to park a message.
const PARK_PAUSE: Duration = Duration::from_millis(200);
/// Whoever parks a message waits this long until it is in the dead-letter queue.
const PARK_PATIENCE: Duration = Duration::from_secs(1);
/// A message that cannot be parked is told of this often.
const PARK_TOLD_EVERY: Duration = Duration::from_secs(60);
/// Checks from one count of the queues' messages to the next.
const DEPTH_TICKS: u32 = 10;

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
    unconfirmed: Arc<Unconfirmed>,
}

/// What was delivered on one link and is not acknowledged. One frame acknowledges all that came before, if nothing among
/// them is missing; to the broker each frame is an entry in the log of its queue.
struct Unacked {
    tags: Mutex<BTreeSet<u64>>,
    channel: Channel,
    failure: Failure,
    depth: Arc<DepthKept>,
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
        self.depth.unacknowledged(tags.len());
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
    ///
    /// Where that does not succeed, because the dead-letter queue is full or no message is taken, it goes on by itself:
    /// the message stays unacknowledged, so it is not lost, and others are written meanwhile.
    async fn park(self, reason: &str) {
        let link = self.unacked.failure.token().clone();
        let reason = reason.to_owned();
        let parking = tokio::spawn(async move { link.run_until_cancelled(self.parked(reason)).await });
        let _ = tokio::time::timeout(PARK_PATIENCE, parking).await;
    }

    async fn parked(self, reason: String) {
        let depth = self.unacked.depth.clone();
        let _unparked = depth.parking();
        let mut told: Option<Instant> = None;
        while let Err(problem) = self.unconfirmed.send(Destination::Dead, self.body.clone(), Some(reason.clone())).await
        {
            if told.is_none_or(|at| at.elapsed() > PARK_TOLD_EVERY) && depth.may_tell(PARK_TOLD_EVERY) {
                told = Some(Instant::now());
                tracing::error!(
                    %problem,
                    "A message that cannot be written cannot be set aside either. Is the dead-letter queue full? \
                     `seckill dead-letters` empties it; the message stays where it is"
                );
            }
            tokio::time::sleep(PARK_PAUSE).await;
        }
        tracing::error!(%reason, bytes = self.body.len(), "Parked a message in the dead-letter queue");
        self.unacked.ack(vec![self.tag]).await;
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

/// The connection that consumes.
pub(super) struct Subscriber {
    connection: Connection,
    channel: Channel,
    reading: JoinHandle<()>,
    failure: Failure,
    place: Place,
}

impl Drop for Subscriber {
    /// However it ends: what was delivered on it comes again on the next one.
    fn drop(&mut self) {
        self.failure.token().cancel();
    }
}

impl Subscriber {
    /// Connects, makes the queues, and starts to consume.
    pub(super) async fn open(
        place: &Place,
        unconfirmed: &Arc<Unconfirmed>,
        router: &Router,
        depth: &Arc<DepthKept>,
    ) -> Result<Self, Problem> {
        let connection = place.connect("seckill consumer").await?;
        // It never publishes here: a broker with an alarm would read nothing more from this connection.
        place.identity.check(&connection, &place.orders, false).await?;
        let failure = Failure::default();
        let opening = async {
            connection.register_callback(OnConnection(failure.clone())).await?;
            let channel = connection.open_channel(None).await?;
            channel.register_callback(OnChannel(failure.clone())).await?;
            declare_queues(&connection, &channel, place).await?;
            let reading = consume(&channel, &place.orders, unconfirmed, router, &failure, depth).await?;
            Ok((channel, reading))
        };
        let (channel, reading) = opened(&failure, opening).await?;
        Ok(Self { connection, channel, reading, failure, place: place.clone() })
    }

    /// Consumes until the link fails or `stop` is asked for; returns what went wrong.
    pub(super) async fn run(&mut self, depth: &DepthKept, stop: &CancellationToken) -> Option<Problem> {
        let Self { connection, channel, reading, failure, place } = self;
        tokio::select! {
            () = stop.cancelled() => {}
            () = failure.token().cancelled() => {}
            problem = broken(connection) => failure.report(problem),
            problem = watch(connection, channel, place, depth) => failure.report(problem),
            ended = reading => {
                if let Some(panic) = ended.err().filter(JoinError::is_panic) {
                    std::panic::resume_unwind(panic.into_panic());
                }
                failure.report(Problem::unreachable("deliveries have ended"));
            }
        }
        failure.token().cancel();
        failure.problem()
    }

    /// Gives back what was delivered and not acknowledged.
    pub(super) async fn close(self) {
        self.failure.token().cancel();
        close(self.channel.clone(), self.connection.clone()).await;
    }
}

/// Watches the connection, and asks now and then how much the queues hold: a broker that does not even say that is gone.
async fn watch(connection: &Connection, channel: &Channel, place: &Place, depth: &DepthKept) -> Problem {
    for tick in 0_u32.. {
        if !(connection.is_open() && channel.is_open()) {
            break;
        }
        if tick.is_multiple_of(DEPTH_TICKS) {
            match tokio::time::timeout(OPEN_TIMEOUT, count(channel, place)).await {
                Ok(Ok(counted)) => depth.counted(counted),
                Ok(Err(error)) => return error.into(),
                Err(_) => return Problem::unreachable("the broker does not say how long its queues are"),
            }
        }
        tokio::time::sleep(CHECK_INTERVAL).await;
    }
    Problem::unreachable("the connection is closed")
}

async fn count(channel: &Channel, place: &Place) -> Result<Counted, AmqpError> {
    let mut counts = [0; 2];
    for (queue, count) in [&place.orders, &place.dead].into_iter().zip(&mut counts) {
        // Only this task declares on this channel: two at once would take each other's answers.
        let passive = QueueDeclareArguments::new(queue).passive(true).finish();
        *count = channel.queue_declare(passive).await?.map_or(0, |(_, messages, _)| i64::from(messages));
    }
    Ok(Counted { ready: counts[0], dead: counts[1] })
}

/// Starts consuming on `channel`; the task ends with `failure`.
async fn consume(
    channel: &Channel,
    queue: &str,
    unconfirmed: &Arc<Unconfirmed>,
    router: &Router,
    failure: &Failure,
    depth: &Arc<DepthKept>,
) -> Result<JoinHandle<()>, AmqpError> {
    channel.basic_qos(BasicQosArguments::new(0, PREFETCH, false)).await?;
    let arguments = BasicConsumeArguments::new(queue, "").manual_ack(true).finish();
    let (_, mut messages) = channel.basic_consume_rx(arguments).await?;
    let (channel, failed) = (channel.clone(), failure.token().clone());
    depth.unacknowledged(0);
    let (failure, depth) = (failure.clone(), depth.clone());
    let unacked = Arc::new(Unacked { tags: Mutex::default(), channel, failure, depth });
    let unconfirmed = unconfirmed.clone();
    let router = Router { consumers: router.consumers.clone() };
    let reading = async move {
        while let Some(message) = messages.recv().await {
            let ConsumerMessage { deliver: Some(deliver), content: Some(body), .. } = message else { continue };
            crash_point!("consume");
            let tag = deliver.delivery_tag();
            let mut tags = unacked.tags.lock().await;
            tags.insert(tag);
            unacked.depth.unacknowledged(tags.len());
            drop(tags);
            let (unacked, unconfirmed) = (unacked.clone(), unconfirmed.clone());
            let letter = Letter { body, tag, redelivered: deliver.redelivered(), unacked, unconfirmed };
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

/// Notes why the broker closes a channel that publishes nothing.
pub(super) struct OnChannel(pub(super) Failure);

#[async_trait]
impl ChannelCallback for OnChannel {
    async fn close(&mut self, _: &Channel, close: CloseChannel) -> Result<(), AmqpError> {
        self.0.report(Problem::from(&close));
        Ok(())
    }

    async fn cancel(&mut self, _: &Channel, _: Cancel) -> Result<(), AmqpError> {
        self.0.report(Problem::unreachable("the broker cancelled the consumer: is the queue gone?"));
        Ok(())
    }

    async fn flow(&mut self, _: &Channel, active: bool) -> Result<bool, AmqpError> {
        Ok(active)
    }

    async fn publish_ack(&mut self, _: &Channel, _: Ack) {}

    async fn publish_nack(&mut self, _: &Channel, _: Nack) {}

    async fn publish_return(&mut self, _: &Channel, _: Return, _: BasicProperties, _: Vec<u8>) {}
}
