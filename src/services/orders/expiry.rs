//! Orders that are not paid in time expire: their units go back on sale.
//!
//! Runs in every instance; several do it together. Who writes orders that must be paid notes once a transaction where and when
//! to look ([`crate::db::NewDeadline`]). What is found there is decided by the orders' own rows and by the database's clock, so
//! that a note which comes too early, twice, or covers others' orders does no harm.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ConstantBuilder};
use tokio_util::sync::CancellationToken;

use super::order_writer::{OrderWriter, WriteOutcome};
use crate::db::{Db, DbConn, DbError, DueRange, Move, NewChange, OrderState, Readable, UnpaidOrder};
use crate::error::{Error, Result};
use crate::model::{ChangedBy, OrderId, OrderIds, OrderStatus, ProductId, Purchase, Timestamp, deadline};
use crate::telemetry::{LogThrottle, Metrics, Outage};

/// Between two looks: 125 to 250 ms, so that instances do not look together; less if something is due before.
const PAUSES: ConstantBuilder =
    ConstantBuilder::new().with_delay(Duration::from_millis(125)).with_jitter().without_max_times();
/// Between two looks at least, unless there is more to do: each holds the rows of products that are being sold.
const LEAST_PAUSE: Duration = Duration::from_millis(50);
/// A look that fails is told after this: the database that it lacks is told of at once.
const TOLD_AFTER: Duration = Duration::from_secs(15);
/// Orders in one transaction: others wait for the rows of their products meanwhile.
const MAX_ORDERS: usize = 1_000;
/// Notes in one transaction.
const MAX_RANGES: i64 = 200;
/// What a row that somebody has spoiled keeps from being done is tried again after this.
const TRIED_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// A gate that has not answered by then is not asked about the others of a step.
const GATE_PATIENCE: Duration = Duration::from_millis(250);

/// Lines about products that cannot take units back.
static MISCOUNTED: LogThrottle = LogThrottle::new(Duration::from_secs(10));

/// See the module.
pub struct Expiry {
    db: Db,
    order_writer: Arc<OrderWriter>,
    metrics: Arc<Metrics>,
}

/// Orders of one product that have expired.
struct Expired {
    product: ProductId,
    gate_epoch: i64,
    dead: Vec<Purchase>,
}

/// What one transaction has done.
struct ExpiryStep {
    expired: Vec<Expired>,
    /// There may be more that is due.
    is_full: bool,
}

impl Expiry {
    /// Looks into `db`, and has the gate told through `order_writer`.
    pub fn new(db: Db, order_writer: Arc<OrderWriter>, metrics: Arc<Metrics>) -> Self {
        Self { db, order_writer, metrics }
    }

    /// Looks again and again until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut outage = Outage::after(
            TOLD_AFTER,
            "Could not look for orders that were not paid in time",
            "Orders that are not paid in time are looked for again",
        );
        for pause in PAUSES.build() {
            // Not cut short by a stop: the gate is told of what was committed.
            let wait = match self.look(pause).await {
                Ok(wait) => {
                    outage.ended();
                    wait
                }
                Err(error) => {
                    self.metrics.readings.deadline_overdue_seconds.unknown();
                    outage.failed(error.code(), &error, "see what the log says of the database; nothing is lost");
                    pause * 2
                }
            };
            if stop.is_cancelled() || stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    /// Does what is due, in one transaction; how long to wait before the next look.
    async fn look(&self, pause: Duration) -> Result<Duration> {
        let next = self.db.run_first(|conn| Box::pin(conn.next_deadline())).await?;
        let overdue = next.map_or(Duration::ZERO, |(due_at, now)| now.since(due_at));
        self.metrics.readings.deadline_overdue_seconds.set(overdue.as_secs_f64());
        match next {
            Some((due_at, now)) if due_at <= now => {}
            Some((due_at, now)) => return Ok(due_at.since(now).clamp(LEAST_PAUSE, pause)),
            None => return Ok(pause),
        }
        let step = self.db.transaction(|conn| Box::pin(expire_some(conn)));
        let ExpiryStep { expired, is_full } = step.await?;
        crash_point!("after_expire_commit");
        self.release(expired).await;
        Ok(if is_full { Duration::ZERO } else { LEAST_PAUSE })
    }

    /// Has the gates give the units back. What does not reach them, the sweeper repeats.
    async fn release(&self, expired: Vec<Expired>) {
        let mut gate_is_away = false;
        for Expired { product, gate_epoch, dead } in expired {
            self.metrics.orders_changed(OrderStatus::Expired.as_str(), dead.len());
            if gate_is_away {
                continue;
            }
            let begun = Instant::now();
            let outcome = WriteOutcome { gate_epoch, dead, ..WriteOutcome::default() };
            if let Err(error) = self.order_writer.tell_gate(product, outcome).await {
                // A gate that is not open says so at once. Others that are due do not wait for an answer that does not come.
                gate_is_away |= begun.elapsed() > GATE_PATIENCE;
                tracing::debug!(product.id = %product, %error, "The gate does not know yet of orders that have expired");
            }
        }
    }
}

/// What a look at a range has found.
struct RangeContents {
    range: DueRange,
    /// Those that wait on, from the first to the last, and when the first of them is due.
    waiting: Option<(OrderId, OrderId, Timestamp)>,
    /// Where the look has ended, if there is more.
    end: Option<OrderId>,
    /// Products of orders that are due.
    products: Vec<ProductId>,
    /// A row could not be read.
    is_spoiled: bool,
}

impl RangeContents {
    fn new(range: DueRange, page: &Readable<UnpaidOrder, OrderId>, now: Timestamp) -> Self {
        let mut waiting = None;
        let mut products = Vec::new();
        for order in &page.rows {
            let Some(due_at) = deadline(order.id, order.revision, order.window) else { continue };
            if due_at <= now {
                products.push(order.product_id);
                continue;
            }
            waiting = match waiting {
                None => Some((order.id, order.id, due_at)),
                Some((first, _, earliest)) => Some((first, order.id, due_at.min(earliest))),
            };
        }
        products.sort_unstable();
        products.dedup();
        let end = if page.count == MAX_ORDERS { page.keys.last().copied() } else { None };
        Self { range, waiting, end, products, is_spoiled: page.rows.len() < page.count }
    }
}

/// One transaction.
async fn expire_some(conn: &mut DbConn) -> Result<ExpiryStep> {
    let now = conn.now().await?;
    let ranges = conn.claim_due_ranges(now, MAX_RANGES).await?;
    let mut is_full = ranges.len() == MAX_RANGES as usize;
    let mut due: BTreeMap<ProductId, Vec<OrderId>> = BTreeMap::new();
    let (mut seen, mut found) = (OrderIds::default(), Vec::new());
    for range in ranges {
        if seen.len() >= MAX_ORDERS {
            is_full = true;
            break;
        }
        let page = conn.unpaid_in(&range, MAX_ORDERS as i64).await?;
        let is_due =
            |order: &&UnpaidOrder| deadline(order.id, order.revision, order.window).is_some_and(|due_at| due_at <= now);
        // Ranges may overlap.
        for order in page.rows.iter().filter(is_due).filter(|order| seen.insert(order.id)) {
            due.entry(order.product_id).or_default().push(order.id);
        }
        is_full |= page.count == MAX_ORDERS;
        found.push(RangeContents::new(range, &page, now));
    }
    let (mut expired, mut miscounted) = (Vec::new(), Vec::new());
    // By ascending id, as everybody locks products.
    for (product, orders) in due {
        match expire_of_one(conn, product, &orders, now).await? {
            Outcome::Expired(of_one) => expired.push(of_one),
            Outcome::Nothing => {}
            Outcome::Miscounted => miscounted.push(product),
        }
    }
    let mut done = Vec::new();
    for found in found {
        let is_spoiled = found.is_spoiled || found.products.iter().any(|product| miscounted.contains(product));
        if settle(conn, &found, is_spoiled, now).await? {
            done.push(found.range.id());
        }
    }
    if !done.is_empty() {
        conn.delete_deadlines(&done).await?;
    }
    Ok(ExpiryStep { expired, is_full })
}

/// What became of a product's orders that are due.
enum Outcome {
    /// They have expired.
    Expired(Expired),
    /// Nobody waits for them: the product is gone, or somebody else was first.
    Nothing,
    /// The product's row counts fewer units as sold than they have.
    Miscounted,
}

/// What is due of one product, behind the lock of its row.
async fn expire_of_one(conn: &mut DbConn, product: ProductId, orders: &[OrderId], now: Timestamp) -> Result<Outcome> {
    let Some(lock) = conn.lock_product(product).await? else { return Ok(Outcome::Nothing) };
    // Again: until the lock was had, some may have been paid.
    let unpaid = conn.unpaid_of(orders).await?;
    if unpaid.is_empty() {
        return Ok(Outcome::Nothing);
    }
    if !conn.count_move(product, Move::of(OrderStatus::Unpaid, OrderStatus::Expired, &unpaid)).await? {
        if let Some(untold) = MISCOUNTED.now() {
            let units: i64 = unpaid.iter().map(|order| order.quantity.get()).sum();
            tracing::warn!(product.id = %product, units, untold, "A product counts fewer units as sold than its unpaid orders have: they cannot expire");
        }
        return Ok(Outcome::Miscounted);
    }
    let ids: Vec<OrderId> = unpaid.iter().map(|order| order.id).collect();
    let change = NewChange {
        from: OrderStatus::Unpaid,
        to: OrderStatus::Expired,
        by: ChangedBy::Expiry,
        user: None,
        reason: None,
        at: now,
    };
    if conn.change_orders(&ids, &change).await? != ids.len() {
        return Err(Error::from(DbError::ChangedUnderLock("orders changed under the lock of their product")));
    }
    let dead = unpaid.iter().map(OrderState::purchase).collect();
    Ok(Outcome::Expired(Expired { product, gate_epoch: lock.gate_epoch, dead }))
}

/// Notes when to look at a range again. True: never.
async fn settle(conn: &mut DbConn, found: &RangeContents, is_spoiled: bool, now: Timestamp) -> Result<bool> {
    let RangeContents { range, waiting, end, .. } = found;
    let again = is_spoiled.then(|| now.after(TRIED_AGAIN_AFTER));
    let due_at = waiting.map(|(_, _, due_at)| due_at).into_iter().chain(again).min();
    if let Some(end) = end {
        if let Some(due_at) = due_at {
            conn.insert_deadline(&range.until(*end, due_at)).await?;
        }
        conn.go_on_after(range, *end).await?;
        return Ok(false);
    }
    let Some(due_at) = due_at else { return Ok(true) };
    // What cannot be read may lie anywhere in the range.
    let within = waiting.filter(|_| !is_spoiled).map(|(first, last, _)| (first, last));
    conn.put_off(range, due_at, within).await?;
    Ok(false)
}
