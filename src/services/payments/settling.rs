//! What callbacks do, in one transaction: they are remembered together with what became of payments and orders.
//!
//! Everything is read behind the locks of the products' rows, decided by `rules`, and written set by set. Callbacks of one payment
//! are judged in the order they came, each by what the one before has left. Late money is only found here: see `late`.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::callback::Callback;
use super::outcome::{DeadOrder, Outcome};
use super::rules::{Facts, Ruling, rule};
use crate::config::Late;
use crate::db::{DbConn, NewPaymentEvent, OrderState, PaymentChange};
use crate::error::Result;
use crate::model::{
    ChangedBy, Currency, OrderId, OrderStatus, Payment, PaymentId, PaymentStatus, ProductId, ProviderName, Timestamp,
};
use crate::services::orders::{Change, Changed, MadeChange, change_order, pay_orders};

/// What a callback comes to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Judged {
    /// It is done.
    Done(Outcome),
    /// Its money came too late, which is settled apart; nothing of it is written but the provider's own id of the payment.
    Late(DeadOrder),
}

/// What a transaction has done.
pub(super) struct Settled {
    /// Of each callback, in their order.
    pub(super) judged: Vec<Judged>,
    /// What the gates are to be told after the commit.
    pub(super) made: Vec<MadeChange>,
}

/// What is to be written.
#[derive(Default)]
struct Changes {
    events: Vec<NewPaymentEvent>,
    /// By product, for an order's change counts in its product's row.
    paid: BTreeMap<ProductId, Vec<(OrderState, Option<String>)>>,
    cancelled: Vec<(OrderId, Option<String>)>,
    payments: HashMap<PaymentId, PaymentChange>,
    /// Of late payments.
    references: Vec<(PaymentId, String)>,
}

/// What was read, as it is after the callbacks that were judged already.
struct Books {
    /// Epochs of the gates of the products whose rows are locked.
    locked: HashMap<ProductId, i64>,
    known: HashSet<String>,
    payments: HashMap<PaymentId, Payment>,
    orders: HashMap<OrderId, OrderState>,
    /// Who has ended those of them that a late payment may revive.
    ended_by: HashMap<OrderId, ChangedBy>,
    /// Which payment has a reference for itself.
    references: HashMap<String, PaymentId>,
    now: Timestamp,
}

/// Does what these callbacks of a provider say. `currency`: the shop's own.
pub(super) async fn settle(
    conn: &mut DbConn,
    provider: ProviderName,
    callbacks: &[Callback],
    currency: Currency,
    late: Late,
) -> Result<Settled> {
    let mut books = Books::read(conn, provider, callbacks, late).await?;
    let mut changes = Changes::default();
    let judge = |callback| books.judge(provider, callback, currency, &mut changes);
    let judged = callbacks.iter().map(judge).collect();
    let made = changes.write(conn, &books).await?;
    Ok(Settled { judged, made })
}

/// Who has ended each of these orders that a late payment may bring back, as far as its row goes.
pub(super) async fn ended_by(conn: &mut DbConn, orders: &[OrderState]) -> Result<HashMap<OrderId, ChangedBy>> {
    let of = |status: OrderStatus| {
        let first_life = orders.iter().filter(move |order| order.status == status && order.revived_by.is_none());
        first_life.map(|order| order.id)
    };
    let cancelled: Vec<OrderId> = of(OrderStatus::Cancelled).collect();
    let mut ended_by = conn.last_changed_by(&cancelled).await?;
    ended_by.extend(of(OrderStatus::Expired).map(|id| (id, ChangedBy::Expiry)));
    Ok(ended_by)
}

impl Books {
    async fn read(conn: &mut DbConn, provider: ProviderName, callbacks: &[Callback], late: Late) -> Result<Self> {
        let mut ids: Vec<PaymentId> = callbacks.iter().map(|callback| callback.payment).collect();
        ids.sort_unstable();
        ids.dedup();
        let mut locked = HashMap::new();
        // By ascending id, as everybody locks products.
        for product in conn.products_of_payments(&ids).await? {
            if let Some(lock) = conn.lock_product(product).await? {
                locked.insert(product, lock.gate_epoch);
            }
        }
        let events: Vec<&str> = callbacks.iter().map(|callback| callback.id.as_str()).collect();
        let known = conn.known_payment_events(provider, &events).await?.into_iter().collect();
        let payments = conn.payments(&ids).await?;
        let mut order_ids: Vec<OrderId> = payments.iter().map(|payment| payment.order_id).collect();
        order_ids.sort_unstable();
        order_ids.dedup();
        let mut orders = conn.order_states(&order_ids).await?;
        orders.retain(|order| locked.contains_key(&order.product_id));
        let told = callbacks.iter().filter_map(|callback| callback.reference.as_deref());
        let had = payments.iter().filter_map(|payment| payment.reference.as_deref());
        let references: Vec<&str> = told.chain(had).collect();
        let references = conn.payments_by_reference(provider, &references).await?;
        let references = references.into_iter().filter_map(|(reference, id)| Some((reference?, id))).collect();
        let ended_by = match late {
            Late::Revive => ended_by(conn, &orders).await?,
            Late::Refund => HashMap::new(),
        };
        let now = conn.now().await?;
        let orders = orders.into_iter().map(|order| (order.id, order)).collect();
        let payments = payments.into_iter().map(|payment| (payment.id, payment)).collect();
        Ok(Self { locked, known, payments, orders, ended_by, references, now })
    }

    fn judge(&mut self, provider: ProviderName, callback: &Callback, shop: Currency, changes: &mut Changes) -> Judged {
        if self.known.contains(&callback.id) {
            return Judged::Done(Outcome::Repeated);
        }
        let payment = self.payments.get_mut(&callback.payment).filter(|payment| payment.provider == provider);
        let Some(payment) = payment else { return Judged::Done(Outcome::Unknown) };
        let order = self.orders.get_mut(&payment.order_id);
        let has_reference = |reference: &str| self.references.get(reference);
        let currency = payment.currency.unwrap_or(shop).code();
        let facts = Facts {
            payment: payment.status,
            order: order.as_ref().map(|order| order.status),
            is_right: callback.amount_cents == Some(payment.amount_cents)
                && callback.currency.as_deref() == Some(currency),
            may_be_revived: order.as_ref().is_some_and(|order| {
                let may_be_revived =
                    |by: &ChangedBy| order.status.may_be_revived(OrderStatus::Paid, ChangedBy::Provider, *by);
                self.ended_by.get(&order.id).is_some_and(may_be_revived)
            }),
            is_told_twice: callback.reference.as_deref().and_then(has_reference).is_some_and(|id| *id != payment.id),
        };
        let ruling = rule(callback.told, facts);
        if let (Ruling::WaitsForItsGate, Some(order)) = (ruling, &order) {
            if let Some(reference) = callback.reference.clone() {
                self.references.insert(reference.clone(), payment.id);
                payment.reference = Some(reference.clone());
                changes.references.push((payment.id, reference));
            }
            return Judged::Late(DeadOrder { product: order.product_id, purchase: order.purchase() });
        }
        let (status, outcome) = match ruling {
            Ruling::Unchanged | Ruling::WaitsForItsGate => (payment.status, Outcome::Unchanged),
            Ruling::Fails => (PaymentStatus::Failed, Outcome::Failed),
            Ruling::Pays => (PaymentStatus::Succeeded, Outcome::Paid),
            Ruling::Owes(why) => (PaymentStatus::RefundDue, Outcome::RefundDue(why)),
            Ruling::Refunds { .. } => (PaymentStatus::Refunded, Outcome::Refunded),
        };
        let reference = callback.reference.clone().or_else(|| payment.reference.clone());
        match (ruling, order) {
            (Ruling::Pays, Some(order)) => {
                changes.paid.entry(order.product_id).or_default().push((*order, reference.clone()));
                order.status = OrderStatus::Paid;
            }
            (Ruling::Refunds { cancels: true }, Some(order)) => {
                changes.cancelled.push((order.id, reference.clone()));
                order.status = OrderStatus::Cancelled;
            }
            _ => {}
        }
        if ruling != Ruling::Unchanged {
            let holder = reference.clone().map(|reference| *self.references.entry(reference).or_insert(payment.id));
            let is_unique = holder == Some(payment.id);
            let change = PaymentChange { id: payment.id, to: status, reference: reference.clone(), is_unique };
            changes.payments.insert(payment.id, change);
            (payment.status, payment.reference) = (status, reference);
        }
        self.known.insert(callback.id.clone());
        changes.events.push(NewPaymentEvent {
            provider,
            event_id: callback.id.clone(),
            payment_id: payment.id,
            received_at: self.now,
        });
        Judged::Done(outcome)
    }
}

impl Changes {
    async fn write(self, conn: &mut DbConn, books: &Books) -> Result<Vec<MadeChange>> {
        let mut made = Vec::new();
        for (product, orders) in self.paid {
            let epoch = books.locked.get(&product).copied().unwrap_or_default();
            made.extend(pay_orders(conn, product, epoch, &orders).await?);
        }
        // After the payments, for what paid an order and was given back at once did so in this order.
        for (order, reason) in self.cancelled {
            let change = Change { to: OrderStatus::Cancelled, by: ChangedBy::Provider, user: None, reason };
            if let Changed::Made(change) = change_order(conn, order, change).await? {
                made.push(change);
            }
        }
        for (payment, reference) in self.references {
            conn.note_reference(payment, &reference).await?;
        }
        let mut payments: Vec<PaymentChange> = self.payments.into_values().collect();
        payments.sort_unstable_by_key(|change| change.id);
        conn.change_payments(&payments, books.now).await?;
        if !self.events.is_empty() {
            conn.insert_payment_events(self.events).await?;
        }
        Ok(made)
    }
}
