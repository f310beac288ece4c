//! Compares gate and database, for an administrator who asks and for the metrics.
//!
//! It only reports. What can safely be repaired, the sweeper repairs: it decides what is in flight, gives back what is
//! dead, repeats changes. A difference beyond that is a defect, and guessing would make it worse.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::db::{Db, SaleAudit};
use crate::error::{Error, Result};
use crate::model::{OrderId, ProductId, Quantity, Timestamp};
use crate::services::orders::LATELY;
use crate::stock::{GateError, GateView, StockGate};
use crate::telemetry::{LogThrottle, Metrics};

/// Between two reconciliations.
const INTERVAL: Duration = Duration::from_secs(10);
/// Gate and database are not read at one instant, so a difference counts only if it is seen this often in a row.
const LOOKS: u32 = 4;
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Purchases in flight that are looked up in the database at most.
const MAX_IN_FLIGHT: usize = 10_000;
const PRODUCTS_A_CALL: i64 = 500;

/// See the module.
pub struct Reconciler {
    db: Db,
    gate: Arc<StockGate>,
    metrics: Arc<Metrics>,
    seen: Mutex<Seen>,
    failures_logged: LogThrottle,
}

/// What the last reconciliations saw.
#[derive(Default)]
struct Seen {
    /// Sales that went on when the database last answered: their gates can be asked without it. `None`: it never has.
    sales: Option<Vec<ProductId>>,
    /// Sales that did not fit last time.
    unbalanced: HashMap<ProductId, Vec<Finding>>,
}

/// What does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Finding {
    /// Nobody can buy; it is being rebuilt, or was never opened.
    GateNotOpen,
    /// The gate is open under an older epoch than the database's: another has taken its place.
    GateDeposed,
    /// The gate is open under an epoch that the database does not know yet: a backup was restored.
    GateNewer,
    /// The gate does not know of a change of stock, sale window or pause yet.
    GateBehind,
    /// The gate knows of a change that the database does not.
    GateAhead,
    /// The same revision, and another stock.
    StockDiffers,
    /// The product's row counts other units than there are live orders.
    SoldDiffers,
    /// The product's row counts other paid, expired, cancelled or rejected units, or other revenue, than its orders have: somebody has
    /// changed orders by hand. Nothing that sells goes by these counts.
    CountsDiffer,
    /// More is sold than there is.
    Oversold,
    /// Units are taken in the gate that no order or purchase on its way accounts for, or the reverse.
    UnitsDiffer,
    /// The gate offers another number of units than remain in the database.
    RemainingDiffers,
}

/// What gate and database say of one product.
#[derive(Debug, Serialize, ToSchema)]
pub struct Audit {
    product_id: ProductId,
    /// Units in all.
    stock: i64,
    /// The same, as the gate says; `null` while it is not open.
    #[schema(required)]
    stock_gate: Option<i64>,
    /// Units that remain at the gate; `null` while it is not open.
    #[schema(required)]
    remaining_gate: Option<i64>,
    /// Units that remain in the database.
    remaining_database: i64,
    /// Units that are sold, as the product's row says.
    sold: i64,
    /// Live orders in the database.
    live_orders: i64,
    /// Their units.
    live_units: i64,
    /// Units that are taken in the gate; `null` while it is not open.
    #[schema(required)]
    taken: Option<i64>,
    /// Purchases and late payments in flight.
    pending: i64,
    /// Units of those of which the database does not know yet.
    queued: i64,
    /// Rejected orders in the database.
    rejected: i64,
    /// Dead orders whose units the gate has not given back yet.
    release_due: i64,
    /// Units in the gate that no order or purchase on its way accounts for; negative: orders without a unit there.
    drift: i64,
    /// All that does not fit.
    findings: Vec<Finding>,
    /// Nothing is found.
    balanced: bool,
}

/// Every pair that must fit. `needs_gate`: there has to be one.
fn findings(view: Option<GateView>, needs_gate: bool, row: &SaleAudit, queued: i64, drift: i64) -> Vec<Finding> {
    let same_revision = view.is_some_and(|view| view.revision == row.revision);
    // A dead order's unit may have been given back already, or not yet.
    let drift_is_explained = (0..=row.release_due).contains(&drift);
    let offered = (row.stock - row.sold - queued - drift).max(0);
    let of_gate = |found: &dyn Fn(GateView) -> bool| view.is_some_and(found);
    [
        (Finding::GateNotOpen, view.is_none() && needs_gate),
        (Finding::GateDeposed, of_gate(&|view| view.epoch < row.gate_epoch)),
        (Finding::GateNewer, of_gate(&|view| view.epoch > row.gate_epoch)),
        (Finding::GateBehind, of_gate(&|view| view.revision < row.revision)),
        (Finding::GateAhead, of_gate(&|view| view.revision > row.revision)),
        (Finding::StockDiffers, same_revision && of_gate(&|view| view.stock != row.stock)),
        (Finding::SoldDiffers, row.sold != row.live_units),
        (Finding::CountsDiffer, row.counts != row.counted),
        (Finding::Oversold, row.sold > row.stock || row.live_units > row.stock),
        (Finding::UnitsDiffer, view.is_some() && !drift_is_explained),
        (Finding::RemainingDiffers, same_revision && of_gate(&|view| view.remaining != offered)),
    ]
    .into_iter()
    .filter_map(|(finding, holds)| holds.then_some(finding))
    .collect()
}

impl Reconciler {
    /// Compares `db` and `gate`.
    pub fn new(db: Db, gate: Arc<StockGate>, metrics: Arc<Metrics>) -> Self {
        Self { db, gate, metrics, seen: Mutex::default(), failures_logged: LogThrottle::new(INTERVAL) }
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
        let (in_flight, late) = match self.gate.stale(id, Duration::ZERO, MAX_IN_FLIGHT).await {
            Ok(stale) => (stale.purchases, stale.late_payments),
            Err(GateError::Lost | GateError::Closed) => (Vec::new(), Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let pending = (in_flight.len() + late.len()) as i64;
        // Several calls of a payment may be in flight; their reservation is one.
        let late: HashMap<OrderId, Quantity> =
            late.iter().map(|late| (late.purchase.order_id, late.purchase.quantity)).collect();
        let ids: Vec<OrderId> =
            in_flight.iter().map(|purchase| purchase.order_id).chain(late.keys().copied()).collect();
        let (count, written) = self
            .db
            .read(move |conn| {
                Box::pin(async move {
                    let written: HashMap<OrderId, bool> =
                        conn.written_orders(&ids).await?.into_iter().map(|order| (order.id, order.is_live)).collect();
                    Ok::<_, Error>((conn.audit_sale(id).await?.ok_or(Error::ProductNotFound)?, written))
                })
            })
            .await?;
        let queued = in_flight.iter().filter(|purchase| !written.contains_key(&purchase.order_id));
        // What the gate holds for a late payment is decided when its order is live again, or has given it back.
        let late = late.iter().filter(|(order, _)| written.get(order) != Some(&true));
        let late = late.map(|(_, quantity)| quantity.get()).sum::<i64>();
        let queued = queued.map(|purchase| purchase.quantity.get()).sum::<i64>() + late;
        let drift = view.map_or(0, |view| view.taken - count.live_units - queued);
        let findings = findings(view, self.needs_gate(&count), &count, queued, drift);
        Ok(Audit {
            product_id: id,
            stock: count.stock,
            stock_gate: view.map(|view| view.stock),
            remaining_gate: view.map(|view| view.remaining),
            remaining_database: count.stock - count.sold,
            sold: count.sold,
            live_orders: count.live_orders,
            live_units: count.live_units,
            taken: view.map(|view| view.taken),
            pending,
            queued,
            rejected: count.rejected,
            release_due: count.release_due,
            drift,
            balanced: findings.is_empty(),
            findings,
        })
    }

    /// Whether something is missing without the gate of a sale. Not if that was retired, or is lost so long after the end that
    /// nobody makes it anew unless the sale is reopened. Nor, in this process, if the sale has ended:
    /// without a gate here nothing is on its way.
    fn needs_gate(&self, row: &SaleAudit) -> bool {
        let had_ended = |by: Timestamp| row.ends_at.is_some_and(|end| end <= by);
        let may_be_gone = row.retired || self.gate.shared().is_none();
        !(had_ended(self.gate.now()) && may_be_gone || had_ended(self.gate.now().before(LATELY)))
    }

    /// Compares all sales that go on, again and again, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        loop {
            let look = async { tokio::join!(self.watch_flight(), self.watch_balance()) };
            stop.run_until_cancelled(look).await;
            if stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_none() {
                return;
            }
        }
    }

    /// What is on its way, by the gates alone: it is worth most while the database is away.
    async fn watch_flight(&self) {
        let Some(sales) = self.seen().sales.clone() else { return };
        let flight = self.flight(&sales).await;
        let flight = flight.inspect_err(|error| tracing::debug!(%error, "Could not see what is on its way")).ok();
        self.metrics.readings.in_flight.note(flight.map(|(in_flight, _)| in_flight as f64));
        self.metrics.readings.in_flight_oldest_seconds.note(flight.map(|(_, oldest)| oldest.as_secs_f64()));
    }

    /// Purchases in flight, and the age of the oldest.
    async fn flight(&self, sales: &[ProductId]) -> Result<(i64, Duration)> {
        let (mut in_flight, mut oldest) = (0, Duration::ZERO);
        for sales in sales.chunks(PRODUCTS_A_CALL as usize) {
            let views = self.gate.view(sales).await?;
            for (sale, view) in sales.iter().zip(views) {
                let Some(view) = view.filter(|view| view.in_flight > 0) else { continue };
                in_flight += view.in_flight;
                if let Ok(stale) = self.gate.stale(*sale, Duration::ZERO, 1).await
                    && let Some(purchase) = stale.purchases.first()
                {
                    oldest = oldest.max(Timestamp::now().since(purchase.order_id.drawn_at()));
                }
            }
        }
        Ok((in_flight, oldest))
    }

    async fn watch_balance(&self) {
        match self.reconcile().await {
            Ok((drift, unbalanced)) => {
                self.metrics.readings.drift_units.set(drift as f64);
                self.metrics.readings.unbalanced_sales.set(unbalanced as f64);
            }
            Err(error) => {
                self.metrics.readings.drift_units.unknown();
                self.metrics.readings.unbalanced_sales.unknown();
                tracing::debug!(%error, "Could not reconcile");
            }
        }
    }

    /// Units by which gates and database disagree, and the sales that do not fit.
    async fn reconcile(&self) -> Result<(i64, usize)> {
        crash_point!("reconcile");
        let (mut after, mut drift, mut sales) = (0, 0, Vec::new());
        let mut unbalanced = HashMap::new();
        let now = self.gate.now();
        loop {
            let page = self.db.read(move |conn| Box::pin(conn.unfinished_after(now, &[], after, PRODUCTS_A_CALL)));
            let (page, Some(last)) = page.await? else { break };
            after = last;
            let ids: Vec<ProductId> = page.iter().map(|product| product.id).collect();
            sales.extend_from_slice(&ids);
            for (product, view) in page.iter().zip(self.gate.view_each(&ids).await) {
                let view = match view {
                    // Its server does not answer, which others report.
                    Err(error) if error.is_of_server() && self.gate.is_on_several_servers() => continue,
                    view => view?,
                };
                // Cheap and inexact first: the row was read before the gate.
                let may_fit = view.is_some_and(|view| {
                    (product.sold..=product.sold + view.in_flight * product.max_per_order.get()).contains(&view.taken)
                        && (view.epoch, view.revision, view.stock)
                            == (product.gate_epoch, product.revision, product.stock)
                });
                if !may_fit {
                    drift += self.check(product.id, &mut unbalanced).await?;
                }
            }
        }
        let count = unbalanced.len();
        *self.seen() = Seen { sales: Some(sales), unbalanced };
        Ok((drift, count))
    }

    /// Units by which a product is out of balance. It is logged when it is seen for the second time with the same findings:
    /// what the sweeper repairs is gone by then.
    async fn check(&self, product: ProductId, unbalanced: &mut HashMap<ProductId, Vec<Finding>>) -> Result<i64> {
        let audit = match self.audit(product).await {
            Err(Error::ProductNotFound) => return Ok(0),
            Err(error @ (Error::Unreadable(_) | Error::Internal(_))) => {
                // Nobody can say that it fits. The others are compared all the same.
                if let Some(untold) = self.failures_logged.now() {
                    tracing::warn!(product.id = %product, %error, untold, "Could not audit a product; others are");
                }
                unbalanced.insert(product, Vec::new());
                return Ok(0);
            }
            other => other?,
        };
        if audit.balanced {
            return Ok(0);
        }
        let before = self.seen().unbalanced.get(&product).cloned();
        if before.as_ref() != Some(&audit.findings) && audit.findings != [Finding::GateNotOpen] {
            tracing::error!(product.id = %product, ?audit, "Gate and database disagree");
        }
        unbalanced.insert(product, audit.findings);
        // A gate that is not open has nothing to differ in.
        Ok(if audit.taken.is_some() { audit.drift.abs() } else { 0 })
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock()
    }
}
