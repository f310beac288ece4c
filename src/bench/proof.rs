//! The proof at the end: what the database says, against what the buyers were told.

use std::time::{Duration, Instant};

use crate::db::{Db, SaleCount};
use crate::model::ProductId;

/// Orders that were accepted must be written within this time.
const DRAIN_PATIENCE: Duration = Duration::from_secs(120);

/// What was promised, and what the database holds.
pub(super) struct Proof {
    pub(super) accepted: i64,
    pub(super) counted: SaleCount,
    /// From the call until the last order was written.
    pub(super) drain: Duration,
}

impl Proof {
    /// Waits until as many orders are written as were accepted, then counts.
    pub(super) async fn wait(db: &Db, product: ProductId, accepted: u64) -> Result<Self, String> {
        let accepted = i64::try_from(accepted).map_err(|error| error.to_string())?;
        let begun = Instant::now();
        loop {
            let counted = count(db, product).await?;
            if counted.live_orders >= accepted || begun.elapsed() > DRAIN_PATIENCE {
                return Ok(Self { accepted, counted, drain: begun.elapsed() });
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
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

pub(super) async fn count(db: &Db, product: ProductId) -> Result<SaleCount, String> {
    let counted = db.read(move |conn| Box::pin(conn.count_sale(product))).await;
    counted.map_err(|error| format!("counting orders: {error}"))
}
