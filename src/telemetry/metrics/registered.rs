//! Metrics are made and registered in one step.

use prometheus::Registry;
use prometheus::core::Collector;

/// Panics where a name is no name, or there twice: names are constants, so the first start of a build shows it.
pub(super) fn registered<C: Collector + Clone + 'static>(registry: &Registry, made: prometheus::Result<C>) -> C {
    let collector = made.expect("names of metrics are well formed");
    registry.register(Box::new(collector.clone())).expect("each name of a metric is there once");
    collector
}
