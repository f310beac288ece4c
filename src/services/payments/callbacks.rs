//! Callbacks of a provider: each is checked, waits with others, and is answered once what it did is committed.
//!
//! Those that wait together go in one transaction, so that a rush of them costs some commits instead of thousands, and purchases
//! find their turn between any two. Whatever keeps them from being written, their provider is told to come again.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::callback::{Callback, Read};
use super::providers::PaymentProvider;
use super::settling::{Outcome, Settled, settle};
use crate::db::Db;
use crate::error::{Error, Result};
use crate::model::{Currency, PaymentStatus, ProviderName, Timestamp};
use crate::services::orders::OrderChanges;
use crate::telemetry::{Metrics, Seldom};

/// Callbacks of one transaction: others wait for the rows of their products meanwhile.
const MAX_BATCH: usize = 256;
/// Callbacks that wait at most, some 500 bytes each; the next is told to come again.
const MAX_WAITING: usize = 20_000;
/// How long one of them waits. Payment services wait for 15 seconds and more.
const PATIENCE: Duration = Duration::from_secs(10);
/// When a transaction has failed, its callbacks are tried one by one for so long: one that cannot be written keeps nobody else
/// waiting.
const ONE_BY_ONE: Duration = Duration::from_secs(3);

/// Lines about money that must be given back.
static OWED: Seldom = Seldom::each_second();
/// Lines about callbacks of payments that are not known.
static UNKNOWN: Seldom = Seldom::each_second();

struct Waiting {
    callback: Callback,
    reply: oneshot::Sender<Result<Outcome>>,
}

/// Where callbacks come in.
#[derive(Clone)]
pub(super) struct Callbacks {
    waiting: mpsc::Sender<Waiting>,
    metrics: Arc<Metrics>,
}

/// Writes what waits.
pub struct CallbackWriter {
    db: Db,
    provider: Option<ProviderName>,
    currency: Currency,
    order_changes: Arc<OrderChanges>,
    metrics: Arc<Metrics>,
    waiting: Mutex<mpsc::Receiver<Waiting>>,
}

impl Callbacks {
    /// Checks a callback, and waits until what it says is done. `header` finds a header by its name.
    pub(super) async fn receive<'h>(
        &self,
        provider: &PaymentProvider,
        header: impl Fn(&str) -> Option<&'h str>,
        body: &[u8],
    ) -> Result<()> {
        let read = provider.read(header, body, Timestamp::now());
        let outcome = match read {
            Ok(Read::Callback(callback)) => self.enqueue(callback).await.map(Outcome::as_str),
            Ok(Read::Unknown) => {
                Outcome::Unknown.log("-", provider.name());
                Ok(Outcome::Unknown.as_str())
            }
            Ok(Read::Ignored) => Ok("ignored"),
            Err(error) => Err(error),
        };
        self.metrics.payments.callback(outcome.as_ref().map_or_else(Error::code, |outcome| *outcome));
        outcome.map(drop)
    }

    /// What a provider said when it was asked: the same as if a callback had told it.
    pub(super) async fn settle(&self, found: Callback) -> Result<()> {
        let outcome = self.enqueue(found).await.map(Outcome::as_str);
        self.metrics.payments.callback(outcome.as_ref().map_or_else(Error::code, |outcome| *outcome));
        outcome.map(drop)
    }

    async fn enqueue(&self, callback: Callback) -> Result<Outcome> {
        let unavailable = |problem: &str| Error::Unavailable(format!("callbacks: {problem}"));
        let (reply, answer) = oneshot::channel();
        self.waiting.try_send(Waiting { callback, reply }).map_err(|_| unavailable("too many wait"))?;
        match tokio::time::timeout(PATIENCE, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(unavailable("nobody writes them")),
            // It may be written all the same: then its repeat finds that.
            Err(_) => Err(unavailable("no answer in time")),
        }
    }
}

impl CallbackWriter {
    /// What comes in, and what writes it to `db`; the second must run.
    pub(super) fn open(
        db: Db,
        provider: Option<ProviderName>,
        currency: Currency,
        order_changes: Arc<OrderChanges>,
        metrics: Arc<Metrics>,
    ) -> (Callbacks, Self) {
        let (sender, waiting) = mpsc::channel(MAX_WAITING);
        let callbacks = Callbacks { waiting: sender, metrics: metrics.clone() };
        (callbacks, Self { db, provider, currency, order_changes, metrics, waiting: Mutex::new(waiting) })
    }

    /// Writes until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let Some(provider) = self.provider else { return stop.cancelled().await };
        let (mut batch, mut waiting) = (Vec::new(), self.waiting.lock().await);
        while let Some(1..) = stop.run_until_cancelled(waiting.recv_many(&mut batch, MAX_BATCH)).await {
            self.write(provider, std::mem::take(&mut batch)).await;
        }
        // At a stop the server goes first, and with it all who could bring one.
        stop.cancelled().await;
    }

    async fn write(&self, provider: ProviderName, batch: Vec<Waiting>) {
        let callbacks = batch.iter().map(|waiting| waiting.callback.clone()).collect();
        match self.settle(provider, callbacks).await {
            Ok(outcomes) => {
                for (Waiting { callback, reply }, outcome) in batch.into_iter().zip(outcomes) {
                    self.answer(provider, &callback, reply, Ok(outcome));
                }
            }
            Err(error) if batch.len() == 1 => {
                tracing::debug!(%error, "Could not write a callback");
                for Waiting { callback, reply } in batch {
                    self.answer(provider, &callback, reply, Err(error.clone()));
                }
            }
            Err(error) => {
                tracing::debug!(%error, callbacks = batch.len(), "Could not write callbacks together");
                let begun = Instant::now();
                for Waiting { callback, reply } in batch {
                    let answer = match begun.elapsed() < ONE_BY_ONE {
                        true => self.settle(provider, vec![callback.clone()]).await.map(|outcomes| outcomes[0]),
                        false => Err(Error::Unavailable(format!("callbacks: {error}"))),
                    };
                    self.answer(provider, &callback, reply, answer);
                }
            }
        }
    }

    /// In one transaction.
    async fn settle(&self, provider: ProviderName, callbacks: Vec<Callback>) -> Result<Vec<Outcome>> {
        let currency = self.currency;
        let settled = self.db.transaction(move |conn| {
            Box::pin(async move {
                let settled = settle(conn, provider, &callbacks, currency).await?;
                crash_point!("before_callback_commit");
                Ok::<_, Error>(settled)
            })
        });
        let Settled { outcomes, made } = settled.await?;
        crash_point!("after_callback_commit");
        for change in made {
            self.order_changes.tell(change).await;
        }
        Ok(outcomes)
    }

    /// A provider that has hung up comes again.
    fn answer(
        &self,
        provider: ProviderName,
        callback: &Callback,
        reply: oneshot::Sender<Result<Outcome>>,
        answer: Result<Outcome>,
    ) {
        if let Ok(outcome) = &answer {
            if let Some(status) = outcome.status() {
                self.metrics.payments.came_to(provider.as_str(), status.as_str());
            }
            outcome.log(&callback.payment.to_string(), provider);
        }
        let _ = reply.send(answer);
    }
}

impl Outcome {
    /// For the metrics.
    fn as_str(self) -> &'static str {
        match self {
            Self::Paid => "paid",
            Self::Failed => "failed",
            Self::Refunded => "refunded",
            Self::RefundDue(_) => "refund_due",
            Self::Repeated => "repeated",
            Self::Unchanged => "unchanged",
            Self::Unknown => "unknown",
        }
    }

    /// What the payment has become.
    fn status(self) -> Option<PaymentStatus> {
        match self {
            Self::Paid => Some(PaymentStatus::Succeeded),
            Self::Failed => Some(PaymentStatus::Failed),
            Self::Refunded => Some(PaymentStatus::Refunded),
            Self::RefundDue(_) => Some(PaymentStatus::RefundDue),
            Self::Repeated | Self::Unchanged | Self::Unknown => None,
        }
    }

    /// What a person must look at.
    fn log(self, payment: &str, provider: ProviderName) {
        let provider = provider.as_str();
        match self {
            Self::RefundDue(why) => {
                if let Some(untold) = OWED.now() {
                    let why = why.as_str();
                    tracing::warn!(payment.id = payment, provider, why, untold, "Money came that must be given back");
                }
            }
            Self::Unknown => {
                if let Some(untold) = UNKNOWN.now() {
                    tracing::warn!(
                        payment.id = payment,
                        provider,
                        untold,
                        "A callback tells of a payment that is not known here"
                    );
                }
            }
            _ => {}
        }
    }
}
