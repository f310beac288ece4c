//! Writes purchases as orders: the one place where the fate of an order id is decided.
//!
//! Whoever inserts the row of an order id first has settled it, as `unpaid` or as `rejected`. Everything here may be
//! repeated by anyone: after a crash, a second delivery, a lost commit.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::batch_size::{self, BatchSize};
use crate::db::{Db, DbConn, DbError, ErrorClass, NewOrder, Round};
use crate::error::{Error, Result};
use crate::model::{OrderId, OrderIds, ProductId, Purchase, PurchaseBatch, RejectReason, Timestamp, UserId};
use crate::stock::StockGate;
use crate::telemetry::Metrics;

/// See the module.
pub struct OrderWriter {
    db: Db,
    gate: Arc<StockGate>,
    metrics: Arc<Metrics>,
    size: BatchSize,
}

/// What became of purchases of one product.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// The product's epoch as the deciding transaction read it, for the gate to know who gives units back; that of the
    /// purchases if none of them is dead.
    pub gate_epoch: i64,
    /// Orders that hold a unit.
    pub live: Vec<Purchase>,
    /// Orders that do not; the gate owes their units back.
    pub dead: Vec<Purchase>,
    /// How many of the live were not there before.
    pub written: usize,
    /// How many of the dead were not there before.
    pub rejected: usize,
}

impl Decision {
    fn all_live(batch: PurchaseBatch) -> Self {
        Self { gate_epoch: batch.epoch, written: batch.items.len(), live: batch.items, dead: Vec::new(), rejected: 0 }
    }

    fn add(&mut self, other: Self) {
        self.gate_epoch = self.gate_epoch.max(other.gate_epoch);
        self.live.extend(other.live);
        self.dead.extend(other.dead);
        self.written += other.written;
        self.rejected += other.rejected;
    }
}

impl OrderWriter {
    /// Writes to `db`; tells `gate` afterwards.
    pub fn new(db: Db, gate: Arc<StockGate>, metrics: Arc<Metrics>) -> Self {
        Self { db, gate, metrics, size: BatchSize::new() }
    }

    /// How many purchases are best decided together.
    pub fn round(&self) -> Round {
        self.db.round()
    }

    /// Whether a product that is not in the database yet may come into it later than a purchase of it.
    pub fn may_lag(&self) -> bool {
        self.db.may_lag()
    }

    /// Decides batches, each of another product, epoch or revision. `None`: the product does not exist.
    ///
    /// After an error nothing is known; repeating it is safe.
    pub async fn decide(&self, batches: Vec<PurchaseBatch>) -> std::result::Result<Vec<Option<Decision>>, DbError> {
        crash_point!("before_commit");
        let begun = Instant::now();
        let decided = self.decide_in_pieces(batches).await;
        let decisions = decided.inspect_err(|_| self.metrics.commit_failures.inc())?;
        self.metrics.commit_seconds.observe(begun.elapsed().as_secs_f64());
        for decision in decisions.iter().flatten() {
            self.metrics.orders_written.inc_by(decision.written as u64);
            self.metrics.orders_rejected.inc_by(decision.rejected as u64);
            if let Some(last) = decision.live.last() {
                // By another instance's clock it can have been drawn in our future.
                let lag = Timestamp::now().since(last.order_id.drawn_at());
                self.metrics.readings.consumer_lag_seconds.set(lag.as_secs_f64());
            }
        }
        Ok(decisions)
    }

    /// One transaction, unless the database takes only less at a time. A row that a constraint refuses is found by halving,
    /// so that the others become orders; the error comes when they have.
    async fn decide_in_pieces(
        &self,
        batches: Vec<PurchaseBatch>,
    ) -> std::result::Result<Vec<Option<Decision>>, DbError> {
        let mut decisions: Vec<Option<Decision>> = batches.iter().map(|_| None).collect();
        let mut refused = None;
        let mut left = self.size.cut(batches);
        left.reverse();
        while let Some(piece) = left.pop() {
            let (places, batches): (Vec<usize>, Vec<PurchaseBatch>) = piece.iter().cloned().unzip();
            let error = match self.decide_in_database(batches).await {
                Ok(decided) => {
                    self.size.succeeded();
                    for (place, decision) in places.into_iter().zip(decided) {
                        let Some(decision) = decision else { continue };
                        match &mut decisions[place] {
                            Some(before) => before.add(decision),
                            none => *none = Some(decision),
                        }
                    }
                    continue;
                }
                Err(error) => error,
            };
            let purchases = batch_size::purchases(&piece);
            self.size.failed(purchases, error.class());
            match error.class() {
                ErrorClass::TooLarge | ErrorClass::Violation if purchases > 1 => {
                    left.extend(batch_size::halves(piece).into_iter().rev());
                }
                ErrorClass::Violation => refused = Some(error),
                _ => return Err(error),
            }
        }
        refused.map_or(Ok(decisions), Err)
    }

    async fn decide_in_database(
        &self,
        batches: Vec<PurchaseBatch>,
    ) -> std::result::Result<Vec<Option<Decision>>, DbError> {
        // The common case: all of them become orders. Not if a product or an order id comes twice.
        if self.db.sell(batches.clone()).await? {
            let decision = |batch| Some(Decision::all_live(batch));
            return Ok(batches.into_iter().map(decision).collect());
        }
        let mut decisions = Vec::with_capacity(batches.len());
        for batch in batches.into_iter().map(without_repeats) {
            let each = self.db.transaction(move |conn| Box::pin(async move { decide_each(conn, batch).await }));
            decisions.push(each.await?);
        }
        Ok(decisions)
    }

    /// Tells the gate what was decided. May fail or be skipped: the entries it leaves are found and decided again.
    pub async fn tell_gate(&self, product: ProductId, decision: Decision) -> Result<()> {
        if !decision.live.is_empty() {
            self.gate.confirm_written(product, &decision.live).await?;
        }
        if !decision.dead.is_empty() {
            crash_point!("before_release");
            self.gate.release(product, decision.gate_epoch, &decision.dead).await?;
            crash_point!("after_release");
            // Only now: cleared before, a crash in between would leak the units.
            let ids: Vec<OrderId> = decision.dead.iter().map(|purchase| purchase.order_id).collect();
            self.db
                .transaction(move |conn| Box::pin(async move { conn.clear_release_due(&ids).await }))
                .await
                .map_err(Error::from)?;
        }
        Ok(())
    }
}

/// The general case: each purchase by itself, in order, behind the lock of the product's row.
async fn decide_each(conn: &mut DbConn, batch: PurchaseBatch) -> std::result::Result<Option<Decision>, DbError> {
    let PurchaseBatch { product_id: product, epoch, revision, items: purchases } = batch;
    let Some(row) = conn.lock_product(product).await? else { return Ok(None) };
    let Some(bought) = conn.find_revision(product, revision).await? else { return Ok(None) };
    let ids: Vec<OrderId> = purchases.iter().map(|purchase| purchase.order_id).collect();
    let users: Vec<UserId> = purchases.iter().map(|purchase| purchase.user_id).collect();
    let written: HashMap<_, _> =
        conn.written_orders(&ids).await?.into_iter().map(|order| (order.id, order.is_live)).collect();
    let mut buyers: HashSet<UserId> = conn.live_buyers(product, &users).await?.into_iter().collect();

    let mut decision = Decision { gate_epoch: row.gate_epoch, ..Decision::default() };
    let mut new = Vec::new();
    let mut left = row.stock - row.sold;
    let mut taken = 0;
    for purchase in purchases {
        if let Some(is_live) = written.get(&purchase.order_id) {
            if *is_live {
                decision.live.push(purchase)
            } else {
                decision.dead.push(purchase)
            }
            continue;
        }
        let order = NewOrder::unpaid(purchase, product, &bought);
        let obstacle = if epoch < row.gate_fence {
            Some(RejectReason::Late)
        } else if buyers.contains(&purchase.user_id) {
            Some(RejectReason::AlreadyPurchased)
        } else if left == 0 {
            Some(RejectReason::SoldOut)
        } else {
            None
        };
        match obstacle {
            Some(reason) => {
                tracing::warn!(order.id = %purchase.order_id, reason = reason.as_str(), "Rejected a purchase");
                new.push(order.rejected(reason));
                decision.rejected += 1;
                decision.dead.push(purchase);
            }
            None => {
                buyers.insert(purchase.user_id);
                left -= 1;
                taken += 1;
                new.push(order);
                decision.written += 1;
                decision.live.push(purchase);
            }
        }
    }
    if taken > 0 && !conn.take_stock(product, taken, epoch).await? {
        return Err(DbError::Lost("the product's row changed under its lock".to_owned()));
    }
    if !new.is_empty() {
        conn.insert_orders(&new).await?;
    }
    Ok(Some(decision))
}

fn without_repeats(mut batch: PurchaseBatch) -> PurchaseBatch {
    let mut seen = OrderIds::default();
    batch.items.retain(|purchase| seen.insert(purchase.order_id));
    batch
}
