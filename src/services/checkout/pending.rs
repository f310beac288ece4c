//! Purchases that wait for their answer, and how the answers get back to them.

use std::time::Instant;

use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, Result};
use crate::model::{Click, Network, OrderId, ProductId, Purchase, Quantity, Terms};
use crate::telemetry::Trace;

/// A purchase that became a promise.
#[derive(Debug, Clone, Copy)]
pub struct Accepted {
    /// Its order.
    pub order_id: OrderId,
    /// Its units.
    pub quantity: Quantity,
    /// What binds for it; `None`: the gate that admitted it does not know yet.
    pub terms: Option<Terms>,
}

/// Wakes the click.
type Reply = oneshot::Sender<Result<Accepted>>;

/// Hands a thread several answers at once, because each hand-over costs a system call. It never holds more answers than the
/// batcher has taken clicks.
#[derive(Clone)]
pub(super) struct ReplyDispatcher(mpsc::UnboundedSender<Vec<(Reply, Result<Accepted>)>>);

/// A click that waits for its answer.
pub(super) struct PendingPurchase {
    pub(super) product: ProductId,
    pub(super) purchase: Purchase,
    /// Where it comes from; `None`: no limit of an address counts.
    pub(super) from: Option<Network>,
    pub(super) clicked_at: Instant,
    pub(super) reply: Reply,
    /// Of the click's thread, if that is not the batcher's.
    pub(super) dispatcher: Option<ReplyDispatcher>,
    /// What its steps belong to, if it is traced.
    pub(super) trace: Option<Box<Trace>>,
}

impl PendingPurchase {
    /// What the gate is asked.
    pub(super) fn click(&self) -> Click {
        Click { purchase: self.purchase, from: self.from }
    }
}

impl ReplyDispatcher {
    /// A dispatcher for the thread that runs the work that comes with it.
    pub(super) fn open() -> (Self, impl Future<Output = ()> + 'static) {
        let (dispatcher, mut handed) = mpsc::unbounded_channel();
        let work = async move {
            while let Some(answers) = handed.recv().await {
                for (reply, answer) in answers {
                    answer_one(reply, answer);
                }
            }
        };
        (Self(dispatcher), work)
    }
}

/// A client that has hung up finds its order in `GET /orders`.
fn answer_one(reply: Reply, answer: Result<Accepted>) {
    let _ = reply.send(answer);
}

/// Answers those of this thread one by one, and hands the others over together.
pub(super) fn answer_all(answers: impl IntoIterator<Item = (PendingPurchase, Result<Accepted>)>) {
    let mut threads: Vec<(ReplyDispatcher, Vec<_>)> = Vec::new();
    for (PendingPurchase { reply, dispatcher, .. }, answer) in answers {
        let Some(dispatcher) = dispatcher else {
            answer_one(reply, answer);
            continue;
        };
        match threads.iter_mut().find(|(other, _)| other.0.same_channel(&dispatcher.0)) {
            Some((_, handed)) => handed.push((reply, answer)),
            None => threads.push((dispatcher, vec![(reply, answer)])),
        }
    }
    for (dispatcher, handed) in threads {
        // A thread that has ended has nobody to answer.
        let _ = dispatcher.0.send(handed);
    }
}

/// Answers all with the same error.
pub(super) fn refuse_all(pending: impl IntoIterator<Item = PendingPurchase>, why: impl Fn() -> Error) {
    answer_all(pending.into_iter().map(|pending| (pending, Err(why()))));
}

/// Purchases, product by product; within a product they keep their order.
/// All of them are taken; the room that they had stays for the next.
pub(super) fn by_product(
    pending: &mut Vec<PendingPurchase>,
) -> impl Iterator<Item = (ProductId, Vec<PendingPurchase>)> {
    // Nothing to do if there is one product. A stable sort keeps their order.
    pending.sort_by_key(|click| click.product);
    let mut pending = pending.drain(..);
    std::iter::from_fn(move || {
        let product = pending.as_slice().first()?.product;
        let count = pending.as_slice().partition_point(|click| click.product == product);
        Some((product, pending.by_ref().take(count).collect()))
    })
}

/// One to test with, and where its answer comes.
#[cfg(test)]
pub(super) fn pending(
    product: i64,
    dispatcher: Option<&ReplyDispatcher>,
) -> (PendingPurchase, oneshot::Receiver<Result<Accepted>>) {
    let (reply, answer) = oneshot::channel();
    let product = ProductId::try_from(product).expect("positive");
    let user_id = 1_i64.try_into().expect("positive");
    let purchase = Purchase { order_id: OrderId::draw(product), user_id, quantity: Quantity::ONE };
    let dispatcher = dispatcher.cloned();
    (
        PendingPurchase { product, purchase, from: None, clicked_at: Instant::now(), reply, dispatcher, trace: None },
        answer,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_purchase_gets_its_own_answer_whichever_thread_it_came_from() {
        let ((one, one_hands_over), (other, other_hands_over)) = (ReplyDispatcher::open(), ReplyDispatcher::open());
        let dispatchers = [None, Some(&one), Some(&other), Some(&one), None];
        let (clicks, answers): (Vec<_>, Vec<_>) =
            dispatchers.map(|dispatcher| pending(1, dispatcher)).into_iter().unzip();
        let orders: Vec<OrderId> = clicks.iter().map(|pending| pending.purchase.order_id).collect();
        answer_all(clicks.into_iter().map(|pending| {
            let Purchase { order_id, quantity, .. } = pending.purchase;
            (pending, Ok(Accepted { order_id, quantity, terms: None }))
        }));
        drop((one, other));
        tokio::join!(one_hands_over, other_hands_over);
        for (answer, order) in answers.into_iter().zip(orders) {
            assert_eq!(answer.await.unwrap().unwrap().order_id, order);
        }
    }

    #[test]
    fn purchases_of_a_product_go_together_in_the_order_they_came() {
        let mut clicks: Vec<_> = [7, 8, 7, 9, 8].map(|product| pending(product, None).0).into_iter().collect();
        let orders: Vec<OrderId> = clicks.iter().map(|pending| pending.purchase.order_id).collect();
        let products: Vec<(i64, Vec<OrderId>)> = by_product(&mut clicks)
            .map(|(product, together)| {
                (product.get(), together.iter().map(|pending| pending.purchase.order_id).collect())
            })
            .collect();
        assert_eq!(products, [(7, vec![orders[0], orders[2]]), (8, vec![orders[1], orders[4]]), (9, vec![orders[3]])]);
    }
}
