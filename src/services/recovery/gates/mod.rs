//! How the gate of a product opens and how it goes. Nobody else opens, rebuilds or retires one.
//!
//! `e` is the epoch, a number that each rebuild raises. It is kept in the gate and in the product's row; the row has a
//! fence, too: purchases of an epoch before the fence can no longer become orders.
//!
//! ```text
//!                 first opening, warm-up
//!    ┌────────┐ ─────────────────────────▶ ┌─────────┐ ◀──────────────────────┐
//!    │ absent │                            │ open(e) │                        │
//!    └────────┘        ┌────────────────── └─────────┘ ──────────┐            │
//!        ▲     server  │                                         │ retire     │
//!        ┊     lost or │                                         ▼            │
//!        ┊     changed ▼                                    ┌─────────┐       │
//!        ┊         ┌──────┐                                 │ retired │       │ rebuild:
//!        ┊         │ lost │ ◀─────────────┐                 └─────────┘       │ install
//!        ┊         └──────┘               │ server lost         │             │
//!        ┊             │                  │ or changed          │ rebuild:    │
//!        ┊ process     │ rebuild: close   │                     │ close       │
//!        ┊ ends        ▼                  │                     ▼             │
//!        ┊     ┌─────────────┐ ───────────┘            ┌──────────────────┐   │
//!        ┊     │ closed(e+1) │ ──────────────────────▶ │ closed(e+1),     │ ──┘
//!        ┊     └─────────────┘  barrier: the fence     │ fence at e+1     │
//!   (embedded)                  is raised              └──────────────────┘
//! ```
//!
//! - **First opening**, on both backends: a product was just made, so nobody can hold a unit of it. [`Gates::open_first`].
//! - **Warm-up**, embedded: a gate in this process is gone with the process. What the database holds is all there is, for
//!   the journal was written to it before. [`Gates::warm_up`]; later, for a single sale, [`Gates::reopen`].
//! - **Rebuild**, distributed: a gate was lost while purchases that it had admitted may still be on their way. It is closed,
//!   older purchases are waited for, then it is opened with the live orders. [`Rebuilder`]. A gate that is open under an
//!   older epoch than the row has is *deposed*: it goes the same way as a lost one.
//! - **Retiring**, on both backends: a sale ended long ago and nothing of it is in flight, so its gate only takes room.
//!   [`Gates::retire_if_over`]. When the sale is
//!   reopened, its gate is warmed up (embedded) or rebuilt without a wait (distributed), for nothing is on its way.

mod rebuild;
mod rebuild_log;
mod retirement;
mod warm_up;

use std::sync::Arc;

pub use self::rebuild::Rebuilder;
use self::retirement::Retirement;
use self::warm_up::WarmUp;
use crate::db::Db;
use crate::error::Result;
use crate::model::{ProductId, Sale, SaleSettings, Timestamp};
use crate::services::orders::UnfinishedSales;
use crate::stock::{GateError, GateView, StockGate};
use crate::telemetry::Metrics;

/// Epoch of the gate of a new product.
const FIRST_EPOCH: i64 = 1;

/// See the module.
pub struct Gates {
    gate: Arc<StockGate>,
    warm_up: WarmUp,
    rebuilder: Arc<Rebuilder>,
    retirement: Retirement,
    unfinished_sales: Arc<UnfinishedSales>,
}

impl Gates {
    /// Opens `gate` with what `db` holds; `rebuilder` opens one that is outside this process.
    pub fn new(
        db: Db,
        gate: Arc<StockGate>,
        rebuilder: Arc<Rebuilder>,
        unfinished_sales: Arc<UnfinishedSales>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let warm_up = WarmUp::new(db.clone(), gate.clone());
        let retirement = Retirement::new(db, gate.clone(), unfinished_sales.clone(), metrics);
        Self { gate, warm_up, rebuilder, retirement, unfinished_sales }
    }

    /// The first opening: of a product that was just made on the server `server_id`. It needs no wait, for nothing can be on
    /// its way. [`GateError::AnotherGate`]: the gate is open already, and stays as it is.
    pub(in crate::services) async fn open_first(
        &self,
        product: ProductId,
        server_id: &str,
        settings: &SaleSettings,
    ) -> std::result::Result<(), GateError> {
        self.gate.open_new(product, server_id, FIRST_EPOCH, settings).await
    }

    /// The warm-up: opens the gates in this process of all sales that have not ended. To be called before anybody can buy.
    pub async fn warm_up(&self) -> Result<()> {
        self.warm_up.open_all().await
    }

    /// Opens the gate of a sale that was found to have none. Not of one that ended long ago, which needs none.
    pub(in crate::services) async fn reopen(&self, sale: &Sale) -> Result<()> {
        if sale.had_ended(self.unfinished_sales.since()) {
            return Ok(());
        }
        if self.gate.shared().is_none() {
            return self.warm_up.open(sale).await;
        }
        self.rebuild(sale.id);
        Ok(())
    }

    /// Opens the gate of a sale for a late payment, however long ago the sale ended. True: it is open now; in Redis that takes a while,
    /// and is only begun.
    pub async fn open_for_late_payment(&self, product: ProductId) -> Result<bool> {
        if self.gate.shared().is_some() {
            self.rebuild(product);
            return Ok(false);
        }
        self.warm_up.open_one(product).await?;
        Ok(true)
    }

    /// Starts the rebuild of a gate that is not open, unless this instance is at it.
    pub(in crate::services) fn rebuild(&self, product: ProductId) {
        self.rebuilder.start(product);
    }

    /// Takes away the gate of a sale that is over, by what was just read of both, if the gate agrees. True: it is gone.
    pub(in crate::services) async fn retire_if_over(&self, sale: &Sale, view: &GateView) -> Result<bool> {
        self.retirement.retire_if_over(sale, view).await
    }

    /// Clears what the gates of sales that ended long ago were to give back, and that have none any more: nobody else would.
    pub(in crate::services) async fn forget_release_due(&self, ended_before: Timestamp) -> Result<()> {
        self.retirement.forget_release_due(ended_before).await
    }
}
