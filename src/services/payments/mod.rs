//! Payments: tries to pay an order, and what their providers tell of them.
//!
//! A payment is begun by a buyer and ends by signed callbacks of its provider, which may come twice, late, or in another order than
//! they were sent. What a callback means, `rules` says; it is written in one transaction with the order, by `settling`. Money for an
//! order that is dead by then is settled apart, by `late`: the gate is asked first.

mod callback;
mod callbacks;
mod follow_up;
mod late;
mod outcome;
mod payment_event_purge;
mod providers;
mod revival;
mod rules;
mod settling;
mod view;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use self::callbacks::CallbackWriter;
use self::callbacks::Callbacks;
pub use self::follow_up::FollowUp;
pub use self::late::{GateOpener, LateCallbackWriter};
pub use self::payment_event_purge::PaymentEventPurge;
pub use self::providers::TestOutcome;
use self::providers::{Item, PaymentProvider, StripeError};
pub use self::revival::Revivals;
pub use self::view::{PaymentView, TestPage};
use super::accounts::Identity;
use super::orders::{OrderChanges, OrderView, Orders};
use super::page::Page;
use crate::config::Config;
use crate::db::{self, Db, DbConn, DbError, NewPayment, PaymentChange};
use crate::error::{Error, Result};
use crate::model::{Currency, OrderId, OrderStatus, Payment, PaymentId, PaymentStatus, ProviderName, Timestamp};
use crate::stock::StockGate;
use crate::telemetry::{LogThrottle, Metrics};

/// A payment is begun this long before its order expires, or not at all: who pays needs time, and what they paid needs to get here.
const GRACE: Duration = Duration::from_secs(10);
/// Payments of an order that are listed.
const MAX_LISTED: i64 = 100;

/// Lines about payments that cannot begin.
static NOT_OPENED: LogThrottle = LogThrottle::each_second();

/// See the module.
pub struct Payments {
    db: Db,
    orders: Arc<Orders>,
    provider: Option<Arc<PaymentProvider>>,
    callbacks: Callbacks,
    /// Of payments that name none.
    currency: Currency,
    metrics: Arc<Metrics>,
}

/// What runs beside the payments, and must.
pub struct PaymentTasks {
    /// Writes what providers tell.
    pub callbacks: CallbackWriter,
    /// Settles those of it whose money came late.
    pub late_callbacks: LateCallbackWriter,
    /// Asks what none has told.
    pub follow_up: FollowUp,
}

impl Payments {
    /// Through the provider that is configured, and the tasks that come with it. `open_gate` helps those whose money comes late.
    pub fn open(
        db: Db,
        gate: Arc<StockGate>,
        orders: Arc<Orders>,
        order_changes: Arc<OrderChanges>,
        (revivals, open_gate): (Arc<Revivals>, GateOpener),
        config: &Config,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, PaymentTasks)> {
        let provider = PaymentProvider::new(config)?.map(Arc::new);
        let (name, currency) = (provider.as_deref().map(PaymentProvider::name), config.shop.currency);
        let (late, late_callbacks) =
            LateCallbackWriter::open(db.clone(), gate, name, revivals, open_gate, metrics.clone());
        let late = (config.payments.late, late);
        let (callbacks, writer) =
            CallbackWriter::open(db.clone(), name, currency, order_changes, late, metrics.clone());
        let follow_up = FollowUp::new(db.clone(), orders.clone(), provider.clone(), callbacks.clone());
        let tasks = PaymentTasks { callbacks: writer, late_callbacks, follow_up };
        Ok((Self { db, orders, provider, callbacks, currency, metrics }, tasks))
    }

    /// Says where this process serves HTTP: the test provider's callbacks go there.
    pub fn serves_at(&self, address: SocketAddr) {
        if let Some(PaymentProvider::Test(test)) = self.provider.as_deref() {
            test.serves_at(address);
        }
    }

    /// Begins a payment, or finds the one that is pending. True: it is new.
    pub async fn start(&self, buyer: Identity, order: OrderId) -> Result<(PaymentView, bool)> {
        let provider = self.provider.as_deref().ok_or(Error::PaymentsOff)?;
        let order = self.orders.get(buyer, order).await?;
        if order.user_id != buyer.user_id {
            return Err(Error::OrderNotFound);
        }
        match order.status {
            OrderStatus::Queued => return Err(Error::Unavailable("the order is not written yet".to_owned())),
            OrderStatus::Unpaid => {}
            status => return Err(Error::NotPayable(status)),
        }
        let (order, name) = (Arc::new(order), provider.name());
        let last = order.expires_at.map(|expires_at| expires_at.before(GRACE));
        let (begin_for, begin_at) = (order.clone(), self.provider.clone());
        let begun = self
            .db
            .transaction(move |conn| Box::pin(async move { begin(conn, begin_at.as_deref(), &begin_for, last).await }));
        let (payment, is_new) = begun.await?;
        if is_new {
            self.metrics.payments.came_to(name.as_str(), payment.status.as_str());
        }
        Ok((self.view(self.open_checkout(provider, payment, &order, last).await?), is_new))
    }

    /// Has the provider open the checkout of a payment, if it has one for each. Whoever asks again finds the same.
    async fn open_checkout(
        &self,
        provider: &PaymentProvider,
        payment: Payment,
        order: &OrderView,
        last: Option<Timestamp>,
    ) -> Result<Payment> {
        let PaymentProvider::Stripe(stripe) = provider else { return Ok(payment) };
        if payment.redirect_url.is_some() {
            return Ok(payment);
        }
        let id = payment.id;
        let (price_cents, units) = (order.price_cents, order.quantity.get());
        let item = Item { name: &order.product_name, price_cents, units, currency: order.currency };
        let opened = match stripe.open_checkout(&payment, &item, last).await {
            Ok(opened) => opened,
            Err(problem) => {
                note_spent(&self.db, &payment, &problem).await?;
                if let Some(untold) = NOT_OPENED.now() {
                    tracing::warn!(payment.id = %id, %problem, untold, "The provider opens no checkout: the buyer is told to come again");
                }
                return Err(problem.into());
            }
        };
        let noted = self.db.transaction(move |conn| {
            Box::pin(async move {
                conn.note_checkout(id, &opened.id, &opened.url).await?;
                Ok::<_, Error>(conn.find_payment(id).await?)
            })
        });
        noted.await?.ok_or(Error::PaymentNotFound)
    }

    /// Payments of an order, the newest first.
    pub async fn of_order(&self, reader: Identity, order: OrderId) -> Result<Page<PaymentView>> {
        self.orders.get(reader, order).await?;
        let read = self.db.read_within_share(db::ConnectionShare::Orders, move |conn| {
            Box::pin(async move { Ok::<_, Error>(conn.payments_of_order(order, MAX_LISTED).await?) })
        });
        let items = read.await?.rows.into_iter().map(|payment| self.view(payment)).collect();
        Ok(Page { items, next_cursor: None })
    }

    /// One payment: of its buyer, or of anybody for an administrator.
    pub async fn get(&self, reader: Identity, id: PaymentId) -> Result<PaymentView> {
        self.orders.note_read(reader)?;
        let payment = self.find(id).await?;
        match self.orders.get(reader, payment.order_id).await {
            Ok(_) => Ok(self.view(payment)),
            Err(Error::OrderNotFound) => Err(Error::PaymentNotFound),
            Err(error) => Err(error),
        }
    }

    /// Takes a callback that was sent to `provider`. `header` finds a header by its name. Once this returns, what it did is
    /// committed.
    pub async fn receive<'h>(
        &self,
        provider: &str,
        header: impl Fn(&str) -> Option<&'h str>,
        body: &[u8],
    ) -> Result<()> {
        match self.provider.as_deref() {
            Some(ours) if ours.name().as_str() == provider => self.callbacks.receive(ours, header, body).await,
            _ => Err(Error::NotFound),
        }
    }

    /// What the test provider's page shows. Who knows a payment's id may pay, as with any checkout's address.
    pub async fn test_page(&self, id: PaymentId) -> Result<TestPage> {
        let Some(PaymentProvider::Test(_)) = self.provider.as_deref() else { return Err(Error::NotFound) };
        let payment = self.find_test(id).await?;
        let order = self.orders.written(payment.order_id).await?.ok_or(Error::PaymentNotFound)?;
        Ok(TestPage { product: order.product_name, order: order.status, payment: self.view(payment) })
    }

    /// Pays or declines at the test provider. A payment that is not pending any more stays as it is.
    pub async fn test(&self, id: PaymentId, outcome: TestOutcome) -> Result<()> {
        let Some(PaymentProvider::Test(test)) = self.provider.as_deref() else { return Err(Error::NotFound) };
        let payment = self.find_test(id).await?;
        if payment.status != PaymentStatus::Pending {
            return Ok(());
        }
        test.tell(&payment, payment.currency.unwrap_or(self.currency), outcome).await
    }

    async fn find_test(&self, id: PaymentId) -> Result<Payment> {
        let payment = self.find(id).await?;
        if payment.provider == ProviderName::Test { Ok(payment) } else { Err(Error::PaymentNotFound) }
    }

    async fn find(&self, id: PaymentId) -> Result<Payment> {
        let read = self.db.read_within_share(db::ConnectionShare::Orders, move |conn| {
            Box::pin(async move { Ok::<_, Error>(conn.find_payment(id).await?) })
        });
        read.await?.ok_or(Error::PaymentNotFound)
    }

    /// A payment as it is shown.
    pub(in crate::services) fn view(&self, payment: Payment) -> PaymentView {
        let currency = payment.currency.unwrap_or(self.currency);
        let provider = self.provider.as_deref().filter(|provider| provider.name() == payment.provider);
        let is_pending = payment.status == PaymentStatus::Pending;
        let redirect_url =
            provider.filter(|_| is_pending).and_then(|provider| provider.redirect_url(&payment, currency));
        PaymentView::of(payment, currency, redirect_url)
    }
}

/// After an answer that the provider would repeat for ever, the next request about this payment is another one.
async fn note_spent(db: &Db, payment: &Payment, problem: &StripeError) -> Result<()> {
    let StripeError::Spent(_) = problem else { return Ok(()) };
    let (id, spent) = (payment.id, payment.spent_tries);
    Ok(db.transaction(move |conn| Box::pin(async move { conn.spend_try(id, spent).await })).await?)
}

/// In a transaction: the pending payment of an order, or a new one, which must begin before `last`. True: it is new.
async fn begin(
    conn: &mut DbConn,
    provider: Option<&PaymentProvider>,
    order: &OrderView,
    last: Option<Timestamp>,
) -> Result<(Payment, bool)> {
    let provider = provider.ok_or(Error::PaymentsOff)?;
    // Without a lock: who pays for an order that has died meanwhile gets the money back.
    let state = conn.order_state(order.id).await?.ok_or(Error::OrderNotFound)?;
    let now = conn.now().await?;
    if state.status != OrderStatus::Unpaid || last.is_some_and(|last| last <= now) {
        return Err(Error::NotPayable(state.status));
    }
    if let Some(pending) = conn.pending_payment(order.id).await? {
        if pending.provider == provider.name() {
            return Ok((pending, false));
        }
        // Of the provider that was configured before, whose callbacks are not taken any more.
        let (id, reference) = (pending.id, pending.reference);
        let failed = PaymentChange { id, to: PaymentStatus::Failed, reference, is_unique: false };
        conn.change_payments(&[failed], now).await?;
    }
    let new = NewPayment {
        id: PaymentId::draw(),
        order_id: order.id,
        provider: provider.name(),
        status: PaymentStatus::Pending,
        amount_cents: order.total_cents,
        currency: Some(order.currency),
        reference: None,
        pending_order: Some(order.id),
        created_at: now,
        updated_at: now,
        ask_at: provider.asks_at(last, now),
    };
    let is_new = match conn.insert_payment(&new).await {
        Ok(()) => true,
        // Another click was faster.
        Err(DbError::Duplicate(_)) => false,
        Err(error) => return Err(error.into()),
    };
    let pending = conn.pending_payment(order.id).await?;
    Ok((pending.ok_or_else(|| Error::Unavailable("a payment has just ended".to_owned()))?, is_new))
}
