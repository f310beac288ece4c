//! Orders as they are shown.

use serde::Serialize;
use utoipa::ToSchema;

use crate::model::{Currency, Order, OrderId, OrderStatus, ProductId, Quantity, RejectReason, Timestamp, UserId};

/// An order as its buyer sees it.
#[derive(Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Order)]
pub struct OrderView {
    pub(in crate::services) id: OrderId,
    #[serde(skip)]
    pub(in crate::services) user_id: UserId,
    pub(in crate::services) product_id: ProductId,
    pub(in crate::services) product_name: String,
    pub(in crate::services) price_cents: i64,
    pub(in crate::services) quantity: Quantity,
    pub(in crate::services) total_cents: i64,
    pub(in crate::services) currency: Currency,
    pub(in crate::services) revision: i64,
    pub(in crate::services) status: OrderStatus,
    #[schema(required)]
    pub(in crate::services) reason: Option<RejectReason>,
    pub(in crate::services) created_at: Timestamp,
    pub(in crate::services) updated_at: Timestamp,
    /// When it must be paid, whatever became of it since; `null`: it need not be.
    #[schema(required)]
    pub(in crate::services) expires_at: Option<Timestamp>,
    #[schema(required)]
    pub(in crate::services) paid_at: Option<Timestamp>,
}

impl OrderView {
    /// `currency`: the shop's own, for orders from before there were others.
    pub(in crate::services) fn of(order: Order, currency: Currency) -> Self {
        Self {
            total_cents: order.total_cents(),
            expires_at: order.expires_at(),
            id: order.id,
            user_id: order.user_id,
            product_id: order.product_id,
            product_name: order.product_name,
            price_cents: order.price_cents,
            quantity: order.quantity,
            currency: order.currency.unwrap_or(currency),
            revision: order.revision,
            status: order.status,
            reason: order.reason,
            created_at: order.created_at,
            updated_at: order.updated_at,
            paid_at: order.paid_at,
        }
    }
}
