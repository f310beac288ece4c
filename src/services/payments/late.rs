//! Callbacks whose money came too late: their order has expired, or its buyer has cancelled it.
//!
//! Each asks the gate for the units of its order, then the database. That takes a step at the gate, and a gate that is away or is being
//! rebuilt has no answer. So they wait apart from the others, a few at a time and not for long, and their provider is told to come again
//! in doubt: nobody's money is decided by a gate that does not know.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::callback::Callback;
use super::outcome::{DeadOrder, Outcome};
use super::revival::{Decided, Revivals, Word, decide};
use crate::db::{Db, DbError, Knows, NewPaymentEvent};
use crate::error::{Error, Result};
use crate::model::{LatePayment, ProductId, ProviderName};
use crate::stock::{GateError, PaymentAdmission, StockGate};
use crate::telemetry::Metrics;

/// Late callbacks that wait at most; the next is told to come again.
const MAX_WAITING: usize = 1_000;
/// Settled at once: each holds a connection to the database for a moment, of which purchases need some, too.
const AT_ONCE: usize = 4;
/// How often a gate in this process is opened for one callback: it may be taken away before it is asked.
const MAX_OPENED: usize = 3;

/// Opens the gate of a product that was found to have none. True: it is open now; else that was only begun.
pub type GateOpener = Box<dyn Fn(ProductId) -> BoxFuture<'static, Result<bool>> + Send + Sync>;

/// A callback that tells of money for a dead order.
pub(super) struct LateCallback {
    pub(super) callback: Callback,
    pub(super) order: DeadOrder,
    pub(super) reply: oneshot::Sender<Result<Outcome>>,
}

/// Where they come in.
pub(super) struct LateCallbacks(mpsc::Sender<LateCallback>);

/// Settles what waits.
pub struct LateCallbackWriter {
    db: Db,
    gate: Arc<StockGate>,
    provider: Option<ProviderName>,
    revivals: Arc<Revivals>,
    open_gate: GateOpener,
    metrics: Arc<Metrics>,
    /// No instance runs that does not know late payments.
    all_know: AtomicBool,
    waiting: Mutex<mpsc::Receiver<LateCallback>>,
}

impl LateCallbacks {
    /// Hands a callback over. If too many wait, its provider is told to come again.
    pub(super) fn hand_over(&self, late: LateCallback) {
        if let Err(error) = self.0.try_send(late) {
            let LateCallback { reply, .. } = error.into_inner();
            let _ = reply.send(Err(again("too many late ones wait")));
        }
    }
}

impl LateCallbackWriter {
    /// What comes in, and what settles it with `gate` and `db`; the second must run.
    pub(super) fn open(
        db: Db,
        gate: Arc<StockGate>,
        provider: Option<ProviderName>,
        revivals: Arc<Revivals>,
        open_gate: GateOpener,
        metrics: Arc<Metrics>,
    ) -> (LateCallbacks, Self) {
        let (sender, waiting) = mpsc::channel(MAX_WAITING);
        let (all_know, waiting) = (AtomicBool::new(false), Mutex::new(waiting));
        (LateCallbacks(sender), Self { db, gate, provider, revivals, open_gate, metrics, all_know, waiting })
    }

    /// Settles until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let Some(provider) = self.provider else { return stop.cancelled().await };
        let mut waiting = self.waiting.lock().await;
        let late = stream::poll_fn(|context| waiting.poll_recv(context)).take_until(stop.cancelled());
        // What has begun is finished.
        late.for_each_concurrent(AT_ONCE, |late| self.answer(provider, late)).await;
        stop.cancelled().await;
    }

    async fn answer(&self, provider: ProviderName, LateCallback { callback, order, reply }: LateCallback) {
        // Its provider has not been answered in time, and comes again.
        if reply.is_closed() {
            return;
        }
        let payment = callback.payment.to_string();
        let outcome = self.settle(provider, callback, order).await;
        match &outcome {
            Ok(outcome) => outcome.report(&self.metrics, &payment, provider),
            Err(error) => tracing::debug!(payment.id = payment, %error, "Could not settle a late payment yet"),
        }
        let _ = reply.send(outcome);
    }

    async fn settle(&self, provider: ProviderName, callback: Callback, order: DeadOrder) -> Result<Outcome> {
        let DeadOrder { product, purchase } = order;
        self.check_instances().await?;
        let late = LatePayment::new(purchase, callback.payment);
        let (word, is_new) = self.ask(product, &late).await?;
        crash_point!("after_late_admission");
        let (decided, was_known) = self.decide(provider, callback, word).await?;
        crash_point!("after_late_commit");
        let Some(outcome) = decided.outcome else {
            // Nothing is left at a gate that is over.
            self.open_gate(product).await?;
            return Err(again("its gate is rebuilt"));
        };
        self.revivals.committed(&decided);
        if let Word::Admitted(epoch) = word {
            self.revivals.tell(product, &late, (epoch, is_new), &decided).await;
        }
        Ok(if was_known && outcome == Outcome::Unchanged { Outcome::Repeated } else { outcome })
    }

    /// A program of the version before takes a revived order for one in its first life, and so gives its units away.
    async fn check_instances(&self) -> Result<()> {
        if self.all_know.load(Ordering::Relaxed) {
            return Ok(());
        }
        let read = self
            .db
            .read(|conn| Box::pin(async move { Ok::<_, Error>(conn.all_instances_know(Knows::LatePayments).await?) }));
        if !read.await? {
            return Err(again("an instance of a version before runs that does not know them"));
        }
        self.all_know.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// What the gate says, and whether this call has an entry in flight there now. An error: nobody knows.
    async fn ask(&self, product: ProductId, late: &LatePayment) -> Result<(Word, bool)> {
        for _ in 0..MAX_OPENED {
            match self.gate.admit_payment(product, late).await {
                Ok(PaymentAdmission::Admitted { epoch, is_new }) => return Ok((Word::Admitted(epoch), is_new)),
                Ok(PaymentAdmission::Refused) => return Ok((Word::Refused, false)),
                Ok(PaymentAdmission::Busy) => return Err(again("another payment of the order is being settled")),
                // In Redis it may have been retired, which its row says.
                Err(GateError::Lost) if self.gate.shared().is_some() => return Ok((Word::NoGate, false)),
                Err(GateError::Lost | GateError::Closed) => {
                    if !self.open_gate(product).await? {
                        return Err(again("its gate is being rebuilt"));
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Err(again("its gate is taken away again and again"))
    }

    /// Whatever is in the way passes, or a person must see to it: until then the provider comes again.
    async fn open_gate(&self, product: ProductId) -> Result<bool> {
        (self.open_gate)(product).await.map_err(|error| again(&format!("its gate cannot be opened: {error}")))
    }

    /// In one transaction, with the event; and whether that was known.
    async fn decide(&self, provider: ProviderName, callback: Callback, word: Word) -> Result<(Decided, bool)> {
        let decided = self.db.transaction(move |conn| {
            Box::pin(async move {
                let decided = decide(conn, callback.payment, word).await?;
                let was_known = !conn.known_payment_events(provider, &[&callback.id]).await?.is_empty();
                if decided.outcome.is_some() && !was_known {
                    let (event_id, payment_id) = (callback.id, callback.payment);
                    let event = NewPaymentEvent { provider, event_id, payment_id, received_at: conn.now().await? };
                    match conn.insert_payment_events(vec![event]).await {
                        // Of another payment, at this moment.
                        Err(DbError::Duplicate(_)) => return Err(again("another callback has its id")),
                        inserted => inserted?,
                    }
                }
                crash_point!("before_late_commit");
                Ok((decided, was_known))
            })
        });
        decided.await
    }
}

fn again(problem: &str) -> Error {
    Error::Unavailable(format!("late payment: {problem}"))
}
