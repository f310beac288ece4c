//! The step at the gate of a turn, and steps of earlier turns that have not ended.
//!
//! Where gates are on several servers, one of them may hang. A step there keeps the rest of its turn waiting for [`PATIENCE`]. Its product's
//! clicks are then held back until it has ended, so that within a product who came first is still served first.

use std::collections::HashSet;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};

use super::admission::ToPublish;
use super::pending::{PendingPurchase, by_product, refuse_all};
use super::shared::Checkout;
use crate::error::Error;
use crate::model::ProductId;
use crate::queue::MAX_PURCHASES_A_MESSAGE;

/// A turn goes on without the products whose server has not answered by then.
const PATIENCE: Duration = Duration::from_millis(50);
/// Clicks that are held back at most.
const MAX_HELD_BACK: usize = 4 * MAX_PURCHASES_A_MESSAGE;

/// What has become of a product's purchases at the gate.
type Step<'a> = BoxFuture<'a, (ProductId, Option<ToPublish>)>;

/// See the module.
pub(super) struct TurnAtGate<'a> {
    checkout: &'a Arc<Checkout>,
    /// Steps of earlier turns.
    unfinished: FuturesUnordered<Step<'a>>,
    /// The products of these steps.
    busy: HashSet<ProductId>,
    /// Clicks of these products that came since; they wait until the step has ended.
    held_back: Vec<PendingPurchase>,
}

impl<'a> TurnAtGate<'a> {
    pub(super) fn new(checkout: &'a Arc<Checkout>) -> Self {
        Self { checkout, unfinished: FuturesUnordered::new(), busy: HashSet::new(), held_back: Vec::new() }
    }

    /// Whether all steps have ended.
    pub(super) fn is_idle(&self) -> bool {
        self.unfinished.is_empty()
    }

    /// Units for the purchases of a turn, all of which are taken.
    pub(super) async fn turn(&mut self, turn: &mut Vec<PendingPurchase>) -> Vec<ToPublish> {
        let checkout = self.checkout;
        if !checkout.gate.is_on_several_servers() {
            let steps = by_product(turn).map(|(product, pending)| admit_or_survive(checkout, product, pending));
            return join_all(steps).await.into_iter().flatten().collect();
        }
        self.hold_back(turn);
        let mut without_answer = HashSet::new();
        let mut steps: FuturesUnordered<Step<'a>> = FuturesUnordered::new();
        for (product, pending) in by_product(turn) {
            without_answer.insert(product);
            steps.push(Box::pin(async move { (product, admit_or_survive(checkout, product, pending).await) }));
        }
        let mut admitted = Vec::new();
        let patience = tokio::time::Instant::now() + PATIENCE;
        while let Ok(Some((product, found))) = tokio::time::timeout_at(patience, steps.next()).await {
            without_answer.remove(&product);
            admitted.extend(found);
        }
        self.busy.extend(without_answer);
        self.unfinished.extend(steps);
        admitted
    }

    /// Waits until a step of an earlier turn has ended: what it was given, and its product's clicks since.
    pub(super) async fn next_unfinished(&mut self) -> (Option<ToPublish>, Vec<PendingPurchase>) {
        let Some((product, found)) = self.unfinished.next().await else { return std::future::pending().await };
        self.busy.remove(&product);
        (found, self.held_back.extract_if(.., |click| click.product == product).collect())
    }

    /// Takes the clicks of busy products out of a turn.
    fn hold_back(&mut self, turn: &mut Vec<PendingPurchase>) {
        if self.busy.is_empty() {
            return;
        }
        let held = turn.extract_if(.., |click| self.busy.contains(&click.product));
        self.held_back.extend(held);
        if self.held_back.len() > MAX_HELD_BACK {
            let why = || Error::Unavailable("the gate does not answer, and too many purchases wait for it".to_owned());
            refuse_all(self.held_back.drain(MAX_HELD_BACK..), why);
        }
    }
}

/// Units for purchases of one product. A panic costs them alone, as a crash would: they are answered 503, and the sweeper decides what the
/// gate has taken for them. The batcher goes on.
async fn admit_or_survive(
    checkout: &Arc<Checkout>,
    product: ProductId,
    pending: Vec<PendingPurchase>,
) -> Option<ToPublish> {
    survive(checkout, checkout.admit(product, pending)).await.flatten()
}

/// Name of the batchers' tasks.
pub(super) const TASK: &str = "purchases";

/// `None`: it panicked.
pub(super) async fn survive<T>(checkout: &Checkout, step: impl Future<Output = T>) -> Option<T> {
    let done = AssertUnwindSafe(step).catch_unwind().await;
    done.inspect_err(|_| checkout.supervisor.survived(TASK)).ok()
}
