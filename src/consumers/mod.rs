//! The consumer tasks: collect a write batch, have it written, acknowledge, tell the gate. In this order, whatever happens.
//!
//! A message is set aside only for what is known to be wrong with that message (or if it may be wrong, and too many such messages are
//! put off, or a rebuild waits for this one: `put_off`). Everything else is tried again, however long it takes.

mod collector;
mod merged;
mod put_off;
#[cfg(test)]
mod testing;
mod traced;

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::collector::Collector;
use self::merged::{Merged, merge, only_or_each};
use self::put_off::PutOff;
use self::traced::WriteSpans;
use crate::db::{DbError, ErrorClass};
use crate::model::ProductId;
use crate::queue::{Barrier, Delivery, MessagePart};
use crate::services::{OrderWriter, Rebuilder, WriteOutcome};
use crate::telemetry::{LogThrottle, Metrics, Outage, Traces, metrics};

/// Pauses before a failed transaction is tried again: 1 s at most, which jitter may double. Not the same in two instances, so
/// that they do not ask together.
const RETRIES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(40))
    .with_max_delay(Duration::from_secs(1))
    .with_jitter()
    .without_max_times();
/// Products of a write batch of which the gate is told at the same time.
const TOLD_AT_ONCE: usize = 64;
/// Tries before a write batch that makes us panic, or that a constraint of a file refuses, is given up.
const DEFECT_TRIES: u32 = 5;
/// Lines about fences that could not be raised.
static NOT_RAISED: LogThrottle = LogThrottle::each_second();
const ABSENT: &str = "there is no such product";

/// One consumer.
pub struct Consumer {
    order_writer: Arc<OrderWriter>,
    rebuilder: Arc<Rebuilder>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    /// The gate hears of a write batch while the next one is written, one at a time.
    telling_gate: Option<JoinHandle<()>>,
    put_off: PutOff<Delivery>,
    outage: Outage,
    spans: WriteSpans,
}

/// What became of an attempt to have a write batch written.
enum Attempt {
    /// One outcome a group; `None`: there is no such product. And how many tries it took.
    Written(Vec<Option<WriteOutcome>>, u32),
    /// A constraint refuses it each time.
    Unwritable(String),
    /// It makes us panic each time.
    Panics(String),
    /// Asked to stop before it was written; the deliveries come again.
    Stopped,
}

impl Consumer {
    /// Has orders written by `order_writer` and, at barriers, the fence raised by `rebuilder`, until `stop`; it is one of
    /// `consumers`.
    pub fn new(
        consumers: usize,
        order_writer: Arc<OrderWriter>,
        rebuilder: Arc<Rebuilder>,
        metrics: Arc<Metrics>,
        traces: Option<Arc<Traces>>,
        stop: CancellationToken,
    ) -> Self {
        let outage = Outage::new("Could not write orders; the purchases wait in the queue", "Orders are written again");
        let put_off = PutOff::new(consumers, Instant::now());
        let spans = WriteSpans(traces);
        Self { order_writer, rebuilder, metrics, stop, telling_gate: None, put_off, outage, spans }
    }

    /// Runs until it is asked to stop; what it has begun by then it finishes.
    pub async fn run(mut self, deliveries: mpsc::Receiver<Delivery>) {
        let mut collector = Collector::new(deliveries, self.order_writer.write_batch_limits(), self.stop.clone());
        while let Some(batch) = collector.next(self.put_off.due_in(Instant::now())).await {
            let (deliveries, barrier) = batch.into_parts();
            if !self.write(deliveries).await {
                break;
            }
            if let Some(delivery) = barrier
                && !self.pass_barrier(delivery).await
            {
                break;
            }
            let due = self.put_off.take_due(Instant::now());
            if !self.write_deliveries_singly(due).await {
                break;
            }
        }
        self.wait_until_gate_is_told().await;
    }

    /// Has deliveries written and acknowledges them. False: asked to stop before that.
    async fn write(&mut self, deliveries: Vec<Delivery>) -> bool {
        if deliveries.is_empty() {
            return true;
        }
        let mut to_write = VecDeque::from([merge(deliveries)]);
        while let Some(groups) = to_write.pop_front() {
            match self.try_to_write(&groups).await {
                Attempt::Written(outcomes, tries) => {
                    self.spans.written(&groups, &outcomes, tries);
                    self.finish(groups, outcomes).await;
                }
                Attempt::Stopped => return false,
                Attempt::Unwritable(reason) => match only_or_each(groups) {
                    Ok(only) => self.put_off_or_set_aside(only, reason).await,
                    Err(each) => to_write.extend(each),
                },
                Attempt::Panics(reason) => match only_or_each(groups) {
                    Ok(only) => self.set_aside(only, &reason).await,
                    Err(each) => to_write.extend(each),
                },
            }
        }
        true
    }

    /// Has deliveries that were put off written, one by one. False: asked to stop before that.
    async fn write_deliveries_singly(&mut self, deliveries: Vec<Delivery>) -> bool {
        for delivery in deliveries {
            if !self.write(vec![delivery]).await {
                return false;
            }
        }
        true
    }

    /// A database that is another server than before may not have the product yet, and a constraint that refuses
    /// everything is not the message's fault: it is set aside only after 30 s in which other messages were written.
    async fn put_off_or_set_aside(&mut self, delivery: Delivery, reason: String) {
        if !self.order_writer.may_lag() {
            return self.set_aside(delivery, &reason).await;
        }
        if !self.put_off.knows(&delivery) {
            self.spans.put_off(&delivery, &reason);
        }
        for (hopeless, reason) in self.put_off.add(delivery, reason, Instant::now()) {
            self.set_aside(hopeless, &reason).await;
        }
    }

    async fn set_aside(&self, delivery: Delivery, reason: &str) {
        self.spans.set_aside(&delivery, reason);
        delivery.set_aside(reason).await;
    }

    async fn try_to_write(&mut self, groups: &[Merged<Delivery>]) -> Attempt {
        let mut pauses = RETRIES.build();
        let (mut tries, mut defects) = (0, 0);
        loop {
            tries += 1;
            let purchase_groups = groups.iter().map(|merged| merged.group.clone()).collect();
            let error = match AssertUnwindSafe(self.order_writer.write(purchase_groups)).catch_unwind().await {
                Ok(Ok(outcomes)) => {
                    self.outage.ended();
                    return Attempt::Written(outcomes, tries);
                }
                Ok(Err(error)) => error,
                Err(_) => DbError::Panicked("a panic".to_owned()),
            };
            let class = error.class();
            metrics::database_error(class);
            if let DbError::Panicked(_) = error {
                self.metrics.consumer_panics.inc();
            }
            if class == ErrorClass::Violation && self.order_writer.may_lag() {
                // The others must not wait: they are written one by one, and what is refused alone is put off, which tells of it.
                return Attempt::Unwritable(error.to_string());
            }
            self.outage.failed(class.as_str(), &error, error.advice());
            defects += u32::from(matches!(error, DbError::Panicked(_)) || class == ErrorClass::Violation);
            if defects == DEFECT_TRIES {
                return match error {
                    DbError::Panicked(problem) => Attempt::Panics(problem),
                    error => Attempt::Unwritable(error.to_string()),
                };
            }
            let pause = pauses.next().unwrap_or_default();
            if self.stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Attempt::Stopped;
            }
        }
    }

    /// Acknowledges what is in the database. After a crash before this, the messages are delivered again and their rows are found.
    async fn finish(&mut self, groups: Vec<Merged<Delivery>>, outcomes: Vec<Option<WriteOutcome>>) {
        crash_point!("after_commit");
        let mut absent = Vec::new();
        let mut written = Vec::with_capacity(groups.len());
        let mut done = Vec::new();
        for (merged, outcome) in groups.into_iter().zip(outcomes) {
            match outcome {
                Some(outcome) => {
                    done.extend(merged.deliveries);
                    written.push((merged.group.product_id, outcome));
                }
                None => absent.extend(merged.deliveries),
            }
        }
        for delivery in &done {
            self.put_off.forget(delivery);
        }
        for delivery in absent {
            self.put_off_or_set_aside(delivery, ABSENT.to_owned()).await;
        }
        self.put_off.written(written.len());
        Delivery::ack_all(done).await;
        crash_point!("after_ack");
        self.wait_until_gate_is_told().await;
        let order_writer = self.order_writer.clone();
        self.telling_gate = Some(tokio::spawn(async move { tell_gate(&order_writer, written).await }));
    }

    /// Waits until the gate has heard of the write batch before.
    async fn wait_until_gate_is_told(&mut self) {
        if let Some(telling) = self.telling_gate.take()
            && telling.await.is_err_and(|ended| ended.is_panic())
        {
            // What the gate was not told the sweeper finds.
            self.metrics.consumer_panics.inc();
        }
    }

    /// Raises the fence at a barrier, if everything before it is written: what is written later comes too late, also if it was
    /// promised. A barrier that may be out of order, or behind something that is put off, is ignored: the rebuild sends another
    /// one. False: asked to stop before that.
    async fn pass_barrier(&mut self, delivery: Delivery) -> bool {
        let MessagePart::Barrier(barrier) = *delivery.message() else { return true };
        // What was put off came before it.
        let earlier = self.put_off.take_of(barrier.product_id);
        if !self.write_deliveries_singly(earlier).await {
            return false;
        }
        // The sale must open again some time. What is set aside can be put back through the gate that opens then.
        for (overdue, reason) in self.put_off.take_overdue_of(barrier.product_id, Instant::now()) {
            self.set_aside(overdue, &reason).await;
        }
        if delivery.is_in_order() && !self.put_off.holds(barrier.product_id) {
            self.raise_fence(barrier).await;
        }
        Delivery::ack_all(vec![delivery]).await;
        true
    }

    async fn raise_fence(&self, barrier: Barrier) {
        let problem = match AssertUnwindSafe(self.rebuilder.raise_fence(barrier)).catch_unwind().await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => {
                self.metrics.consumer_panics.inc();
                "a panic".to_owned()
            }
        };
        if let Some(untold) = NOT_RAISED.now() {
            tracing::warn!(product.id = %barrier.product_id, problem, untold, "Could not raise the fence of a rebuild; the rebuild sends another barrier");
        }
    }
}

async fn tell_gate(order_writer: &OrderWriter, written: Vec<(ProductId, WriteOutcome)>) {
    // Several products at once: the next write batch waits for this, and a gate that is frozen takes its time for each product.
    stream::iter(written)
        .for_each_concurrent(TOLD_AT_ONCE, |(product, outcome)| async move {
            if let Err(error) = order_writer.tell_gate(product, outcome).await {
                // The sweeper finds what the gate does not know.
                tracing::debug!(product.id = %product, %error, "Could not tell the gate what was written");
            }
        })
        .await;
}
