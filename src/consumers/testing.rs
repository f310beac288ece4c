//! Messages for the tests of what collects, merges and puts them off.

use crate::model::{OrderId, Purchase, PurchaseGroup, Quantity};
use crate::queue::MessagePart;

/// A message is its own delivery.
impl AsRef<MessagePart> for MessagePart {
    fn as_ref(&self) -> &MessagePart {
        self
    }
}

/// So many purchases of a product, each of another buyer.
pub(super) fn purchases(product: i64, epoch: i64, orders: i64) -> MessagePart {
    let product_id = product.try_into().unwrap();
    let purchase = |user: i64| Purchase {
        order_id: OrderId::draw(product_id),
        user_id: user.try_into().unwrap(),
        quantity: Quantity::ONE,
    };
    let items = (1..=orders).map(purchase).collect();
    MessagePart::Purchases(PurchaseGroup { product_id, epoch, revision: None, items, traced: Vec::new() })
}
