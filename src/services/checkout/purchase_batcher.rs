//! The purchase batcher: where clicks wait, and what serves them together.
//!
//! Its task works in turns. In each it takes what waits and serves it together: one step at the gate for each product, then one
//! message of all of them if the queue bundles, and one confirm. The next turn's step at the gate begins after this one's, so who came
//! first is served first, and a slow product delays the others: but not those on other servers, see `turn_at_gate`. It does not wait for the
//! confirm, but for enough clicks: see [`is_enough`]. So the busier the sale, the more of them go together; a purchase that waits alone
//! goes at once.
//!
//! A client that hangs up cannot cut a purchase in two, for the batcher's task is another than its own.

use std::sync::Arc;
use std::time::Instant;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};

use super::admission::ToPublish;
use super::pending::{Accepted, PendingPurchase, ReplyDispatcher};
use super::publishing::into_messages;
use super::shared::{Checkout, may_not_promise};
use super::turn_at_gate::{TASK, TurnAtGate, survive};
use crate::error::{Error, Result};
use crate::model::{Network, OrderId, ProductId, Purchase, Quantity, UserId};
use crate::queue::MAX_PURCHASES_A_MESSAGE;
use crate::telemetry::Trace;

/// Clicks that a batcher takes at a time. A turn is as large at most, but for those of a product whose step was not over yet, which
/// join it: as many again.
const MAX_TURN: usize = 4 * MAX_PURCHASES_A_MESSAGE;
/// No turn begins while so many messages, or more, are on their way. It is more than one, so that a turn need not wait for the last
/// confirm of the turn before. There can be more than this, because one turn can start several messages at once.
const MAX_MESSAGES: usize = 4;

/// See the module.
pub struct PurchaseBatcher {
    checkout: Arc<Checkout>,
    clicks: mpsc::Sender<PendingPurchase>,
    dispatcher: Option<ReplyDispatcher>,
}

impl PurchaseBatcher {
    /// A batcher with room for `capacity` pending purchases, and its task, which ends once the batcher is dropped and its work
    /// is done.
    pub fn open(checkout: &Arc<Checkout>, capacity: usize) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (clicks, received) = mpsc::channel(capacity);
        let work = checkout.supervisor.vital_while_asked(TASK, serve_all(checkout.clone(), received));
        (Self { checkout: checkout.clone(), clicks, dispatcher: None }, work)
    }

    /// The same batcher for clicks of another thread than its task's, and what hands that thread the answers.
    pub fn attach_worker(&self) -> (Self, impl Future<Output = ()> + 'static) {
        let (dispatcher, handing) = ReplyDispatcher::open();
        let (checkout, clicks) = (self.checkout.clone(), self.clicks.clone());
        let handing = checkout.supervisor.vital_while_asked("purchase-replies", handing);
        (Self { checkout, clicks, dispatcher: Some(dispatcher) }, handing)
    }

    /// Buys units, all of them or none, for a click that comes from a network whose buyers may have a limit, as a part of `trace` if that is recorded. `Ok` is a promise: the order exists from here on, whatever crashes (I2).
    pub async fn buy(
        &self,
        user_id: UserId,
        product: ProductId,
        quantity: Quantity,
        from: Option<Network>,
        trace: Option<Box<Trace>>,
    ) -> Result<Accepted> {
        let answer = match self.checkout.gate.denial(product, user_id) {
            Some(denial) => Err(denial.into()),
            None => self.enqueue(user_id, product, quantity, from, trace).await,
        };
        self.checkout.metrics.purchase(answer.as_ref().map_or_else(Error::code, |_| "accepted"));
        answer
    }

    async fn enqueue(
        &self,
        user_id: UserId,
        product: ProductId,
        quantity: Quantity,
        from: Option<Network>,
        trace: Option<Box<Trace>>,
    ) -> Result<Accepted> {
        if !self.checkout.queue.is_ready() {
            return Err(Error::Unavailable("the queue is not available".to_owned()));
        }
        let clicked_at = Instant::now();
        if !self.checkout.membership.may_promise(clicked_at) {
            return Err(may_not_promise());
        }
        let (reply, answer) = oneshot::channel();
        let purchase = Purchase { order_id: OrderId::draw(product), user_id, quantity };
        let dispatcher = self.dispatcher.clone();
        let pending = PendingPurchase { product, purchase, from, clicked_at, reply, dispatcher, trace };
        self.clicks.try_send(pending).map_err(|_| Error::Unavailable("too many purchases wait".to_owned()))?;
        answer.await.map_err(|_| Error::Unavailable("nobody answered the purchase".to_owned()))?
    }
}

async fn serve_all(checkout: Arc<Checkout>, mut received: mpsc::Receiver<PendingPurchase>) {
    let mut waiting = Vec::with_capacity(MAX_TURN);
    let mut publishing = Publishing::default();
    let mut at_gate = TurnAtGate::new(&checkout);
    let mut is_open = true;
    while is_open || !at_gate.is_idle() {
        let room = MAX_TURN.saturating_sub(waiting.len());
        tokio::select! {
            biased;
            () = publishing.wait_for_one() => {}
            (unfinished, clicks) = at_gate.next_unfinished(), if !at_gate.is_idle() => {
                publishing.begin_all(&checkout, unfinished);
                // They came before those of their product that wait.
                waiting.splice(0..0, clicks);
            }
            count = received.recv_many(&mut waiting, room), if is_open && room > 0 => is_open = count > 0,
        };
        if !waiting.is_empty() && (is_enough(waiting.len(), &publishing) || !is_open) {
            let admitted = publishing.beside(at_gate.turn(&mut waiting)).await;
            publishing.begin_all(&checkout, admitted);
        }
    }
    publishing.wait_for_all().await;
}

/// Whether so many clicks that wait are worth a turn of their own while others are on their way to the queue. Each turn costs the same,
/// however many purchases are in it, so they are not to become small: half as many as are on their way already.
fn is_enough(waiting: usize, publishing: &Publishing) -> bool {
    publishing.messages.len() < MAX_MESSAGES && 2 * waiting >= publishing.purchases
}

/// Messages on their way to the queue.
#[derive(Default)]
struct Publishing<'a> {
    messages: FuturesUnordered<BoxFuture<'a, usize>>,
    purchases: usize,
}

impl<'a> Publishing<'a> {
    /// What was admitted, in as few messages as may be.
    fn begin_all(&mut self, checkout: &'a Arc<Checkout>, admitted: impl IntoIterator<Item = ToPublish>) {
        for message in into_messages(admitted.into_iter(), checkout.queue.bundles()) {
            self.begin(checkout, message);
        }
    }

    /// A panic costs the purchases of this message.
    fn begin(&mut self, checkout: &'a Arc<Checkout>, message: Vec<ToPublish>) {
        let purchases = message.iter().map(|admitted| admitted.reserved.len()).sum();
        self.purchases += purchases;
        self.messages.push(Box::pin(async move {
            survive(checkout, checkout.publish(message)).await;
            purchases
        }));
    }

    /// Never, if there is none.
    async fn wait_for_one(&mut self) {
        match self.messages.next().await {
            Some(purchases) => self.purchases -= purchases,
            None => std::future::pending().await,
        }
    }

    async fn wait_for_all(&mut self) {
        while self.messages.next().await.is_some() {}
    }

    /// Does something else while they are on their way.
    async fn beside<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = self.wait_for_one() => {}
            }
        }
    }
}
