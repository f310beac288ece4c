//! Takes away the gates of sales that ended long ago: a gate lives in memory, which is bounded.

use std::sync::Arc;

use crate::db::Db;
use crate::error::{Error, Result};
use crate::model::{Sale, SaleState, Timestamp};
use crate::services::orders::{RETIRED_AFTER, UnfinishedSales};
use crate::services::recovery::offer::raise_offer;
use crate::stock::{GateError, GateView, StockGate};
use crate::telemetry::Metrics;

/// Products whose units are forgotten in one call.
const MAX_FORGOTTEN: i64 = 1_000;

/// See the module.
pub(super) struct Retirement {
    db: Db,
    gate: Arc<StockGate>,
    unfinished_sales: Arc<UnfinishedSales>,
    metrics: Arc<Metrics>,
}

impl Retirement {
    pub(super) fn new(
        db: Db,
        gate: Arc<StockGate>,
        unfinished_sales: Arc<UnfinishedSales>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { db, gate, unfinished_sales, metrics }
    }

    /// Takes the gate away if nobody needs it any more, by what was just read of sale and gate. The gate decides by its own
    /// settings and in one step, for the sale may have been reopened since. True: it is gone.
    pub(super) async fn retire_if_over(&self, sale: &Sale, view: &GateView) -> Result<bool> {
        if !self.is_over(sale, view) {
            return Ok(false);
        }
        let (id, epoch) = (sale.id, view.epoch);
        let server_id = match self.gate.retire(id, epoch, RETIRED_AFTER).await {
            Ok(Some(server_id)) => server_id,
            Ok(None) | Err(GateError::Closed | GateError::Lost) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        crash_point!("after_retire");
        self.metrics.gates_retired.inc();
        let (ended_before, shared) = (self.unfinished_sales.retired_before(), self.gate.shared().is_some());
        // One of an older epoch was replaced long ago, and says nothing of what is on its way.
        if epoch != sale.gate_epoch {
            return Ok(true);
        }
        let noted = self.db.transaction(move |conn| {
            Box::pin(async move {
                // Not noted if the sale was reopened meanwhile: then the gate counts as lost, and is rebuilt as such.
                if !shared || conn.retire_gate(id, epoch, &server_id, ended_before).await? {
                    // Nobody looks at the sale any more.
                    raise_offer(conn, id, 0).await?;
                    conn.forget_release_due(id, ended_before, shared).await?;
                }
                Ok::<_, Error>(())
            })
        });
        noted.await?;
        Ok(true)
    }

    fn is_over(&self, sale: &Sale, view: &GateView) -> bool {
        view.state == SaleState::Ended
            && view.in_flight == 0
            && view.epoch <= sale.gate_epoch
            && sale.had_ended(self.unfinished_sales.retired_before())
    }

    /// Clears what the gates of sales that ended long ago were to give back, and that have none any more.
    pub(super) async fn forget_release_due(&self, ended_before: Timestamp) -> Result<()> {
        let due =
            self.db.read(move |conn| Box::pin(conn.products_with_release_due(ended_before, MAX_FORGOTTEN))).await?;
        let (views, shared) = (self.gate.view(&due).await?, self.gate.shared().is_some());
        for (product, _) in due.into_iter().zip(views).filter(|(_, view)| view.is_none()) {
            let forgotten = self.db.transaction(move |conn| {
                Box::pin(async move { Ok::<_, Error>(conn.forget_release_due(product, ended_before, shared).await?) })
            });
            forgotten.await?;
        }
        Ok(())
    }
}
