//! Rebuilds a gate that was lost: its server restarted, failed over or was emptied.
//!
//! Exactly, while purchases that the old gate admitted may still be on their way. Close it under a new epoch, wait until
//! no promise for an older one can be given any more, send a barrier through the queue; the consumer that meets it fences
//! older purchases off, reads the live orders and opens the gate with them. Any instance may do any of it, several at
//! once, and any may die: whoever finds the gate not open begins again.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::purchases::PROMISE_MAX_AGE;
use crate::db::Db;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::model::ProductId;
use crate::queue::{Barrier, OrderQueue};
use crate::stock::{Found, GateError, SharedGate, StockGate};
use crate::supervision::Supervisor;

/// W of the protocol: after it, no purchase of an older epoch can be promised any more.
const SETTLING_TIME: Duration = PROMISE_MAX_AGE.saturating_add(Duration::from_secs(1));
/// When a barrier has not opened the gate by then, another one is sent.
const BARRIER_PATIENCE: Duration = Duration::from_secs(5);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Gates that are rebuilt at once; most of the time each waits.
const AT_ONCE: usize = 256;
/// Live orders read and loaded at a time.
const PAGE: i64 = 5_000;

/// Name of these tasks.
const TASK: &str = "gate-rebuild";

/// See the module.
pub struct Rebuilds {
    db: Db,
    gate: Arc<StockGate>,
    queue: Arc<OrderQueue>,
    metrics: Arc<Metrics>,
    under_way: Mutex<HashSet<ProductId>>,
    places: Semaphore,
    tasks: TaskTracker,
    runtime: Handle,
    stop: CancellationToken,
    supervisor: Supervisor,
}

impl Rebuilds {
    /// Runs rebuilds on `tasks` until `stop`. Must be called on the main runtime.
    pub fn new(
        db: Db,
        gate: Arc<StockGate>,
        queue: Arc<OrderQueue>,
        metrics: Arc<Metrics>,
        tasks: TaskTracker,
        stop: CancellationToken,
        supervisor: Supervisor,
    ) -> Self {
        supervisor.register(TASK);
        let (under_way, places) = (Mutex::default(), Semaphore::new(AT_ONCE));
        Self { db, gate, queue, metrics, under_way, places, tasks, runtime: Handle::current(), stop, supervisor }
    }

    /// Starts the rebuild of a gate that is not open, unless this instance is at it.
    pub fn start(self: &Arc<Self>, product: ProductId) {
        if self.gate.shared().is_none() || !self.under_way().insert(product) {
            return;
        }
        let rebuilds = self.clone();
        let rebuilding = async move {
            match rebuilds.stop.run_until_cancelled(AssertUnwindSafe(rebuilds.run(product)).catch_unwind()).await {
                None | Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => tracing::warn!(product.id = %product, %error, "Could not rebuild a gate yet"),
                // The sweeper finds the gate not open and begins again.
                Some(Err(_)) => rebuilds.supervisor.survived(TASK),
            }
            rebuilds.under_way().remove(&product);
        };
        self.tasks.spawn_on(rebuilding, &self.runtime);
    }

    fn under_way(&self) -> std::sync::MutexGuard<'_, HashSet<ProductId>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&self, product: ProductId) -> Result<()> {
        let (Some(gate), Ok(_place)) = (self.gate.shared(), self.places.acquire().await) else { return Ok(()) };
        crash_point!("before_close");
        while let Some(epoch) = self.close(gate, product).await? {
            crash_point!("after_close");
            tokio::time::sleep(SETTLING_TIME).await;
            self.queue.publish_barrier(Barrier { product_id: product, epoch }).await?;
            let opened = tokio::time::timeout(BARRIER_PATIENCE, self.opened(product)).await;
            if opened.is_ok() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Closes the gate under the epoch that is to be opened next; `None` when it is open or nobody's.
    async fn close(&self, gate: SharedGate<'_>, product: ProductId) -> Result<Option<i64>> {
        loop {
            let row = self.db.read(move |conn| Box::pin(conn.gate_row(product))).await?;
            let Some(row) = row else { return Ok(None) };
            let seen = gate.inspect(product).await?;
            let at_home = seen.home == row.home;
            if at_home && seen.found == Found::Open(row.epoch) {
                return Ok(None);
            }
            let mut epoch = row.epoch;
            // Another server, or the gate that was installed is gone: what it admitted belongs to a past epoch.
            if !at_home || (row.fence == row.epoch && seen.found == Found::Nothing) {
                let home = seen.home.clone();
                let begin = self
                    .db
                    .transaction(move |conn| Box::pin(async move { conn.begin_epoch(product, epoch, &home).await }));
                if !begin.await? {
                    continue;
                }
                epoch += 1;
                self.metrics.rebuilds.inc();
                tracing::warn!(product.id = %product, epoch, "A gate is lost: rebuilding it");
            }
            match gate.close(product, &seen.home, epoch).await {
                Ok(()) => return Ok(Some(epoch)),
                Err(GateError::Superseded) => continue,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn opened(&self, product: ProductId) {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            if let Ok(views) = self.gate.view(&[product]).await
                && views.iter().all(Option::is_some)
            {
                return;
            }
        }
    }

    /// What a consumer does at a barrier, everything before it being in the database. May fail or be skipped: another
    /// barrier comes.
    pub async fn meet(&self, barrier: Barrier) -> Result<()> {
        let Barrier { product_id: product, epoch } = barrier;
        let Some(gate) = self.gate.shared() else { return Ok(()) };
        let fenced = self.db.transaction(move |conn| {
            Box::pin(async move {
                conn.fence(product, epoch).await?;
                conn.gate_row(product).await
            })
        });
        let Some(row) = fenced.await?.filter(|row: &crate::db::GateRow| row.epoch == epoch && row.fence == epoch)
        else {
            return Ok(());
        };
        crash_point!("after_fence");
        // Only now: an older purchase that is written after this was not promised, and is rejected.
        let staging = gate.stage(product, &row.home, epoch).await?;
        let mut last_user = 0;
        let mut buyers = 0;
        loop {
            let page = self.db.read(move |conn| Box::pin(conn.live_orders_after(product, last_user, PAGE))).await?;
            let Some(last) = page.last() else { break };
            last_user = last.user_id.get();
            buyers += page.len();
            gate.add_staged(&staging, &page).await?;
        }
        let row = self.db.read(move |conn| Box::pin(conn.find_sale(product))).await?;
        let row = row.ok_or(Error::ProductNotFound)?;
        crash_point!("before_install");
        match gate.install(staging, &row.terms()).await {
            Ok(()) => tracing::warn!(product.id = %product, epoch, buyers, "Opened a rebuilt gate"),
            Err(GateError::Superseded) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}
