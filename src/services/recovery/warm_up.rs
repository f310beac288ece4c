//! Makes gates: those in this process at a start, from the database, for Redis keeps what it knows by itself; and the one of
//! a sale that goes on and was found to have none.

use std::sync::Arc;

use super::rebuild::Rebuilder;
use crate::db::Db;
use crate::error::{Error, Result};
use crate::model::{ProductId, Sale};
use crate::services::orders::UnfinishedSales;
use crate::stock::{GateError, HeldUnits, StockGate};

/// Products read at a time.
const PAGE: i64 = 500;
/// Live orders read at a time.
const ORDERS_PAGE: i64 = 20_000;

/// See the module.
pub struct WarmUp {
    db: Db,
    gate: Arc<StockGate>,
    rebuilder: Arc<Rebuilder>,
    unfinished_sales: Arc<UnfinishedSales>,
}

impl WarmUp {
    /// Reads `db`, fills `gate`; has one that is shared filled by `rebuilds`.
    pub fn new(
        db: Db,
        gate: Arc<StockGate>,
        rebuilder: Arc<Rebuilder>,
        unfinished_sales: Arc<UnfinishedSales>,
    ) -> Self {
        Self { db, gate, rebuilder, unfinished_sales }
    }

    /// Opens the gates of all sales that have not ended. To be called before anybody can buy.
    pub async fn open_all(&self) -> Result<()> {
        // A gate that is filled from live orders has nothing to give back.
        self.db.transaction(|conn| Box::pin(conn.clear_all_release_due())).await?;
        let now = self.gate.now();
        let mut after = 0;
        loop {
            let page = self.db.read(move |conn| Box::pin(conn.unfinished_after(now, &[], after, PAGE))).await?;
            let (sales, Some(last)) = page else { return Ok(()) };
            after = last;
            for sale in &sales {
                match self.open(sale).await {
                    // One row of its orders, which is named in the log. The sweeper tries again; the others sell.
                    Err(Error::Unreadable(problem)) => {
                        tracing::warn!(product.id = %sale.id, problem, "A sale is not open: a row cannot be read");
                    }
                    opened => opened?,
                }
            }
        }
    }

    /// Sees to it that a sale that was found to have no gate gets one. Not one that ended long ago, which needs none.
    pub(in crate::services) async fn reopen(&self, sale: &Sale) -> Result<()> {
        if sale.had_ended(self.unfinished_sales.since()) {
            return Ok(());
        }
        if self.gate.shared().is_none() {
            return self.open(sale).await;
        }
        self.rebuilder.start(sale.id);
        Ok(())
    }

    /// Opens the gate in this process of a product if it is not open. Without an open gate nothing of it is on its way, so
    /// what the database holds is all there is.
    async fn open(&self, product: &Sale) -> Result<()> {
        let settings = product.settings();
        let held = self.held(product.id, HeldUnits::expecting(product.sold, &settings)).await?;
        match self.gate.open_with(product.id, product.gate_epoch, &settings, held) {
            Ok(()) | Err(GateError::Superseded) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Some at a time: one query for ten million would take longer than a query may, and hold them three times.
    async fn held(&self, product: ProductId, mut held: HeldUnits) -> Result<HeldUnits> {
        let mut cursor = 0;
        loop {
            let page = self.db.read(move |conn| Box::pin(conn.live_orders_page(product, cursor, ORDERS_PAGE)));
            let (purchases, next) = page.await?;
            held.extend(purchases);
            match next {
                Some(next) => cursor = next,
                None => return Ok(held),
            }
        }
    }
}
