//! What is counted of webhooks. Never by endpoint or address.

use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use super::labels::TRIES;
use super::registered::registered;

/// See the module.
pub struct WebhookMetrics {
    tries: IntCounterVec,
    given_up: IntCounter,
}

impl WebhookMetrics {
    pub(super) fn register(registry: &Registry) -> Self {
        let name = Opts::new("seckill_webhook_tries_total", "Tries of webhooks by what they came to");
        let tries = registered(registry, IntCounterVec::new(name, &["outcome"]));
        TRIES.iter().for_each(|outcome| drop(tries.with_label_values(&[outcome])));
        let given_up = IntCounter::new("seckill_webhooks_given_up_total", "Webhooks that are not tried any more");
        Self { tries, given_up: registered(registry, given_up) }
    }

    /// Counts a try: one of `TRIES`.
    pub fn tried(&self, outcome: &str) {
        self.tries.with_label_values(&[outcome]).inc();
    }

    /// Counts what is not tried any more.
    pub fn gave_up(&self, count: usize) {
        self.given_up.inc_by(count as u64);
    }
}
