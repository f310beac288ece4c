//! The spans of purchases that are traced, here where they become orders: each from its delivery to what became of it.

use std::sync::Arc;
use std::time::Instant;

use super::merged::Merged;
use crate::model::OrderId;
use crate::queue::{Delivery, MessagePart};
use crate::services::WriteOutcome;
use crate::telemetry::{Span, SpanKind, Traces};

/// Makes the spans; none where traces are off.
pub(super) struct WriteSpans(pub(super) Option<Arc<Traces>>);

impl WriteSpans {
    /// What became of a write batch, which it took `tries` transactions to write.
    pub(super) fn written(&self, groups: &[Merged<Delivery>], outcomes: &[Option<WriteOutcome>], tries: u32) {
        if self.0.is_none() {
            return;
        }
        let messages: usize = groups.iter().map(|merged| merged.deliveries.len()).sum();
        let orders: usize = groups.iter().map(|merged| merged.group.items.len()).sum();
        for (merged, outcome) in groups.iter().zip(outcomes) {
            let Some(outcome) = outcome else { continue };
            self.record(&merged.deliveries, |order, span| {
                span.set("messaging.batch.message_count", messages as i64);
                span.set("seckill.write_batch.orders", orders as i64);
                span.set("seckill.write_batch.tries", i64::from(tries));
                span.set("seckill.outcome", word(outcome, order));
            });
        }
    }

    /// A message cannot be written now, and is put off.
    pub(super) fn put_off(&self, delivery: &Delivery, reason: &str) {
        self.record([delivery], |_, span| {
            span.set("seckill.outcome", "put_off");
            span.fail("put_off", reason);
        });
    }

    /// A message cannot be written at all, and is set aside.
    pub(super) fn set_aside(&self, delivery: &Delivery, reason: &str) {
        self.record([delivery], |_, span| {
            span.set("seckill.outcome", "set_aside");
            span.fail("set_aside", reason);
        });
    }

    fn record<'a>(&self, deliveries: impl IntoIterator<Item = &'a Delivery>, tell: impl Fn(OrderId, &mut Span)) {
        let Some(traces) = &self.0 else { return };
        for delivery in deliveries {
            let (MessagePart::Purchases(group), Some(delivered_at)) = (delivery.message(), delivery.delivered_at())
            else {
                continue;
            };
            for (order, parent) in &group.traced {
                let mut span = traces.resume(*parent).span(SpanKind::Consumer, "write order", delivered_at);
                span.set("messaging.system", delivery.system());
                span.set("messaging.operation.name", "write order");
                span.set("messaging.operation.type", "process");
                span.set("seckill.product_id", group.product_id.get());
                span.set("seckill.order_id", order.to_string());
                tell(*order, &mut span);
                span.end(Instant::now());
            }
        }
    }
}

fn word(outcome: &WriteOutcome, order: OrderId) -> &'static str {
    if outcome.found.contains(&order) {
        "already_there"
    } else if outcome.dead.iter().any(|purchase| purchase.order_id == order) {
        "rejected"
    } else {
        "written"
    }
}
