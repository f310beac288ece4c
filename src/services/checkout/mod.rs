//! The hot path: from the click to the promise.
//!
//! A click waits in the purchase batcher. The batcher takes whatever waits and serves the purchases of a product together: the
//! gate admits them in one step (`admission`), one message takes them to the queue, and its confirm makes them promises
//! (`publishing`). The reply dispatcher wakes the clicks.
//!
//! What must hold: a buyer is promised an order only when the queue has confirmed its message (I2); nothing here gives a unit
//! back, whatever fails (I5); a purchase costs one step at the gate and
//! no query, while the gate is there. Redis gets, for each product, a note of what is in flight once in two seconds.

mod admission;
mod admitting;
mod confirmed_orders;
mod pending;
mod publishing;
mod purchase_batcher;
mod shared;
mod traced;

pub use self::pending::Accepted;
pub use self::purchase_batcher::PurchaseBatcher;
pub use self::shared::Checkout;
