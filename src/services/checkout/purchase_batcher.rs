//! The purchase batcher: where clicks wait, and what serves them together.
//!
//! Its task works in turns. In each it takes what waits, never waits for more, and serves the purchases of a product together:
//! one step at the gate, one message, one confirm. The next turn begins when all products of this one are served, so a slow one
//! delays the others. Meanwhile the next clicks gather, so the busier the sale, the more of them go together; a purchase that
//! waits alone goes at once.
//!
//! A client that hangs up cannot cut a purchase in two, for the batcher's task is another than its own.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::sync::{mpsc, oneshot};

use super::pending::{Accepted, PendingPurchase, ReplyDispatcher, by_product};
use super::shared::{Checkout, may_not_promise};
use crate::error::{Error, Result};
use crate::model::{OrderId, ProductId, Purchase, Quantity, UserId};
use crate::queue::GROUP_MAX;
use crate::telemetry::Trace;

/// Purchases of one turn at most: what a batcher takes at a time. Four messages of one product can so wait for their confirm at the same time; with
/// one, each confirm of a slow queue would let only [`GROUP_MAX`] purchases through.
const MAX_TURN: usize = 4 * GROUP_MAX;

/// Name of the batchers' tasks.
const TASK: &str = "purchases";

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

    /// Buys units, all of them or none, as a part of `trace` if that is recorded. `Ok` is a promise: the order exists from here on, whatever crashes (I2).
    pub async fn buy(
        &self,
        user_id: UserId,
        product: ProductId,
        quantity: Quantity,
        trace: Option<Box<Trace>>,
    ) -> Result<Accepted> {
        let answer = match self.checkout.gate.denial(product, user_id) {
            Some(denial) => Err(denial.into()),
            None => self.enqueue(user_id, product, quantity, trace).await,
        };
        self.checkout.metrics.purchase(answer.as_ref().map_or_else(Error::code, |_| "accepted"));
        answer
    }

    async fn enqueue(
        &self,
        user_id: UserId,
        product: ProductId,
        quantity: Quantity,
        trace: Option<Box<Trace>>,
    ) -> Result<Accepted> {
        if !self.checkout.queue.is_ready() {
            return Err(Error::Unavailable("the queue is not available".to_owned()));
        }
        let clicked_at = Instant::now();
        if !self.checkout.rebuilder.deployment().may_promise(clicked_at) {
            return Err(may_not_promise());
        }
        let (reply, answer) = oneshot::channel();
        let purchase = Purchase { order_id: OrderId::draw(product), user_id, quantity };
        let dispatcher = self.dispatcher.clone();
        let pending = PendingPurchase { product, purchase, clicked_at, reply, dispatcher, trace };
        self.clicks.try_send(pending).map_err(|_| Error::Unavailable("too many purchases wait".to_owned()))?;
        answer.await.map_err(|_| Error::Unavailable("nobody answered the purchase".to_owned()))?
    }
}

async fn serve_all(checkout: Arc<Checkout>, mut received: mpsc::Receiver<PendingPurchase>) {
    let mut turn = Vec::with_capacity(MAX_TURN);
    while received.recv_many(&mut turn, MAX_TURN).await > 0 {
        let products = by_product(turn.drain(..)).into_iter();
        join_all(products.map(|(product, pending)| serve_or_drop(&checkout, product, pending))).await;
    }
}

/// A panic costs the purchases of one product in this turn, as a crash would: they are answered 503, and the sweeper decides what
/// the gate has taken for them. The batcher goes on.
async fn serve_or_drop(checkout: &Arc<Checkout>, product: ProductId, pending: Vec<PendingPurchase>) {
    if AssertUnwindSafe(serve(checkout, product, pending)).catch_unwind().await.is_err() {
        checkout.supervisor.survived(TASK);
    }
}

async fn serve(checkout: &Arc<Checkout>, product: ProductId, pending: Vec<PendingPurchase>) {
    if let Some(admitted) = checkout.admit(product, pending).await {
        join_all(admitted.into_messages().map(|message| checkout.publish(message))).await;
    }
}
