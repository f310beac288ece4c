//! Purchases on their way from the click to the order.

use serde::{Deserialize, Serialize};

use super::{Network, OrderId, ProductId, Quantity, Revision, TraceParent, UserId};

/// A purchase as the gate and the queue know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Purchase {
    /// Its order.
    pub order_id: OrderId,
    /// Its buyer.
    pub user_id: UserId,
    /// Its units; messages of programs that knew single units only say none.
    #[serde(default)]
    pub quantity: Quantity,
}

/// A purchase as it is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Click {
    /// What is asked for.
    pub purchase: Purchase,
    /// Where the click comes from; `None`: no limit of an address counts.
    pub from: Option<Network>,
}

impl From<Purchase> for Click {
    fn from(purchase: Purchase) -> Self {
        Self { purchase, from: None }
    }
}

/// Purchases of one product that one gate admitted under one revision, in the order they came. A message carries one
/// such group, or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurchaseGroup {
    /// What is bought.
    pub product_id: ProductId,
    /// Epoch of the gate that admitted them.
    pub epoch: i64,
    /// The product's revision at the reservation, whose price binds; `None` in messages of a version that knew none: the revision
    /// of when the order is written.
    pub revision: Option<Revision>,
    /// The purchases.
    pub items: Vec<Purchase>,
    /// Of those that are traced: the span that published them. Nothing depends on it.
    pub traced: Vec<(OrderId, TraceParent)>,
}

impl PurchaseGroup {
    /// Units of all purchases.
    pub fn units(&self) -> i64 {
        self.items.iter().map(|purchase| purchase.quantity.get()).sum()
    }
}
