//! Opens gates in this process with the live orders of the database: all of them at a start, for they were gone with the
//! process before, and later the one of a sale that was found to have none. Redis keeps what it knows by itself.

use std::sync::Arc;

use crate::db::Db;
use crate::error::{Error, Result};
use crate::model::{ProductId, Sale};
use crate::stock::{GateError, LoadedBuyers, StockGate};

/// Products read at a time.
const PAGE: i64 = 500;
/// Live orders read at a time.
const ORDERS_PAGE: i64 = 20_000;

/// See the module.
pub(super) struct WarmUp {
    db: Db,
    gate: Arc<StockGate>,
}

impl WarmUp {
    /// Reads `db`, fills `gate`.
    pub(super) fn new(db: Db, gate: Arc<StockGate>) -> Self {
        Self { db, gate }
    }

    /// Opens the gates of all sales that have not ended. To be called before anybody can buy.
    pub(super) async fn open_all(&self) -> Result<()> {
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

    /// Opens the gate in this process of a product if it is not open. Without an open gate nothing of it is on its way, so
    /// what the database holds is all there is.
    pub(super) async fn open(&self, product: &Sale) -> Result<()> {
        let settings = product.settings();
        let held = self.held(product.id, LoadedBuyers::expecting(product.sold, &settings)).await?;
        match self.gate.open_with(product.id, product.gate_epoch, &settings, held) {
            Ok(()) | Err(GateError::AnotherGate) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The same, however long ago its sale ended.
    pub(super) async fn open_one(&self, product: ProductId) -> Result<()> {
        let sale = self.db.read(move |conn| Box::pin(conn.find_sale(product))).await?;
        self.open(&sale.ok_or(Error::ProductNotFound)?).await
    }

    /// Some at a time: one query for ten million would take longer than a query may, and hold them three times.
    async fn held(&self, product: ProductId, mut held: LoadedBuyers) -> Result<LoadedBuyers> {
        let mut cursor = 0;
        loop {
            let page = self.db.read(move |conn| Box::pin(conn.live_orders_page(product, cursor, ORDERS_PAGE)));
            let (lives, next) = page.await?;
            held.extend(lives);
            match next {
                Some(next) => cursor = next,
                None => return Ok(held),
            }
        }
    }
}
