//! The proof at the end: what the database says, against what the buyers were told.

use std::time::{Duration, Instant};

use super::ledger::{self, SaleCount};
use crate::db::{Db, DbError};
use crate::model::ProductId;

/// Orders that were accepted must be written within this time.
const DRAIN_PATIENCE: Duration = Duration::from_secs(120);

/// What was promised, and what the database holds.
pub(super) struct Proof {
    pub(super) accepted: i64,
    pub(super) counted: SaleCount,
    /// When the last order was seen.
    pub(super) written_at: Instant,
}

impl Proof {
    /// Waits until as many orders are written as were accepted, and tells how many are; then counts.
    pub(super) async fn wait(
        db: &Db,
        product: ProductId,
        accepted: u64,
        mut tell: impl FnMut(i64),
    ) -> Result<Self, String> {
        let accepted = i64::try_from(accepted).map_err(|error| error.to_string())?;
        let begun = Instant::now();
        loop {
            let written = sold(db, product).await?;
            tell(written);
            if written >= accepted || begun.elapsed() > DRAIN_PATIENCE {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let written_at = Instant::now();
        let counted = db.read(move |conn| Box::pin(ledger::count_sale(conn, product))).await;
        let counted = counted.map_err(|error: DbError| format!("counting orders: {error}"))?;
        Ok(Self { accepted, counted, written_at })
    }

    /// Units sold beyond the stock.
    pub(super) fn oversold(&self) -> i64 {
        (self.counted.live_orders - self.counted.stock).max(0)
    }

    /// Buyers with more than one live order.
    pub(super) fn doubles(&self) -> i64 {
        self.counted.live_orders - self.counted.buyers
    }

    /// Why this is not the proof it should be.
    pub(super) fn check(&self) -> Result<(), String> {
        let SaleCount { live_orders, sold, .. } = self.counted;
        if live_orders != self.accepted || sold != self.accepted || self.oversold() > 0 || self.doubles() > 0 {
            return Err(format!("PROOF FAILED: {} accepted, {:?}", self.accepted, self.counted));
        }
        Ok(())
    }
}

/// Units of a product that have an order in the database.
pub(super) async fn sold(db: &Db, product: ProductId) -> Result<i64, String> {
    let sold = db.read(move |conn| Box::pin(ledger::sold(conn, product))).await;
    let sold = sold.map_err(|error: DbError| format!("reading a product: {error}"))?;
    sold.ok_or_else(|| format!("product {product} is not in the database"))
}
