//! Publishes admitted purchases: the queue's confirm makes a promise of each.

use std::time::{Duration, Instant};

use super::admission::{ReservedPurchase, ToPublish};
use super::pending::{Accepted, PendingPurchase, answer_all, refuse_all};
use super::shared::{Checkout, may_not_promise};
use super::traced::PublishSpans;
use crate::error::{Error, Result};
use crate::model::{Denial, OrderId, OrderIds, Purchase, PurchaseGroup, Terms};
use crate::queue::{MAX_PURCHASES_A_MESSAGE, PublishError};
use crate::services::deployment::PROMISE_MAX_AGE;

/// Limit for `note_in_flight`, because the answer waits for it.
const NOTE_PATIENCE: Duration = Duration::from_millis(200);

impl Checkout {
    /// Publishes reservations as one message and answers once it is confirmed. Releases nothing, whatever happens: what a failed
    /// publish leaves is decided in the database later (I5).
    pub(super) async fn publish(&self, message: Vec<ToPublish>) {
        let mut groups: Vec<PurchaseGroup> = message.iter().map(group_of).collect();
        let spans = PublishSpans::begin(&message, &mut groups, &self.queue);
        crash_point!("before_publish");
        match self.publish_and_note(&groups, spans).await {
            Ok(()) => {
                crash_point!("before_reply");
                self.confirmed.remember(groups.iter().flat_map(|group| &group.items).map(|item| item.order_id));
                self.promise(message);
            }
            Err(error) => {
                self.publish_outage.failed(error.as_str(), &error, error.advice());
                let reserved = message.into_iter().flat_map(|admitted| admitted.reserved);
                refuse_all(reserved.map(|held| held.pending), || error.into());
            }
        }
    }

    /// Publishes, and notes at the gate that something of the products is in flight.
    async fn publish_and_note(
        &self,
        groups: &[PurchaseGroup],
        spans: PublishSpans,
    ) -> std::result::Result<(), PublishError> {
        let begun = Instant::now();
        let publish = async {
            let (published, took) = (self.queue.publish(groups).await, begun.elapsed());
            spans.end(&published);
            (published, took)
        };
        let products = groups.iter().map(|group| group.product_id);
        let note = tokio::time::timeout(NOTE_PATIENCE, self.gate.note_in_flight(products));
        let ((published, took), noted) = tokio::join!(publish, note);
        if !matches!(noted, Ok(Ok(()))) {
            // The next sweep notes it: until then the list of a buyer who asks another instance may lack an order.
            tracing::debug!(product.id = %groups[0].product_id, ?noted, "Could not note what is in flight");
        }
        match &published {
            Ok(()) => {
                self.publish_outage.worked();
                self.metrics.publish_seconds.observe(took.as_secs_f64());
            }
            Err(error) => self.metrics.publish_failures.with_label_values(&[error.as_str()]).inc(),
        }
        published
    }

    /// Answers purchases whose message is confirmed, all of them at once.
    fn promise(&self, message: Vec<ToPublish>) {
        // Checked after the confirm: a rebuild that began during the publish may have read the live orders before these are
        // written. Its gate then does not know them.
        let now = Instant::now();
        let membership = &self.membership;
        let may_promise = membership.may_promise(now);
        answer_all(message.into_iter().flat_map(|ToPublish { product, epoch, terms, reserved }| {
            let is_promised = may_promise && membership.is_current(product, epoch);
            let terms = terms.map(|(_, terms)| terms);
            reserved.into_iter().map(move |ReservedPurchase { pending, order_id, .. }| {
                let answer =
                    if is_promised { promised(&pending, order_id, terms, now) } else { Err(may_not_promise()) };
                (pending, answer)
            })
        }));
    }
}

/// What is published together: everything that fits, if the queue `bundles`; else what is of one product and one revision.
pub(super) fn into_messages(admitted: impl Iterator<Item = ToPublish>, bundles: bool) -> Vec<Vec<ToPublish>> {
    let mut messages: Vec<Vec<ToPublish>> = Vec::new();
    let mut last = 0;
    for part in admitted.flat_map(ToPublish::into_parts) {
        last += part.reserved.len();
        match messages.last_mut().filter(|_| bundles && last <= MAX_PURCHASES_A_MESSAGE) {
            Some(message) => message.push(part),
            None => {
                last = part.reserved.len();
                messages.push(vec![part]);
            }
        }
    }
    messages
}

/// What takes reservations to the consumers, each order once.
fn group_of(admitted: &ToPublish) -> PurchaseGroup {
    let ToPublish { product: product_id, epoch, reserved, .. } = admitted;
    // Two entries share an order id only if a click was repeated.
    let repeats = reserved.iter().any(|held| held.order_id != held.pending.purchase.order_id);
    let mut seen = OrderIds::default();
    let items: Vec<Purchase> = reserved
        .iter()
        .map(|held| Purchase {
            order_id: held.order_id,
            user_id: held.pending.purchase.user_id,
            quantity: held.quantity,
        })
        .filter(|item| !repeats || seen.insert(item.order_id))
        .collect();
    let revision = reserved.first().map(|held| held.revision);
    PurchaseGroup { product_id: *product_id, epoch: *epoch, revision, items, traced: Vec::new() }
}

/// The answer to a purchase whose order is confirmed to be in the queue.
fn promised(pending: &PendingPurchase, order_id: OrderId, terms: Option<Terms>, now: Instant) -> Result<Accepted> {
    if now.saturating_duration_since(pending.clicked_at) > PROMISE_MAX_AGE {
        Err(Error::Unavailable("confirmed too late".to_owned()))
    } else if order_id == pending.purchase.order_id {
        Ok(Accepted { order_id, quantity: pending.purchase.quantity, terms })
    } else {
        Err(Denial::AlreadyPurchased(order_id).into())
    }
}

impl ToPublish {
    /// As many at a time as a message holds, those of one revision.
    fn into_parts(self) -> impl Iterator<Item = Self> {
        let Self { product, epoch, terms, mut reserved } = self;
        // Nearly always all have one revision. Another one comes only with a repeat of a click from before a change of the product, or
        // if the product changed between two chunks of one `reserve`.
        if !reserved.is_sorted_by_key(|held| held.revision) {
            reserved.sort_by_key(|held| held.revision);
        }
        let mut reserved = reserved.into_iter();
        std::iter::from_fn(move || {
            let waiting = reserved.as_slice();
            let revision = waiting.first()?.revision;
            let count =
                waiting.iter().take(MAX_PURCHASES_A_MESSAGE).take_while(|held| held.revision == revision).count();
            let terms = terms.filter(|(of, _)| *of == revision);
            Some(Self { product, epoch, terms, reserved: reserved.by_ref().take(count).collect() })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::pending::pending;
    use super::*;
    use crate::model::{PaymentWindow, Quantity, Revision};

    fn reserved(revision: i64, order_id: Option<OrderId>) -> ReservedPurchase {
        let (pending, _) = pending(1, None);
        let order_id = order_id.unwrap_or(pending.purchase.order_id);
        ReservedPurchase { pending, order_id, quantity: Quantity::ONE, revision: Revision::try_from(revision).unwrap() }
    }

    #[test]
    fn a_message_holds_purchases_of_one_revision_as_many_as_it_may_hold() {
        let mut all: Vec<ReservedPurchase> = (0..MAX_PURCHASES_A_MESSAGE + 1).map(|_| reserved(2, None)).collect();
        all.push(reserved(1, None));
        let admitted = ToPublish { product: 1_i64.try_into().unwrap(), epoch: 7, terms: None, reserved: all };
        let held = |message: Vec<ToPublish>| {
            let [only] = message.try_into().ok().unwrap();
            let ToPublish { epoch, reserved, .. } = only;
            (epoch, reserved[0].revision, reserved.len())
        };
        let messages: Vec<_> = into_messages([admitted].into_iter(), false).into_iter().map(held).collect();
        let revision = |number: i64| Revision::try_from(number).unwrap();
        assert_eq!(messages, [(7, revision(1), 1), (7, revision(2), MAX_PURCHASES_A_MESSAGE), (7, revision(2), 1)]);
    }

    #[test]
    fn a_bundle_holds_what_fits_of_all_products_in_their_order() {
        let admitted = |product: i64, purchases: usize| ToPublish {
            product: product.try_into().unwrap(),
            epoch: 1,
            terms: None,
            reserved: (0..purchases).map(|_| reserved(1, None)).collect(),
        };
        let sizes = |bundles| -> Vec<Vec<(i64, usize)>> {
            let turn = [(1, 2), (2, MAX_PURCHASES_A_MESSAGE - 3), (3, 1), (4, 1), (5, MAX_PURCHASES_A_MESSAGE), (6, 1)];
            let messages = into_messages(turn.into_iter().map(|(product, count)| admitted(product, count)), bundles);
            let sizes = |message: &Vec<ToPublish>| {
                message.iter().map(|part| (part.product.get(), part.reserved.len())).collect::<Vec<_>>()
            };
            messages.iter().map(sizes).collect()
        };
        let bundled = [
            vec![(1, 2), (2, MAX_PURCHASES_A_MESSAGE - 3), (3, 1)],
            vec![(4, 1)],
            vec![(5, MAX_PURCHASES_A_MESSAGE)],
            vec![(6, 1)],
        ];
        assert_eq!(sizes(true), bundled);
        assert_eq!(sizes(false).len(), 6);
    }

    /// The product changed between two steps at the gate: who was admitted later has another price.
    #[test]
    fn terms_are_told_to_those_of_their_revision_only() {
        let terms = |price_cents| {
            let payment_window = PaymentWindow::try_from(900).ok();
            Terms { price_cents, payment_window, max_per_order: Quantity::ONE, max_per_address: None }
        };
        let first = Revision::try_from(1).unwrap();
        let all = vec![reserved(1, None), reserved(2, None)];
        let product = 1_i64.try_into().unwrap();
        let admitted = ToPublish { product, epoch: 7, terms: Some((first, terms(5))), reserved: all };
        let told: Vec<_> = admitted.into_parts().map(|part| part.terms).collect();
        assert_eq!(told, [Some((first, terms(5))), None]);
    }

    #[test]
    fn an_order_that_several_ask_for_again_is_in_the_message_once() {
        let first = reserved(1, None);
        let order = first.order_id;
        let reserved = vec![first, reserved(1, Some(order)), reserved(1, None)];
        let group = group_of(&ToPublish { product: 1_i64.try_into().unwrap(), epoch: 7, terms: None, reserved });
        let orders: Vec<OrderId> = group.items.iter().map(|item| item.order_id).collect();
        assert_eq!((orders.len(), orders[0]), (2, order));
        assert_ne!(orders[1], order);
    }

    #[test]
    fn a_repeat_is_answered_with_the_order_that_holds_the_unit_and_a_late_confirm_promises_nothing() {
        let (mine, other) = (pending(1, None).0, pending(1, None).0.purchase.order_id);
        let (order, now) = (mine.purchase.order_id, mine.clicked_at);
        assert_eq!(promised(&mine, order, None, now).unwrap().order_id, order);
        assert!(
            matches!(promised(&mine, other, None, now), Err(Error::Denied(Denial::AlreadyPurchased(id))) if id == other)
        );
        let late = now + PROMISE_MAX_AGE + std::time::Duration::from_millis(1);
        assert!(matches!(promised(&mine, order, None, late), Err(Error::Unavailable(_))));
    }
}
