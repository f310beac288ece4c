//! The consumer tasks: receive a batch, have it recorded, acknowledge, tell the gate. In this order, whatever happens.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::db::DbError;
use crate::model::{ProductId, PurchaseBatch};
use crate::queue::Delivery;
use crate::services::{Decision, Recorder};

/// Deliveries taken at once at most.
const DELIVERIES_MOST: usize = 256;
/// How long a consumer lets a small round grow: its buyers have their answer already.
const LINGER: Duration = Duration::from_millis(5);
/// Purchases written in one transaction at most, unless a single delivery holds more.
const TRANSACTION_MOST: usize = 1000;
/// Pauses before a failed transaction is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(2);
/// Tries before a batch that the database turns away for a reason that does not pass is parked.
const DEFECT_TRIES: u32 = 5;

/// Deliveries of one product and epoch that are decided together.
struct Group {
    batch: PurchaseBatch,
    deliveries: Vec<Delivery>,
}

/// Runs one consumer until `stop`; what it has begun by then it finishes.
pub async fn run(mut deliveries: mpsc::Receiver<Delivery>, recorder: Arc<Recorder>, stop: CancellationToken) {
    let mut received = Vec::with_capacity(DELIVERIES_MOST);
    let mut telling: Option<JoinHandle<()>> = None;
    while stop.run_until_cancelled(receive(&mut deliveries, &mut received)).await.is_some_and(|()| !received.is_empty())
    {
        let mut groups = group(received.drain(..));
        while !groups.is_empty() {
            let together = if recorder.takes_many() { groups.len() } else { 1 };
            let round: Vec<Group> = groups.drain(..together).collect();
            let Some(outcomes) = decide(&recorder, &round, &stop).await else { return };
            let mut decided = Vec::with_capacity(round.len());
            for (group, outcome) in round.into_iter().zip(outcomes) {
                match outcome {
                    Outcome::Decided(decision) => {
                        // Ack last: a crash before it delivers again, and the rows are found.
                        for delivery in group.deliveries {
                            delivery.ack().await;
                        }
                        decided.push((group.batch.product_id, decision));
                    }
                    Outcome::Unwritable(reason) => {
                        for delivery in group.deliveries {
                            delivery.park(&reason).await;
                        }
                    }
                }
            }
            // The gate is told while the next transaction runs, one at a time.
            if let Some(previous) = telling.take() {
                let _ = previous.await;
            }
            let recorder = recorder.clone();
            telling = Some(tokio::spawn(async move { tell_gate(&recorder, decided).await }));
        }
    }
    if let Some(last) = telling {
        let _ = last.await;
    }
}

/// Waits for deliveries; stays empty when there will be no more.
async fn receive(deliveries: &mut mpsc::Receiver<Delivery>, received: &mut Vec<Delivery>) {
    deliveries.recv_many(received, DELIVERIES_MOST).await;
    let purchases = |received: &[Delivery]| received.iter().map(|one| one.batch().items.len()).sum::<usize>();
    if received.is_empty() || purchases(received) >= TRANSACTION_MOST {
        return;
    }
    tokio::time::sleep(LINGER).await;
    while received.len() < DELIVERIES_MOST
        && purchases(received) < TRANSACTION_MOST
        && let Ok(delivery) = deliveries.try_recv()
    {
        received.push(delivery);
    }
}

enum Outcome {
    Decided(Decision),
    Unwritable(String),
}

/// Tries until the database has decided. `None`: asked to stop before it could; the deliveries come again.
async fn decide(recorder: &Recorder, round: &[Group], stop: &CancellationToken) -> Option<Vec<Outcome>> {
    let mut pause = RETRY_FIRST;
    let mut defects = 0;
    loop {
        let batches = round.iter().map(|group| group.batch.clone()).collect();
        let error = match recorder.decide(batches).await {
            Ok(decisions) => return Some(decisions.into_iter().map(outcome).collect()),
            Err(error) => error,
        };
        let purchases: usize = round.iter().map(|group| group.batch.items.len()).sum();
        tracing::warn!(purchases, %error, "Could not write orders");
        if !is_passing(&error) {
            defects += 1;
            if defects == DEFECT_TRIES {
                return Some(round.iter().map(|_| Outcome::Unwritable(error.to_string())).collect());
            }
        }
        stop.run_until_cancelled(tokio::time::sleep(pause)).await?;
        pause = (pause * 2).min(RETRY_MOST);
    }
}

fn outcome(decision: Option<Decision>) -> Outcome {
    decision.map_or_else(|| Outcome::Unwritable("there is no such product".to_owned()), Outcome::Decided)
}

fn is_passing(error: &DbError) -> bool {
    // A duplicate means that another writer was faster: the next look finds its row.
    error.is_transient() || matches!(error, DbError::Duplicate(_))
}

async fn tell_gate(recorder: &Recorder, decided: Vec<(ProductId, Decision)>) {
    for (product, decision) in decided {
        if let Err(error) = recorder.tell_gate(product, decision).await {
            tracing::debug!(product.id = %product, %error, "Could not tell the gate what was decided");
        }
    }
}

/// Puts deliveries of one product and epoch together, in the order they came.
fn group(deliveries: impl Iterator<Item = Delivery>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for delivery in deliveries {
        let batch = delivery.batch();
        // The last group of the product: an earlier one may have been closed for being full.
        let fitting =
            groups.iter_mut().rev().find(|group| group.batch.product_id == batch.product_id).filter(|group| {
                group.batch.epoch == batch.epoch && group.batch.items.len() + batch.items.len() <= TRANSACTION_MOST
            });
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
