//! The hot path: from the click to the promise.

mod purchase_batcher;

pub use self::purchase_batcher::{PurchaseBatcher, Purchases};
