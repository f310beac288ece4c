//! The dead-letter queue, for the command line: a connection of its own, one message at a time.

use std::time::Duration;

use amqprs::callbacks::ChannelCallback;
use amqprs::channel::{
    BasicAckArguments, BasicGetArguments, BasicPublishArguments, Channel, ConfirmSelectArguments, QueueDeclareArguments,
};
use amqprs::connection::Connection;
use amqprs::error::Error as AmqpError;
use amqprs::{Ack, BasicProperties, Cancel, CloseChannel, FieldValue, Nack, Return};
use async_trait::async_trait;
use tokio::sync::mpsc;

use super::link::{REASON_HEADER, parse_url};
use crate::config;
use crate::queue::DeadLetter;

/// For each answer of the broker.
const TIMEOUT: Duration = Duration::from_secs(5);

/// See the module.
pub struct DeadLetters {
    connection: Connection,
    channel: Channel,
    orders: String,
    dead: String,
    confirms: mpsc::UnboundedReceiver<bool>,
}

/// A message that was taken and is given back unless it is acknowledged.
struct Taken {
    letter: DeadLetter,
    tag: u64,
}

impl DeadLetters {
    pub(in crate::queue) async fn open(settings: &config::RabbitMq) -> Result<Self, String> {
        let opening = async {
            let connection = Connection::open(&parse_url(&settings.url)?).await.map_err(failed)?;
            let channel = connection.open_channel(None).await.map_err(failed)?;
            let (confirmed, confirms) = mpsc::unbounded_channel();
            channel.register_callback(OnConfirm(confirmed)).await.map_err(failed)?;
            channel.confirm_select(ConfirmSelectArguments::default()).await.map_err(failed)?;
            let (orders, dead) = (settings.queue.clone(), format!("{}.dead", settings.queue));
            Ok(Self { connection, channel, orders, dead, confirms })
        };
        tokio::time::timeout(TIMEOUT, opening).await.map_err(|_| no_answer())?
    }

    /// All of them; they stay where they are.
    pub(in crate::queue) async fn list(&mut self) -> Result<Vec<DeadLetter>, String> {
        let mut letters = Vec::new();
        for _ in 0..self.count().await? {
            let Some(taken) = self.take().await? else { break };
            letters.push(taken.letter);
        }
        Ok(letters)
    }

    /// Publishes each to the queue of purchases again, and takes it away once that is confirmed.
    pub(in crate::queue) async fn replay(&mut self) -> Result<usize, String> {
        // Counted first: what cannot be read comes back while we are at it.
        let count = self.count().await?;
        for done in 0..count {
            let Some(Taken { letter, tag }) = self.take().await? else { return Ok(done) };
            let properties =
                BasicProperties::default().with_content_type("application/json").with_persistence(true).finish();
            let target = BasicPublishArguments::new("", &self.orders).mandatory(true).finish();
            self.channel.basic_publish(properties, letter.body, target).await.map_err(failed)?;
            let confirm = tokio::time::timeout(TIMEOUT, self.confirms.recv()).await.map_err(|_| no_answer())?;
            if confirm != Some(true) {
                return Err(format!("the queue {} refused message {}; it stays set aside", self.orders, done + 1));
            }
            self.channel.basic_ack(BasicAckArguments::new(tag, false)).await.map_err(failed)?;
        }
        Ok(count)
    }

    /// Takes them away for good.
    pub(in crate::queue) async fn drop_all(&mut self) -> Result<usize, String> {
        let count = self.count().await?;
        for done in 0..count {
            let Some(taken) = self.take().await? else { return Ok(done) };
            self.channel.basic_ack(BasicAckArguments::new(taken.tag, false)).await.map_err(failed)?;
        }
        Ok(count)
    }

    pub(in crate::queue) async fn close(self) {
        let closing = async {
            let _ = self.channel.close().await;
            let _ = self.connection.close().await;
        };
        let _ = tokio::time::timeout(TIMEOUT, closing).await;
    }

    async fn count(&self) -> Result<usize, String> {
        let passive = QueueDeclareArguments::new(&self.dead).passive(true).finish();
        let declared = tokio::time::timeout(TIMEOUT, self.channel.queue_declare(passive)).await;
        let declared = declared.map_err(|_| no_answer())?.map_err(failed)?;
        Ok(declared.map_or(0, |(_, messages, _)| messages as usize))
    }

    async fn take(&self) -> Result<Option<Taken>, String> {
        let get = self.channel.basic_get(BasicGetArguments::new(&self.dead));
        let got = tokio::time::timeout(TIMEOUT, get).await.map_err(|_| no_answer())?.map_err(failed)?;
        Ok(got.map(|(ok, properties, body)| {
            let key = REASON_HEADER.try_into().ok();
            let reason = match (properties.headers(), key) {
                (Some(headers), Some(key)) => match headers.get(&key) {
                    Some(FieldValue::S(reason)) => Some(reason.to_string()),
                    _ => None,
                },
                _ => None,
            };
            Taken { letter: DeadLetter { reason, body }, tag: ok.delivery_tag() }
        }))
    }
}

fn failed(error: AmqpError) -> String {
    format!("RabbitMQ: {error}")
}

fn no_answer() -> String {
    format!("RabbitMQ did not answer within {TIMEOUT:?}")
}

/// Passes on whether the broker has kept what was published.
struct OnConfirm(mpsc::UnboundedSender<bool>);

#[async_trait]
impl ChannelCallback for OnConfirm {
    async fn close(&mut self, _: &Channel, _: CloseChannel) -> Result<(), AmqpError> {
        let _ = self.0.send(false);
        Ok(())
    }

    async fn cancel(&mut self, _: &Channel, _: Cancel) -> Result<(), AmqpError> {
        Ok(())
    }

    async fn flow(&mut self, _: &Channel, active: bool) -> Result<bool, AmqpError> {
        Ok(active)
    }

    async fn publish_ack(&mut self, _: &Channel, _: Ack) {
        let _ = self.0.send(true);
    }

    async fn publish_nack(&mut self, _: &Channel, _: Nack) {
        let _ = self.0.send(false);
    }

    async fn publish_return(&mut self, _: &Channel, _: Return, _: BasicProperties, _: Vec<u8>) {
        // Comes before the confirm that would be taken for a success.
        let _ = self.0.send(false);
    }
}
