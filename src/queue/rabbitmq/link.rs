//! One connection to the broker with its channels and queues, from opening to the first failure.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use amqprs::callbacks::{ChannelCallback, ConnectionCallback};
use amqprs::channel::{BasicPublishArguments, Channel, ConfirmSelectArguments, QueueDeclareArguments};
use amqprs::connection::{Connection, OpenConnectionArguments};
use amqprs::error::Error as AmqpError;
use amqprs::{Ack, BasicProperties, Cancel, Close, CloseChannel, FieldTable, FieldValue, Nack, Return};
use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::consumer::{Router, consume};
use super::failure::Failure;
use super::outbox::{Destination, Outbox};
use crate::queue::{Depth, PublishError};

/// To open the connection, its channels and its queues.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Seconds; a frozen broker is given up after two.
const HEARTBEAT_SECONDS: u16 = 5;
/// The library's own notice of a failure can be missed, so its flag is looked at too.
const CHECK_INTERVAL: Duration = Duration::from_millis(500);
/// Checks from one count of the queues' messages to the next.
const DEPTH_TICKS: u32 = 10;
/// Messages in each queue at most; the broker refuses more.
const QUEUE_MAX_MESSAGES: i64 = 500_000;

/// Header that says why a message is in the dead-letter queue.
pub(super) const REASON_HEADER: &str = "x-seckill-reason";

pub(super) struct Link {
    connection: Connection,
    publisher: Channel,
    consumer: Channel,
    reading: JoinHandle<()>,
    failure: Failure,
    orders: String,
    dead: String,
}

/// Reads the connection's address. The default vhost is `%2f` or nothing.
pub(super) fn parse_url(url: &SecretString) -> Result<OpenConnectionArguments, String> {
    let parsed = Url::parse(url.expose_secret()).map_err(|error| format!("rabbitmq.url: {error}"))?;
    let decode = |text: &str| {
        percent_encoding::percent_decode_str(text)
            .decode_utf8()
            .map(|text| text.into_owned())
            .map_err(|_| "rabbitmq.url: not UTF-8".to_owned())
    };
    let mut arguments = OpenConnectionArguments::new(
        parsed.host_str().unwrap_or("localhost"),
        parsed.port().unwrap_or(5672),
        &decode(parsed.username())?,
        &decode(parsed.password().unwrap_or_default())?,
    );
    let vhost = decode(parsed.path().strip_prefix('/').unwrap_or_default())?;
    if !vhost.is_empty() {
        arguments.virtual_host(&vhost);
    }
    arguments.heartbeat(HEARTBEAT_SECONDS).connection_name("seckill");
    Ok(arguments)
}

impl Link {
    pub(super) async fn open(
        url: &SecretString,
        queue: &str,
        outbox: &Arc<Outbox>,
        router: &Router,
    ) -> Result<Self, String> {
        let failure = Failure::default();
        match tokio::time::timeout(OPEN_TIMEOUT, Self::try_open(url, queue, outbox, router, &failure)).await {
            Ok(Ok(link)) => Ok(link),
            // The broker's own words, when there are any, say more than the library's.
            Ok(Err(error)) if failure.token().is_cancelled() => Err(format!("{}; {error}", failure.reason())),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {OPEN_TIMEOUT:?}")),
        }
    }

    async fn try_open(
        url: &SecretString,
        queue: &str,
        outbox: &Arc<Outbox>,
        router: &Router,
        failure: &Failure,
    ) -> Result<Self, AmqpError> {
        let arguments = parse_url(url).map_err(AmqpError::UriError)?;
        let connection = Connection::open(&arguments).await?;
        connection.register_callback(OnConnection(failure.clone())).await?;
        let publisher = connection.open_channel(None).await?;
        publisher.register_callback(OnChannel { failure: failure.clone(), outbox: Some(outbox.clone()) }).await?;
        let dead = format!("{queue}.dead");
        declare_queues(&connection, &publisher, queue, &dead).await?;
        publisher.confirm_select(ConfirmSelectArguments::default()).await?;
        let consumer = connection.open_channel(None).await?;
        consumer.register_callback(OnChannel { failure: failure.clone(), outbox: None }).await?;
        let reading = consume(&consumer, queue, outbox, router, failure).await?;
        Ok(Self { connection, publisher, consumer, reading, failure: failure.clone(), orders: queue.to_owned(), dead })
    }

    /// Publishes until the link fails or `stop` is asked for; returns why.
    pub(super) async fn run(&self, outbox: &Outbox, depth: &Mutex<Depth>, stop: &CancellationToken) -> String {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.failure.token().cancelled() => {}
            () = self.publish_all(outbox) => {}
            io_failure = self.connection.listen_network_io_failure() => {
                self.failure.report(if io_failure { "the connection broke" } else { "closed by the broker" });
            }
            () = self.watch(depth) => self.failure.report("the connection is closed"),
        }
        self.failure.token().cancel();
        self.failure.reason()
    }

    /// The only task that publishes on this channel: delivery tags count in the order of publishing.
    async fn publish_all(&self, outbox: &Outbox) {
        let properties = BasicProperties::default()
            .with_content_type("application/json")
            .with_app_id("seckill")
            .with_persistence(true)
            .finish();
        loop {
            let (to, body, reason) = outbox.next().await;
            let queue = match to {
                Destination::Orders => &self.orders,
                Destination::Dead => &self.dead,
            };
            let mut properties = properties.clone();
            if let Some(reason) = reason {
                properties.with_headers(reason_header(&reason));
            }
            // Mandatory: a confirm alone does not say that there was a queue to keep the message.
            let target = BasicPublishArguments::new("", queue).mandatory(true).finish();
            if let Err(error) = self.publisher.basic_publish(properties, body, target).await {
                self.failure.report(error.to_string());
                return;
            }
            crash_point!("after_publish");
        }
    }

    /// Watches the connection, and asks now and then how much the queues hold.
    async fn watch(&self, depth: &Mutex<Depth>) {
        for tick in 0_u32.. {
            if !(self.connection.is_open() && self.publisher.is_open() && self.consumer.is_open()) {
                return;
            }
            if tick.is_multiple_of(DEPTH_TICKS)
                && let Some(found) = self.count().await
            {
                *depth.lock().unwrap_or_else(PoisonError::into_inner) = found;
            }
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }

    async fn count(&self) -> Option<Depth> {
        let mut counts = [0; 2];
        for (queue, count) in [&self.orders, &self.dead].into_iter().zip(&mut counts) {
            // Only this task declares on this channel: two at once would take each other's answers.
            let passive = QueueDeclareArguments::new(queue).passive(true).finish();
            let (_, messages, _) = self.consumer.queue_declare(passive).await.ok()??;
            *count = i64::from(messages);
        }
        Some(Depth { messages: counts[0], dead: counts[1] })
    }

    /// Closes the channels, which gives back what was delivered and not acknowledged, then the connection.
    pub(super) async fn close(self) {
        let closing = async {
            let _ = self.reading.await;
            let _ = self.consumer.close().await;
            let _ = self.publisher.close().await;
            let _ = self.connection.close().await;
        };
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, closing).await;
    }
}

async fn declare_queues(connection: &Connection, channel: &Channel, orders: &str, dead: &str) -> Result<(), AmqpError> {
    let mut arguments = FieldTable::new();
    let mut set = |key: &str, value: FieldValue| {
        if let Ok(key) = key.try_into() {
            arguments.insert(key, value);
        }
    };
    set("x-queue-type", "quorum".into());
    set("x-overflow", "reject-publish".into());
    set("x-max-length", FieldValue::l(QUEUE_MAX_MESSAGES));
    // From RabbitMQ 4 on a message is dropped after 20 returns unless told otherwise; older ones do not know -1.
    let version = connection.server_properties().version();
    if version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major >= 4) {
        set("x-delivery-limit", FieldValue::l(-1));
    }
    let declare = |queue: &str, arguments: FieldTable| {
        QueueDeclareArguments::durable_client_named(queue).arguments(arguments).finish()
    };
    channel.queue_declare(declare(dead, arguments.clone())).await?;
    if let Ok(key) = "x-single-active-consumer".try_into() {
        arguments.insert(key, true.into());
    }
    channel.queue_declare(declare(orders, arguments)).await?;
    Ok(())
}

fn reason_header(reason: &str) -> FieldTable {
    let mut headers = FieldTable::new();
    if let Ok(key) = REASON_HEADER.try_into() {
        headers.insert(key, reason.into());
    }
    headers
}

struct OnConnection(Failure);

#[async_trait]
impl ConnectionCallback for OnConnection {
    async fn close(&mut self, _: &Connection, close: Close) -> Result<(), AmqpError> {
        self.0.report(close.to_string());
        Ok(())
    }

    // The library does not announce that it understands these two, so the broker does not send them: a blocked broker
    // shows by confirms that do not come.
    async fn blocked(&mut self, _: &Connection, reason: String) {
        tracing::warn!(%reason, "RabbitMQ takes no more messages");
    }

    async fn unblocked(&mut self, _: &Connection) {}

    async fn secret_updated(&mut self, _: &Connection) {}
}

struct OnChannel {
    failure: Failure,
    outbox: Option<Arc<Outbox>>,
}

impl OnChannel {
    fn confirmed(&self, tag: u64, multiple: bool, result: Result<(), PublishError>) {
        if let Some(outbox) = &self.outbox
            && !self.failure.token().is_cancelled()
        {
            outbox.confirmed(tag, multiple, result);
        }
    }
}

#[async_trait]
impl ChannelCallback for OnChannel {
    async fn close(&mut self, _: &Channel, close: CloseChannel) -> Result<(), AmqpError> {
        self.failure.report(close.to_string());
        Ok(())
    }

    async fn cancel(&mut self, _: &Channel, _: Cancel) -> Result<(), AmqpError> {
        self.failure.report("the broker cancelled the consumer");
        Ok(())
    }

    async fn flow(&mut self, _: &Channel, active: bool) -> Result<bool, AmqpError> {
        Ok(active)
    }

    async fn publish_ack(&mut self, _: &Channel, ack: Ack) {
        self.confirmed(ack.delivery_tag(), ack.mutiple(), Ok(()));
    }

    async fn publish_nack(&mut self, _: &Channel, nack: Nack) {
        self.confirmed(nack.delivery_tag(), nack.multiple(), Err(PublishError::Refused));
    }

    async fn publish_return(&mut self, _: &Channel, returned: Return, _: BasicProperties, _: Vec<u8>) {
        // The queue is gone. The confirm that follows would be taken for a success, so the link ends here and the
        // next one declares the queue again.
        self.failure.report(format!("a message came back: {}", returned.reply_text()));
    }
}
