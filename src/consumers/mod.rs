//! The consumer tasks: receive a batch, have it recorded, acknowledge, tell the gate. In this order, whatever happens.

use std::collections::{HashSet, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::db::{DbError, Round};
use crate::metrics::Metrics;
use crate::model::{ProductId, PurchaseBatch};
use crate::queue::{Barrier, Delivery, Message};
use crate::services::{Decision, Rebuilds, Recorder};

/// Pauses before a failed transaction is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(2);
/// Tries before a delivery that the database turns away for a reason that does not pass is parked.
const DEFECT_TRIES: u32 = 5;
/// With as many orders of a product a round is worth its work.
const ENOUGH_A_PRODUCT: usize = 50;

/// One consumer.
pub struct Consumer {
    recorder: Arc<Recorder>,
    rebuilds: Arc<Rebuilds>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    /// The gate is told while the next transaction runs, one at a time.
    telling: Option<JoinHandle<()>>,
}

/// Deliveries of one product and epoch that are decided together.
struct Group {
    batch: PurchaseBatch,
    deliveries: Vec<Delivery>,
}

enum Verdict {
    /// One decision a group; `None`: there is no such product.
    Decided(Vec<Option<Decision>>),
    /// It fails each time, for a reason that does not pass.
    Defect(String),
    /// Asked to stop before it was decided; the deliveries come again.
    Stopped,
}

impl Consumer {
    /// Records through `recorder`, meets barriers for `rebuilds`, until `stop`.
    pub fn new(
        recorder: Arc<Recorder>,
        rebuilds: Arc<Rebuilds>,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Self {
        Self { recorder, rebuilds, metrics, stop, telling: None }
    }

    /// Runs until it is asked to stop; what it has begun by then it finishes.
    pub async fn run(mut self, deliveries: mpsc::Receiver<Delivery>) {
        let (stop, round) = (self.stop.clone(), self.recorder.round());
        let mut inbox = Inbox { deliveries, held: None };
        'receiving: while let Some(received) = stop.run_until_cancelled(inbox.receive(round)).await {
            if received.is_empty() {
                break;
            }
            let mut purchases = Vec::with_capacity(received.len());
            for delivery in received {
                let Message::Barrier(barrier) = *delivery.message() else {
                    purchases.push(delivery);
                    continue;
                };
                if !self.record(std::mem::take(&mut purchases)).await {
                    break 'receiving;
                }
                self.meet(barrier, delivery).await;
            }
            if !self.record(purchases).await {
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
                Verdict::Defect(reason) => {
                    let mut deliveries: Vec<Delivery> = round.into_iter().flat_map(|group| group.deliveries).collect();
                    match deliveries.pop() {
                        Some(only) if deliveries.is_empty() => only.park(&reason).await,
                        // One of them is the culprit; the others must not suffer for it.
                        last => rounds.extend(deliveries.into_iter().chain(last).map(|one| group(vec![one]))),
                    }
                }
            }
        }
        true
    }

    async fn decide(&self, round: &[Group]) -> Verdict {
        let mut pause = RETRY_FIRST;
        let mut defects = 0;
        loop {
            let batches = round.iter().map(|group| group.batch.clone()).collect();
            let purchases: usize = round.iter().map(|group| group.batch.items.len()).sum();
            let problem = match AssertUnwindSafe(self.recorder.decide(batches)).catch_unwind().await {
                Ok(Ok(decisions)) => return Verdict::Decided(decisions),
                Ok(Err(error)) if is_passing(&error) => error.to_string(),
                Ok(Err(error)) => {
                    defects += 1;
                    error.to_string()
                }
                Err(_) => {
                    self.metrics.consumer_panics.inc();
                    defects += 1;
                    "a panic".to_owned()
                }
            };
            tracing::warn!(purchases, problem, "Could not write orders");
            if defects == DEFECT_TRIES {
                return Verdict::Defect(problem);
            }
            if self.stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Verdict::Stopped;
            }
            pause = (pause * 2).min(RETRY_MOST);
        }
    }

    /// Acknowledges what is in the database: a crash before it delivers again, and the rows are found.
    async fn finish(&mut self, round: Vec<Group>, decisions: Vec<Option<Decision>>) {
        crash_point!("after_commit");
        let mut decided = Vec::with_capacity(round.len());
        let mut done = Vec::new();
        for (group, decision) in round.into_iter().zip(decisions) {
            match decision {
                Some(decision) => {
                    done.extend(group.deliveries);
                    decided.push((group.batch.product_id, decision));
                }
                None => {
                    for delivery in group.deliveries {
                        delivery.park("there is no such product").await;
                    }
                }
            }
        }
        Delivery::ack_all(done).await;
        crash_point!("after_ack");
        if let Some(previous) = self.telling.take() {
            let _ = previous.await;
        }
        let recorder = self.recorder.clone();
        self.telling = Some(tokio::spawn(async move { tell_gate(&recorder, decided).await }));
    }

    async fn meet(&self, barrier: Barrier, delivery: Delivery) {
        if delivery.is_in_order() {
            let met = AssertUnwindSafe(self.rebuilds.meet(barrier)).catch_unwind().await;
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

/// What one consumer receives.
struct Inbox {
    deliveries: mpsc::Receiver<Delivery>,
    /// The first that had no place in the last round.
    held: Option<Delivery>,
}

impl Inbox {
    /// Waits for a round of deliveries; none when there will be no more. A small one may grow for some moments: its
    /// buyers have their answer already.
    async fn receive(&mut self, round: Round) -> Vec<Delivery> {
        let first = match self.held.take() {
            Some(held) => Some(held),
            None => self.deliveries.recv().await,
        };
        let Some(first) = first else { return Vec::new() };
        let mut purchases = weight(&first);
        let mut received = vec![first];
        let begun = Instant::now();
        let mut before = 0;
        while self.take_waiting(&mut received, &mut purchases, round.orders_most) {
            let waited = begun.elapsed();
            let enough = purchases >= products(&received) * ENOUGH_A_PRODUCT;
            // One that has stopped growing may have all there can be before something is acknowledged.
            if waited >= round.linger && (enough || received.len() == before || waited >= round.linger_most) {
                break;
            }
            before = received.len();
            tokio::time::sleep(round.linger).await;
        }
        received
    }

    /// Adds what is there already. Whether there is room for more.
    fn take_waiting(&mut self, received: &mut Vec<Delivery>, purchases: &mut usize, most: usize) -> bool {
        while let Ok(delivery) = self.deliveries.try_recv() {
            if *purchases + weight(&delivery) > most {
                self.held = Some(delivery);
                return false;
            }
            *purchases += weight(&delivery);
            received.push(delivery);
        }
        true
    }
}

fn products(deliveries: &[Delivery]) -> usize {
    deliveries.iter().map(|delivery| delivery.message().product_id()).collect::<HashSet<_>>().len()
}

/// How much of a round it takes: its purchases, and at least one, so that barriers cannot pile up without end.
fn weight(delivery: &Delivery) -> usize {
    delivery.purchases().len().max(1)
}

fn is_passing(error: &DbError) -> bool {
    // A duplicate means that another writer was faster: the next look finds its row.
    error.is_transient() || matches!(error, DbError::Duplicate(_))
}

async fn tell_gate(recorder: &Recorder, decided: Vec<(ProductId, Decision)>) {
    for (product, decision) in decided {
        if let Err(error) = recorder.tell_gate(product, decision).await {
            // The sweeper finds what the gate was not told.
            tracing::debug!(product.id = %product, %error, "Could not tell the gate what was decided");
        }
    }
}

/// Puts deliveries of one product and epoch together, in the order they came.
fn group(deliveries: Vec<Delivery>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for delivery in deliveries {
        let Message::Purchases(batch) = delivery.message() else { continue };
        // The product's last group: after one of another epoch comes a new one.
        let fitting = groups
            .iter_mut()
            .rfind(|group| group.batch.product_id == batch.product_id)
            .filter(|group| group.batch.epoch == batch.epoch);
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
