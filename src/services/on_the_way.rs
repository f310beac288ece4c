//! Which sales may have purchases that are not in the database yet.
//!
//! Those that go on, those that ended lately, and those whose gate still held some in flight when it was looked at last,
//! however long ago the sale ended: a purchase that was promised is found until it is written.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::model::{ProductId, Sale, Timestamp};
use crate::stock::{GateView, StockGate};

/// Of a sale that ended longer ago than this, only what its gate has in flight is looked after.
const LATELY: Duration = Duration::from_secs(3600);
/// Sales of that kind; there are some only after something was down for an hour.
const LEFT_MOST: usize = 10_000;

/// See the module.
pub struct OnTheWay {
    gate: Arc<StockGate>,
    left: Mutex<BTreeSet<ProductId>>,
    /// This process has looked at all sales there ever were.
    looked: AtomicBool,
    /// At the last look, all gates that should be open were.
    all_open: AtomicBool,
}

impl OnTheWay {
    /// By the clock of `gate`.
    pub fn new(gate: Arc<StockGate>) -> Self {
        Self { gate, left: Mutex::default(), looked: AtomicBool::new(false), all_open: AtomicBool::new(false) }
    }

    /// Sales that had ended by then are finished, but for those that are left over.
    pub fn since(&self) -> Timestamp {
        self.gate.now().before(LATELY)
    }

    /// From where a sweep looks: the first one of a process at every sale there ever was, for nobody remembers what an
    /// earlier process left.
    pub(super) fn sweep_since(&self) -> Timestamp {
        if self.looked.load(Ordering::Relaxed) { self.since() } else { Timestamp::EARLIEST }
    }

    /// A sweep has looked at all sales; whether all gates that should be open were.
    pub(super) fn swept(&self, all_open: bool) {
        self.all_open.store(all_open, Ordering::Relaxed);
        self.looked.store(true, Ordering::Relaxed);
    }

    /// Whether the last sweep of this process found a gate that should be open and is not; `None`: there was no sweep yet.
    pub(super) fn saw_lost_gate(&self) -> Option<bool> {
        self.looked.load(Ordering::Relaxed).then(|| !self.all_open.load(Ordering::Relaxed))
    }

    /// Notes what a look at the gate of a sale has shown.
    pub(super) fn saw(&self, sale: &Sale, view: &GateView) {
        let mut left = self.left();
        if view.in_flight == 0 || !sale.had_ended(self.gate.now()) {
            left.remove(&sale.id);
        } else if left.len() < LEFT_MOST {
            left.insert(sale.id);
        }
    }

    /// Sales that have ended and have something in flight.
    pub fn left_over(&self) -> Vec<ProductId> {
        self.left().iter().copied().collect()
    }

    fn left(&self) -> std::sync::MutexGuard<'_, BTreeSet<ProductId>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
