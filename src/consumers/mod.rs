//! The consumer tasks: receive a batch, have it recorded, acknowledge, tell the gate. In this order, whatever happens.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::db::DbError;
use crate::model::ProductId;
use crate::queue::Delivery;
use crate::services::{Decision, Recorder};
use crate::stock::Purchase;

/// Deliveries taken at once at most.
const DELIVERIES_MOST: usize = 256;
/// Purchases written in one transaction at most, unless a single delivery holds more.
const TRANSACTION_MOST: usize = 1000;
/// Pauses before a failed transaction is tried again.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MOST: Duration = Duration::from_secs(2);
/// Tries before a batch that the database turns away for a reason that does not pass is parked.
const DEFECT_TRIES: u32 = 5;

/// Deliveries of one product and epoch that are decided in one transaction.
struct Group {
    product: ProductId,
    epoch: i64,
    purchases: Vec<Purchase>,
    deliveries: Vec<Delivery>,
}

/// Runs one consumer until `stop`; what it has begun by then it finishes.
pub async fn run(mut deliveries: mpsc::Receiver<Delivery>, recorder: Arc<Recorder>, stop: CancellationToken) {
    let mut received = Vec::with_capacity(DELIVERIES_MOST);
    let mut telling: Option<JoinHandle<()>> = None;
    while stop.run_until_cancelled(deliveries.recv_many(&mut received, DELIVERIES_MOST)).await.unwrap_or(0) > 0 {
        for group in group(received.drain(..)) {
            let Some(decision) = decide(&recorder, &group, &stop).await else { return };
            let Group { product, deliveries, .. } = group;
            match decision {
                Outcome::Decided(decision) => {
                    // Ack last: a crash before it delivers again, and the rows are found.
                    for delivery in deliveries {
                        delivery.ack().await;
                    }
                    // The gate is told while the next transaction runs, one at a time.
                    if let Some(previous) = telling.take() {
                        let _ = previous.await;
                    }
                    let recorder = recorder.clone();
                    telling = Some(tokio::spawn(async move { tell_gate(&recorder, product, decision).await }));
                }
                Outcome::Unwritable(reason) => {
                    for delivery in deliveries {
                        delivery.park(&reason).await;
                    }
                }
            }
        }
    }
    if let Some(last) = telling {
        let _ = last.await;
    }
}

enum Outcome {
    Decided(Decision),
    Unwritable(String),
}

/// Tries until the database has decided. `None`: asked to stop before it could; the deliveries come again.
async fn decide(recorder: &Recorder, group: &Group, stop: &CancellationToken) -> Option<Outcome> {
    let mut pause = RETRY_FIRST;
    let mut defects = 0;
    loop {
        let error = match recorder.decide(group.product, group.epoch, &group.purchases).await {
            Ok(Some(decision)) => return Some(Outcome::Decided(decision)),
            Ok(None) => return Some(Outcome::Unwritable("there is no such product".to_owned())),
            Err(error) => error,
        };
        tracing::warn!(product.id = %group.product, purchases = group.purchases.len(), %error, "Could not write orders");
        if !is_passing(&error) {
            defects += 1;
            if defects == DEFECT_TRIES {
                return Some(Outcome::Unwritable(error.to_string()));
            }
        }
        stop.run_until_cancelled(tokio::time::sleep(pause)).await?;
        pause = (pause * 2).min(RETRY_MOST);
    }
}

fn is_passing(error: &DbError) -> bool {
    // A duplicate means that another writer was faster: the next look finds its row.
    error.is_transient() || matches!(error, DbError::Duplicate(_))
}

async fn tell_gate(recorder: &Recorder, product: ProductId, decision: Decision) {
    if let Err(error) = recorder.tell_gate(product, decision).await {
        tracing::warn!(product.id = %product, %error, "Could not tell the gate what was decided");
    }
}

/// Puts deliveries of one product and epoch together, in the order they came.
fn group(deliveries: impl Iterator<Item = Delivery>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for delivery in deliveries {
        let batch = delivery.batch();
        let (product, epoch, purchases) = (batch.product_id, batch.epoch, batch.items.clone());
        // The last group of the product: an earlier one may have been closed for being full.
        let fitting = groups.iter_mut().rev().find(|group| group.product == product).filter(|group| {
            group.epoch == epoch && group.purchases.len() + purchases.len() <= TRANSACTION_MOST
        });
        match fitting {
            Some(group) => {
                group.purchases.extend(purchases);
                group.deliveries.push(delivery);
            }
            None => groups.push(Group { product, epoch, purchases, deliveries: vec![delivery] }),
        }
    }
    groups
}
