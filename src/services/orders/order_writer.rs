//! Writes purchases as orders: the one place where the fate of an order id is decided.
//!
//! The row of an order id is inserted once, as `unpaid` or as `rejected`, and who inserts it first has decided. Everything
//! here may be repeated by anyone: after a crash, a second delivery, a lost commit.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::payment_windows::{FoundWindow, PaymentWindows, first_deadline};
use super::write_batch_size::{self, WriteBatchSize};
use crate::db::{Db, DbConn, DbError, ErrorClass, NewOrder, WriteBatchLimits};
use crate::error::{Error, Result};
use crate::model::{Life, OrderId, OrderIds, ProductId, Purchase, PurchaseGroup, RejectReason, Timestamp, UserId};
use crate::stock::StockGate;
use crate::telemetry::{LogThrottle, Metrics};

/// See the module.
pub struct OrderWriter {
    db: Db,
    gate: Arc<StockGate>,
    metrics: Arc<Metrics>,
    size: WriteBatchSize,
    windows: PaymentWindows,
}

/// Lines about rejected purchases.
static REJECTED: LogThrottle = LogThrottle::each_second();

/// What became of purchases of one product.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOutcome {
    /// The epoch under which dead orders give their units back: the product's, as the writing transaction read it. If none is dead,
    /// it is not used, and may be that of the purchases.
    pub gate_epoch: i64,
    /// Orders that hold a unit.
    pub live: Vec<Purchase>,
    /// Orders that do not; the gate owes their units back.
    pub dead: Vec<Purchase>,
    /// Those of both that were there before.
    pub found: Vec<OrderId>,
    /// How many of the live were not there before.
    pub written: usize,
    /// How many of the dead were not there before.
    pub rejected: usize,
}

impl WriteOutcome {
    fn all_live(group: PurchaseGroup) -> Self {
        Self { gate_epoch: group.epoch, written: group.items.len(), live: group.items, ..Self::default() }
    }

    fn add(&mut self, other: Self) {
        self.gate_epoch = self.gate_epoch.max(other.gate_epoch);
        self.live.extend(other.live);
        self.dead.extend(other.dead);
        self.found.extend(other.found);
        self.written += other.written;
        self.rejected += other.rejected;
    }
}

impl OrderWriter {
    /// Writes to `db`, and tells `gate` afterwards.
    pub fn new(db: Db, gate: Arc<StockGate>, metrics: Arc<Metrics>) -> Self {
        let windows = PaymentWindows::new(db.clone());
        Self { db, gate, metrics, size: WriteBatchSize::new(), windows }
    }

    /// How many orders are best written together.
    pub fn write_batch_limits(&self) -> WriteBatchLimits {
        self.db.write_batch_limits()
    }

    /// Whether a product that is not in the database yet may come into it later than a purchase of it.
    pub fn may_lag(&self) -> bool {
        self.db.may_lag()
    }

    /// Writes purchase groups, each of another product, epoch or revision. `None`: the product does not exist.
    ///
    /// After an error nothing is known; repeating it is safe.
    pub async fn write(&self, groups: Vec<PurchaseGroup>) -> std::result::Result<Vec<Option<WriteOutcome>>, DbError> {
        let (outcomes, refused) = self.write_what_is_accepted(groups).await?;
        refused.map_or(Ok(outcomes), Err)
    }

    /// Like `write`, but if a constraint refuses a purchase, it returns that error beside the others' outcomes. So the gate can be
    /// told of the others.
    pub async fn write_what_is_accepted(
        &self,
        groups: Vec<PurchaseGroup>,
    ) -> std::result::Result<(Vec<Option<WriteOutcome>>, Option<DbError>), DbError> {
        crash_point!("before_commit");
        let begun = Instant::now();
        let written = self.write_in_pieces(groups).await;
        let (outcomes, refused) = written.inspect_err(|_| self.metrics.commit_failures.inc())?;
        if refused.is_some() {
            self.metrics.commit_failures.inc();
        }
        self.metrics.commit_seconds.observe(begun.elapsed().as_secs_f64());
        for outcome in outcomes.iter().flatten() {
            self.metrics.orders_written.inc_by(outcome.written as u64);
            self.metrics.orders_rejected.inc_by(outcome.rejected as u64);
            if let Some(last) = outcome.live.last() {
                // By another instance's clock it can have been drawn in our future.
                let lag = Timestamp::now().since(last.order_id.drawn_at());
                self.metrics.readings.consumer_lag_seconds.set(lag.as_secs_f64());
            }
        }
        Ok((outcomes, refused))
    }

    /// One transaction, unless the database takes only less at a time. A row that a constraint refuses is found by halving,
    /// so that the others become orders.
    async fn write_in_pieces(
        &self,
        groups: Vec<PurchaseGroup>,
    ) -> std::result::Result<(Vec<Option<WriteOutcome>>, Option<DbError>), DbError> {
        let mut outcomes: Vec<Option<WriteOutcome>> = groups.iter().map(|_| None).collect();
        let mut refused = None;
        let mut to_write = self.size.cut(groups);
        to_write.reverse();
        while let Some(piece) = to_write.pop() {
            let (places, groups): (Vec<usize>, Vec<PurchaseGroup>) = piece.iter().cloned().unzip();
            let error = match self.write_piece(groups).await {
                Ok(written) => {
                    self.size.succeeded();
                    for (place, outcome) in places.into_iter().zip(written) {
                        let Some(outcome) = outcome else { continue };
                        match &mut outcomes[place] {
                            Some(before) => before.add(outcome),
                            none => *none = Some(outcome),
                        }
                    }
                    continue;
                }
                Err(error) => error,
            };
            let purchase_count = write_batch_size::purchase_count(&piece);
            self.size.failed(purchase_count, error.class());
            match error.class() {
                ErrorClass::TooLarge | ErrorClass::Violation if purchase_count > 1 => {
                    to_write.extend(write_batch_size::halves(piece).into_iter().rev());
                }
                ErrorClass::Violation => refused = Some(error),
                _ => return Err(error),
            }
        }
        Ok((outcomes, refused))
    }

    async fn write_piece(&self, groups: Vec<PurchaseGroup>) -> std::result::Result<Vec<Option<WriteOutcome>>, DbError> {
        // The common case: all of them become orders. Not if a product or an order id comes twice.
        let windows = self.windows.of(&groups).await?;
        let orders = groups.iter().zip(&windows).map(|(group, window)| (group.items.as_slice(), *window));
        if self.db.sell(groups.clone(), first_deadline(orders)).await? {
            return Ok(groups.into_iter().map(|group| Some(WriteOutcome::all_live(group))).collect());
        }
        let mut outcomes = Vec::with_capacity(groups.len());
        for (group, window) in groups.into_iter().map(without_repeats).zip(windows) {
            let each = self
                .db
                .transaction(move |conn| Box::pin(async move { decide_each_purchase(conn, group, window).await }));
            outcomes.push(each.await?);
        }
        Ok(outcomes)
    }

    /// Tells the gate what became of purchases: live orders are marked as written, the units of dead ones are released. May
    /// fail or be skipped: the sweeper finds what the gate was not told.
    pub async fn tell_gate(&self, product: ProductId, outcome: WriteOutcome) -> Result<()> {
        if !outcome.live.is_empty() {
            self.gate.mark_written(product, &outcome.live).await?;
        }
        if !outcome.dead.is_empty() {
            // A purchase begins the first life of its order.
            let dead = outcome.dead.into_iter().map(Life::from).collect();
            self.release(product, outcome.gate_epoch, dead).await?;
        }
        Ok(())
    }

    /// Has the gate give back the units of lives that have ended, and notes that it did. May fail or be skipped as well.
    pub async fn release(&self, product: ProductId, gate_epoch: i64, ended: Vec<Life>) -> Result<()> {
        crash_point!("before_release");
        self.gate.release(product, gate_epoch, &ended).await?;
        crash_point!("after_release");
        // Only now: cleared before, a crash in between would leak the units.
        self.db
            .transaction(move |conn| Box::pin(async move { conn.clear_release_due(&ended).await }))
            .await
            .map_err(Error::from)
    }
}

/// The general case: each purchase by itself, in order, behind the lock of the product's row.
async fn decide_each_purchase(
    conn: &mut DbConn,
    group: PurchaseGroup,
    window: FoundWindow,
) -> std::result::Result<Option<WriteOutcome>, DbError> {
    let PurchaseGroup { product_id: product, epoch, revision, items: purchases, .. } = group;
    let Some(row) = conn.lock_product(product).await? else { return Ok(None) };
    let Some(bought) = conn.find_revision(product, revision).await? else { return Ok(None) };
    let ids: Vec<OrderId> = purchases.iter().map(|purchase| purchase.order_id).collect();
    let users: Vec<UserId> = purchases.iter().map(|purchase| purchase.user_id).collect();
    let already_there: HashMap<_, _> =
        conn.written_orders(&ids).await?.into_iter().map(|order| (order.id, order.is_live)).collect();
    let mut buyers: HashSet<UserId> =
        conn.live_buyers(product, &users).await?.into_iter().map(|(user, _)| user).collect();

    let mut outcome = WriteOutcome { gate_epoch: row.gate_epoch, ..WriteOutcome::default() };
    let mut new = Vec::new();
    let mut unpaid = Vec::new();
    let mut remaining = row.given - row.sold;
    let (mut taken, mut turned_down) = (0, 0);
    for purchase in purchases {
        if let Some(is_live) = already_there.get(&purchase.order_id) {
            outcome.found.push(purchase.order_id);
            if *is_live {
                outcome.live.push(purchase)
            } else {
                outcome.dead.push(purchase)
            }
            continue;
        }
        let order = NewOrder::unpaid(purchase, product, &bought);
        let obstacle = if epoch < row.gate_fence {
            Some(RejectReason::Late)
        } else if buyers.contains(&purchase.user_id) {
            Some(RejectReason::AlreadyPurchased)
        } else if remaining < purchase.quantity.get() {
            Some(RejectReason::SoldOut)
        } else {
            None
        };
        match obstacle {
            Some(reason) => {
                if let Some(untold) = REJECTED.now() {
                    let reason = reason.as_str();
                    tracing::warn!(order.id = %purchase.order_id, reason, untold, "Rejected a purchase that a gate had admitted; nobody was promised it");
                }
                new.push(order.rejected(reason));
                outcome.rejected += 1;
                turned_down += purchase.quantity.get();
                outcome.dead.push(purchase);
            }
            None => {
                buyers.insert(purchase.user_id);
                remaining -= purchase.quantity.get();
                taken += purchase.quantity.get();
                new.push(order);
                unpaid.push(purchase);
                outcome.written += 1;
                outcome.live.push(purchase);
            }
        }
    }
    if taken > 0 && !conn.take_stock(product, taken, epoch).await? {
        return Err(DbError::ChangedUnderLock("the product's row changed under its lock"));
    }
    if turned_down > 0 {
        conn.count_rejected(product, turned_down).await?;
    }
    if !new.is_empty() {
        conn.insert_orders(&new).await?;
    }
    if let Some(deadline) = first_deadline([(unpaid.as_slice(), window)]) {
        conn.insert_deadline(&deadline).await?;
    }
    Ok(Some(outcome))
}

fn without_repeats(mut group: PurchaseGroup) -> PurchaseGroup {
    let mut seen = OrderIds::default();
    group.items.retain(|purchase| seen.insert(purchase.order_id));
    group
}
