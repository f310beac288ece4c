//! What the operator is told: the log, and the metrics.

mod logs;
pub mod metrics;

pub use self::logs::{Outage, Seldom, SharedOutage, init};
pub use self::metrics::{Metrics, PoolUse, Reading, RequestMetrics};
