//! Puts purchases that were set aside back on their way.
//!
//! They were promised, and their gate may have been rebuilt without them since: as they are, the order writer would turn them
//! down as late. So each goes through the gate that is open now, under its own order id; what that has no unit for stays set
//! aside, with the reason.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::db::Db;
use crate::error::Error;
use crate::model::{Denial, OrderId, ProductId, Purchase, PurchaseGroup, Sale, SaleState, Timestamp, UserId};
use crate::queue::{DeadLetter, Kept, MessagePart, PutBack, decode, encode};
use crate::stock::{Answer, GateError, StockGate};

/// See the module.
pub struct Replay {
    db: Db,
    gate: Arc<StockGate>,
}

impl Replay {
    /// Looks into `db`, asks `gate`.
    pub fn new(db: Db, gate: Arc<StockGate>) -> Self {
        Self { db, gate }
    }

    /// What of a dead letter goes back into the queue, and what stays set aside. An error: nothing may be done yet.
    pub async fn readmit(&self, letter: &DeadLetter) -> Result<PutBack, String> {
        let as_it_is = || PutBack { message: Some(letter.body.clone()), kept: None };
        // What cannot be read is set aside again.
        let Ok(MessagePart::Purchases(group)) = decode(&letter.body) else { return Ok(as_it_is()) };
        let failed = |error: Error| error.to_string();
        let product = self.product(group.product_id).await.map_err(failed)?;
        let Some(product) = product else { return Ok(as_it_is()) };
        let open = self.without_written(group).await.map_err(failed)?;
        if open.items.is_empty() {
            return Ok(PutBack { message: None, kept: None });
        }
        self.admit(open, &product).await
    }

    async fn product(&self, id: ProductId) -> Result<Option<Sale>, Error> {
        Ok(self.db.read(move |conn| Box::pin(conn.find_sale(id))).await?)
    }

    /// Leaves out whose fate is decided.
    async fn without_written(&self, mut group: PurchaseGroup) -> Result<PurchaseGroup, Error> {
        let ids: Vec<_> = group.items.iter().map(|item| item.order_id).collect();
        let written = self.db.read(move |conn| Box::pin(async move { conn.written_orders(&ids).await })).await?;
        let written: HashSet<_> = written.into_iter().map(|order| order.id).collect();
        group.items.retain(|item| !written.contains(&item.order_id));
        Ok(group)
    }

    async fn admit(&self, group: PurchaseGroup, product: &Sale) -> Result<PutBack, String> {
        let over = product.settings().state(0, Timestamp::now()) == SaleState::Ended;
        let (epoch, answers) = match self.gate.readmit(group.product_id, group.revision, &group.items).await {
            Ok(readmitted) => readmitted,
            Err(GateError::Lost) if over && self.gate.shared().is_none() => {
                // Opened again, a gate in this process would not wait for what is on its way.
                return Err(format!("product {}: its sale is over; give it a later end first", group.product_id));
            }
            Err(GateError::Lost) if over => self.admit_without_gate(&group, product).await?,
            Err(error) => return Err(format!("product {}: {error}; try again in a moment", group.product_id)),
        };
        let (mut again, mut kept, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
        for (item, answer) in group.items.iter().zip(answers) {
            match refused(item, answer) {
                None => again.push(*item),
                Some(reason) => {
                    kept.push(*item);
                    reasons.push((item.order_id, reason));
                }
            }
        }
        let message = |items: Vec<Purchase>, epoch| {
            let is_in = |order: &OrderId| items.iter().any(|item| item.order_id == *order);
            let traced = group.traced.iter().filter(|(order, _)| is_in(order)).copied().collect();
            (!items.is_empty()).then(|| encode(&PurchaseGroup { items, epoch, traced, ..group.clone() }))
        };
        let kept = message(kept, group.epoch).map(|body| Kept { body, reasons });
        Ok(PutBack { message: message(again, epoch), kept })
    }

    /// The gate of a sale that is over was taken away: nobody else can take a unit, and the database decides. From now on
    /// something is on its way, which a gate that is made anew must wait for. What has no unit there any more is not sent, for
    /// it would be rejected. (Two letters that are replayed at once look before either is written: then the second can be.)
    async fn admit_without_gate(&self, group: &PurchaseGroup, product: &Sale) -> Result<(i64, Vec<Answer>), String> {
        let (id, epoch, items) = (product.id, product.gate_epoch, group.items.clone());
        let looked = self.db.transaction(move |conn| {
            Box::pin(async move {
                let Some(row) = conn.lock_product(id).await? else { return Err(Error::ProductNotFound) };
                let users: Vec<UserId> = items.iter().map(|item| item.user_id).collect();
                let mut held: HashMap<UserId, OrderId> = conn.live_buyers(id, &users).await?.into_iter().collect();
                let mut remaining = row.given - row.sold;
                let answer = |item: &Purchase| {
                    if let Some(order) = held.get(&item.user_id) {
                        return Answer::Denied(Denial::AlreadyPurchased(*order));
                    }
                    if remaining < item.quantity.get() {
                        return Answer::Denied(Denial::SoldOut);
                    }
                    held.insert(item.user_id, item.order_id);
                    remaining -= item.quantity.get();
                    Answer::Reserved
                };
                let answers: Vec<Answer> = items.iter().map(answer).collect();
                let is_sent = answers.contains(&Answer::Reserved);
                Ok(((!is_sent || conn.doubt_retirement(id, epoch).await?), answers))
            })
        });
        let (is_over, answers) = looked.await.map_err(|error| error.to_string())?;
        match is_over {
            true => Ok((epoch, answers)),
            false => Err(format!("product {id}: its sale has just been reopened; try again in a moment")),
        }
    }
}

/// Why a purchase gets no unit any more.
fn refused(item: &Purchase, answer: Answer) -> Option<String> {
    let Purchase { order_id, user_id, .. } = item;
    match answer {
        Answer::Reserved => None,
        Answer::InFlight { order_id: other, .. }
        | Answer::Denied(Denial::AlreadyPurchased(other))
        | Answer::Revived(other) => {
            Some(format!("order {order_id}: user {user_id} has bought again since, as order {other}"))
        }
        Answer::Unreadable => Some(format!(
            "order {order_id}: what the gate holds for user {user_id} cannot be read: seckill deployment rebuild-gate"
        )),
        Answer::Denied(_) => {
            Some(format!("order {order_id} of user {user_id}: its unit was sold to somebody else since"))
        }
    }
}
