//! The hot path: from the click to the promise.
//!
//! A click waits in the purchase batcher. The batcher takes whatever waits and serves it together. The gate admits the purchases
//! of each product in one step (`admission`; in Redis one for each 500 of them). Then one message takes those of all products to the
//! queue, or several if they are too many or the queue does not bundle. Its confirm makes them promises (`publishing`). The
//! reply dispatcher wakes the clicks.
//!
//! What must hold: a buyer is promised an order only when the queue has confirmed its message (I2); nothing here gives a unit
//! back, whatever fails (I5); while the gate is there, a purchase costs no query, and shares its step at the gate with the others of its
//! product. (One query, if a late payment revives an order that its buyer has already.) Redis gets, for each product, a note of what is
//! in flight once in two seconds.

mod admission;
mod confirmed_orders;
mod pending;
mod publishing;
mod purchase_batcher;
mod shared;
mod traced;
mod turn_at_gate;

pub use self::pending::Accepted;
pub use self::purchase_batcher::PurchaseBatcher;
pub use self::shared::Checkout;
