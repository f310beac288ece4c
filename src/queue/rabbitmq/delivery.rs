//! A delivered message until it is acknowledged or set aside in the dead-letter queue.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use amqprs::channel::{BasicAckArguments, Channel, ConsumerMessage};
use tokio::sync::Mutex;

use super::depth::DepthKept;
use super::failure::Failure;
use super::unconfirmed::{CONFIRM_TIMEOUT, Destination, Unconfirmed};
use crate::queue::message::{self, MessagePart};
use crate::queue::report::PublishError;
use crate::telemetry::LogThrottle;

/// Lines about messages that are set aside.
static SET_ASIDE: LogThrottle = LogThrottle::each_second();
/// Between two attempts to set a message aside.
const SET_ASIDE_PAUSE: Duration = Duration::from_millis(200);
/// Whoever sets a message aside waits this long until it is in the dead-letter queue.
const SET_ASIDE_TIMEOUT: Duration = Duration::from_secs(1);
/// How often the log says that a message cannot be set aside.
const SET_ASIDE_LOGGED_EVERY: Duration = Duration::from_secs(60);

/// A message as it was delivered on one connection, or what is of one product in it. After that has failed it comes again on the
/// next one.
pub struct DeliveredPart {
    message: MessagePart,
    raw: Arc<RawDelivery>,
    delivered_at: Option<Instant>,
}

/// What acknowledges or sets aside one delivered message. All its parts share it.
pub(super) struct RawDelivery {
    body: Vec<u8>,
    /// Its products that are neither written nor set aside. It is acknowledged with the last of them.
    unfinished: AtomicUsize,
    tag: u64,
    redelivered: bool,
    unacked: Arc<Unacked>,
    unconfirmed: Arc<Unconfirmed>,
}

/// What was delivered on one connection and is not acknowledged. One frame acknowledges all that came before, if nothing among
/// them is missing; to the broker each frame is an entry in the log of its queue.
pub(super) struct Unacked {
    tags: Mutex<BTreeSet<u64>>,
    channel: Channel,
    failure: Failure,
    depth: Arc<DepthKept>,
}

impl DeliveredPart {
    /// What is in a message, product by product.
    pub(super) fn of(messages: Vec<MessagePart>, mut raw: RawDelivery) -> impl Iterator<Item = Self> {
        if messages.len() > 1 {
            // Each product has what is its own.
            raw.body = Vec::new();
        }
        raw.unfinished = messages.len().into();
        let raw = Arc::new(raw);
        messages.into_iter().map(move |message| {
            let is_traced = matches!(&message, MessagePart::Purchases(group) if !group.traced.is_empty());
            Self { message, raw: raw.clone(), delivered_at: is_traced.then(Instant::now) }
        })
    }

    pub(in crate::queue) fn message(&self) -> &MessagePart {
        &self.message
    }

    pub(in crate::queue) fn delivered_at(&self) -> Option<Instant> {
        self.delivered_at
    }

    pub(in crate::queue) fn is_in_order(&self) -> bool {
        !self.raw.redelivered && !self.is_given_back()
    }

    pub(in crate::queue) fn is_given_back(&self) -> bool {
        self.raw.unacked.failure.token().is_cancelled()
    }

    pub(in crate::queue) async fn ack_all(deliveries: &[Self]) {
        // After a connection has failed, a write batch may hold deliveries of two.
        for of_one_connection in deliveries.chunk_by(|a, b| Arc::ptr_eq(&a.raw.unacked, &b.raw.unacked)) {
            let done = of_one_connection.iter().filter(|delivery| delivery.raw.finish_one());
            let tags = done.map(|delivery| delivery.raw.tag).collect();
            of_one_connection[0].raw.unacked.ack(tags).await;
        }
    }

    pub(in crate::queue) async fn set_aside(self, reason: &str) {
        let body = match self.message {
            MessagePart::Purchases(group) if self.raw.body.is_empty() => message::encode(&group),
            // As it came: it may hold what this program does not know.
            _ => self.raw.body.clone(),
        };
        self.raw.set_body_aside(body, reason).await;
    }
}

impl Unacked {
    pub(super) fn new(channel: Channel, failure: Failure, depth: Arc<DepthKept>) -> Self {
        depth.unacknowledged(0);
        Self { tags: Mutex::default(), channel, failure, depth }
    }

    /// Notes a delivery.
    async fn add(&self, tag: u64) {
        let mut tags = self.tags.lock().await;
        tags.insert(tag);
        self.depth.unacknowledged(tags.len());
    }

    /// Acknowledges deliveries. A failed connection has given them back already: they come again, and are found to be done.
    async fn ack(&self, done: Vec<u64>) {
        // Held until all is sent: the broker closes a channel on which a tag is acknowledged twice.
        let mut tags = self.tags.lock().await;
        if self.failure.token().is_cancelled() {
            return;
        }
        for tag in &done {
            tags.remove(tag);
        }
        self.depth.unacknowledged(tags.len());
        let first_unacked = tags.first().copied().unwrap_or(u64::MAX);
        let (before, behind): (Vec<u64>, Vec<u64>) = done.into_iter().partition(|tag| *tag < first_unacked);
        let up_to = before.into_iter().max().map(|tag| (tag, true));
        for (tag, multiple) in up_to.into_iter().chain(behind.into_iter().map(|tag| (tag, false))) {
            if let Err(error) = self.channel.basic_ack(BasicAckArguments::new(tag, multiple)).await {
                tracing::debug!(%error, "Could not acknowledge deliveries");
            }
        }
    }
}

impl RawDelivery {
    /// Takes note of a message as the library hands it over; `None`: it is none.
    pub(super) async fn open(
        message: ConsumerMessage,
        unacked: &Arc<Unacked>,
        unconfirmed: &Arc<Unconfirmed>,
    ) -> Option<Self> {
        let ConsumerMessage { deliver: Some(deliver), content: Some(body), .. } = message else { return None };
        crash_point!("consume");
        let (tag, redelivered) = (deliver.delivery_tag(), deliver.redelivered());
        unacked.add(tag).await;
        let (unacked, unconfirmed) = (unacked.clone(), unconfirmed.clone());
        Some(Self { body, unfinished: AtomicUsize::new(1), tag, redelivered, unacked, unconfirmed })
    }

    pub(super) fn body(&self) -> &[u8] {
        &self.body
    }

    /// One of its products is finished; whether it was the last.
    fn finish_one(&self) -> bool {
        self.unfinished.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Sets a message aside that cannot be read.
    pub(super) async fn set_aside(mut self, reason: &str) {
        let body = std::mem::take(&mut self.body);
        Arc::new(self).set_body_aside(body, reason).await;
    }

    /// Copied with a confirm first, acknowledged afterwards: a crash in between leaves two copies, never none.
    ///
    /// Where that does not succeed, because the dead-letter queue is full or no message is taken, it goes on by itself:
    /// the message stays unacknowledged, so it is not lost, and others are written meanwhile.
    async fn set_body_aside(self: Arc<Self>, body: Vec<u8>, reason: &str) {
        let failed = self.unacked.failure.token().clone();
        let reason = reason.to_owned();
        let setting_aside =
            tokio::spawn(async move { failed.run_until_cancelled(self.copy_to_dead_letters(body, reason)).await });
        let _ = tokio::time::timeout(SET_ASIDE_TIMEOUT, setting_aside).await;
    }

    async fn copy_to_dead_letters(&self, body: Vec<u8>, reason: String) {
        let depth = self.unacked.depth.clone();
        let _counted = depth.being_set_aside();
        let mut logged_at: Option<Instant> = None;
        let send = || self.unconfirmed.send_and_wait(Destination::Dead, body.clone(), Some(reason.clone()));
        let mut sending = Box::pin(send());
        loop {
            let problem = match tokio::time::timeout(CONFIRM_TIMEOUT, &mut sending).await {
                Ok(Ok(())) => break,
                Ok(Err(problem)) => {
                    tokio::time::sleep(SET_ASIDE_PAUSE).await;
                    sending = Box::pin(send());
                    problem
                }
                // Still under way: another copy would be one dead letter more.
                Err(_) => PublishError::Unclear,
            };
            if logged_at.is_none_or(|at| at.elapsed() > SET_ASIDE_LOGGED_EVERY) && depth.may_log(SET_ASIDE_LOGGED_EVERY)
            {
                logged_at = Some(Instant::now());
                tracing::error!(
                    problem = problem.to_string(),
                    "A message that cannot be written cannot be set aside either. Is the dead-letter queue full? \
                     `seckill dead-letters` empties it; the message stays where it is"
                );
            }
        }
        if let Some(untold) = SET_ASIDE.now() {
            let bytes = body.len();
            tracing::error!(
                reason,
                bytes,
                untold,
                "Set a message aside in the dead-letter queue; see `seckill dead-letters list`"
            );
        }
        if self.finish_one() {
            self.unacked.ack(vec![self.tag]).await;
        }
    }
}
