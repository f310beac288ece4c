//! The connection that publishes. It has one of its own: a broker with an alarm reads nothing more from a connection that
//! publishes, and acknowledgements must reach it all the same, for they are what makes room.

use std::sync::Arc;
use std::time::Duration;

use amqprs::callbacks::ChannelCallback;
use amqprs::channel::{BasicPublishArguments, Channel, ConfirmSelectArguments};
use amqprs::connection::Connection;
use amqprs::error::Error as AmqpError;
use amqprs::{Ack, BasicProperties, Cancel, CloseChannel, FieldTable, Nack, Return};
use async_trait::async_trait;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::condition::Condition;
use super::connection::{CHECK_INTERVAL, QueueAddress, close, gone, opened};
use super::failure::{Failure, OnConnection};
use super::problem::BrokerProblem;
use super::topology::declare_queues;
use super::unconfirmed::{Destination, Unconfirmed};
use crate::model::Timestamp;
use crate::queue::dead_letter;
use crate::queue::report::PublishError;

/// Header that says why a message is in the dead-letter queue.
pub(super) const REASON_HEADER: &str = "x-seckill-reason";
const PROBE_BODY: &[u8] = b"probe";
/// A broker that has not answered the first message by then is blocked.
const BLOCKED_AFTER: Duration = Duration::from_secs(3);
/// A blocked connection is given up after this: it may be the connection, not the broker. Not sooner, unless the broker takes other
/// messages on it: it keeps each that is given up until it is not blocked any more.
const GIVEN_UP_AFTER: Duration = Duration::from_secs(120);

pub(super) struct Publisher {
    connection: Connection,
    channel: Channel,
    /// Without confirms, for messages to nowhere.
    probing: Channel,
    failure: Failure,
    address: QueueAddress,
    probe: Probe,
}

impl Publisher {
    /// Connects, makes the queues, and makes sure that messages are taken.
    pub(super) async fn open(
        address: &QueueAddress,
        unconfirmed: &Arc<Unconfirmed>,
        condition: &Condition,
    ) -> Result<Self, BrokerProblem> {
        let connection = address.connect("seckill publisher").await?;
        let failure = Failure::default();
        let probe = Probe { key: format!("{}.nowhere", address.orders), returned: Arc::default() };
        let opening = async {
            connection.register_callback(OnConnection(failure.clone())).await?;
            let channel = connection.open_channel(None).await?;
            channel.register_callback(OnPublishingChannel::new(&failure, unconfirmed, &probe)).await?;
            declare_queues(&connection, &channel, &address.orders, &address.dead).await?;
            Ok(channel)
        };
        let channel = opened(&failure, opening).await?;
        tokio::select! {
            problem = gone(&connection, &channel) => return Err(problem),
            sent = probe.send(&channel, &failure, condition) => sent?,
        }
        address.check_identity_on(&connection, true).await?;
        opened(&failure, channel.confirm_select(ConfirmSelectArguments::default())).await?;
        let opening = async {
            let probing = connection.open_channel(None).await?;
            let nothing = Arc::new(Unconfirmed::new());
            probing.register_callback(OnPublishingChannel::new(&failure, &nothing, &probe)).await?;
            Ok(probing)
        };
        let probing = opened(&failure, opening).await?;
        Ok(Self { connection, channel, probing, failure, address: address.clone(), probe })
    }

    /// Publishes until the connection fails or `stop` is asked for; returns what went wrong.
    pub(super) async fn run(
        &self,
        unconfirmed: &Unconfirmed,
        condition: &Condition,
        stop: &CancellationToken,
    ) -> Option<BrokerProblem> {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.failure.token().cancelled() => {}
            () = self.publish_all(unconfirmed) => {}
            problem = gone(&self.connection, &self.channel) => self.failure.report(problem),
            problem = self.watch(unconfirmed, condition) => self.failure.report(problem),
        }
        self.failure.token().cancel();
        self.failure.problem()
    }

    /// The only task that publishes on this channel: delivery tags count in the order of publishing.
    async fn publish_all(&self, unconfirmed: &Unconfirmed) {
        let properties = BasicProperties::default()
            .with_content_type("application/json")
            .with_app_id("seckill")
            .with_persistence(true)
            .finish();
        loop {
            let (to, body, reason) = unconfirmed.next().await;
            let queue = match to {
                Destination::Orders => &self.address.orders,
                Destination::Dead => &self.address.dead,
            };
            let mut properties = properties.clone();
            if let Some(reason) = reason {
                properties.with_headers(reason_header(&reason));
                properties.with_message_id(&dead_letter::id_of(&body));
                properties.with_timestamp(Timestamp::now().unix_ms().max(0) as u64 / 1000);
            }
            // Mandatory: a confirm alone does not say that there was a queue to keep the message.
            let target = BasicPublishArguments::new("", queue).mandatory(true).finish();
            if let Err(error) = self.channel.basic_publish(properties, body, target).await {
                self.failure.report(error.into());
                return;
            }
            crash_point!("after_publish");
        }
    }

    /// Watches whether confirms come.
    async fn watch(&self, unconfirmed: &Unconfirmed, condition: &Condition) -> BrokerProblem {
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            crash_point!("publisher");
            match unconfirmed.overdue() {
                None => condition.well(),
                Some(late) if late > GIVEN_UP_AFTER => return BrokerProblem::blocked(),
                Some(late) => {
                    condition.ill(BrokerProblem::blocked());
                    if late > unconfirmed.lost_after() && self.takes_others(unconfirmed).await {
                        unconfirmed.lost();
                        return BrokerProblem::broken_link("a confirm did not come, though the broker takes messages");
                    }
                }
            }
        }
    }

    /// Whether the broker takes a message on this connection while a confirm is overdue: then it has no alarm. A node that hung, or was
    /// cut off from its cluster, may never confirm what it had taken.
    async fn takes_others(&self, unconfirmed: &Unconfirmed) -> bool {
        let asking = async {
            self.probe.publish(&self.probing).await?;
            self.probe.returned.notified().await;
            Ok::<_, AmqpError>(())
        };
        let confirmed = async {
            while unconfirmed.overdue().is_some() {
                tokio::time::sleep(CHECK_INTERVAL).await;
            }
        };
        tokio::select! {
            taken = tokio::time::timeout(BLOCKED_AFTER, asking) => matches!(taken, Ok(Ok(()))),
            () = confirmed => false,
        }
    }

    pub(super) async fn close(self) {
        close(self.channel, self.connection).await;
    }
}

/// A message to nowhere, which the broker gives back: it shows that we may publish and that the broker takes messages,
/// before purchases are taken.
#[derive(Clone)]
struct Probe {
    /// Where no queue is.
    key: String,
    returned: Arc<Notify>,
}

impl Probe {
    async fn publish(&self, channel: &Channel) -> Result<(), AmqpError> {
        let target = BasicPublishArguments::new("", &self.key).mandatory(true).finish();
        // Not empty: with an alarm the broker stops reading a connection at the header of its first message, which for an
        // empty one is its end.
        channel.basic_publish(BasicProperties::default(), PROBE_BODY.to_vec(), target).await
    }

    async fn send(&self, channel: &Channel, failure: &Failure, condition: &Condition) -> Result<(), BrokerProblem> {
        self.publish(channel).await?;
        let coming_back = async {
            if tokio::time::timeout(BLOCKED_AFTER, self.returned.notified()).await.is_err() {
                condition.ill(BrokerProblem::blocked());
                self.returned.notified().await;
            }
        };
        tokio::select! {
            () = failure.token().cancelled() => {
                Err(failure.problem().unwrap_or_else(|| BrokerProblem::unreachable("the channel was closed")))
            }
            returned = tokio::time::timeout(GIVEN_UP_AFTER, coming_back) => returned.map_err(|_| BrokerProblem::blocked()),
        }
    }
}

pub(super) fn reason_header(reason: &str) -> FieldTable {
    let mut headers = FieldTable::new();
    if let Ok(key) = REASON_HEADER.try_into() {
        headers.insert(key, reason.into());
    }
    headers
}

struct OnPublishingChannel {
    failure: Failure,
    /// Which one it is, as [`Unconfirmed`] counts.
    connection: u64,
    unconfirmed: Arc<Unconfirmed>,
    probe: Probe,
}

impl OnPublishingChannel {
    fn new(failure: &Failure, unconfirmed: &Arc<Unconfirmed>, probe: &Probe) -> Self {
        let connection = unconfirmed.connection();
        Self { failure: failure.clone(), connection, unconfirmed: unconfirmed.clone(), probe: probe.clone() }
    }

    fn answered(&self, tag: u64, multiple: bool, result: Result<(), PublishError>) {
        if !self.failure.token().is_cancelled() {
            self.unconfirmed.answered(self.connection, tag, multiple, result);
        }
    }
}

#[async_trait]
impl ChannelCallback for OnPublishingChannel {
    async fn close(&mut self, _: &Channel, close: CloseChannel) -> Result<(), AmqpError> {
        self.failure.report(BrokerProblem::from(&close));
        Ok(())
    }

    async fn cancel(&mut self, _: &Channel, _: Cancel) -> Result<(), AmqpError> {
        Ok(())
    }

    async fn flow(&mut self, _: &Channel, active: bool) -> Result<bool, AmqpError> {
        Ok(active)
    }

    async fn publish_ack(&mut self, _: &Channel, ack: Ack) {
        self.answered(ack.delivery_tag(), ack.mutiple(), Ok(()));
    }

    async fn publish_nack(&mut self, _: &Channel, nack: Nack) {
        self.answered(nack.delivery_tag(), nack.multiple(), Err(PublishError::Refused));
    }

    async fn publish_return(&mut self, _: &Channel, returned: Return, _: BasicProperties, _: Vec<u8>) {
        if *returned.routing_key() == self.probe.key {
            self.probe.returned.notify_one();
            return;
        }
        // The queue is gone. The confirm that follows would be taken for a success, so the connection ends here and the
        // next one declares the queue again.
        self.failure.report(BrokerProblem::unreachable(format!("a message came back: {}", returned.reply_text())));
    }
}
