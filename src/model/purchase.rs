//! Purchases on their way from the click to the order.

use serde::{Deserialize, Serialize};

use super::{OrderId, ProductId, UserId};

/// A purchase as the gate and the queue know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Purchase {
    /// Its order.
    pub order_id: OrderId,
    /// Its buyer.
    pub user_id: UserId,
}

/// Purchases of one product that one gate admitted, in the order they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PurchaseBatch {
    /// What is bought.
    pub product_id: ProductId,
    /// Epoch of the gate that admitted them.
    pub epoch: i64,
    /// The purchases.
    pub items: Vec<Purchase>,
}
