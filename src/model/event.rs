//! What the shop is told of by webhooks: the types of events, and what can become of a delivery.

use diesel::deserialize::FromSqlRow;
use diesel::expression::AsExpression;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{OrderStatus, text_column};

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, AsExpression, FromSqlRow, ToSchema)]
#[diesel(sql_type = diesel::sql_types::Text)]
pub enum EventType {
    /// An order is written: what was promised exists.
    #[serde(rename = "order.created")]
    OrderCreated,
    /// An order is paid.
    #[serde(rename = "order.paid")]
    OrderPaid,
    /// An order is cancelled.
    #[serde(rename = "order.cancelled")]
    OrderCancelled,
    /// An order was not paid in time.
    #[serde(rename = "order.expired")]
    OrderExpired,
    /// An admitted purchase could not become an order.
    #[serde(rename = "order.rejected")]
    OrderRejected,
    /// Money must be given back.
    #[serde(rename = "payment.refund_due")]
    PaymentRefundDue,
    /// A product was made or changed.
    #[serde(rename = "product.changed")]
    ProductChanged,
    /// The last unit of a product is taken.
    #[serde(rename = "product.sold_out")]
    ProductSoldOut,
    /// Somebody tries an endpoint out. Nobody registers for it.
    #[serde(rename = "webhook.test")]
    WebhookTest,
}

text_column!(EventType {
    EventType::OrderCreated => "order.created",
    EventType::OrderPaid => "order.paid",
    EventType::OrderCancelled => "order.cancelled",
    EventType::OrderExpired => "order.expired",
    EventType::OrderRejected => "order.rejected",
    EventType::PaymentRefundDue => "payment.refund_due",
    EventType::ProductChanged => "product.changed",
    EventType::ProductSoldOut => "product.sold_out",
    EventType::WebhookTest => "webhook.test",
});

impl EventType {
    /// All that an endpoint can be registered for.
    pub const ALL: [Self; 8] = [
        Self::OrderCreated,
        Self::OrderPaid,
        Self::OrderCancelled,
        Self::OrderExpired,
        Self::OrderRejected,
        Self::PaymentRefundDue,
        Self::ProductChanged,
        Self::ProductSoldOut,
    ];

    /// What an order that comes to a status is told as.
    pub fn of_order(status: OrderStatus) -> Option<Self> {
        match status {
            OrderStatus::Queued => None,
            OrderStatus::Unpaid => Some(Self::OrderCreated),
            OrderStatus::Paid => Some(Self::OrderPaid),
            OrderStatus::Cancelled => Some(Self::OrderCancelled),
            OrderStatus::Expired => Some(Self::OrderExpired),
            OrderStatus::Rejected => Some(Self::OrderRejected),
        }
    }

    /// The status of an order that is told as this.
    pub fn order_status(self) -> Option<OrderStatus> {
        match self {
            Self::OrderCreated => Some(OrderStatus::Unpaid),
            Self::OrderPaid => Some(OrderStatus::Paid),
            Self::OrderCancelled => Some(OrderStatus::Cancelled),
            Self::OrderExpired => Some(OrderStatus::Expired),
            Self::OrderRejected => Some(OrderStatus::Rejected),
            Self::PaymentRefundDue | Self::ProductChanged | Self::ProductSoldOut | Self::WebhookTest => None,
        }
    }

    fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// Some of the types.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EventTypes(u16);

impl EventTypes {
    /// Every one.
    pub fn all() -> Self {
        EventType::ALL.into_iter().collect()
    }

    /// As one number, to be kept where many look.
    pub fn bits(self) -> u16 {
        self.0
    }

    /// What [`EventTypes::bits`] stands for.
    pub fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// Whether this type is one of them.
    pub fn contains(self, event_type: EventType) -> bool {
        self.0 & event_type.bit() != 0
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// They, in the order of [`EventType::ALL`].
    pub fn iter(self) -> impl Iterator<Item = EventType> {
        EventType::ALL.into_iter().filter(move |event_type| self.contains(*event_type))
    }

    /// As a row holds them: names, with spaces between them.
    pub fn stored(self) -> String {
        self.iter().map(EventType::as_str).collect::<Vec<_>>().join(" ")
    }

    /// What a row holds. A name that nobody knows here is of a later version.
    pub fn from_stored(text: &str) -> Self {
        text.split(' ').filter_map(|name| name.parse().ok()).collect()
    }
}

impl FromIterator<EventType> for EventTypes {
    fn from_iter<I: IntoIterator<Item = EventType>>(types: I) -> Self {
        Self(types.into_iter().fold(0, |bits, event_type| bits | event_type.bit()))
    }
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, AsExpression, FromSqlRow, ToSchema)]
#[diesel(sql_type = diesel::sql_types::Text)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryStatus {
    /// It is tried, and will be tried again.
    Pending,
    /// The endpoint took it.
    Delivered,
    /// It is given up.
    Failed,
}

text_column!(DeliveryStatus {
    DeliveryStatus::Pending => "pending",
    DeliveryStatus::Delivered => "delivered",
    DeliveryStatus::Failed => "failed",
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_kept_as_their_names_and_as_bits() {
        let some: EventTypes = [EventType::ProductSoldOut, EventType::OrderPaid].into_iter().collect();
        assert_eq!(some.stored(), "order.paid product.sold_out");
        assert_eq!(EventTypes::from_stored("product.sold_out order.returned order.paid"), some);
        assert_eq!(EventTypes::from_bits(some.bits()), some);
        assert!(some.contains(EventType::OrderPaid) && !some.contains(EventType::OrderCreated));
        assert!(EventTypes::from_stored("").is_empty());
        assert_eq!(EventTypes::all().iter().collect::<Vec<_>>(), EventType::ALL);
        assert!(!EventTypes::all().contains(EventType::WebhookTest));
        assert!(EventTypes::all().stored().len() < 512, "the column takes so many");
    }

    #[test]
    fn json_and_rows_have_the_same_names() {
        for event_type in EventType::ALL.into_iter().chain([EventType::WebhookTest]) {
            assert_eq!(serde_json::to_value(event_type).unwrap(), event_type.as_str());
            assert_eq!(event_type.as_str().parse(), Ok(event_type));
            if let Some(status) = event_type.order_status() {
                assert_eq!(EventType::of_order(status), Some(event_type));
            }
        }
    }
}
