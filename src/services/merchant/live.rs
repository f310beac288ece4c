//! What this instance does, for somebody who watches a sale: what Prometheus is told as well, in one small answer.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use utoipa::ToSchema;

use crate::model::Timestamp;
use crate::services::events::{OrderEvents, ProductEvents};
use crate::telemetry::Metrics;

/// The outcome of a click that is a promise.
const ACCEPTED: &str = "accepted";

/// See the module.
pub struct LiveFigures {
    metrics: Arc<Metrics>,
    product_events: Arc<ProductEvents>,
    order_events: Arc<OrderEvents>,
    started_at: Timestamp,
}

/// Of all sales, on this instance, since it began.
#[derive(Debug, Serialize, ToSchema)]
pub struct Live {
    server_time: Timestamp,
    instance_started_at: Timestamp,
    accepted: u64,
    /// By code.
    refused: BTreeMap<String, u64>,
    written: u64,
    /// `null` here and below: it could not be read lately.
    #[schema(required)]
    in_flight: Option<f64>,
    #[schema(required)]
    oldest_in_flight_seconds: Option<f64>,
    #[schema(required)]
    queue_messages: Option<f64>,
    #[schema(required)]
    dead_letters: Option<f64>,
    listeners: usize,
}

impl LiveFigures {
    /// Of an instance that begins now.
    pub fn new(
        metrics: Arc<Metrics>,
        product_events: Arc<ProductEvents>,
        order_events: Arc<OrderEvents>,
        now: Timestamp,
    ) -> Self {
        Self { metrics, product_events, order_events, started_at: now }
    }

    /// Tells Prometheus who listens.
    pub fn measure(&self) {
        self.metrics.listeners("products", self.product_events.listeners());
        self.metrics.listeners("orders", self.order_events.listeners());
    }

    /// As they are at `now`.
    pub fn at(&self, now: Timestamp) -> Live {
        let readings = &self.metrics.readings;
        let mut refused = self.metrics.clicks();
        let accepted = refused.remove(ACCEPTED).unwrap_or_default();
        Live {
            server_time: now,
            instance_started_at: self.started_at,
            accepted,
            refused,
            written: self.metrics.orders_written.get(),
            in_flight: readings.in_flight.get(),
            oldest_in_flight_seconds: readings.in_flight_oldest_seconds.get(),
            queue_messages: readings.queue_messages.get(),
            dead_letters: readings.dead_letters.get(),
            listeners: self.product_events.listeners() + self.order_events.listeners(),
        }
    }
}
