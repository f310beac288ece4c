//! A gauge that is there only while somebody knows its value: one that is old looks like one that is well.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::Gauge;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;

/// A value that was not read again by then is gone.
const FRESH: Duration = Duration::from_secs(45);

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Reading(Arc<Kept>);

struct Kept {
    gauge: Gauge,
    read_at: Mutex<Option<Instant>>,
}

impl Reading {
    pub(super) fn new(name: &str, help: &str) -> prometheus::Result<Self> {
        Ok(Self(Arc::new(Kept { gauge: Gauge::new(name, help)?, read_at: Mutex::default() })))
    }

    /// It was read just now.
    pub fn set(&self, value: f64) {
        self.0.gauge.set(value);
        *self.0.read_at.lock() = Some(Instant::now());
    }

    /// It cannot be read just now.
    pub fn unknown(&self) {
        *self.0.read_at.lock() = None;
    }

    /// [`Reading::set`] or [`Reading::unknown`].
    pub fn note(&self, value: Option<f64>) {
        match value {
            Some(value) => self.set(value),
            None => self.unknown(),
        }
    }
}

impl Collector for Reading {
    fn desc(&self) -> Vec<&Desc> {
        self.0.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let read_at = *self.0.read_at.lock();
        if read_at.is_some_and(|at| at.elapsed() < FRESH) { self.0.gauge.collect() } else { Vec::new() }
    }
}
