//! Finds what was begun and not finished, and brings it to an end: in every instance, each second, all of them safe together.
//!
//! It has purchases that are in flight for too long written to the database directly, so a purchase survives the loss of the
//! queue or of the gate. Gates that are not open, or not needed any more, it hands to [`Gates`].

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ConstantBuilder};
use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;

use super::gates::Gates;
use super::offer::offer_at_least;
use crate::db::Db;
use crate::error::{Error, Result};
use crate::model::{LatePayment, Life, ProductId, Sale, Timestamp};
use crate::services::deployment::Membership;
use crate::services::orders::{OrderWriter, UnfinishedSales};
use crate::services::payments::Revivals;
use crate::stock::{GateError, GateView, StockGate};
use crate::telemetry::{LogThrottle, Metrics, Outage};

/// Between two sweeps: 450 to 900 ms, so that instances do not sweep together. What a sweep must find within a second is found.
const PAUSES: ConstantBuilder =
    ConstantBuilder::new().with_delay(Duration::from_millis(450)).with_jitter().without_max_times();
/// A purchase that was reserved this long ago and is still in flight is written here: S in docs/protocol.md (`#sweep-age`). No
/// safety depends on it.
const STALE_AGE: Duration = Duration::from_secs(10);
/// Purchases of one product written at a time.
const MAX_STALE: usize = 500;
/// Dead orders released in one sweep.
const MAX_RELEASES: i64 = 1_000;
/// A sweep that fails is told after this: the store that it lacks is told of at once.
const TOLD_AFTER: Duration = Duration::from_secs(15);
/// Gates taken away in one sweep: what else a sweep must find does not wait for more.
const MAX_RETIRED: u32 = 100;
/// Products looked at in one call to the gate.
const PRODUCTS_A_CALL: i64 = 500;

/// Lines about purchases that were in flight for too long.
static TOO_LONG_IN_FLIGHT: LogThrottle = LogThrottle::each_second();

/// See the module.
pub struct Sweeper {
    db: Db,
    gate: Arc<StockGate>,
    order_writer: Arc<OrderWriter>,
    revivals: Arc<Revivals>,
    gates: Arc<Gates>,
    unfinished_sales: Arc<UnfinishedSales>,
    membership: Arc<Membership>,
    metrics: Arc<Metrics>,
    /// Bounds the lines about products that cannot be swept.
    skips_logged: LogThrottle,
}

impl Sweeper {
    /// Looks into `db` and `gate`, writes through `order_writer` and `revivals`, opens and retires through `gates`.
    pub fn new(
        db: Db,
        gate: Arc<StockGate>,
        (order_writer, revivals): (Arc<OrderWriter>, Arc<Revivals>),
        gates: Arc<Gates>,
        unfinished_sales: Arc<UnfinishedSales>,
        membership: Arc<Membership>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let skips_logged = LogThrottle::new(Duration::from_secs(10));
        Self { db, gate, order_writer, revivals, gates, unfinished_sales, membership, metrics, skips_logged }
    }

    /// Sweeps until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut outage = Outage::after(
            TOLD_AFTER,
            "Could not look for purchases that are in flight for too long",
            "Purchases that are in flight for too long are looked for again",
        );
        for pause in PAUSES.build() {
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
            // Not cut short by a stop: the gate is told first what was written.
            match self.sweep().await {
                Ok(()) => outage.ended(),
                Err(error) => outage.failed(
                    error.code(),
                    &error,
                    "see what the log says of the database and of Redis; nothing is lost",
                ),
            }
        }
    }

    async fn sweep(&self) -> Result<()> {
        crash_point!("sweep");
        let lately = self.unfinished_sales.since();
        self.release_dead(lately).await?;
        let since = self.unfinished_sales.sweep_since();
        let (mut in_flight, mut all_open, mut all_seen) = (Vec::new(), true, true);
        let (from, mut after, mut retired) = (since.unwrap_or(Timestamp::EARLIEST), 0, 0);
        loop {
            let ended = self.unfinished_sales.ended_in_flight();
            let page = self.db.read(move |conn| {
                Box::pin(async move { conn.unfinished_after(from, &ended, after, PRODUCTS_A_CALL).await })
            });
            let (mut page, Some(last)) = page.await? else { break };
            after = last;
            for product in page.iter().filter(|product| product.sold > product.stock) {
                if let Err(error) = offer_at_least(&self.db, product.id, product.sold).await {
                    self.skipped(product.id, &error);
                }
            }
            page.retain(|product| !(product.retired && product.had_ended(lately)));
            let ids: Vec<ProductId> = page.iter().map(|product| product.id).collect();
            for (product, view) in page.iter().zip(self.gate.view_each(&ids).await) {
                let view = match view {
                    Ok(view) => view,
                    Err(error) if error.is_of_server() => {
                        // What keeps the connections has logged it.
                        tracing::debug!(%error, product.id = %product.id, "Could not look into a gate");
                        if !self.gate.is_on_several_servers() {
                            return Ok(());
                        }
                        all_seen = false;
                        continue;
                    }
                    Err(error) => return Err(error.into()),
                };
                in_flight.extend(view.filter(|view| view.in_flight > 0).map(|_| product.id));
                all_open &= view.is_some() || product.had_ended(lately) || self.gate.shared().is_none();
                // What is wrong with one product must not keep the others waiting.
                // Neither must a defect that shows with it.
                let swept =
                    AssertUnwindSafe(self.sweep_product(product, view, retired < MAX_RETIRED)).catch_unwind().await;
                match swept.unwrap_or_else(|_| Err(Error::Internal("a panic while it was swept".to_owned()))) {
                    Ok(gone) => retired += u32::from(gone),
                    Err(error) => self.skipped(product.id, &error),
                }
            }
        }
        if all_seen && let Err(error) = self.gate.saw_in_flight(&in_flight).await {
            tracing::debug!(%error, "Could not note what is in flight");
        }
        if retired > 0 {
            tracing::info!(gates = retired, "Took away the gates of sales that have ended");
        }
        if since.is_none() {
            self.gates.forget_release_due(lately).await?;
        }
        // What is still to be taken away is looked for again at once.
        self.unfinished_sales.swept(all_open && all_seen, all_seen && since.is_none() && retired < MAX_RETIRED);
        self.membership.saw_all_gates();
        Ok(())
    }

    /// True: the gate was taken away, which it may be.
    async fn sweep_product(&self, product: &Sale, view: Option<GateView>, may_go: bool) -> Result<bool> {
        match view {
            None => self.gates.reopen(product).await?,
            // What is found in the place of a gate that was retired is not the product's.
            Some(_) if product.retired => self.gates.rebuild(product.id),
            Some(view) => {
                if may_go && self.gates.retire_if_over(product, &view).await? {
                    return Ok(true);
                }
                self.membership.saw_gate(product.id, view.epoch, product.gate_epoch);
                if view.epoch != product.gate_epoch {
                    // Looks again, and closes it if it is older; newer is one that was opened since the row was read.
                    self.gates.rebuild(product.id);
                }
                self.unfinished_sales.saw(product, &view);
                self.note_sold_out(product, &view).await?;
                let terms = product.settings().terms;
                if view.revision < product.revision || view.revision == product.revision && view.terms != terms {
                    self.configure(product).await?;
                }
                // What a gate admitted that is over comes through the queue, or was not promised.
                if view.in_flight > 0 && view.epoch >= product.gate_epoch {
                    self.write_stale(product.id).await?;
                }
            }
        }
        Ok(false)
    }

    /// The gate sells the last unit, and by then clicks on its way hold what the database is yet to learn.
    async fn note_sold_out(&self, product: &Sale, view: &GateView) -> Result<()> {
        if view.revision == product.revision && view.taken > product.stock {
            // The stock was lowered while these units were promised, and whoever did it has died: see ProductCommands::patch.
            offer_at_least(&self.db, product.id, view.taken).await?;
        }
        let (id, sold_out) = (product.id, view.remaining == 0);
        if sold_out == product.sold_out_at.is_some() {
            return Ok(());
        }
        let at = sold_out.then(|| self.gate.now());
        self.db
            .transaction(move |conn| Box::pin(async move { Ok::<_, Error>(conn.note_sold_out(id, at).await?) }))
            .await?;
        Ok(())
    }

    /// Others log that a store is away. A product that cannot be swept is a defect, or a row or key that somebody has
    /// spoiled.
    fn skipped(&self, product: ProductId, error: &Error) {
        // So is a row that cannot be read.
        if matches!(error, Error::Unavailable(_) | Error::Unreadable(_)) {
            tracing::debug!(product.id = %product, %error, "Could not sweep a product");
        } else if let Some(untold) = self.skips_logged.now() {
            tracing::warn!(product.id = %product, %error, untold, "Could not sweep a product; others go on");
        }
    }

    async fn configure(&self, product: &Sale) -> Result<()> {
        match self.gate.configure(product.id, &product.settings()).await {
            Ok(()) | Err(GateError::Closed | GateError::Lost) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn write_stale(&self, product: ProductId) -> Result<()> {
        let mut stale = match self.gate.stale(product, STALE_AGE, MAX_STALE).await {
            Ok(stale) => stale,
            Err(GateError::Closed | GateError::Lost) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        self.finish_late_payments(product, stale.epoch, std::mem::take(&mut stale.late_payments)).await;
        if stale.purchases.is_empty() {
            return Ok(());
        }
        let purchases = stale.purchases.len();
        let (outcomes, refused) = self.order_writer.write_what_is_accepted(stale.into_groups(product)).await?;
        self.metrics.swept.inc_by(purchases as u64);
        if let Some(untold) = TOO_LONG_IN_FLIGHT.now() {
            tracing::warn!(product.id = %product, purchases, untold, "Wrote purchases that were in flight for too long");
        }
        for outcome in outcomes.into_iter().flatten() {
            self.order_writer.tell_gate(product, outcome).await?;
        }
        // It stays in flight, and is tried again by the next sweep.
        refused.map_or(Ok(()), |error| Err(error.into()))
    }

    async fn finish_late_payments(&self, product: ProductId, epoch: i64, late: Vec<LatePayment>) {
        for late in late {
            // One that cannot be decided keeps no other waiting, and is tried again by the next sweep.
            if let Err(error) = self.revivals.finish(product, epoch, late).await {
                self.skipped(product, &error);
            }
        }
    }

    /// Gives back the units of dead orders that the gate still holds.
    async fn release_dead(&self, since: Timestamp) -> Result<()> {
        let due = self.db.read(move |conn| Box::pin(conn.release_due(since, MAX_RELEASES))).await?;
        let mut by_product: Vec<(ProductId, i64, Vec<Life>)> = Vec::new();
        for (product, epoch, life) in due {
            match by_product.iter_mut().find(|(other, _, _)| *other == product) {
                Some((_, _, ended)) => ended.push(life),
                None => by_product.push((product, epoch, vec![life])),
            }
        }
        for (product, gate_epoch, ended) in by_product {
            // A gate that is not open takes them from the database when it opens; other products go on.
            if let Err(error) = self.order_writer.release(product, gate_epoch, ended).await {
                self.skipped(product, &error);
            }
        }
        Ok(())
    }
}
