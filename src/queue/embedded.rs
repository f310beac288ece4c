//! The queue in this process. A purchase is durable when it is in the database, so a batch is confirmed when the
//! consumer acknowledges it, after its commit. What waits meanwhile shares the next commit, and its one flush to disk.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::PublishError;
use crate::model::PurchaseBatch;

/// Purchases that wait for their commit at most.
const CAPACITY: usize = 16_384;
/// How long a publisher waits. Nothing is known about a batch after that (I5).
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(2);

/// See the module.
pub struct EmbeddedQueue {
    deliveries: mpsc::Sender<super::Delivery>,
    receiver: Mutex<Option<mpsc::Receiver<super::Delivery>>>,
    waiting: Arc<AtomicUsize>,
}

/// A batch, and whoever waits for its commit.
pub struct Delivery {
    batch: PurchaseBatch,
    confirm: oneshot::Sender<Result<(), PublishError>>,
    // Counts the purchases as waiting until the delivery is gone.
    _place: Place,
}

struct Place {
    waiting: Arc<AtomicUsize>,
    purchases: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waiting.fetch_sub(self.purchases, Ordering::Relaxed);
    }
}

impl EmbeddedQueue {
    pub(super) fn new() -> Self {
        let (deliveries, receiver) = mpsc::channel(CAPACITY);
        Self { deliveries, receiver: Mutex::new(Some(receiver)), waiting: Arc::default() }
    }

    pub(super) fn start(&self) -> Option<mpsc::Receiver<super::Delivery>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    pub(super) fn is_ready(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) < CAPACITY && !self.deliveries.is_closed()
    }

    pub(super) async fn publish(&self, batch: &PurchaseBatch) -> Result<(), PublishError> {
        // The lanes' bounds keep the overshoot of a check that is not one step with the count small.
        if !self.is_ready() {
            return Err(PublishError::Unavailable);
        }
        let purchases = batch.items.len();
        self.waiting.fetch_add(purchases, Ordering::Relaxed);
        let place = Place { waiting: self.waiting.clone(), purchases };
        let (confirm, confirmed) = oneshot::channel();
        let delivery = super::Delivery::Embedded(Delivery { batch: batch.clone(), confirm, _place: place });
        self.deliveries.try_send(delivery).map_err(|_| PublishError::Unavailable)?;
        match tokio::time::timeout(CONFIRM_TIMEOUT, confirmed).await {
            Ok(Ok(result)) => result,
            _ => Err(PublishError::Unclear),
        }
    }
}

impl Delivery {
    pub(super) fn batch(&self) -> &PurchaseBatch {
        &self.batch
    }

    pub(super) fn confirm(self, result: Result<(), PublishError>) {
        // A publisher that gave up has gone.
        let _ = self.confirm.send(result);
    }
}
