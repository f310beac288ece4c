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
use super::late::{LateCallback, LateCallbacks};
use super::outcome::Outcome;
use super::providers::PaymentProvider;
use super::settling::{Judged, Settled, settle};
use crate::config::Late;
use crate::db::Db;
use crate::error::{Error, Result};
use crate::model::{Currency, ProviderName, Timestamp};
use crate::services::orders::OrderChanges;
use crate::telemetry::Metrics;

/// Callbacks of one transaction: others wait for the rows of their products meanwhile.
const MAX_BATCH: usize = 256;
/// Callbacks that wait at most, some 500 bytes each; the next is told to come again.
const MAX_WAITING: usize = 20_000;
/// How long one of them waits. Payment services wait for 15 seconds and more.
const PATIENCE: Duration = Duration::from_secs(10);
/// When a transaction has failed, its callbacks are tried one by one for so long: one that cannot be written keeps nobody else
/// waiting.
const ONE_BY_ONE: Duration = Duration::from_secs(3);

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
    /// What becomes of late money.
    late: Late,
    /// Where it is settled.
    late_callbacks: LateCallbacks,
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
                Outcome::Unknown.report(&self.metrics, "-", provider.name());
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
        (late, late_callbacks): (Late, LateCallbacks),
        metrics: Arc<Metrics>,
    ) -> (Callbacks, Self) {
        let (sender, waiting) = mpsc::channel(MAX_WAITING);
        let callbacks = Callbacks { waiting: sender, metrics: metrics.clone() };
        let waiting = Mutex::new(waiting);
        (callbacks, Self { db, provider, currency, order_changes, late, late_callbacks, metrics, waiting })
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
            Ok(judged) => {
                for (waiting, judged) in batch.into_iter().zip(judged) {
                    self.judged(provider, waiting, judged);
                }
            }
            Err(error) if batch.len() == 1 => {
                tracing::debug!(%error, "Could not write a callback");
                for Waiting { reply, .. } in batch {
                    let _ = reply.send(Err(error.clone()));
                }
            }
            Err(error) => {
                tracing::debug!(%error, callbacks = batch.len(), "Could not write callbacks together");
                let begun = Instant::now();
                for waiting in batch {
                    let judged = match begun.elapsed() < ONE_BY_ONE {
                        true => self.settle(provider, vec![waiting.callback.clone()]).await.map(|judged| judged[0]),
                        false => Err(Error::Unavailable(format!("callbacks: {error}"))),
                    };
                    match judged {
                        Ok(judged) => self.judged(provider, waiting, judged),
                        Err(error) => drop(waiting.reply.send(Err(error))),
                    }
                }
            }
        }
    }

    /// In one transaction.
    async fn settle(&self, provider: ProviderName, callbacks: Vec<Callback>) -> Result<Vec<Judged>> {
        let (currency, late) = (self.currency, self.late);
        let settled = self.db.transaction(move |conn| {
            Box::pin(async move {
                let settled = settle(conn, provider, &callbacks, currency, late).await?;
                crash_point!("before_callback_commit");
                Ok::<_, Error>(settled)
            })
        });
        let Settled { judged, made } = settled.await?;
        crash_point!("after_callback_commit");
        for change in made {
            self.order_changes.tell(change).await;
        }
        Ok(judged)
    }

    /// Answers what is done, and hands over what is settled apart. A provider that has hung up comes again.
    fn judged(&self, provider: ProviderName, Waiting { callback, reply }: Waiting, judged: Judged) {
        match judged {
            Judged::Done(outcome) => {
                outcome.report(&self.metrics, &callback.payment.to_string(), provider);
                let _ = reply.send(Ok(outcome));
            }
            Judged::Late(order) => self.late_callbacks.hand_over(LateCallback { callback, order, reply }),
        }
    }
}
