//! What the operator is told: the log, the metrics, and traces.

mod logs;
pub mod metrics;
mod traces;

pub use self::logs::{LogThrottle, Outage, SharedOutage, init};
pub use self::metrics::{Metrics, PoolUse, Reading, RequestMetrics};
pub use self::traces::{Span, SpanKind, Trace, Traces};
