//! The consumer tasks: receive a batch, have it recorded, acknowledge, tell the gate. In this order, whatever happens.
//!
//! A message is parked only for what is known to be wrong with that message. Whatever may pass is waited for, however long.

mod aside;
mod inbox;

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::aside::Aside;
use self::inbox::Inbox;
use crate::db::{DbError, ErrorClass};
use crate::model::{ProductId, PurchaseBatch};
use crate::queue::{Barrier, Delivery, Message};
use crate::services::{Decision, OrderWriter, Rebuilder};
use crate::telemetry::Outage;
use crate::telemetry::{Metrics, metrics};

/// Pauses before a failed transaction is tried again, 2 s at most; not the same in two instances, so that they do not ask together.
const RETRIES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(40))
    .with_max_delay(Duration::from_secs(1))
    .with_jitter()
    .without_max_times();
/// Tries before a delivery that a constraint refuses, or that makes us panic, is given up.
const DEFECT_TRIES: u32 = 5;
const ABSENT: &str = "there is no such product";

/// One consumer.
pub struct Consumer {
    order_writer: Arc<OrderWriter>,
    rebuilder: Arc<Rebuilder>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    /// The gate is told while the next transaction runs, one at a time.
    telling: Option<JoinHandle<()>>,
    aside: Aside,
    outage: Outage,
}

/// Deliveries of one product, epoch and revision that are decided together.
struct Group {
    batch: PurchaseBatch,
    deliveries: Vec<Delivery>,
}

enum Verdict {
    /// One decision a group; `None`: there is no such product.
    Decided(Vec<Option<Decision>>),
    /// A constraint refuses it each time.
    Refused(String),
    /// It makes us panic each time.
    Panics(String),
    /// Asked to stop before it was decided; the deliveries come again.
    Stopped,
}

impl Consumer {
    /// Records through `recorder`, meets barriers for `rebuilds`, until `stop`.
    pub fn new(
        order_writer: Arc<OrderWriter>,
        rebuilder: Arc<Rebuilder>,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Self {
        let outage = Outage::new("Could not write orders");
        Self { order_writer, rebuilder, metrics, stop, telling: None, aside: Aside::new(), outage }
    }

    /// Runs until it is asked to stop; what it has begun by then it finishes.
    pub async fn run(mut self, deliveries: mpsc::Receiver<Delivery>) {
        let (stop, round) = (self.stop.clone(), self.order_writer.round());
        let mut inbox = Inbox::new(deliveries);
        'receiving: loop {
            let wake = self.aside.due_in();
            let Some(Some(received)) = stop.run_until_cancelled(inbox.receive(round, wake)).await else { break };
            let mut purchases = Vec::with_capacity(received.len());
            for delivery in received {
                let Message::Barrier(barrier) = *delivery.message() else {
                    purchases.push(delivery);
                    continue;
                };
                // What is set aside came before it.
                let aside = self.aside.take_of(barrier.product_id);
                if !self.record(std::mem::take(&mut purchases)).await || !self.look_again(aside).await {
                    break 'receiving;
                }
                self.meet(barrier, delivery).await;
            }
            if !self.record(purchases).await {
                break;
            }
            let aside = self.aside.take_due();
            if !self.look_again(aside).await {
                break;
            }
        }
        if let Some(last) = self.telling {
            let _ = last.await;
        }
    }

    /// Has deliveries recorded and acknowledges them. False: asked to stop before that.
    async fn record(&mut self, deliveries: Vec<Delivery>) -> bool {
        if deliveries.is_empty() {
            return true;
        }
        let mut groups = group(deliveries);
        // One order for all who lock several products. The groups of a product keep theirs.
        groups.sort_by_key(|group| group.batch.product_id);
        let mut rounds = VecDeque::from([groups]);
        while let Some(round) = rounds.pop_front() {
            match self.decide(&round).await {
                Verdict::Decided(decisions) => self.finish(round, decisions).await,
                Verdict::Stopped => return false,
                Verdict::Refused(reason) => match alone(round) {
                    Ok(only) => self.set_aside(only, reason).await,
                    Err(each) => rounds.extend(each),
                },
                Verdict::Panics(reason) => match alone(round) {
                    Ok(only) => only.park(&reason).await,
                    Err(each) => rounds.extend(each),
                },
            }
        }
        true
    }

    /// Has deliveries that were set aside decided once more, one by one.
    async fn look_again(&mut self, aside: Vec<Delivery>) -> bool {
        for delivery in aside {
            if !self.record(vec![delivery]).await {
                return false;
            }
        }
        true
    }

    /// A database that is another server than before may not have the product yet, and a constraint that refuses
    /// everything is not the message's fault: it is parked when it has been looked for for a while, and others were written
    /// meanwhile.
    async fn set_aside(&mut self, delivery: Delivery, reason: String) {
        if !self.order_writer.may_lag() {
            return delivery.park(&reason).await;
        }
        for (hopeless, reason) in self.aside.add(delivery, reason) {
            hopeless.park(&reason).await;
        }
    }

    async fn decide(&mut self, round: &[Group]) -> Verdict {
        let mut pauses = RETRIES.build();
        let mut defects = 0;
        loop {
            let batches = round.iter().map(|group| group.batch.clone()).collect();
            let error = match AssertUnwindSafe(self.order_writer.decide(batches)).catch_unwind().await {
                Ok(Ok(decisions)) => {
                    self.outage.ended();
                    return Verdict::Decided(decisions);
                }
                Ok(Err(error)) => error,
                Err(_) => DbError::Panicked("a panic".to_owned()),
            };
            let class = error.class();
            metrics::database_error(class);
            if let DbError::Panicked(_) = error {
                self.metrics.consumer_panics.inc();
            }
            self.outage.failed(class.as_str(), &error, class.advice());
            defects += u32::from(matches!(error, DbError::Panicked(_)) || class == ErrorClass::Violation);
            if defects == DEFECT_TRIES {
                return match error {
                    DbError::Panicked(problem) => Verdict::Panics(problem),
                    error => Verdict::Refused(error.to_string()),
                };
            }
            let pause = pauses.next().unwrap_or_default();
            if self.stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Verdict::Stopped;
            }
        }
    }

    /// Acknowledges what is in the database: a crash before it delivers again, and the rows are found.
    async fn finish(&mut self, round: Vec<Group>, decisions: Vec<Option<Decision>>) {
        crash_point!("after_commit");
        let mut absent = Vec::new();
        let mut decided = Vec::with_capacity(round.len());
        let mut done = Vec::new();
        for (group, decision) in round.into_iter().zip(decisions) {
            match decision {
                Some(decision) => {
                    done.extend(group.deliveries);
                    decided.push((group.batch.product_id, decision));
                }
                None => absent.extend(group.deliveries),
            }
        }
        for delivery in &done {
            self.aside.forget(delivery);
        }
        for delivery in absent {
            self.set_aside(delivery, ABSENT.to_owned()).await;
        }
        self.aside.written(decided.len());
        Delivery::ack_all(done).await;
        crash_point!("after_ack");
        if let Some(previous) = self.telling.take() {
            let _ = previous.await;
        }
        let order_writer = self.order_writer.clone();
        self.telling = Some(tokio::spawn(async move { tell_gate(&order_writer, decided).await }));
    }

    async fn meet(&self, barrier: Barrier, delivery: Delivery) {
        if delivery.is_in_order() {
            let met = AssertUnwindSafe(self.rebuilder.meet(barrier)).catch_unwind().await;
            let problem = match met {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => {
                    self.metrics.consumer_panics.inc();
                    Some("a panic".to_owned())
                }
            };
            if let Some(problem) = problem {
                tracing::warn!(product.id = %barrier.product_id, problem, "Could not open a rebuilt gate");
            }
        }
        // In any case: when the gate stays closed, another barrier comes.
        Delivery::ack_all(vec![delivery]).await;
    }
}

/// The only delivery of a round; else each as a round of its own, for the others must not suffer for the culprit.
fn alone(round: Vec<Group>) -> Result<Delivery, Vec<Vec<Group>>> {
    let mut deliveries: Vec<Delivery> = round.into_iter().flat_map(|group| group.deliveries).collect();
    match deliveries.pop() {
        Some(only) if deliveries.is_empty() => Ok(only),
        last => Err(deliveries.into_iter().chain(last).map(|one| group(vec![one])).collect()),
    }
}

async fn tell_gate(order_writer: &OrderWriter, decided: Vec<(ProductId, Decision)>) {
    for (product, decision) in decided {
        if let Err(error) = order_writer.tell_gate(product, decision).await {
            // The sweeper finds what the gate was not told.
            tracing::debug!(product.id = %product, %error, "Could not tell the gate what was decided");
        }
    }
}

/// Puts deliveries of one product, epoch and revision together, in the order they came.
fn group(deliveries: Vec<Delivery>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for delivery in deliveries {
        let Message::Purchases(batch) = delivery.message() else { continue };
        // The product's last group: after one of another epoch or revision comes a new one.
        let fitting = groups
            .iter_mut()
            .rfind(|group| group.batch.product_id == batch.product_id)
            .filter(|group| group.batch.epoch == batch.epoch && group.batch.revision == batch.revision);
        match fitting {
            Some(group) => {
                group.batch.items.extend_from_slice(&batch.items);
                group.deliveries.push(delivery);
            }
            None => groups.push(Group { batch: batch.clone(), deliveries: vec![delivery] }),
        }
    }
    groups
}
