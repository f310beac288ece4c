//! Rebuilds a gate that was lost: its server restarted, failed over or was emptied.
//!
//! Exactly, while purchases that the old gate admitted may still be on their way. Close it under a new epoch, wait until
//! no promise for an older one can be given any more, send a barrier through the queue. The consumer
//! that it comes to raises the fence: no older purchase becomes an order after that. Then the live orders are read and the
//! gate is opened with them. Any instance may do any of it, several at once, and any may die: the next one that finds the
//! gate not open goes on from there.
//!
//! A gate that was retired after its sale had ended owed nothing: when the sale is reopened, there is nothing to wait for.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::rebuild_log::RebuildLog;
use crate::db::Db;
use crate::error::{Error, Result};
use crate::model::ProductId;
use crate::queue::{Barrier, OrderQueue};
use crate::services::deployment::{LEFT_AFTER, Membership, PROMISE_MAX_AGE};
use crate::services::orders::UnfinishedSales;
use crate::stock::{FoundGate, GateError, SharedGate, StockGate};
use crate::supervision::Supervisor;
use crate::telemetry::Metrics;

/// After this wait, no purchase of an older epoch can be promised any more: W in docs/protocol.md (`#rebuild-wait`).
const REBUILD_WAIT: Duration = PROMISE_MAX_AGE.saturating_add(Duration::from_secs(1));
// Also where this gate's predecessor is on a Redis that was left, which nobody closes.
const _: () = assert!(LEFT_AFTER.as_millis() <= REBUILD_WAIT.as_millis());
/// When no consumer has raised the fence by then, another barrier is sent.
const BARRIER_PATIENCE: Duration = Duration::from_secs(5);
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Gates that are rebuilt at once; most of the time each waits.
const AT_ONCE: usize = 256;
/// Live orders read and loaded at a time.
const PAGE: i64 = 5_000;

/// Name of these tasks.
const TASK: &str = "gate-rebuild";

/// See the module.
pub struct Rebuilder {
    db: Db,
    gate: Arc<StockGate>,
    queue: Arc<OrderQueue>,
    membership: Arc<Membership>,
    /// Where it notes when a rebuild begins and ends.
    unfinished_sales: Arc<UnfinishedSales>,
    metrics: Arc<Metrics>,
    under_way: Mutex<HashSet<ProductId>>,
    places: Semaphore,
    tasks: TaskTracker,
    runtime: Handle,
    stop: CancellationToken,
    supervisor: Supervisor,
    log: RebuildLog,
}

impl Rebuilder {
    /// Rebuilds the gates of a deployment, on `tasks`, until `stop`. Must be called on the main runtime.
    pub fn new(
        membership: Arc<Membership>,
        unfinished_sales: Arc<UnfinishedSales>,
        tasks: TaskTracker,
        stop: CancellationToken,
        supervisor: Supervisor,
    ) -> Self {
        supervisor.register(TASK);
        let Membership { db, gate, queue, metrics, .. } = &*membership;
        let (db, gate, queue, metrics) = (db.clone(), gate.clone(), queue.clone(), metrics.clone());
        let (under_way, places) = (Mutex::default(), Semaphore::new(AT_ONCE));
        Self {
            db,
            gate,
            queue,
            membership,
            unfinished_sales,
            metrics,
            under_way,
            places,
            tasks,
            runtime: Handle::current(),
            stop,
            supervisor,
            log: RebuildLog::default(),
        }
    }

    /// Starts the rebuild of a gate that is not open, unless this instance is at it. A gate in this process is opened by
    /// the warm-up.
    pub fn start(self: &Arc<Self>, product: ProductId) {
        if self.gate.shared().is_none() || !self.under_way.lock().insert(product) {
            return;
        }
        self.metrics.rebuilding.inc();
        self.unfinished_sales.rebuild_began();
        let rebuilder = self.clone();
        let rebuilding = async move {
            match rebuilder.stop.run_until_cancelled(AssertUnwindSafe(rebuilder.run(product)).catch_unwind()).await {
                None | Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => rebuilder.log.failed(product, &error),
                // The sweeper finds the gate not open and begins again.
                Some(Err(_)) => rebuilder.supervisor.survived(TASK),
            }
            let was_last = {
                let mut under_way = rebuilder.under_way.lock();
                under_way.remove(&product);
                under_way.is_empty()
            };
            if was_last {
                rebuilder.log.ended();
            }
            rebuilder.unfinished_sales.rebuild_ended();
            rebuilder.metrics.rebuilding.dec();
        };
        self.tasks.spawn_on(rebuilding, &self.runtime);
    }

    async fn run(&self, product: ProductId) -> Result<()> {
        let (Some(gate), Ok(_place)) = (self.gate.shared(), self.places.acquire().await) else { return Ok(()) };
        crash_point!("before_close");
        while let Some(Closed { epoch, server_id, fenced }) = self.close(gate, product).await? {
            crash_point!("after_close");
            if !fenced {
                tokio::time::sleep(REBUILD_WAIT).await;
                self.queue.publish_barrier(Barrier { product_id: product, epoch }).await?;
                if !self.wait_for_fence(product, epoch).await? {
                    continue;
                }
            }
            self.open(gate, product, &server_id, epoch).await?;
        }
        Ok(())
    }

    /// Closes the gate under the epoch that is to be opened next; `None` when it is open or nobody's.
    async fn close(&self, gate: SharedGate<'_>, product: ProductId) -> Result<Option<Closed>> {
        loop {
            let row = self.db.read(move |conn| Box::pin(conn.gate_row(product))).await?;
            let Some(row) = row else { return Ok(None) };
            let seen = gate.inspect(product).await?;
            let same_server = seen.server_id == row.server_id;
            let newest = match seen.found {
                FoundGate::Open(epoch) if same_server && epoch == row.epoch => return Ok(None),
                FoundGate::Open(epoch) | FoundGate::Closed(epoch) => epoch.max(row.epoch),
                FoundGate::Nothing => row.epoch,
            };
            // Not if the gate is newer than the database, which was restored: then nobody knows what is on its way.
            let retired = row.is_retired() && newest == row.epoch;
            let (mut epoch, mut fenced) = (row.epoch, row.fence == row.epoch);
            // Another server, or the gate that was installed is gone, or the database is older than the gate, from a backup:
            // what was admitted belongs to a past epoch.
            if retired
                || !same_server
                || (row.fence == row.epoch && seen.found == FoundGate::Nothing)
                || newest > row.epoch
            {
                let (server_id, next) = (seen.server_id.clone(), newest + 1);
                let redis_id = self.membership.redis_id().await?;
                let begun = self.db.transaction(move |conn| {
                    Box::pin(
                        async move { conn.begin_epoch(product, epoch, next, &server_id, &redis_id, retired).await },
                    )
                });
                if !begun.await? {
                    // Another instance was faster, or has left this Redis.
                    tokio::time::sleep(LOOK_INTERVAL).await;
                    continue;
                }
                (epoch, fenced) = (next, retired);
                if retired {
                    tracing::info!(product.id = %product, epoch, "A sale that had ended is reopened: opening its gate");
                } else {
                    self.metrics.rebuilds.inc();
                    tracing::debug!(product.id = %product, epoch, "A gate is lost: rebuilding it");
                    self.log.lost(product);
                }
            }
            match gate.close(product, &seen.server_id, epoch).await {
                Ok(()) => return Ok(Some(Closed { epoch, server_id: seen.server_id, fenced })),
                Err(GateError::AnotherGate) => tokio::time::sleep(LOOK_INTERVAL).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until a consumer has raised the fence to this epoch. False: it takes too long, or the epoch is over.
    async fn wait_for_fence(&self, product: ProductId, epoch: i64) -> Result<bool> {
        let begun = Instant::now();
        while begun.elapsed() < BARRIER_PATIENCE {
            tokio::time::sleep(LOOK_INTERVAL).await;
            match self.db.read(move |conn| Box::pin(conn.gate_row(product))).await? {
                Some(row) if row.epoch == epoch && row.fence == epoch => return Ok(true),
                Some(row) if row.epoch == epoch => {}
                _ => return Ok(false),
            }
        }
        Ok(false)
    }

    /// What a consumer does at a barrier, everything before it being in the database: raises the fence to its epoch, so that
    /// purchases of older epochs come too late from now on. May fail or be skipped: another barrier comes.
    pub async fn raise_fence(&self, barrier: Barrier) -> Result<()> {
        let Barrier { product_id: product, epoch } = barrier;
        self.db.transaction(move |conn| Box::pin(conn.raise_fence(product, epoch))).await?;
        crash_point!("after_fence");
        Ok(())
    }

    /// Opens the closed gate with the live orders. Only after the fence: an older purchase that is written after it was not
    /// promised, and is rejected. Nothing is done if another instance has opened it meanwhile.
    async fn open(&self, gate: SharedGate<'_>, product: ProductId, server_id: &str, epoch: i64) -> Result<()> {
        let mut staging = gate.stage(product, server_id, epoch).await?;
        let mut last_user = None;
        let mut buyers = 0;
        loop {
            let page = self.db.read(move |conn| Box::pin(conn.live_orders_after(product, last_user, PAGE))).await?;
            let Some(last) = page.last() else { break };
            last_user = Some(last.purchase.user_id);
            buyers += page.len();
            gate.add_staged(&mut staging, &page).await?;
        }
        let row = self.db.read(move |conn| Box::pin(conn.find_sale(product))).await?;
        let row = row.ok_or(Error::ProductNotFound)?;
        if row.gate_epoch != epoch {
            // Opened and taken away by others since it was closed here: what is closed now is a remainder of that.
            return Ok(());
        }
        crash_point!("before_install");
        match gate.install(staging, &row.settings()).await {
            Ok(()) => {
                tracing::debug!(product.id = %product, epoch, buyers, "Opened a rebuilt gate");
                self.log.opened(product, buyers);
            }
            Err(GateError::AnotherGate) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }
}

/// A gate that is closed, to be opened under this epoch on this server.
struct Closed {
    epoch: i64,
    server_id: String,
    /// The fence is raised to this epoch already.
    fenced: bool,
}
