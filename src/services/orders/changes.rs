//! What people do to orders that are written: cancel them, mark them as paid, look what became of them.
//!
//! Who may bring an order where, the table of [`OrderStatus::may_become`] says; who was first, the order's row. The gate is told
//! after the commit. What does not reach it, the sweeper repeats.

use std::sync::Arc;

use garde::Validate;
use serde::Deserialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, SchemaType, Type};

use super::order_writer::OrderWriter;
use super::queries::Orders;
use super::view::OrderView;
use crate::db::{Db, DbConn, DbError, Move, NewChange, NewPayment, OrderState};
use crate::error::{Error, Result};
use crate::model::{
    ChangedBy, Life, OrderChange, OrderId, OrderStatus, PaymentId, PaymentStatus, ProductId, ProviderName, Timestamp,
    UserId, plain_text_schema,
};
use crate::services::accounts::Identity;
use crate::services::admin_log::{self, MAX_REASON_CHARS, is_reason};
use crate::services::page::Page;
use crate::telemetry::Metrics;

/// Body of `POST /admin/orders/{id}/cancel`.
#[derive(Debug, Default, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Cancellation {
    #[garde(inner(custom(is_reason)))]
    #[schema(schema_with = optional_reason_schema)]
    reason: Option<String>,
}

/// Body of `POST /admin/orders/{id}/mark-paid`.
#[derive(Debug, Deserialize, Validate, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MarkPaid {
    #[garde(custom(is_reason))]
    #[schema(schema_with = reason_schema)]
    reference: String,
}

fn optional_reason_schema() -> Object {
    ObjectBuilder::from(reason_schema()).schema_type(SchemaType::from_iter([Type::String, Type::Null])).build()
}

fn reason_schema() -> Object {
    plain_text_schema(1, MAX_REASON_CHARS)
}

/// Who brings an order where, and why.
#[derive(Debug, Clone)]
pub struct Change {
    /// Where it is to stand.
    pub to: OrderStatus,
    /// By whom.
    pub by: ChangedBy,
    /// Which buyer or administrator.
    pub user: Option<UserId>,
    /// Why; of a payment, its reference.
    pub reason: Option<String>,
}

/// What became of a change.
#[derive(Debug, Clone, Copy)]
pub enum Changed {
    /// There is no such order, or no product of it.
    Missing,
    /// The order stands there, and must not be brought where it was to be.
    Refused(OrderStatus),
    /// It was made.
    Made(MadeChange),
}

/// A change that was made: what the gate is to be told after the commit.
#[derive(Debug, Clone, Copy)]
pub struct MadeChange {
    from: OrderStatus,
    to: OrderStatus,
    product: ProductId,
    gate_epoch: i64,
    /// That which has begun, goes on or has ended.
    life: Life,
}

/// Brings a live order where `change` wants it, in a transaction of the caller's. The product's row is locked first, as by everybody
/// who writes orders; so no other row of an order may be locked before, unless it is of a product with a smaller id.
pub async fn change_order(conn: &mut DbConn, id: OrderId, change: Change) -> Result<Changed> {
    let Some(before) = conn.order_state(id).await? else { return Ok(Changed::Missing) };
    let Some(lock) = conn.lock_product(before.product_id).await? else { return Ok(Changed::Missing) };
    let Some(order) = conn.order_state(id).await? else { return Ok(Changed::Missing) };
    let Change { to, by, user, reason } = change;
    if !(order.status.is_live() && order.status.may_become(to, by)) {
        return Ok(Changed::Refused(order.status));
    }
    if !conn.count_move(order.product_id, Move::of(order.status, to, [&order])).await? {
        return Err(Error::Internal(format!("product {} counts fewer units than order {id} has", order.product_id)));
    }
    // By another instance's clock it can have been made in our future.
    let at = conn.now().await?.max(id.drawn_at());
    let change = NewChange { from: order.status, to, by, user, reason, at };
    if conn.change_orders(&[id], &change).await? != 1 {
        return Err(DbError::ChangedUnderLock("the order changed under the lock of its product").into());
    }
    if (order.status, to, by) == (OrderStatus::Paid, OrderStatus::Cancelled, ChangedBy::Admin) {
        // A provider that cancels has given the money back already.
        conn.change_paying_payment(id, PaymentStatus::RefundDue, at).await?;
    }
    if order.status == OrderStatus::Unpaid && !to.is_live() {
        conn.ask_of_order_now(id, at).await?;
    }
    let (from, product, gate_epoch, life) = (order.status, order.product_id, lock.gate_epoch, order.life());
    Ok(Changed::Made(MadeChange { from, to, product, gate_epoch, life }))
}

/// Brings unpaid orders of one product to `paid`, each with the reference of its payment, in a transaction of the caller's that has
/// locked the product's row and read the orders since.
pub async fn pay_orders(
    conn: &mut DbConn,
    product: ProductId,
    gate_epoch: i64,
    unpaid: &[(OrderState, Option<String>)],
) -> Result<Vec<MadeChange>> {
    let (from, to, by) = (OrderStatus::Unpaid, OrderStatus::Paid, ChangedBy::Provider);
    if !conn.count_move(product, Move::of(from, to, unpaid.iter().map(|(order, _)| order))).await? {
        return Err(Error::Internal(format!("product {product} counts more units as sold than it has")));
    }
    let drawn = unpaid.iter().map(|(order, _)| order.id.drawn_at()).max();
    let at = conn.now().await?.max(drawn.unwrap_or(Timestamp::EARLIEST));
    let change = NewChange { from, to, by, user: None, reason: None, at };
    let orders: Vec<_> = unpaid.iter().map(|(order, reference)| (order.id, reference.clone())).collect();
    if conn.change_each(&orders, &change).await? != orders.len() {
        return Err(DbError::ChangedUnderLock("orders changed under the lock of their product").into());
    }
    let made = |order: &OrderState| MadeChange { from, to, product, gate_epoch, life: order.life() };
    Ok(unpaid.iter().map(|(order, _)| made(order)).collect())
}

/// See the module.
pub struct OrderChanges {
    db: Db,
    orders: Arc<Orders>,
    order_writer: Arc<OrderWriter>,
    metrics: Arc<Metrics>,
}

impl OrderChanges {
    /// Changes orders in `db`, and tells the gate through `order_writer`.
    pub fn new(db: Db, orders: Arc<Orders>, order_writer: Arc<OrderWriter>, metrics: Arc<Metrics>) -> Self {
        Self { db, orders, order_writer, metrics }
    }

    /// A buyer gives an order up. One that is cancelled already stays so, whoever cancelled it.
    pub async fn cancel(&self, buyer: Identity, id: OrderId) -> Result<OrderView> {
        let order = self.orders.get(buyer, id).await?;
        if order.user_id != buyer.user_id {
            return Err(Error::OrderNotFound);
        }
        let (by, user) = (ChangedBy::Buyer, Some(buyer.user_id));
        let change = Change { to: OrderStatus::Cancelled, by, user, reason: None };
        cancelled(self.change(order, change, None, None).await?)
    }

    /// An administrator calls an order off, unpaid or paid.
    pub async fn cancel_as_admin(&self, admin: Identity, id: OrderId, request: Cancellation) -> Result<OrderView> {
        request.validate()?;
        let order = self.orders.get(admin, id).await?;
        let (by, user) = (ChangedBy::Admin, Some(admin.user_id));
        let change = Change { to: OrderStatus::Cancelled, by, user, reason: request.reason };
        cancelled(self.change(order, change, Some((admin, "Cancelled an order")), None).await?)
    }

    /// An administrator notes that an order was paid in another way.
    pub async fn mark_paid(&self, admin: Identity, id: OrderId, request: MarkPaid) -> Result<OrderView> {
        request.validate()?;
        let order = self.orders.get(admin, id).await?;
        let (by, user) = (ChangedBy::Admin, Some(admin.user_id));
        let payment = manual_payment(&order, request.reference.clone());
        let change = Change { to: OrderStatus::Paid, by, user, reason: Some(request.reference) };
        match self.change(order, change, Some((admin, "Marked an order as paid")), Some(payment)).await? {
            (true, order) => Ok(order),
            (false, order) => Err(Error::NotPayable(order.status)),
        }
    }

    /// Every change of an order, the first one first.
    pub async fn history(&self, admin: Identity, id: OrderId) -> Result<Page<OrderChange>> {
        self.orders.get(admin, id).await?;
        let read = self.db.read(move |conn| Box::pin(async move { Ok::<_, Error>(conn.order_history(id).await?) }));
        Ok(Page { items: read.await?, next_cursor: None })
    }

    /// Whether the change was made now, and the order as it is then. The row is the decision, so what is not written yet cannot
    /// change yet. `admin`: who does it, and what, for their log. `payment`: what is noted with it.
    async fn change(
        &self,
        order: OrderView,
        change: Change,
        admin: Option<(Identity, &'static str)>,
        payment: Option<NewPayment>,
    ) -> Result<(bool, OrderView)> {
        let (id, from) = (order.id, order.status);
        if from == OrderStatus::Queued {
            return Err(Error::Unavailable("the order is not written yet".to_owned()));
        }
        if !from.may_become(change.to, change.by) {
            return Ok((false, order));
        }
        let changing = self.db.transaction(move |conn| {
            Box::pin(async move {
                let reason = change.reason.clone();
                let changed = change_order(conn, id, change).await?;
                if let (Changed::Made(_), Some(payment)) = (&changed, payment) {
                    conn.insert_payment(&payment).await?;
                }
                let noted = match (&changed, admin) {
                    (Changed::Made(made), Some((admin, what))) => {
                        let changes = in_words(made);
                        Some(admin_log::note(conn, admin, what, format!("order {id}"), changes, reason).await?)
                    }
                    _ => None,
                };
                Ok::<_, Error>((changed, noted))
            })
        });
        let is_made = match changing.await? {
            (Changed::Missing, _) => return Err(Error::OrderNotFound),
            (Changed::Refused(_), _) => false,
            (Changed::Made(made), noted) => {
                match noted {
                    Some(noted) => noted.log(),
                    None => {
                        tracing::info!(order.id = %id, buyer.id = %order.user_id, "A buyer cancelled an order");
                    }
                }
                self.tell(made).await;
                true
            }
        };
        Ok((is_made, self.orders.written(id).await?.ok_or(Error::OrderNotFound)?))
    }

    /// To be called after the commit of a change: has it counted, and the gate give back the units of an order that died.
    pub async fn tell(&self, made: MadeChange) {
        let MadeChange { to, product, gate_epoch, life, .. } = made;
        self.metrics.orders_changed(to.as_str(), 1);
        crash_point!("after_change_commit");
        if to.is_live() {
            return;
        }
        if let Err(error) = self.order_writer.release(product, gate_epoch, vec![life]).await {
            // A gate that is not open takes them from the database when it opens.
            tracing::debug!(product.id = %product, %error, "The gate does not know yet that an order is dead");
        }
    }
}

/// Money that came another way, as a payment like any other.
fn manual_payment(order: &OrderView, reference: String) -> NewPayment {
    let now = Timestamp::now();
    NewPayment {
        id: PaymentId::draw(),
        order_id: order.id,
        provider: ProviderName::Manual,
        status: PaymentStatus::Succeeded,
        amount_cents: order.total_cents,
        currency: Some(order.currency),
        reference: Some(reference),
        pending_order: None,
        created_at: now,
        updated_at: now,
        ask_at: None,
    }
}

/// For the administrators' log.
fn in_words(made: &MadeChange) -> String {
    format!("status {} -> {}", made.from.as_str(), made.to.as_str())
}

/// What whoever cancels an order is told. One that was cancelled before stays so, whoever did it.
fn cancelled((is_made, order): (bool, OrderView)) -> Result<OrderView> {
    if is_made || order.status == OrderStatus::Cancelled { Ok(order) } else { Err(Error::NotCancellable(order.status)) }
}
