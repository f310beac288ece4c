//! Asks the provider what no callback has told: ends checkouts whose orders are not to be paid any more, has money given back that
//! is owed, and finds out what became of payments of which nothing was heard. Runs in every instance, for providers that can be asked.
//!
//! What the provider answers is settled as a callback is. Whoever asks has put the question off first, so instances ask in turns; if
//! two ask all the same, it is the same request, and the provider does it once.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ConstantBuilder};
use futures_util::StreamExt;
use tokio_util::sync::CancellationToken;

use super::callbacks::Callbacks;
use super::providers::{Asked, Finding, PaymentProvider};
use super::{GRACE, note_spent};
use crate::db::{Db, DueQuestion};
use crate::error::{Error, Result};
use crate::model::{OrderStatus, Payment, PaymentStatus, Timestamp};
use crate::services::orders::Orders;
use crate::telemetry::{LogThrottle, Outage};

/// Between two looks: with jitter, so that instances do not look together.
const PAUSES: ConstantBuilder =
    ConstantBuilder::new().with_delay(Duration::from_millis(700)).with_jitter().without_max_times();
/// Questions of one look.
const AT_A_TIME: i64 = 200;
/// Questions that are asked at once.
const TOGETHER: usize = 16;
/// A question that settled nothing is asked again after this, twice that, and so on.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// At most.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// Lines about questions that are not answered.
static UNANSWERED: LogThrottle = LogThrottle::new(Duration::from_secs(10));

/// See the module.
pub struct FollowUp {
    db: Db,
    orders: Arc<Orders>,
    provider: Option<Arc<PaymentProvider>>,
    callbacks: Callbacks,
}

impl FollowUp {
    pub(super) fn new(
        db: Db,
        orders: Arc<Orders>,
        provider: Option<Arc<PaymentProvider>>,
        callbacks: Callbacks,
    ) -> Self {
        Self { db, orders, provider, callbacks }
    }

    /// Looks again and again until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let Some(PaymentProvider::Stripe(_)) = self.provider.as_deref() else { return stop.cancelled().await };
        let mut outage = Outage::after(
            Duration::from_secs(5),
            "Could not look for payments whose provider is to be asked",
            "Payments whose provider is to be asked are looked for again",
        );
        for pause in PAUSES.build() {
            match stop.run_until_cancelled(self.look()).await {
                None => return,
                Some(Ok(())) => outage.ended(),
                Some(Err(error)) => {
                    outage.failed(error.code(), &error, "see what the log says of the database; nothing is lost")
                }
            }
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    async fn look(&self) -> Result<()> {
        let Some(provider) = self.provider.as_deref() else { return Ok(()) };
        let name = provider.name();
        let due = self.db.read(move |conn| {
            Box::pin(async move {
                let now = conn.now().await?;
                Ok::<_, Error>(conn.due_questions(name, now, AT_A_TIME).await?.rows)
            })
        });
        let asking = futures_util::stream::iter(due.await?).for_each_concurrent(TOGETHER, |question| async move {
            let id = question.payment.id;
            if let Err(error) = self.ask(provider, question).await
                && let Some(untold) = UNANSWERED.now()
            {
                tracing::warn!(payment.id = %id, %error, untold, "Could not ask the provider about a payment; trying again");
            }
        });
        asking.await;
        Ok(())
    }

    async fn ask(&self, provider: &PaymentProvider, question: DueQuestion) -> Result<()> {
        let DueQuestion { payment, ask_at, asked } = question;
        let id = payment.id;
        let claim = self.db.transaction(move |conn| {
            Box::pin(async move {
                let now = conn.now().await?;
                let is_ours = conn.put_question_off(id, ask_at, now.after(pause(asked)), asked + 1).await?;
                Ok::<_, Error>(is_ours.then_some(now))
            })
        });
        let Some(now) = claim.await? else { return Ok(()) };
        match self.answer(provider, &payment, now).await? {
            Ok(Finding::Told(callback)) => self.callbacks.settle(callback).await,
            Ok(Finding::Open | Finding::UnderWay) => Ok(()),
            Err(problem) => {
                note_spent(&self.db, &payment, &problem).await?;
                Err(problem.into())
            }
        }
    }

    async fn answer(&self, provider: &PaymentProvider, payment: &Payment, now: Timestamp) -> Result<Asked<Finding>> {
        let PaymentProvider::Stripe(stripe) = provider else { return Ok(Ok(Finding::UnderWay)) };
        if payment.status == PaymentStatus::RefundDue {
            return Ok(stripe.refund(payment).await);
        }
        let order = self.orders.written(payment.order_id).await?;
        let is_payable = order.is_some_and(|order| {
            let is_over = order.expires_at.is_some_and(|expires_at| expires_at <= now.after(GRACE));
            order.status == OrderStatus::Unpaid && !is_over
        });
        Ok(stripe.ask(payment, !is_payable).await)
    }
}

fn pause(asked: i64) -> Duration {
    let times = 1_u32 << asked.clamp(0, 16);
    (FIRST_PAUSE * times).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_an_hour() {
        let seconds: Vec<u64> = [0, 1, 2, 9, 10, 1_000, i64::MAX].map(|asked| pause(asked).as_secs()).to_vec();
        assert_eq!(seconds, [5, 10, 20, 2560, 3600, 3600, 3600]);
    }
}
