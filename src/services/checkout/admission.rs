//! Asks the gate for units, and answers the purchases that get none.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pending::{PendingPurchase, answer_all, refuse_all};
use super::shared::{Checkout, WhyNoGate, may_not_promise};
use super::traced::record_step;
use crate::db::ConnectionShare;
use crate::error::{Error, Result};
use crate::model::{Click, Denial, OrderId, OrderStatus, ProductId, Purchase, Quantity, Revision, Sale, Terms};
use crate::stock::{Admission, Answer, GateError};

/// A click that waited this long for its turn is answered `503`, and no unit is taken. It happens when the turn before
/// waits for a slow gate or queue.
const TURN_MAX_WAIT: Duration = Duration::from_millis(500);

/// When a product has no gate, its purchases get their answer within this time, also while the database does not say why.
const EXPLAINED_WITHIN: Duration = Duration::from_secs(2);

/// Purchases of one product that hold units of one epoch, and under which orders.
pub(super) struct ToPublish {
    pub(super) product: ProductId,
    pub(super) epoch: i64,
    /// What binds for those who got their units under this revision.
    pub(super) terms: Option<(Revision, Terms)>,
    pub(super) reserved: Vec<ReservedPurchase>,
}

/// A purchase that holds units.
pub(super) struct ReservedPurchase {
    pub(super) pending: PendingPurchase,
    pub(super) order_id: OrderId,
    /// The units of that order.
    pub(super) quantity: Quantity,
    /// The product's revision at the reservation. A repeated click keeps the revision of the first one.
    pub(super) revision: Revision,
}

impl Checkout {
    /// Asks the gate for units for purchases of one product, and answers those that get none.
    pub(super) async fn admit(
        self: &Arc<Self>,
        product: ProductId,
        mut pending: Vec<PendingPurchase>,
    ) -> Option<ToPublish> {
        turn_away_overdue(&mut pending);
        if pending.is_empty() {
            return None;
        }
        crash_point!("before_reserve");
        let clicks: Vec<Click> = pending.iter().map(PendingPurchase::click).collect();
        let begun = Instant::now();
        let admission = self.gate.reserve(product, &clicks).await;
        record_step(&pending, begun, &admission);
        match &admission {
            Ok(_) => self.metrics.gate_seconds.observe(begun.elapsed().as_secs_f64()),
            Err(_) => self.metrics.gate_failures.inc(),
        }
        match admission {
            Ok(Admission::Open { epoch, .. }) if !self.membership.is_current(product, epoch) => {
                refuse_all(pending, may_not_promise);
            }
            Ok(Admission::Open { epoch, revision, terms, answers }) => {
                let reserved = self.answer_denied(pending, answers, revision);
                let terms = terms.map(|terms| (revision, terms));
                return (!reserved.is_empty()).then_some(ToPublish { product, epoch, terms, reserved });
            }
            Ok(Admission::Denied(denial)) => refuse_all(pending, || denial.into()),
            Err(GateError::Lost) => match self.needs_no_gate.get(&product).await {
                Some(why) => refuse_all(pending, || why.into()),
                None => {
                    let checkout = self.clone();
                    tokio::spawn(async move { checkout.explain_missing_gate(product, pending).await });
                }
            },
            // The connection to Redis logs what is wrong with it, the rebuild what is closed. That the gate or the sale changed between
            // two steps of one `reserve` is logged nowhere: the next click meets the new state.
            Err(error) => refuse_all(pending, || error.clone().into()),
        }
        None
    }

    /// Answers the purchases that the gate denies; the others must be published.
    fn answer_denied(
        self: &Arc<Self>,
        pending: Vec<PendingPurchase>,
        answers: Vec<Answer>,
        revision: Revision,
    ) -> Vec<ReservedPurchase> {
        let mut to_publish = Vec::with_capacity(pending.len());
        let mut denied = Vec::new();
        for (pending, answer) in pending.into_iter().zip(answers) {
            let why = match answer {
                Answer::Reserved => {
                    let Purchase { order_id, quantity, .. } = pending.purchase;
                    to_publish.push(ReservedPurchase { pending, order_id, quantity, revision });
                    continue;
                }
                // Who published it may have died before the confirm. Only a confirm that this instance saw makes it a promise.
                Answer::InFlight { order_id, quantity, revision } if !self.confirmed.contains(order_id) => {
                    to_publish.push(ReservedPurchase { pending, order_id, quantity, revision });
                    continue;
                }
                Answer::InFlight { order_id, .. } => Denial::AlreadyPurchased(order_id).into(),
                Answer::Revived(order_id) => {
                    let checkout = self.clone();
                    tokio::spawn(async move { checkout.answer_revived(pending, order_id).await });
                    continue;
                }
                Answer::Denied(denial) => denial.into(),
                Answer::Unreadable => Error::Unavailable("the buyer's reservation cannot be read".to_owned()),
            };
            denied.push((pending, Err(why)));
        }
        answer_all(denied);
        to_publish
    }

    /// Answers a buyer whose order a late payment revives, or has: only once it is paid do they hold it for certain. Clicks that come
    /// meanwhile share one query.
    async fn answer_revived(&self, pending: PendingPurchase, order_id: OrderId) {
        let look = self.revived_paid.try_get_with(order_id, self.is_paid(order_id));
        let why = match tokio::time::timeout(EXPLAINED_WITHIN, look).await {
            Ok(Ok(true)) => Denial::AlreadyPurchased(order_id).into(),
            Ok(Ok(false)) => Error::Unavailable("a late payment of the buyer's order is not decided yet".to_owned()),
            Ok(Err(error)) => Error::Unavailable(error.to_string()),
            Err(_) => Error::Unavailable("whether the buyer's order is paid takes long to find out".to_owned()),
        };
        answer_all([(pending, Err(why))]);
    }

    async fn is_paid(&self, order_id: OrderId) -> Result<bool> {
        let read = self.db.read_within_share(ConnectionShare::Orders, move |conn| {
            Box::pin(async move { Ok::<_, Error>(conn.order_state(order_id).await?) })
        });
        Ok(read.await?.is_some_and(|order| order.status == OrderStatus::Paid))
    }

    /// Asks the database why a product has no gate (it is unknown, its sale has ended, or its gate was lost), and answers the
    /// purchases with that. Clicks that come meanwhile share one query.
    async fn explain_missing_gate(&self, product: ProductId, pending: Vec<PendingPurchase>) {
        let look = self.needs_no_gate.try_get_with(product, self.why_no_gate(product));
        match tokio::time::timeout(EXPLAINED_WITHIN, look).await {
            Ok(Ok(why)) => refuse_all(pending, || why.into()),
            Ok(Err(error)) => refuse_all(pending, || Error::Unavailable(error.to_string())),
            Err(_) => refuse_all(pending, || {
                Error::Unavailable("why the product has no gate takes long to find out".to_owned())
            }),
        }
    }

    async fn why_no_gate(&self, product: ProductId) -> Result<WhyNoGate> {
        match self.find_sale(product).await? {
            None => Ok(WhyNoGate::Unknown),
            Some(sale) if sale.had_ended(self.gate.now()) => Ok(WhyNoGate::Ended),
            Some(_) => {
                self.rebuilder.start(product);
                Err(Error::Unavailable("the gate is lost".to_owned()))
            }
        }
    }

    async fn find_sale(&self, product: ProductId) -> Result<Option<Sale>> {
        if !self.known.may_exist(product).await? {
            return Ok(None);
        }
        Ok(self.db.read(move |conn| Box::pin(conn.find_sale(product))).await?)
    }
}

/// Takes out whose client has hung up, and answers those that have waited too long.
fn turn_away_overdue(pending: &mut Vec<PendingPurchase>) {
    pending.retain(|click| !click.reply.is_closed());
    let now = Instant::now();
    let overdue = pending.extract_if(.., |click| now.saturating_duration_since(click.clicked_at) > TURN_MAX_WAIT);
    refuse_all(overdue, || Error::Unavailable("waited too long for its turn".to_owned()));
}
