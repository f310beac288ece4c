//! Which sales may have purchases that are not in the database yet.
//!
//! Those that go on, those that ended lately, and those whose gate still held some in flight when it was looked at last,
//! however long ago the sale ended: a purchase that was promised is found until it is written.
//!
//! It only keeps notes. The sweeper and the rebuild of gates, which build on it, note what they see and do.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::db::Db;
use crate::error::{Error, Result};
use crate::model::{ProductId, Sale, Timestamp};
use crate::stock::{GateView, StockGate};

/// Of a sale that ended longer ago than this, only what its gate has in flight is looked after.
pub const LATELY: Duration = Duration::from_secs(3600);
/// The gate of a sale that ended longer ago than this is taken away, if it has nothing in flight. Later than the other, so that
/// nobody who looks after a sale misses its gate.
pub const RETIRED_AFTER: Duration = Duration::from_secs(75 * 60);
/// A sweep looks at sales that ended less long ago than this: it retires those whose time has come.
const SWEPT_FOR: Duration = Duration::from_secs(90 * 60);
/// And now and then at all of them, for what nobody did at its time.
const ALL_SWEPT_EVERY: Duration = Duration::from_secs(3600);
/// Ended sales with something in flight; there are some only after something was down for an hour.
const MAX_ENDED_IN_FLIGHT: usize = 10_000;

/// See the module.
pub struct UnfinishedSales {
    db: Db,
    gate: Arc<StockGate>,
    /// Ended ones with something in flight.
    ended_in_flight: Mutex<BTreeSet<ProductId>>,
    /// When this process has looked at all sales there ever were.
    looked_at: Mutex<Option<Instant>>,
    /// At the last look, all gates that should be open were.
    all_open: AtomicBool,
    /// Gates that this instance is rebuilding.
    rebuilding: AtomicUsize,
}

/// Products of which purchases may be in flight.
pub(in crate::services) enum ProductsInFlight {
    /// Nothing of any other product is in flight.
    Of(Vec<ProductId>),
    /// Nobody knows which: all products that have unfinished sales.
    OfAny(Vec<ProductId>),
}

impl UnfinishedSales {
    /// Of `db`, by the clock of `gate`.
    pub fn new(db: Db, gate: Arc<StockGate>) -> Self {
        let (ended_in_flight, looked_at) = (Mutex::default(), Mutex::default());
        Self { db, gate, ended_in_flight, looked_at, all_open: AtomicBool::new(false), rebuilding: AtomicUsize::new(0) }
    }

    /// Sales that had ended by then are finished, but for those with something in flight.
    pub(in crate::services) fn since(&self) -> Timestamp {
        self.gate.now().before(LATELY)
    }

    /// Sales that had ended by then are over: their gates are retired. By both clocks, for one of them may be wrong.
    pub(in crate::services) fn retired_before(&self) -> Timestamp {
        self.gate.now().min(Timestamp::now()).before(RETIRED_AFTER)
    }

    /// From where a sweep looks; `None`: at every sale there ever was, as the first one of a process does, for nobody
    /// remembers what an earlier process had not finished.
    pub(in crate::services) fn sweep_since(&self) -> Option<Timestamp> {
        let looked_at = *self.looked_at.lock();
        looked_at.filter(|at| at.elapsed() < ALL_SWEPT_EVERY).map(|_| self.gate.now().before(SWEPT_FOR))
    }

    /// A sweep has ended; whether all gates that should be open were, and whether it has looked at all sales there ever were.
    pub(in crate::services) fn swept(&self, all_open: bool, all_sales: bool) {
        self.all_open.store(all_open, Ordering::Relaxed);
        if all_sales {
            *self.looked_at.lock() = Some(Instant::now());
        }
    }

    /// This instance begins to rebuild a gate.
    pub(in crate::services) fn rebuild_began(&self) {
        self.rebuilding.fetch_add(1, Ordering::Relaxed);
    }

    /// A rebuild that this instance began has ended.
    pub(in crate::services) fn rebuild_ended(&self) {
        self.rebuilding.fetch_sub(1, Ordering::Relaxed);
    }

    /// Products whose gates must be asked for what is in flight.
    ///
    /// The gate knows them without a look at each. Not while one of its gates is lost or rebuilt: that one cannot say what it
    /// held, so all are asked, and those who ask learn which could not answer.
    pub(in crate::services) async fn in_flight(&self) -> Result<ProductsInFlight> {
        if (self.gate.shared().is_none() || self.all_gates_are_open())
            && let Some(products) = self.gate.products_in_flight().await?
        {
            return Ok(ProductsInFlight::Of(products));
        }
        let (since, ended) = (self.since(), self.ended_in_flight());
        let unfinished = self
            .db
            .read(move |conn| Box::pin(async move { Ok::<_, Error>(conn.unfinished_products(since, &ended).await?) }));
        unfinished.await.map(ProductsInFlight::OfAny)
    }

    /// Whether no gate that should be open is known not to be. Not before the first sweep of this process, which finds out.
    fn all_gates_are_open(&self) -> bool {
        self.looked_at.lock().is_some()
            && self.all_open.load(Ordering::Relaxed)
            && self.rebuilding.load(Ordering::Relaxed) == 0
    }

    /// Notes what a look at the gate of a sale has found.
    pub(in crate::services) fn saw(&self, sale: &Sale, view: &GateView) {
        let mut ended = self.ended_in_flight.lock();
        if view.in_flight == 0 || !sale.had_ended(self.gate.now()) {
            ended.remove(&sale.id);
        } else if ended.len() < MAX_ENDED_IN_FLIGHT {
            ended.insert(sale.id);
        }
    }

    /// Sales that have ended and have something in flight.
    pub(in crate::services) fn ended_in_flight(&self) -> Vec<ProductId> {
        self.ended_in_flight.lock().iter().copied().collect()
    }
}
