//! Units that users hold in the gates of those sales that have purchases on their way to the database.
//!
//! Which these are the gate knows without a look at each, so a question costs the same however many other sales there are. Only
//! where it does not know, and while a gate is lost, all gates are asked.
//!
//! However many users ask, their questions go together: one look answers everybody who has asked before it began, and after
//! it there is a rest. So those who only ask take a bounded share of the gate's time, and no answer is older than its question.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::{mpsc, oneshot};

use super::unfinished_sales::{ProductsInFlight, UnfinishedSales};
use crate::error::{Error, Result};
use crate::model::{OrderId, ProductId, Quantity, UserId};
use crate::stock::{Holding, StockGate};

/// Users who are answered by one look.
const MAX_USERS: usize = 200;
/// Users who wait for one; more are turned away.
const MAX_QUESTIONS: usize = 2_000;
/// Users times products in one step, which others at the gate wait for: about half a millisecond of Redis.
const FIELDS_A_STEP: usize = 1_000;
/// The rest after a look, in times of what it took, and the longest.
const REST: u32 = 4;
const MAX_REST: Duration = Duration::from_secs(1);
/// The longest that an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// See the module.
pub struct Holdings {
    questions: mpsc::Sender<Question>,
}

/// What one user holds.
#[derive(Debug, Clone, Default)]
pub(super) struct Held {
    pub(super) orders: Vec<(ProductId, OrderId, Quantity)>,
    /// A gate could not say.
    pub(super) incomplete: bool,
}

struct Question {
    user: UserId,
    answer: oneshot::Sender<Result<Held>>,
}

struct Looks {
    gate: Arc<StockGate>,
    unfinished_sales: Arc<UnfinishedSales>,
}

impl Holdings {
    /// Where to ask, and the task that answers, which ends when nobody can ask any more.
    pub fn open(
        gate: Arc<StockGate>,
        unfinished_sales: Arc<UnfinishedSales>,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (questions, asked) = mpsc::channel(MAX_QUESTIONS);
        (Self { questions }, Looks { gate, unfinished_sales }.answer(asked))
    }

    /// What a user holds at a moment after this call.
    pub(super) async fn of(&self, user: UserId) -> Result<Held> {
        let (answer, answered) = oneshot::channel();
        let unavailable = |why: &str| Error::Unavailable(why.to_owned());
        self.questions.try_send(Question { user, answer }).map_err(|_| unavailable("too many look at their orders"))?;
        match tokio::time::timeout(PATIENCE, answered).await {
            Ok(Ok(held)) => held,
            _ => Err(unavailable("nobody looked into the gates")),
        }
    }
}

impl Looks {
    async fn answer(self, mut asked: mpsc::Receiver<Question>) {
        let mut questions = Vec::with_capacity(MAX_USERS);
        while asked.recv_many(&mut questions, MAX_USERS).await > 0 {
            questions.retain(|question: &Question| !question.answer.is_closed());
            let begun = Instant::now();
            let users: Vec<UserId> = questions.iter().map(|question| question.user).collect();
            // A defect must not silence all who ask later.
            let found = AssertUnwindSafe(self.look(&users)).catch_unwind().await;
            let found = found.unwrap_or_else(|_| Err(Error::Internal("a panic while looking into gates".to_owned())));
            match found {
                Ok(held) => questions.drain(..).zip(held).for_each(|(question, held)| {
                    let _ = question.answer.send(Ok(held));
                }),
                Err(error) => questions.drain(..).for_each(|question| {
                    let _ = question.answer.send(Err(error.clone()));
                }),
            }
            tokio::time::sleep((begun.elapsed() * REST).min(MAX_REST)).await;
        }
    }

    async fn look(&self, users: &[UserId]) -> Result<Vec<Held>> {
        let mut held = vec![Held::default(); users.len()];
        if users.is_empty() {
            return Ok(held);
        }
        let (ProductsInFlight::Of(products) | ProductsInFlight::OfAny(products)) =
            self.unfinished_sales.in_flight().await?;
        for products in products.chunks((FIELDS_A_STEP / users.len()).max(10)) {
            let units = self.gate.held_by_each(users, products).await?;
            for (product, units) in products.iter().zip(units) {
                let Some(units) = units else {
                    held.iter_mut().for_each(|held| held.incomplete = true);
                    continue;
                };
                for (held, unit) in held.iter_mut().zip(units) {
                    if let Holding::Order { id, quantity } = unit {
                        held.orders.push((*product, id, quantity));
                    }
                }
            }
        }
        Ok(held)
    }
}
