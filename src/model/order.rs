//! Orders and what can become of them.

use diesel::deserialize::FromSqlRow;
use diesel::expression::AsExpression;
use diesel::prelude::Queryable;
use serde::Serialize;

use super::{AtLeastZero, OrderId, ProductId, Timestamp, UserId, text_column};

/// Where an order stands. Live (holds a unit): `unpaid`, `paid`. Dead: the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, AsExpression, FromSqlRow)]
#[diesel(sql_type = diesel::sql_types::Text)]
#[serde(rename_all = "lowercase")]
pub enum OrderStatus {
    /// Admitted at the gate, not yet written. Never stored.
    Queued,
    /// Written, waits for its payment.
    Unpaid,
    /// Paid for.
    Paid,
    /// Given up by the buyer.
    Cancelled,
    /// Not paid in time.
    Expired,
    /// Admitted at a gate but could not become an order; the unit went back on sale. Nobody was promised it.
    Rejected,
}

text_column!(OrderStatus {
    OrderStatus::Queued => "queued",
    OrderStatus::Unpaid => "unpaid",
    OrderStatus::Paid => "paid",
    OrderStatus::Cancelled => "cancelled",
    OrderStatus::Expired => "expired",
    OrderStatus::Rejected => "rejected",
});

impl OrderStatus {
    /// Whether the order holds a unit.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Unpaid | Self::Paid)
    }
}

/// Why an admitted purchase could not become an order. Stored with it, so its words stay; a buyer who is not promised anything
/// gets a [`super::Denial`] instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, AsExpression, FromSqlRow)]
#[diesel(sql_type = diesel::sql_types::Text)]
#[serde(rename_all = "snake_case")]
pub enum RejectReason {
    /// It came from a gate that has been rebuilt since.
    Late,
    /// The buyer has another live order for the product.
    AlreadyPurchased,
    /// No unit remains in the database.
    SoldOut,
}

text_column!(RejectReason {
    RejectReason::Late => "late",
    RejectReason::AlreadyPurchased => "already_purchased",
    RejectReason::SoldOut => "sold_out",
});

/// An order as its buyer sees it.
#[derive(Debug, Clone, Serialize, Queryable)]
pub struct Order {
    /// Its id.
    pub id: OrderId,
    /// Whose it is.
    #[serde(skip)]
    pub user_id: UserId,
    /// What was bought.
    pub product_id: ProductId,
    /// What it was called at the reservation, a moment after the click.
    pub product_name: String,
    /// The price that binds, in minor units: that of the reservation.
    #[diesel(deserialize_as = AtLeastZero)]
    pub price_cents: i64,
    /// The product's revision at the reservation; 0: the order is older than revisions.
    pub revision: i64,
    /// Where it stands.
    pub status: OrderStatus,
    /// Why it was rejected.
    pub reason: Option<RejectReason>,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When the status last changed.
    pub updated_at: Timestamp,
}
