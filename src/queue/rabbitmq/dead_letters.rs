//! The dead-letter queue, for the command line and for administrators: a connection of its own, one message at a time.

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

use super::connection::QueueAddress;
use super::publisher::{REASON_HEADER, reason_header};
use crate::config;
use crate::model::Timestamp;
use crate::queue::dead_letter::{Chosen, DeadLetter, Held, Kept, Place, PutBack, Replayed, id_of};

/// For each answer of the broker.
const TIMEOUT: Duration = Duration::from_secs(5);
/// For what was given back to be in the queue again. The broker does not say when; it is soon.
const BACK_WITHIN: Duration = Duration::from_secs(2);
const BACK_LOOKS: Duration = Duration::from_millis(10);

/// See the module.
pub struct DeadLetters {
    connection: Connection,
    channel: Channel,
    address: QueueAddress,
    confirms: mpsc::UnboundedReceiver<bool>,
    /// Messages that were taken and not acknowledged.
    held: usize,
}

impl DeadLetters {
    pub(in crate::queue) async fn open(settings: &config::RabbitMq) -> Result<Self, String> {
        Self::connect(QueueAddress::new(settings)?).await
    }

    /// Those of the queue at this address.
    pub(super) async fn connect(address: QueueAddress) -> Result<Self, String> {
        let connection =
            address.connect("seckill dead-letters").await.map_err(|problem| format!("RabbitMQ: {problem}"))?;
        let opening = async {
            let channel = connection.open_channel(None).await.map_err(failed)?;
            let (confirmed, confirms) = mpsc::unbounded_channel();
            channel.register_callback(OnConfirm(confirmed)).await.map_err(failed)?;
            channel.confirm_select(ConfirmSelectArguments::default()).await.map_err(failed)?;
            Ok::<_, String>((channel, confirms))
        };
        let (channel, confirms) = tokio::time::timeout(TIMEOUT, opening).await.map_err(|_| no_answer())??;
        Ok(Self { connection, channel, address, confirms, held: 0 })
    }

    /// So many of them, the oldest first; they stay where they are. With them comes how many there are. Which they are if there are
    /// more, the broker decides: those that were looked at before come first.
    pub(in crate::queue) async fn list(&mut self, most: usize) -> Result<(Vec<DeadLetter>, usize), String> {
        let (mut letters, count) = (Vec::new(), self.count().await?);
        for _ in 0..count.min(most) {
            let Some(taken) = self.take().await? else { break };
            letters.push(taken.letter);
        }
        letters.sort_by_cached_key(DeadLetter::position);
        Ok((letters, count))
    }

    /// Takes those of the oldest `most` that have this id in hand. They go back when the connection is closed, unless something else
    /// is done with them.
    pub(in crate::queue) async fn hold(&mut self, id: &str, most: usize) -> Result<Vec<Held>, String> {
        let mut held = Vec::new();
        for _ in 0..self.count().await?.min(most) {
            let Some(taken) = self.take().await? else { break };
            if taken.letter.id == id {
                held.push(taken);
            }
        }
        Ok(held)
    }

    /// Publishes what is to go back and what stays, and takes the letter away once that is confirmed.
    pub(in crate::queue) async fn put_back(&mut self, held: &Held, back: PutBack) -> Result<(), String> {
        let PutBack { message, kept } = back;
        if let Some(message) = message {
            self.publish(self.address.orders.clone(), message, None).await?;
        }
        if let Some(kept) = kept {
            let reason = kept.reason();
            self.publish(self.address.dead.clone(), kept.body, Some(&reason)).await?;
        }
        self.forget(held).await
    }

    /// Takes a letter away for good.
    pub(in crate::queue) async fn forget(&mut self, held: &Held) -> Result<(), String> {
        match held.place {
            Place::Broker(tag) => self.acknowledge(tag).await,
            Place::Journal(_) => Ok(()),
        }
    }

    /// Publishes of each what `readmit` says to the queue of purchases again, and takes it away once that is confirmed.
    pub(in crate::queue) async fn replay(
        &mut self,
        chosen: &Chosen,
        readmit: impl AsyncFn(&DeadLetter) -> Result<PutBack, String>,
    ) -> Result<Replayed, String> {
        let taken = self.take_chosen(chosen).await?;
        let mut replayed = Replayed::default();
        for held in taken {
            let after = |problem| format!("{} put back, then letter {}: {problem}", replayed.letters, held.letter.id);
            let back = readmit(&held.letter).await.map_err(after)?;
            let reason = back.kept.as_ref().map(Kept::reason);
            self.put_back(&held, back).await.map_err(after)?;
            replayed.kept.extend(reason);
            replayed.letters += 1;
        }
        Ok(replayed)
    }

    /// Takes them away for good.
    pub(in crate::queue) async fn remove(&mut self, chosen: &Chosen) -> Result<usize, String> {
        let taken = self.take_chosen(chosen).await?;
        for held in &taken {
            self.forget(held).await?;
        }
        Ok(taken.len())
    }

    /// Returns once the queue has it.
    async fn publish(&mut self, queue: String, body: Vec<u8>, reason: Option<&str>) -> Result<(), String> {
        let mut properties = BasicProperties::default();
        properties.with_content_type("application/json").with_persistence(true);
        if let Some(reason) = reason {
            properties.with_headers(reason_header(reason)).with_timestamp(Timestamp::now().unix_ms() as u64 / 1000);
        }
        let target = BasicPublishArguments::new("", &queue).mandatory(true).finish();
        self.channel.basic_publish(properties.finish(), body, target).await.map_err(failed)?;
        let confirm = tokio::time::timeout(TIMEOUT, self.confirms.recv()).await.map_err(|_| no_answer())?;
        if confirm != Some(true) {
            return Err(format!("the queue {queue} refused it; it stays set aside"));
        }
        Ok(())
    }

    async fn acknowledge(&mut self, tag: u64) -> Result<(), String> {
        self.channel.basic_ack(BasicAckArguments::new(tag, false)).await.map_err(failed)?;
        self.held -= 1;
        Ok(())
    }

    /// Takes all of them and keeps those that are chosen; the others go back when the channel closes.
    async fn take_chosen(&mut self, chosen: &Chosen) -> Result<Vec<Held>, String> {
        // Counted first: what cannot be read comes back while we are at it.
        let count = self.count().await?;
        let (mut ids, mut kept) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let Some(taken) = self.take().await? else { break };
            ids.push(taken.letter.id.clone());
            if chosen.contains(&taken.letter.id) {
                kept.push(taken);
            }
        }
        chosen.check(ids.iter().map(String::as_str))?;
        Ok(kept)
    }

    /// What was not taken away goes back, and the next command finds it there.
    pub(in crate::queue) async fn close(self) {
        let closing = async {
            let _ = self.channel.clone().close().await;
            let _ = tokio::time::timeout(BACK_WITHIN, self.is_back()).await;
            let _ = self.connection.close().await;
        };
        let _ = tokio::time::timeout(TIMEOUT, closing).await;
    }

    /// Returns when what was taken is in the queue again, which is soon after its channel was closed.
    async fn is_back(&self) -> Result<(), String> {
        if self.held == 0 {
            return Ok(());
        }
        let channel = self.connection.open_channel(None).await.map_err(failed)?;
        while self.count_on(&channel).await? < self.held {
            tokio::time::sleep(BACK_LOOKS).await;
        }
        Ok(())
    }

    async fn count(&self) -> Result<usize, String> {
        self.count_on(&self.channel).await
    }

    async fn count_on(&self, channel: &Channel) -> Result<usize, String> {
        let passive = QueueDeclareArguments::new(&self.address.dead).passive(true).finish();
        let declared = tokio::time::timeout(TIMEOUT, channel.queue_declare(passive)).await;
        let declared = declared.map_err(|_| no_answer())?.map_err(failed)?;
        Ok(declared.map_or(0, |(_, messages, _)| messages as usize))
    }

    async fn take(&mut self) -> Result<Option<Held>, String> {
        let get = self.channel.basic_get(BasicGetArguments::new(&self.address.dead));
        let got = tokio::time::timeout(TIMEOUT, get).await.map_err(|_| no_answer())?.map_err(failed)?;
        self.held += usize::from(got.is_some());
        Ok(got.map(|(ok, properties, body)| {
            let key = REASON_HEADER.try_into().ok();
            let reason = match (properties.headers(), key) {
                (Some(headers), Some(key)) => match headers.get(&key) {
                    Some(FieldValue::S(reason)) => Some(reason.to_string()),
                    _ => None,
                },
                _ => None,
            };
            let parked_at = properties.timestamp().and_then(|seconds| Timestamp::from_unix_ms(seconds as i64 * 1000));
            let letter = DeadLetter { id: id_of(&body), parked_at, reason, body };
            Held { letter, place: Place::Broker(ok.delivery_tag()) }
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
