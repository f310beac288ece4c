//! What an endpoint is sent: `{"type":...,"timestamp":...,"data":{...}}`, with the whole object as it was when the event happened.
//!
//! Of an order only a few columns change, and an event says which: the others are read when it is sent. Products and payments are kept
//! with the event.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use crate::db::{ClaimedDelivery, Db, DbConn};
use crate::error::{Error, Result};
use crate::model::{Currency, EventType, Order, OrderId, OrderStatus, Payment, Product, Timestamp, UserId};
use crate::services::catalog::ProductView;
use crate::services::orders::OrderView;
use crate::services::payments::PaymentView;

/// What is to be sent, or why that cannot be said any more.
pub(super) type Body = std::result::Result<String, &'static str>;

#[derive(Serialize)]
struct Document<T> {
    r#type: EventType,
    timestamp: Timestamp,
    data: Data<T>,
}

#[derive(Serialize)]
struct Data<T> {
    #[serde(flatten)]
    object: T,
    sequence: i64,
}

#[derive(Serialize)]
struct BuyersOrder {
    #[serde(flatten)]
    order: OrderView,
    user_id: UserId,
    /// What the account is called; of the shop's own directory, its `sub`.
    username: Option<String>,
}

/// What is read for some deliveries.
#[derive(Default)]
pub(super) struct Facts {
    orders: HashMap<OrderId, Order>,
    names: HashMap<UserId, String>,
}

impl Facts {
    /// For these.
    pub(super) async fn read(db: &Db, claimed: &[ClaimedDelivery]) -> Result<Self> {
        let of_orders = claimed.iter().filter(|delivery| delivery.event_type.order_status().is_some());
        let mut ids: Vec<OrderId> = of_orders.filter_map(|delivery| delivery.object().try_into().ok()).collect();
        if ids.is_empty() {
            return Ok(Self::default());
        }
        ids.sort_unstable();
        ids.dedup();
        db.run_first(move |conn| Box::pin(async move { read(conn, &ids).await })).await
    }

    /// The body of one of them. `currency`: the shop's own.
    pub(super) fn body(&self, delivery: &ClaimedDelivery, currency: Currency) -> Body {
        let Some(at) = delivery.at else { return Err("the event is not kept any more") };
        match delivery.event_type {
            EventType::OrderCreated
            | EventType::OrderPaid
            | EventType::OrderCancelled
            | EventType::OrderExpired
            | EventType::OrderRejected => {
                let id: Option<OrderId> = delivery.object().try_into().ok();
                let order = id.and_then(|id| self.orders.get(&id)).ok_or("the order is gone, or cannot be read")?;
                let (user_id, username) = (order.user_id, self.names.get(&order.user_id).cloned());
                let order = OrderView::of(as_it_was(order.clone(), delivery.event_type, at), currency);
                document(delivery, at, BuyersOrder { order, user_id, username })
            }
            EventType::PaymentRefundDue => {
                let payment: Payment = snapshot(delivery)?;
                let currency = payment.currency.unwrap_or(currency);
                document(delivery, at, PaymentView::of(payment, currency, None))
            }
            EventType::ProductChanged => {
                document(delivery, at, ProductView::new(snapshot::<Product>(delivery)?, None, at, currency).at(at))
            }
            EventType::ProductSoldOut => {
                let product: Product = snapshot(delivery)?;
                document(delivery, at, ProductView::new(product, None, at, currency).at(at).sold_out())
            }
            EventType::WebhookTest => document(delivery, at, snapshot::<Value>(delivery)?),
        }
    }
}

async fn read(conn: &mut DbConn, ids: &[OrderId]) -> Result<Facts> {
    let uuids: Vec<Uuid> = ids.iter().map(|id| (*id).into()).collect();
    let orders = conn.find_orders(&uuids).await?;
    let mut users: Vec<UserId> = orders.iter().map(|order| order.user_id).collect();
    users.sort_unstable();
    users.dedup();
    let names = conn.names_of(&users).await?;
    let orders = orders.into_iter().map(|order| (order.id, order)).collect();
    Ok::<_, Error>(Facts { orders, names })
}

/// An order as an event has left it.
fn as_it_was(mut order: Order, event_type: EventType, at: Timestamp) -> Order {
    let Some(status) = event_type.order_status() else { return order };
    if order.status != status || order.updated_at > at {
        order.updated_at = at.max(order.created_at);
    }
    order.status = status;
    order.paid_at =
        order.paid_at.filter(|paid_at| matches!(status, OrderStatus::Paid | OrderStatus::Cancelled) && *paid_at <= at);
    order.reason = order.reason.filter(|_| status == OrderStatus::Rejected);
    order
}

fn snapshot<T: serde::de::DeserializeOwned>(delivery: &ClaimedDelivery) -> std::result::Result<T, &'static str> {
    let kept = delivery.snapshot.as_deref().and_then(|json| serde_json::from_str(json).ok());
    kept.ok_or("what is kept of the event cannot be read")
}

fn document(delivery: &ClaimedDelivery, timestamp: Timestamp, object: impl Serialize) -> Body {
    let data = Data { object, sequence: delivery.sequence };
    let document = Document { r#type: delivery.event_type, timestamp, data };
    serde_json::to_string(&document).map_err(|_| "the event cannot be written as JSON")
}

/// `webhook-id`, and the event's id in lists.
pub(super) fn event_name(event: Uuid) -> String {
    format!("evt_{}", event.simple())
}

/// The object that an event is about, as its own pages name it.
pub(super) fn object_name(event_type: EventType, object: Uuid) -> Value {
    match event_type {
        EventType::ProductChanged | EventType::ProductSoldOut | EventType::WebhookTest => {
            Value::from(object.as_u128() as i64)
        }
        _ => Value::from(object.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Quantity, RejectReason};

    fn order(status: OrderStatus, updated_at: i64, paid_at: Option<i64>) -> Order {
        let at = |ms| Timestamp::from_unix_ms(ms).unwrap();
        Order {
            id: OrderId::draw(7.try_into().unwrap()),
            user_id: 1.try_into().unwrap(),
            product_id: 7.try_into().unwrap(),
            product_name: "Sneaker".to_owned(),
            price_cents: 5,
            revision: 1,
            status,
            reason: Some(RejectReason::SoldOut),
            created_at: at(1_000),
            updated_at: at(updated_at),
            quantity: Quantity::ONE,
            paid_at: paid_at.map(at),
            currency: None,
            payment_window: None,
        }
    }

    #[test]
    fn an_order_is_told_as_it_was_whatever_has_become_of_it_since() {
        use OrderStatus::{Cancelled, Expired, Paid, Rejected, Unpaid};
        let at = |ms| Timestamp::from_unix_ms(ms).unwrap();
        for (now, event_type, event_at, status, updated_at, paid_at) in [
            (order(Unpaid, 1_005, None), EventType::OrderCreated, 1_006, Unpaid, 1_005, None),
            (order(Paid, 9_000, Some(9_000)), EventType::OrderCreated, 1_006, Unpaid, 1_006, None),
            (order(Paid, 9_000, Some(9_000)), EventType::OrderPaid, 9_000, Paid, 9_000, Some(9_000)),
            (order(Cancelled, 9_500, Some(9_000)), EventType::OrderPaid, 9_000, Paid, 9_000, Some(9_000)),
            (order(Cancelled, 9_500, Some(9_000)), EventType::OrderCancelled, 9_500, Cancelled, 9_500, Some(9_000)),
            // Paid late, after it had died.
            (order(Paid, 9_900, Some(9_900)), EventType::OrderCancelled, 9_500, Cancelled, 9_500, None),
            (order(Paid, 9_900, Some(9_900)), EventType::OrderExpired, 9_500, Expired, 9_500, None),
        ] {
            let was = as_it_was(now, event_type, at(event_at));
            assert_eq!(
                (was.status, was.updated_at, was.paid_at),
                (status, at(updated_at), paid_at.map(at)),
                "{event_type:?}"
            );
            assert_eq!(was.reason, None);
        }
        let rejected = as_it_was(order(Rejected, 1_005, None), EventType::OrderRejected, at(1_005));
        assert_eq!(rejected.reason, Some(RejectReason::SoldOut));
    }

    #[test]
    fn an_event_names_its_object_as_the_pages_do() {
        let id = Uuid::now_v7();
        assert_eq!(object_name(EventType::OrderPaid, id), id.to_string());
        assert_eq!(object_name(EventType::ProductChanged, Uuid::from_u128(7)), 7);
        assert_eq!(event_name(Uuid::from_u128(7)), "evt_00000000000000000000000000000007");
    }
}
