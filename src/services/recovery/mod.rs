//! What was begun and left is brought to an end here, and gates that are not open are opened.

mod rebuild;
mod rebuild_log;
mod reconciliation;
mod replay;
mod sweeper;
mod warm_up;

pub use self::rebuild::Rebuilder;
pub use self::reconciliation::{Audit, Reconciler};
pub use self::replay::Replay;
pub use self::sweeper::Sweeper;
pub use self::warm_up::WarmUp;
