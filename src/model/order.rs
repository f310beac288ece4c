//! Orders and what can become of them.

use diesel::deserialize::FromSqlRow;
use diesel::expression::AsExpression;
use diesel::prelude::Queryable;
use serde::Serialize;
use utoipa::ToSchema;

use super::{AtLeastZero, Currency, OrderId, PaymentWindow, ProductId, Quantity, Timestamp, UserId, text_column};

/// Where an order stands. Live (holds a unit): `unpaid`, `paid`. Dead: the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, AsExpression, FromSqlRow, ToSchema)]
#[diesel(sql_type = diesel::sql_types::Text)]
#[serde(rename_all = "lowercase")]
pub enum OrderStatus {
    /// Admitted at the gate, not yet written. Never stored.
    Queued,
    /// Written, waits for its payment.
    Unpaid,
    /// Paid for.
    Paid,
    /// Given up by its buyer, or called off by the merchant.
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

/// Who changes an order. Stored with each change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, AsExpression, FromSqlRow, ToSchema)]
#[diesel(sql_type = diesel::sql_types::Text)]
#[serde(rename_all = "lowercase")]
pub enum ChangedBy {
    /// Whose order it is.
    Buyer,
    /// An administrator.
    Admin,
    /// The time to pay is over.
    Expiry,
    /// Who takes the money says so.
    Provider,
    /// A repair of ours.
    System,
}

text_column!(ChangedBy {
    ChangedBy::Buyer => "buyer",
    ChangedBy::Admin => "admin",
    ChangedBy::Expiry => "expiry",
    ChangedBy::Provider => "provider",
    ChangedBy::System => "system",
});

/// Everything that can become of an order once it is written, by whom, and, of a dead one, who must have ended it: what the merchant
/// or the provider has ended stays so. A rejected order stays what it is, too.
const TRANSITIONS: [(OrderStatus, OrderStatus, &[ChangedBy], Option<ChangedBy>); 6] = [
    (OrderStatus::Unpaid, OrderStatus::Paid, &[ChangedBy::Provider, ChangedBy::Admin], None),
    (OrderStatus::Unpaid, OrderStatus::Cancelled, &[ChangedBy::Buyer, ChangedBy::Admin], None),
    (OrderStatus::Unpaid, OrderStatus::Expired, &[ChangedBy::Expiry], None),
    // With the money given back.
    (OrderStatus::Paid, OrderStatus::Cancelled, &[ChangedBy::Admin, ChangedBy::Provider], None),
    // Paid too late, and its units are still to be had.
    (OrderStatus::Expired, OrderStatus::Paid, &[ChangedBy::Provider], Some(ChangedBy::Expiry)),
    (OrderStatus::Cancelled, OrderStatus::Paid, &[ChangedBy::Provider], Some(ChangedBy::Buyer)),
];

impl OrderStatus {
    /// Whether the order holds its units.
    pub fn is_live(self) -> bool {
        matches!(self, Self::Unpaid | Self::Paid)
    }

    /// Whether a live order that stands here may be brought there by them.
    pub fn may_become(self, to: Self, by: ChangedBy) -> bool {
        self.may_then_become(to, by, None)
    }

    /// Whether a dead order that stands here may be brought there by them, if it was ended by `ended_by`.
    pub fn may_be_revived(self, to: Self, by: ChangedBy, ended_by: ChangedBy) -> bool {
        self.may_then_become(to, by, Some(ended_by))
    }

    fn may_then_become(self, to: Self, by: ChangedBy, ended_by: Option<ChangedBy>) -> bool {
        let allows = |(from, then, who, ended): &(Self, Self, &[ChangedBy], _)| {
            (*from, *then, *ended) == (self, to, ended_by) && who.contains(&by)
        };
        TRANSITIONS.iter().any(allows)
    }
}

/// Why an admitted purchase could not become an order.
// Stored with it, so its words stay; a buyer who is not promised anything gets a `Denial` instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, AsExpression, FromSqlRow, ToSchema)]
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

/// An order, with what its product's revision adds to its row.
#[derive(Debug, Clone, Queryable)]
pub struct Order {
    /// Its id.
    pub id: OrderId,
    /// Whose it is.
    pub user_id: UserId,
    /// What was bought.
    pub product_id: ProductId,
    /// What it was called at the reservation, a moment after the click.
    pub product_name: String,
    /// The price of one unit that binds, in minor units: that of the reservation.
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
    /// Units it is for.
    pub quantity: Quantity,
    /// When it was paid.
    pub paid_at: Option<Timestamp>,
    /// Of its price; `None`: the shop's own.
    pub currency: Option<Currency>,
    /// How long it may stay unpaid.
    pub payment_window: Option<PaymentWindow>,
}

impl Order {
    /// When it must be paid.
    pub fn expires_at(&self) -> Option<Timestamp> {
        deadline(self.id, self.revision, self.payment_window)
    }

    /// What all its units cost.
    pub fn total_cents(&self) -> i64 {
        self.price_cents.saturating_mul(self.quantity.get())
    }
}

/// When an order of this revision must be paid, whose row says `window`. Orders that are older than revisions never had to
/// be.
pub fn deadline(order: OrderId, revision: i64, window: Option<PaymentWindow>) -> Option<Timestamp> {
    let window = window.filter(|_| revision > 0)?;
    Some(order.drawn_at().after(window.duration()))
}

/// A change of an order that was made.
#[derive(Debug, Clone, Serialize, Queryable, ToSchema)]
pub struct OrderChange {
    /// Its number.
    #[serde(skip)]
    pub id: i64,
    /// When.
    pub at: Timestamp,
    /// Where the order stood before.
    pub from: OrderStatus,
    /// Where it stands since.
    pub to: OrderStatus,
    /// By whom.
    pub by: ChangedBy,
    /// Which buyer or administrator.
    #[schema(required)]
    pub user_id: Option<UserId>,
    /// The name, of an account of ours.
    #[schema(required)]
    pub username: Option<String>,
    /// Why; of a payment, its reference.
    #[schema(required)]
    pub reason: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUSES: [OrderStatus; 6] = [
        OrderStatus::Queued,
        OrderStatus::Unpaid,
        OrderStatus::Paid,
        OrderStatus::Cancelled,
        OrderStatus::Expired,
        OrderStatus::Rejected,
    ];
    const ANYBODY: [ChangedBy; 5] =
        [ChangedBy::Buyer, ChangedBy::Admin, ChangedBy::Expiry, ChangedBy::Provider, ChangedBy::System];

    /// All of them, as words: what is not here may not happen.
    #[test]
    fn an_order_becomes_what_the_table_says_and_nothing_else() {
        let mut allowed = Vec::new();
        for from in STATUSES {
            for to in STATUSES {
                for by in ANYBODY {
                    let change = format!("{} -> {} by {}", from.as_str(), to.as_str(), by.as_str());
                    if from.may_become(to, by) {
                        allowed.push(change.clone());
                    }
                    for ended_by in ANYBODY.into_iter().filter(|ended_by| from.may_be_revived(to, by, *ended_by)) {
                        allowed.push(format!("{change}, ended by {}", ended_by.as_str()));
                    }
                }
            }
        }
        let expected = [
            "unpaid -> paid by admin",
            "unpaid -> paid by provider",
            "unpaid -> cancelled by buyer",
            "unpaid -> cancelled by admin",
            "unpaid -> expired by expiry",
            "paid -> cancelled by admin",
            "paid -> cancelled by provider",
            "cancelled -> paid by provider, ended by buyer",
            "expired -> paid by provider, ended by expiry",
        ];
        assert_eq!(allowed, expected);
    }

    #[test]
    fn nothing_changes_into_itself_and_a_rejected_order_stays_rejected() {
        for by in ANYBODY {
            for status in STATUSES {
                assert!(!status.may_become(status, by));
                assert!(!OrderStatus::Rejected.may_become(status, by) && !status.may_become(OrderStatus::Rejected, by));
                for ended_by in ANYBODY {
                    assert!(!OrderStatus::Rejected.may_be_revived(status, by, ended_by));
                }
                assert!(!OrderStatus::Queued.may_become(status, by), "the row is the decision");
            }
        }
    }

    #[test]
    fn an_order_that_is_older_than_revisions_has_no_deadline() {
        let order = OrderId::draw(7.try_into().unwrap());
        let window = PaymentWindow::try_from(5).ok();
        assert_eq!(deadline(order, 0, window), None);
        assert_eq!(deadline(order, 1, None), None);
        assert_eq!(deadline(order, 1, window), Some(order.drawn_at().after(std::time::Duration::from_secs(5))));
    }
}
