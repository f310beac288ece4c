//! What is counted of payments.

use prometheus::{IntCounterVec, Opts, Registry};

use super::labels::CALLBACKS;
use super::registered::registered;

/// See the module.
pub struct PaymentMetrics {
    payments: IntCounterVec,
    callbacks: IntCounterVec,
}

impl PaymentMetrics {
    pub(super) fn register(registry: &Registry) -> Self {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            registered(registry, IntCounterVec::new(Opts::new(name, help), labels))
        };
        let callbacks = counters(
            "seckill_payment_callbacks_total",
            "Callbacks of payment providers by what became of them",
            &["outcome"],
        );
        CALLBACKS.iter().for_each(|outcome| drop(callbacks.with_label_values(&[outcome])));
        let payments = counters("seckill_payments_total", "Payments that came to a status", &["provider", "status"]);
        Self { payments, callbacks }
    }

    /// Counts a payment that came to a status.
    pub fn came_to(&self, provider: &str, status: &str) {
        self.payments.with_label_values(&[provider, status]).inc();
    }

    /// Counts a callback: one of `CALLBACKS`.
    pub fn callback(&self, outcome: &str) {
        self.callbacks.with_label_values(&[outcome]).inc();
    }
}
