//! What becomes of the spans of traces.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use super::registered::registered;

/// See the module.
#[derive(Clone)]
pub struct SpanMetrics {
    /// Taken by the collector.
    pub exported: IntCounter,
    /// Given up here, because too many waited for the collector.
    pub dropped: IntCounter,
    /// Not taken by the collector.
    pub failed: IntCounter,
}

impl SpanMetrics {
    pub(super) fn register(registry: &Registry) -> Self {
        let name = Opts::new("seckill_spans_total", "Spans of traces by what became of them");
        let spans = registered(registry, IntCounterVec::new(name, &["outcome"]));
        let counter = |outcome| spans.with_label_values(&[outcome]);
        Self { exported: counter("exported"), dropped: counter("dropped"), failed: counter("failed") }
    }
}
