//! Which sales may have purchases that are not in the database yet.
//!
//! Those that go on, those that ended lately, and those whose gate still held some in flight when it was looked at last,
//! however long ago the sale ended: a purchase that was promised is found until it is written.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::{ProductId, Sale, Timestamp};
use crate::stock::{GateView, StockGate};

/// Of a sale that ended longer ago than this, only what its gate has in flight is looked after.
const LATELY: Duration = Duration::from_secs(3600);
/// The gate of a sale that ended longer ago than this is taken away, if it has nothing in flight. Later than the other, so that
/// nobody who looks after a sale misses its gate.
pub const RETIRED_AFTER: Duration = Duration::from_secs(75 * 60);
/// A sweep looks at sales that ended less long ago than this: it retires those whose time has come.
const SWEPT_FOR: Duration = Duration::from_secs(90 * 60);
/// And now and then at all of them, for what nobody did at its time.
const ALL_SWEPT_EVERY: Duration = Duration::from_secs(3600);
/// Ended sales with something in flight; there are some only after something was down for an hour.
const MAX_LEFT: usize = 10_000;

/// See the module.
pub struct UnfinishedSales {
    gate: Arc<StockGate>,
    left: Mutex<BTreeSet<ProductId>>,
    /// When this process has looked at all sales there ever were.
    looked_at: Mutex<Option<Instant>>,
    /// At the last look, all gates that should be open were.
    all_open: AtomicBool,
}

impl UnfinishedSales {
    /// By the clock of `gate`.
    pub fn new(gate: Arc<StockGate>) -> Self {
        Self { gate, left: Mutex::default(), looked_at: Mutex::default(), all_open: AtomicBool::new(false) }
    }

    /// Sales that had ended by then are finished, but for those that are left over.
    pub fn since(&self) -> Timestamp {
        self.gate.now().before(LATELY)
    }

    /// Sales that had ended by then are over: their gates are retired. By both clocks, for one of them may be wrong.
    pub(in crate::services) fn retired_before(&self) -> Timestamp {
        self.gate.now().min(Timestamp::now()).before(RETIRED_AFTER)
    }

    /// From where a sweep looks; `None`: at every sale there ever was, as the first one of a process does, for nobody
    /// remembers what an earlier process left.
    pub(in crate::services) fn sweep_since(&self) -> Option<Timestamp> {
        let looked_at = self.looked_at().filter(|at| at.elapsed() < ALL_SWEPT_EVERY);
        looked_at.map(|_| self.gate.now().before(SWEPT_FOR))
    }

    /// A sweep has ended; whether all gates that should be open were, and whether it has looked at all sales there ever were.
    pub(in crate::services) fn swept(&self, all_open: bool, all_sales: bool) {
        self.all_open.store(all_open, Ordering::Relaxed);
        if all_sales {
            *self.looked_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        }
    }

    /// Whether the last sweep of this process found a gate that should be open and is not; `None`: there was no sweep yet.
    pub(in crate::services) fn saw_lost_gate(&self) -> Option<bool> {
        self.looked_at().map(|_| !self.all_open.load(Ordering::Relaxed))
    }

    fn looked_at(&self) -> Option<Instant> {
        *self.looked_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what a look at the gate of a sale has shown.
    pub(in crate::services) fn saw(&self, sale: &Sale, view: &GateView) {
        let mut left = self.left();
        if view.in_flight == 0 || !sale.had_ended(self.gate.now()) {
            left.remove(&sale.id);
        } else if left.len() < MAX_LEFT {
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
