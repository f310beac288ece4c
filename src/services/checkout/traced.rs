//! The spans of purchases that are traced. Each shares its step with others, so it gets a span of its own with the step's times.

use std::time::Instant;

use super::admission::ToPublish;
use super::pending::PendingPurchase;
use crate::error::Error;
use crate::model::PurchaseGroup;
use crate::queue::{OrderQueue, PublishError};
use crate::stock::{Admission, Answer, GateError};
use crate::telemetry::{Span, SpanKind};

/// Notes a step at the gate: from the click, so with its wait, to the gate's answer.
pub(super) fn record_step(pending: &[PendingPurchase], begun: Instant, admission: &Result<Admission, GateError>) {
    for (place, click) in pending.iter().enumerate() {
        let Some(trace) = &click.trace else { continue };
        let mut span = trace.span(SpanKind::Internal, "gate", click.clicked_at);
        span.set("seckill.product_id", click.product.get());
        span.set("seckill.gate.purchases", pending.len() as i64);
        let waited = begun.saturating_duration_since(click.clicked_at);
        span.set("seckill.gate.waited_seconds", waited.as_secs_f64());
        match admission {
            Ok(Admission::Open { answers, .. }) => span.set("seckill.outcome", answers.get(place).map_or("none", word)),
            Ok(Admission::Denied(denial)) => span.set("seckill.outcome", Error::from(*denial).code()),
            Err(error) => span.fail("gate", error),
        }
        span.end(Instant::now());
    }
}

fn word(answer: &Answer) -> &'static str {
    match answer {
        Answer::Reserved => "reserved",
        Answer::InFlight { .. } => "in_flight",
        Answer::Revived(_) => "revived",
        Answer::Denied(denial) => Error::from(*denial).code(),
        Answer::Unreadable => "unreadable",
    }
}

/// The spans of a message that is published; none, if none of its purchases is traced.
pub(super) struct PublishSpans(Vec<Span>);

impl PublishSpans {
    /// Begins them, and has the message take them along.
    pub(super) fn begin(message: &[ToPublish], groups: &mut [PurchaseGroup], queue: &OrderQueue) -> Self {
        let mut spans = Vec::new();
        let purchases: usize = groups.iter().map(|group| group.items.len()).sum();
        for (admitted, group) in message.iter().zip(groups) {
            for held in &admitted.reserved {
                let Some(trace) = &held.pending.trace else { continue };
                let mut span = trace.span(SpanKind::Producer, "publish", Instant::now());
                span.set("messaging.system", queue.system());
                span.set("messaging.destination.name", queue.destination().to_owned());
                span.set("messaging.operation.name", "publish");
                span.set("messaging.operation.type", "send");
                span.set("seckill.message.purchases", purchases as i64);
                span.set("seckill.order_id", held.order_id.to_string());
                // An order that several ask for again is in the message once.
                if group.traced.iter().all(|(order, _)| *order != held.order_id) {
                    group.traced.push((held.order_id, span.parent()));
                }
                spans.push(span);
            }
        }
        Self(spans)
    }

    /// The message is confirmed, or not.
    pub(super) fn end(self, confirmed: &Result<(), PublishError>) {
        for mut span in self.0 {
            if let Err(error) = confirmed {
                span.fail(error.as_str(), error);
            }
            span.end(Instant::now());
        }
    }
}
