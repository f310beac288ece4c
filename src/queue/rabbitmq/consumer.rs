//! The connection that consumes, and the way from it to the consumers: reads what is delivered, sets aside what nobody can
//! read, sorts the rest by product.

use std::sync::Arc;
use std::time::Duration;

use amqprs::channel::{BasicConsumeArguments, BasicQosArguments, Channel, QueueDeclareArguments};
use amqprs::connection::Connection;
use amqprs::error::Error as AmqpError;
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

use super::connection::{OPEN_TIMEOUT, QueueAddress, close, gone, opened};
use super::delivery::{DeliveredPart, RawDelivery, Unacked};
use super::depth::{Counted, DepthKept};
use super::failure::{Failure, OnChannel, OnConnection};
use super::problem::BrokerProblem;
use super::topology::declare_queues;
use super::unconfirmed::Unconfirmed;
use crate::queue::message;

/// Unacknowledged messages at most: the only bound on what the library buffers, some 40 MiB if all are full.
const PREFETCH: u16 = 1024;
/// From one count of the queues' messages to the next.
const COUNTED_EVERY: Duration = Duration::from_secs(5);

/// Sends each product's messages to the same consumer.
pub(super) struct Router<D> {
    consumers: Vec<mpsc::Sender<D>>,
}

impl<D: From<DeliveredPart> + Send + 'static> Router<D> {
    pub(super) fn new(consumers: usize) -> (Self, Vec<mpsc::Receiver<D>>) {
        // A channel holds parts of messages, and a bundle can have 500. So it may be full while the broker has handed out less
        // than it may: then `route` waits for room.
        let (consumers, receivers) = (0..consumers).map(|_| mpsc::channel(PREFETCH.into())).unzip();
        (Self { consumers }, receivers)
    }

    async fn route(&self, delivery: DeliveredPart) {
        let consumer = delivery.message().product_id().get() as usize % self.consumers.len();
        // A consumer that has ended leaves its deliveries to be given back.
        let _ = self.consumers[consumer].send(delivery.into()).await;
    }
}

/// The connection that consumes.
pub(super) struct Subscriber {
    connection: Connection,
    channel: Channel,
    reading: JoinHandle<()>,
    failure: Failure,
    address: QueueAddress,
}

impl Drop for Subscriber {
    /// However it ends: what was delivered on it comes again on the next one.
    fn drop(&mut self) {
        self.failure.token().cancel();
    }
}

impl Subscriber {
    /// Connects, makes the queues, and starts to consume.
    pub(super) async fn open<D: From<DeliveredPart> + Send + 'static>(
        address: &QueueAddress,
        unconfirmed: &Arc<Unconfirmed>,
        router: &Router<D>,
        depth: &Arc<DepthKept>,
    ) -> Result<Self, BrokerProblem> {
        let connection = address.connect("seckill consumer").await?;
        // It never publishes here: a broker with an alarm would read nothing more from this connection.
        address.check_identity_on(&connection, false).await?;
        let failure = Failure::default();
        let opening = async {
            connection.register_callback(OnConnection(failure.clone())).await?;
            let channel = connection.open_channel(None).await?;
            channel.register_callback(OnChannel(failure.clone())).await?;
            declare_queues(&connection, &channel, &address.orders, &address.dead).await?;
            let reading = consume(&channel, &address.orders, unconfirmed, router, &failure, depth).await?;
            Ok((channel, reading))
        };
        let (channel, reading) = opened(&failure, opening).await?;
        Ok(Self { connection, channel, reading, failure, address: address.clone() })
    }

    /// Consumes until the connection fails or `stop` is asked for; returns what went wrong.
    pub(super) async fn run(&mut self, depth: &DepthKept, stop: &CancellationToken) -> Option<BrokerProblem> {
        let Self { connection, channel, reading, failure, address } = self;
        tokio::select! {
            () = stop.cancelled() => {}
            () = failure.token().cancelled() => {}
            problem = gone(connection, channel) => failure.report(problem),
            problem = watch(channel, address, depth) => failure.report(problem),
            ended = reading => {
                if let Some(panic) = ended.err().filter(JoinError::is_panic) {
                    std::panic::resume_unwind(panic.into_panic());
                }
                failure.report(BrokerProblem::broken_link("the connection broke"));
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

/// Asks now and then how much the queues hold: a broker that does not even say that is gone.
async fn watch(channel: &Channel, address: &QueueAddress, depth: &DepthKept) -> BrokerProblem {
    loop {
        match tokio::time::timeout(OPEN_TIMEOUT, count(channel, address)).await {
            Ok(Ok(counted)) => depth.counted(counted),
            Ok(Err(error)) => return error.into(),
            Err(_) => return BrokerProblem::unreachable("the broker does not say how long its queues are"),
        }
        tokio::time::sleep(COUNTED_EVERY).await;
    }
}

async fn count(channel: &Channel, address: &QueueAddress) -> Result<Counted, AmqpError> {
    let mut counts = [0; 2];
    for (queue, count) in [&address.orders, &address.dead].into_iter().zip(&mut counts) {
        // Only this task declares on this channel: two at once would take each other's answers.
        let passive = QueueDeclareArguments::new(queue).passive(true).finish();
        *count = channel.queue_declare(passive).await?.map_or(0, |(_, messages, _)| i64::from(messages));
    }
    Ok(Counted { ready: counts[0], dead: counts[1] })
}

/// Starts consuming on `channel`; the task ends with `failure`.
async fn consume<D: From<DeliveredPart> + Send + 'static>(
    channel: &Channel,
    queue: &str,
    unconfirmed: &Arc<Unconfirmed>,
    router: &Router<D>,
    failure: &Failure,
    depth: &Arc<DepthKept>,
) -> Result<JoinHandle<()>, AmqpError> {
    channel.basic_qos(BasicQosArguments::new(0, PREFETCH, false)).await?;
    let arguments = BasicConsumeArguments::new(queue, "").manual_ack(true).finish();
    let (_, mut messages) = channel.basic_consume_rx(arguments).await?;
    let failed = failure.token().clone();
    let unacked = Arc::new(Unacked::new(channel.clone(), failure.clone(), depth.clone()));
    let unconfirmed = unconfirmed.clone();
    let router = Router { consumers: router.consumers.clone() };
    let reading = async move {
        while let Some(message) = messages.recv().await {
            let Some(raw) = RawDelivery::open(message, &unacked, &unconfirmed).await else { continue };
            match message::decode_all(raw.body()) {
                Ok(messages) => {
                    for delivery in DeliveredPart::of(messages, raw) {
                        router.route(delivery).await;
                    }
                }
                Err(problem) => raw.set_aside(&problem).await,
            }
        }
    };
    Ok(tokio::spawn(async move {
        failed.run_until_cancelled(reading).await;
    }))
}
