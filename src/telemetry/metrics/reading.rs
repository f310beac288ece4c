//! A gauge that is there only while somebody knows its value: one that is old looks like one that is well.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, Registry};

use super::registered::registered;

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

    /// What it was, if it was read lately.
    pub fn get(&self) -> Option<f64> {
        let read_at = *self.0.read_at.lock();
        read_at.is_some_and(|at| at.elapsed() < FRESH).then(|| self.0.gauge.get())
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
        if self.get().is_some() { self.0.gauge.collect() } else { Vec::new() }
    }
}

/// What is looked at now and then: of the gates, the queue and the database.
pub struct Readings {
    /// From the click to the order in the database, of the newest purchase written.
    pub consumer_lag_seconds: Reading,
    /// Units by which gates and database disagree, beyond what is in flight.
    pub drift_units: Reading,
    /// Sales that do not fit, in any way.
    pub unbalanced_sales: Reading,
    /// Purchases reserved and not known to be in the database.
    pub in_flight: Reading,
    /// Age of the oldest of them.
    pub in_flight_oldest_seconds: Reading,
    /// How long ago the oldest deadline was that nobody has looked after.
    pub deadline_overdue_seconds: Reading,
    /// Orders that the merchant's lookup does not know yet, about.
    pub orders_in_gaps: Reading,
    /// How long the oldest webhook is due that nobody is sending.
    pub webhook_oldest_due_seconds: Reading,
    /// Webhooks that are due.
    pub webhook_deliveries_due: Reading,
    /// Endpoints that were switched off because they failed.
    pub webhooks_off: Reading,
    /// Messages in the queue.
    pub queue_messages: Reading,
    /// Messages set aside.
    pub dead_letters: Reading,
    /// Messages that are to be set aside and cannot be.
    pub dead_letters_refused: Reading,
}

impl Readings {
    /// None of them is known yet.
    pub(super) fn register(registry: &Registry) -> Self {
        let reading = |name, help| registered(registry, Reading::new(name, help));
        Self {
            consumer_lag_seconds: reading(
                "seckill_consumer_lag_seconds",
                "From the click to the order in the database, of the newest purchase written",
            ),
            drift_units: reading("seckill_drift_units", "Units by which gates and database disagree"),
            unbalanced_sales: reading(
                "seckill_unbalanced_sales",
                "Sales of which gate, queue and database do not fit together",
            ),
            in_flight: reading("seckill_in_flight_purchases", "Purchases reserved and not known to be in the database"),
            in_flight_oldest_seconds: reading(
                "seckill_in_flight_oldest_seconds",
                "Age of the oldest purchase reserved and not known to be in the database",
            ),
            deadline_overdue_seconds: reading(
                "seckill_payment_deadline_overdue_seconds",
                "How long the oldest payment deadline is over whose orders were not looked at yet",
            ),
            orders_in_gaps: reading(
                "seckill_order_lookup_behind_orders",
                "Orders that were written or changed, and that the merchant's lookup does not know yet, about",
            ),
            webhook_oldest_due_seconds: reading(
                "seckill_webhook_oldest_due_seconds",
                "How long the oldest webhook is due that is not being sent",
            ),
            webhook_deliveries_due: reading(
                "seckill_webhook_deliveries_due",
                "Webhooks that are due, up to 10,000 an endpoint",
            ),
            webhooks_off: reading(
                "seckill_webhooks_off",
                "Endpoints of webhooks that were switched off because they failed",
            ),
            queue_messages: reading("seckill_queue_messages", "Messages in the queue"),
            dead_letters: reading("seckill_dead_letters", "Messages set aside"),
            dead_letters_refused: reading(
                "seckill_dead_letters_refused",
                "Messages that cannot be written and cannot be set aside either",
            ),
        }
    }
}
