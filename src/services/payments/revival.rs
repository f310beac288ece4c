//! The second life of an order: money came for it when its first one had ended ([protocol], "Late payment").
//!
//! The gate has been asked first. What follows is one transaction, whoever does it: the payment's row says whether it was done. Then the
//! gate is told. What a death leaves undone, the sweeper finishes.
//!
//! [protocol]: ../../../docs/protocol.md#late-payment

use std::sync::Arc;

use super::outcome::Outcome;
use super::rules::Owed;
use super::settling::ended_by;
use crate::db::{Db, DbConn, DbError, Move, NewChange, OrderState, ProductLock};
use crate::error::{Error, Result};
use crate::model::{
    ChangedBy, LatePayment, OrderStatus, Payment, PaymentId, PaymentStatus, ProductId, ProviderName, Timestamp,
};
use crate::stock::StockGate;
use crate::telemetry::{LogThrottle, Metrics};

/// Lines about late payments whose handlers have died.
static FINISHED: LogThrottle = LogThrottle::each_second();

/// What was said when units were asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// A gate of that epoch holds them for the payment.
    Admitted(i64),
    /// The gate has none for it.
    Refused,
    /// There is no gate. If it was retired, nobody else can take a unit, and the database decides alone.
    NoGate,
}

/// What became of a late payment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Decided {
    /// `None`: nothing. Whoever spoke is not the gate any more: it has to be asked again.
    pub(super) outcome: Option<Outcome>,
    /// The payment pays the order: by this transaction or by an earlier one.
    pays: bool,
    /// The product's epoch as the transaction read it; `None`: its row or the payment's is gone.
    gate_epoch: Option<i64>,
    provider: Option<ProviderName>,
}

/// See the module.
pub struct Revivals {
    db: Db,
    gate: Arc<StockGate>,
    metrics: Arc<Metrics>,
}

impl Revivals {
    /// Decides in `db`, and tells `gate`.
    pub fn new(db: Db, gate: Arc<StockGate>, metrics: Arc<Metrics>) -> Self {
        Self { db, gate, metrics }
    }

    /// Finishes what its handler has left in flight at a gate of that epoch. That money has come is certain, for only a callback asks.
    pub async fn finish(&self, product: ProductId, epoch: i64, late: LatePayment) -> Result<()> {
        let (payment, word) = (late.payment, Word::Admitted(epoch));
        let deciding = self.db.transaction(move |conn| Box::pin(async move { decide(conn, payment, word).await }));
        let decided = deciding.await?;
        // A gate that is over is rebuilt without this reservation.
        let Some(outcome) = decided.outcome else { return Ok(()) };
        self.committed(&decided);
        if let Some(provider) = decided.provider {
            outcome.report(&self.metrics, &payment.to_string(), provider);
        }
        if let Some(untold) = FINISHED.now() {
            let outcome = outcome.as_str();
            tracing::info!(product.id = %product, payment.id = %payment, outcome, untold, "Finished a late payment that was left in flight");
        }
        self.tell(product, &late, (epoch, true), &decided).await;
        Ok(())
    }

    /// To be called after the commit.
    pub(super) fn committed(&self, decided: &Decided) {
        if decided.outcome == Some(Outcome::Revived) {
            self.metrics.orders_changed(OrderStatus::Paid.as_str(), 1);
        }
    }

    /// Tells the gate what became of a payment that it had admitted in that epoch; `is_new`: by this call. What does not reach it, the
    /// sweeper repeats.
    pub(super) async fn tell(
        &self,
        product: ProductId,
        late: &LatePayment,
        (admitted, is_new): (i64, bool),
        decided: &Decided,
    ) {
        let (pays, gate_epoch) = (decided.pays, decided.gate_epoch.unwrap_or(admitted));
        let told = match (pays, is_new) {
            (true, true) => self.gate.mark_revived(product, gate_epoch, late).await,
            // Who was admitted marks it.
            (true, false) => Ok(()),
            (false, true) => self.gate.release(product, gate_epoch, &[*late]).await,
            (false, false) => self.gate.release(product, gate_epoch, &[late.life()]).await,
        };
        if let Err(error) = told {
            tracing::debug!(product.id = %product, %error, "The gate does not know yet what became of a late payment");
        }
    }
}

/// In a transaction: the order is paid by this payment, or the money is due back. Whoever comes first decides.
pub(super) async fn decide(conn: &mut DbConn, id: PaymentId, word: Word) -> Result<Decided> {
    let Some(payment) = conn.find_payment(id).await? else { return Ok(Decided::nothing(Some(Outcome::Unknown), None)) };
    let lock = match conn.order_state(payment.order_id).await? {
        Some(order) => conn.lock_product(order.product_id).await?,
        None => None,
    };
    // Again, behind the lock.
    let Some(payment) = conn.find_payment(id).await? else { return Ok(Decided::nothing(Some(Outcome::Unknown), None)) };
    let gate_epoch = lock.map(|lock| lock.gate_epoch);
    if !matches!(payment.status, PaymentStatus::Pending | PaymentStatus::Failed) {
        let pays = payment.status == PaymentStatus::Succeeded;
        return Ok(Decided { pays, ..Decided::nothing(Some(Outcome::Unchanged), gate_epoch) });
    }
    let is_over = |lock: ProductLock| match word {
        // A gate that was rebuilt since was filled without this reservation.
        Word::Admitted(epoch) => epoch < lock.gate_fence,
        Word::Refused => false,
        Word::NoGate => !lock.retired,
    };
    if lock.is_some_and(is_over) {
        return Ok(Decided::nothing(None, gate_epoch));
    }
    let now = conn.now().await?;
    let obstacle = match (lock, conn.order_state(payment.order_id).await?) {
        (Some(lock), Some(order)) => match obstacle(conn, lock, &order, word).await? {
            None => {
                revive(conn, &payment, &order, now.max(order.id.drawn_at())).await?;
                None
            }
            obstacle => obstacle,
        },
        _ => Some(Owed::NoOrder),
    };
    let (status, outcome) = match obstacle {
        None => (PaymentStatus::Succeeded, Outcome::Revived),
        Some(why) => (PaymentStatus::RefundDue, Outcome::RefundDue(why)),
    };
    conn.decide_payment(id, status, now).await?;
    Ok(Decided { outcome: Some(outcome), pays: obstacle.is_none(), gate_epoch, provider: Some(payment.provider) })
}

impl Decided {
    fn nothing(outcome: Option<Outcome>, gate_epoch: Option<i64>) -> Self {
        Self { outcome, pays: false, gate_epoch, provider: None }
    }
}

/// Why an order cannot be revived, behind the lock of its product's row.
async fn obstacle(conn: &mut DbConn, lock: ProductLock, order: &OrderState, word: Word) -> Result<Option<Owed>> {
    let may_be_revived = |by: &ChangedBy| order.status.may_be_revived(OrderStatus::Paid, ChangedBy::Provider, *by);
    if !ended_by(conn, std::slice::from_ref(order)).await?.get(&order.id).is_some_and(may_be_revived) {
        let is_paid = order.status == OrderStatus::Paid;
        return Ok(Some(if is_paid { Owed::PaidAlready } else { Owed::Late }));
    }
    if !conn.live_buyers(order.product_id, &[order.user_id]).await?.is_empty() {
        return Ok(Some(Owed::LateBoughtAgain));
    }
    let units = match word {
        // What is withheld counts: the gate that admitted it had units, by what it knew was offered.
        Word::Admitted(_) => lock.given,
        Word::Refused => 0,
        Word::NoGate => lock.offered,
    };
    Ok((lock.sold + order.quantity.get() > units).then_some(Owed::LateSoldOut))
}

async fn revive(conn: &mut DbConn, payment: &Payment, order: &OrderState, at: Timestamp) -> Result<()> {
    let changed = || Error::from(DbError::ChangedUnderLock("a dead order changed under the lock of its product"));
    if !conn.count_move(order.product_id, Move::of(order.status, OrderStatus::Paid, [order])).await? {
        return Err(changed());
    }
    let change = NewChange {
        from: order.status,
        to: OrderStatus::Paid,
        by: ChangedBy::Provider,
        user: None,
        reason: payment.reference.clone(),
        at,
    };
    if conn.revive_order(order, payment.id, &change).await? { Ok(()) } else { Err(changed()) }
}
