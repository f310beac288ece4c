//! A message from the queue of either backend, until it is acknowledged or set aside.

use std::time::Instant;

use super::message::MessagePart;
use super::{embedded, rabbitmq};
use crate::model::Purchase;

/// A message from the queue, to be acknowledged once its purchases are in the database.
pub enum Delivery {
    /// From this process.
    Embedded(embedded::DeliveredGroup),
    /// From RabbitMQ.
    RabbitMq(rabbitmq::DeliveredPart),
}

impl From<embedded::DeliveredGroup> for Delivery {
    fn from(delivery: embedded::DeliveredGroup) -> Self {
        Self::Embedded(delivery)
    }
}

impl From<rabbitmq::DeliveredPart> for Delivery {
    fn from(delivery: rabbitmq::DeliveredPart) -> Self {
        Self::RabbitMq(delivery)
    }
}

impl AsRef<MessagePart> for Delivery {
    fn as_ref(&self) -> &MessagePart {
        self.message()
    }
}

impl Delivery {
    /// What was delivered.
    pub fn message(&self) -> &MessagePart {
        match self {
            Self::Embedded(delivery) => delivery.message(),
            Self::RabbitMq(delivery) => delivery.message(),
        }
    }

    /// Whether the broker has it back: it comes again. To acknowledge it does nothing any more.
    pub fn is_given_back(&self) -> bool {
        match self {
            Self::Embedded(_) => false,
            Self::RabbitMq(delivery) => delivery.is_given_back(),
        }
    }

    /// The purchases in it; none in a barrier.
    pub fn purchases(&self) -> &[Purchase] {
        match self.message() {
            MessagePart::Purchases(group) => &group.items,
            MessagePart::Barrier(_) => &[],
        }
    }

    /// What carried it, in the word that traces have for it.
    pub fn system(&self) -> &'static str {
        match self {
            Self::Embedded(_) => super::EMBEDDED,
            Self::RabbitMq(_) => super::RABBITMQ,
        }
    }

    /// When it came, if one of its purchases is traced.
    pub fn delivered_at(&self) -> Option<Instant> {
        match self {
            Self::Embedded(delivery) => delivery.delivered_at(),
            Self::RabbitMq(delivery) => delivery.delivered_at(),
        }
    }

    /// Whether everything that was published before it has certainly been delivered before it. False if it was delivered
    /// before, or has to be again because its connection has failed: the queue hands out returned messages in the order in which
    /// they were returned, not published.
    pub fn is_in_order(&self) -> bool {
        match self {
            Self::Embedded(_) => true,
            Self::RabbitMq(delivery) => delivery.is_in_order(),
        }
    }

    /// Tells the queue to forget these: their purchases are in the database.
    pub async fn ack_all(deliveries: Vec<Self>) {
        let mut from_rabbitmq = Vec::new();
        for delivery in deliveries {
            match delivery {
                Self::Embedded(delivery) => delivery.ack(),
                Self::RabbitMq(delivery) => from_rabbitmq.push(delivery),
            }
        }
        rabbitmq::DeliveredPart::ack_all(&from_rabbitmq).await;
    }

    /// Makes a dead letter of a message whose purchases can never become orders.
    pub async fn set_aside(self, reason: &str) {
        match self {
            Self::Embedded(delivery) => delivery.set_aside(reason),
            Self::RabbitMq(delivery) => delivery.set_aside(reason).await,
        }
    }
}
