//! What was begun and not finished is brought to an end here, and gates that are not open are opened.
//!
//! [`Gates`] is the one place that opens and retires gates; the sweeper finds what needs it, in every instance, each second.
//! Everything here may be repeated by anybody and cut short at any moment. Nothing here gives a promise to a buyer.

mod gates;
mod offer;
mod reconciliation;
mod replay;
mod sweeper;

pub use self::gates::{Gates, Rebuilder};
pub(in crate::services) use self::offer::offer_at_least;
pub use self::reconciliation::{Audit, Reconciler};
pub use self::replay::Replay;
pub use self::sweeper::Sweeper;
