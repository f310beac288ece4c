//! Fills the gate in this process from the database: all of them at a start, and one that was left closed when its
//! sale goes on. The gate in Redis keeps what it knows by itself.

use std::sync::Arc;

use crate::db::Db;
use crate::error::Result;
use crate::model::{ProductId, Purchase, Sale};
use crate::stock::{GateError, StockGate};

/// Products read at a time.
const PAGE: i64 = 500;

/// See the module.
pub struct Reopening {
    db: Db,
    gate: Arc<StockGate>,
}

impl Reopening {
    /// Reads `db`, fills `gate`.
    pub fn new(db: Db, gate: Arc<StockGate>) -> Self {
        Self { db, gate }
    }

    /// Opens the gates of all sales that have not ended. To be called before anybody can buy.
    pub async fn open_all(&self) -> Result<()> {
        // A gate that is filled from live orders has nothing to give back.
        self.db.transaction(|conn| Box::pin(conn.clear_all_release_due())).await?;
        let now = self.gate.now();
        let mut after = 0;
        loop {
            let page = self.db.read(move |conn| Box::pin(conn.unfinished_after(now, &[], after, PAGE))).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = last.id.get();
            for sale in &page {
                self.open(sale).await?;
            }
        }
    }

    /// Opens the gate of a product if it is not open. Without an open gate nothing of it is on its way, so what the
    /// database holds is all there is.
    pub async fn open(&self, product: &Sale) -> Result<()> {
        let held = self.held(product.id).await?;
        match self.gate.open_with(product.id, product.gate_epoch, &product.terms(), held) {
            Ok(()) | Err(GateError::Superseded) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn held(&self, product: ProductId) -> Result<Vec<Purchase>> {
        let orders = self.db.read(move |conn| Box::pin(conn.live_orders(product))).await?;
        Ok(orders.into_iter().map(|(order_id, user_id)| Purchase { order_id, user_id }).collect())
    }
}
