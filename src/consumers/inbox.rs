//! What one consumer receives, a round at a time.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::db::Round;
use crate::queue::Delivery;

/// With as many orders of a product a round is worth its work.
const ENOUGH_A_PRODUCT: usize = 50;

/// See the module.
pub(super) struct Inbox {
    deliveries: mpsc::Receiver<Delivery>,
    /// The first that had no place in the last round.
    held: Option<Delivery>,
}

impl Inbox {
    pub(super) fn new(deliveries: mpsc::Receiver<Delivery>) -> Self {
        Self { deliveries, held: None }
    }

    /// Waits for a round of deliveries, at most for `wake`, after which there may be none; `None` when there will be no
    /// more. A small one may grow for some moments: its buyers have their answer already.
    pub(super) async fn receive(&mut self, round: Round, wake: Option<Duration>) -> Option<Vec<Delivery>> {
        let first = match (self.held.take(), wake) {
            (Some(held), _) => held,
            (None, None) => self.deliveries.recv().await?,
            (None, Some(wake)) => match tokio::time::timeout(wake, self.deliveries.recv()).await {
                Ok(first) => first?,
                Err(_) => return Some(Vec::new()),
            },
        };
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
        Some(received)
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
