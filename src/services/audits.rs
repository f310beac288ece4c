//! Compares gate and database, for an administrator who asks and for the metrics.
//!
//! It only reports. What can safely be repaired, the sweeper repairs: it decides what is in flight, gives back what is
//! dead, repeats changes. A difference beyond that is a defect, and guessing would make it worse.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::db::Db;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::model::{OrderId, ProductId, Timestamp};
use crate::stock::{GateError, StockGate};

/// Between two reconciliations.
const INTERVAL: Duration = Duration::from_secs(10);
/// Gate and database are not read at one instant, so a difference counts only if it is seen this often in a row.
const LOOKS: u32 = 4;
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Purchases in flight that are looked up in the database at most.
const IN_FLIGHT_MOST: usize = 10_000;
const PRODUCTS_A_CALL: i64 = 500;

/// See the module.
pub struct Audits {
    db: Db,
    gate: Arc<StockGate>,
    metrics: Arc<Metrics>,
}

/// What gate and database say of one product.
#[derive(Debug, Serialize)]
pub struct Audit {
    product_id: ProductId,
    /// Units in all.
    stock: i64,
    /// What the gate has left; `None` while it is not open.
    remaining_gate: Option<i64>,
    /// What the database has left.
    remaining_database: i64,
    /// Live orders in the database.
    live_orders: i64,
    /// Purchases that the gate admitted and has not been told the end of.
    pending: i64,
    /// Those of them that the database does not have yet.
    queued: i64,
    /// Rejected orders in the database.
    rejected: i64,
    /// Dead orders whose units the gate has not given back yet.
    release_due: i64,
    /// Units in the gate that no order or purchase on its way accounts for; negative: orders without a unit there.
    drift: i64,
    balanced: bool,
}

impl Audits {
    /// Compares `db` and `gate`.
    pub fn new(db: Db, gate: Arc<StockGate>, metrics: Arc<Metrics>) -> Self {
        Self { db, gate, metrics }
    }

    /// Compares one product. During a sale it looks several times, for the two are read one after the other.
    pub async fn audit(&self, product: ProductId) -> Result<Audit> {
        let mut audit = self.look(product).await?;
        for _ in 1..LOOKS {
            if audit.balanced {
                break;
            }
            tokio::time::sleep(LOOK_PAUSE).await;
            audit = self.look(product).await?;
        }
        Ok(audit)
    }

    async fn look(&self, id: ProductId) -> Result<Audit> {
        let view = self.gate.view(&[id]).await?.into_iter().next().flatten();
        let on_the_way: Vec<OrderId> = match self.gate.stale(id, Duration::ZERO, IN_FLIGHT_MOST).await {
            Ok(stale) => stale.purchases.into_iter().map(|purchase| purchase.order_id).collect(),
            Err(GateError::Lost | GateError::Closed) => Vec::new(),
            Err(error) => return Err(error.into()),
        };
        let pending = on_the_way.len() as i64;
        let (count, written) = self
            .db
            .read(move |conn| {
                Box::pin(async move {
                    let written = conn.written_orders(&on_the_way).await?.len() as i64;
                    Ok::<_, Error>((conn.audit_sale(id).await?.ok_or(Error::ProductNotFound)?, written))
                })
            })
            .await?;
        let queued = pending - written;
        let drift = view.map_or(0, |view| view.taken - count.live_orders - queued);
        Ok(Audit {
            product_id: id,
            stock: count.stock,
            remaining_gate: view.map(|view| view.remaining),
            remaining_database: count.stock - count.sold,
            live_orders: count.live_orders,
            pending,
            queued,
            rejected: count.rejected,
            release_due: count.release_due,
            drift,
            balanced: view.is_some()
                && count.sold == count.live_orders
                && count.sold <= count.stock
                && (0..=count.release_due).contains(&drift),
        })
    }

    /// Compares all sales that go on, again and again, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
            if let Some(Err(error)) = stop.run_until_cancelled(self.reconcile()).await {
                tracing::debug!(%error, "Could not reconcile");
            }
        }
    }

    async fn reconcile(&self) -> Result<()> {
        crash_point!("reconcile");
        let (mut after, mut drift, mut in_flight, mut oldest) = (0, 0, 0, None::<Timestamp>);
        let now = self.gate.now();
        loop {
            let page =
                self.db.read(move |conn| Box::pin(conn.unfinished_after(now, &[], after, PRODUCTS_A_CALL))).await?;
            let Some(last) = page.last() else { break };
            after = last.id.get();
            let ids: Vec<ProductId> = page.iter().map(|product| product.id).collect();
            let views = self.gate.view(&ids).await?;
            for (product, view) in page.iter().zip(views) {
                let Some(view) = view else { continue };
                in_flight += view.in_flight;
                if view.in_flight > 0
                    && let Ok(stale) = self.gate.stale(product.id, Duration::ZERO, 1).await
                    && let Some(purchase) = stale.purchases.first()
                {
                    let since = purchase.order_id.drawn_at();
                    oldest = Some(oldest.map_or(since, |oldest| oldest.min(since)));
                }
                // Cheap and inexact first: the row was read before the gate.
                if !(product.sold..=product.sold + view.in_flight).contains(&view.taken) {
                    drift += self.check(product.id).await?;
                }
            }
        }
        self.metrics.drift_units.set(drift);
        self.metrics.in_flight.set(in_flight);
        let age = oldest.map_or(Duration::ZERO, |oldest| Timestamp::now().since(oldest));
        self.metrics.in_flight_oldest_seconds.set(age.as_secs_f64());
        Ok(())
    }

    /// Units by which a product is out of balance.
    async fn check(&self, product: ProductId) -> Result<i64> {
        let audit = self.audit(product).await?;
        if audit.balanced || audit.remaining_gate.is_none() {
            return Ok(0);
        }
        tracing::error!(product.id = %product, ?audit, "Gate and database disagree");
        Ok(audit.drift.abs().max(1))
    }
}
