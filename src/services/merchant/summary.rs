//! What a sale has come to, in one row: the database counts what becomes of orders, the gate says what remains and what is on its way.
//!
//! The two are read one after the other. So the row is read before the gate and once more after it; if it says the same both times, and
//! so does the gate, then all numbers were true at one moment.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use utoipa::ToSchema;

use crate::db::{Db, SaleRow};
use crate::error::{Error, Result};
use crate::model::{Currency, OrderId, ProductId, Purchase};
use crate::stock::{GateError, GateView, StockGate};

/// Looks, until one sees a moment.
const LOOKS: u32 = 4;
const LOOK_PAUSE: Duration = Duration::from_millis(25);
/// Purchases in flight that are looked up in the database at most.
const MAX_IN_FLIGHT: usize = 10_000;

/// See the module.
pub struct Summaries {
    db: Db,
    gate: Arc<StockGate>,
    /// Of products that name none.
    currency: Currency,
}

/// What a sale has come to, in units.
#[derive(Debug, Serialize, ToSchema)]
pub struct Summary {
    product_id: ProductId,
    /// Offered in all.
    stock: i64,
    /// What can still be bought; `null`: the gate is being rebuilt and cannot say.
    #[schema(required)]
    remaining: Option<i64>,
    /// Promised, and not in the database yet; `null`: the gate cannot say.
    #[schema(required)]
    queued: Option<i64>,
    unpaid: i64,
    paid: i64,
    expired: i64,
    cancelled: i64,
    rejected: i64,
    /// Of orders with money that must be given back.
    refund_due: i64,
    /// What the paid orders cost, in minor units.
    revenue_cents: i64,
    /// Of the revenue; `null`: the product was sold in several currencies, and the sum is of no use.
    #[schema(required)]
    currency: Option<Currency>,
    /// All of this was true at one moment, and the units add up.
    balanced: bool,
}

/// What the gate says.
struct AtGate {
    /// `None`: nobody knows, for it is not open.
    remaining: Option<i64>,
    in_flight: Vec<Purchase>,
    /// Nothing has changed there while it was looked at.
    is_steady: bool,
    view: Option<GateView>,
}

/// What the database says after the gate.
struct After {
    row: SaleRow,
    written: HashSet<OrderId>,
    refund_due: i64,
    currencies: Vec<Option<Currency>>,
}

impl Summaries {
    /// Of what `db` and `gate` hold.
    pub fn new(db: Db, gate: Arc<StockGate>, currency: Currency) -> Self {
        Self { db, gate, currency }
    }

    /// What a sale has come to. During a sale it looks several times for a moment that adds up.
    pub async fn get(&self, id: ProductId) -> Result<Summary> {
        let mut summary = self.look(id).await?;
        for _ in 1..LOOKS {
            if summary.balanced {
                break;
            }
            tokio::time::sleep(LOOK_PAUSE).await;
            summary = self.look(id).await?;
        }
        Ok(summary)
    }

    async fn look(&self, id: ProductId) -> Result<Summary> {
        let before = self.db.read(move |conn| Box::pin(conn.sale_row(id))).await?;
        let before = before.ok_or(Error::ProductNotFound)?;
        let at_gate = self.look_at_gate(id, &before).await?;
        let ids: Vec<OrderId> = at_gate.in_flight.iter().map(|purchase| purchase.order_id).collect();
        let After { row, written, refund_due, currencies } = self.look_again(id, ids).await?;
        let on_its_way = at_gate.in_flight.iter().filter(|purchase| !written.contains(&purchase.order_id));
        let queued: i64 = on_its_way.map(|purchase| purchase.quantity.get()).sum();
        let is_of_row = at_gate.view.is_none_or(|view| (view.revision, view.epoch) == (row.revision, row.gate_epoch));
        let adds_up = at_gate.remaining.is_some_and(|remaining| remaining + queued + row.sold == row.stock);
        let counts = row.counts;
        let mut currencies = currencies.into_iter().map(|currency| currency.unwrap_or(self.currency));
        let currency = currencies.next().unwrap_or(self.currency);
        let is_only = currencies.all(|other| other == currency);
        Ok(Summary {
            product_id: id,
            stock: row.stock,
            remaining: at_gate.remaining,
            queued: at_gate.remaining.map(|_| queued),
            unpaid: row.sold - counts.paid,
            paid: counts.paid,
            expired: counts.expired,
            cancelled: counts.cancelled,
            rejected: counts.rejected,
            refund_due,
            revenue_cents: counts.revenue_cents,
            currency: is_only.then_some(currency),
            balanced: before == row && at_gate.is_steady && is_of_row && adds_up,
        })
    }

    async fn look_at_gate(&self, id: ProductId, row: &SaleRow) -> Result<AtGate> {
        let view = self.view(id).await?;
        let Some(seen) = view else {
            // Nothing is on its way to a gate that was retired, or that is in this process and not there.
            let is_known = row.retired || self.gate.shared().is_none();
            let remaining = is_known.then(|| (row.stock - row.sold).max(0));
            return Ok(AtGate { remaining, in_flight: Vec::new(), is_steady: is_known, view });
        };
        let (mut in_flight, mut is_steady) = (Vec::new(), true);
        if seen.in_flight > 0 {
            in_flight = match self.gate.stale(id, Duration::ZERO, MAX_IN_FLIGHT).await {
                Ok(stale) => stale.purchases,
                Err(GateError::Lost | GateError::Closed) => Vec::new(),
                Err(error) => return Err(error.into()),
            };
            is_steady = in_flight.len() < MAX_IN_FLIGHT && self.view(id).await? == view;
        }
        Ok(AtGate { remaining: Some(seen.remaining), in_flight, is_steady, view })
    }

    async fn view(&self, id: ProductId) -> Result<Option<GateView>> {
        Ok(self.gate.view(&[id]).await?.into_iter().next().flatten())
    }

    async fn look_again(&self, id: ProductId, in_flight: Vec<OrderId>) -> Result<After> {
        let read = self.db.read(move |conn| {
            Box::pin(async move {
                let written = match in_flight.as_slice() {
                    [] => HashSet::new(),
                    ids => conn.written_orders(ids).await?.into_iter().map(|order| order.id).collect(),
                };
                let refund_due = conn.refund_due_units(id).await?;
                let currencies = conn.currencies_of(id).await?;
                // Last: what it says twice was so all the time.
                let row = conn.sale_row(id).await?.ok_or(Error::ProductNotFound)?;
                Ok(After { row, written, refund_due, currencies })
            })
        });
        read.await
    }
}
