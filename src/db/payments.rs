//! Queries on `payments`, the tries to pay orders, and on `payment_events`, what providers have told of them.
//!
//! Whoever changes payments locks the row of their order's product first ([`DbConn::lock_product`]), as for a change of the order.

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Binary, Nullable, Text, Timestamp as SqlTimestamp};
use diesel_async::RunQueryDsl;

use super::conn::{DbConn, on_db};
use super::diagnosis::diagnosed;
use super::error::DbResult;
use super::readable::{Readable, Row, all, one, one_by_one, readable};
use super::schema::{orders, payment_events, payments};
use crate::model::{
    Currency, EventType, OrderId, Payment, PaymentId, PaymentStatus, ProductId, ProviderName, Timestamp,
};

/// Its name where a row of it cannot be read.
pub(super) const PAYMENTS: &str = "payments";

/// A payment that is about to be inserted.
#[derive(Debug, Clone, Insertable)]
#[diesel(table_name = payments)]
pub struct NewPayment {
    /// Its id.
    pub id: PaymentId,
    /// Of which order.
    pub order_id: OrderId,
    /// Who takes the money.
    pub provider: ProviderName,
    /// Where it stands.
    pub status: PaymentStatus,
    /// How much, in minor units.
    pub amount_cents: i64,
    /// Of what; `None`: the shop's own currency.
    pub currency: Option<Currency>,
    /// The provider's own id of it.
    pub reference: Option<String>,
    /// The order, of a pending one.
    pub pending_order: Option<OrderId>,
    /// When it was begun.
    pub created_at: Timestamp,
    /// The same.
    pub updated_at: Timestamp,
    /// When to ask the provider what became of it, if nothing was heard by then.
    pub ask_at: Option<Timestamp>,
}

/// What a provider has told, and is about to be remembered.
#[derive(Debug, Clone, Insertable)]
#[diesel(table_name = payment_events)]
pub struct NewPaymentEvent {
    /// Who has told it.
    pub provider: ProviderName,
    /// The provider's own id of it.
    pub event_id: String,
    /// Of which payment.
    pub payment_id: PaymentId,
    /// When.
    pub received_at: Timestamp,
}

/// What becomes of a payment.
#[derive(Debug, Clone)]
pub struct PaymentChange {
    /// Which.
    pub id: PaymentId,
    /// Where it is to stand.
    pub to: PaymentStatus,
    /// The provider's own id of it.
    pub reference: Option<String>,
    /// Whether no other payment may have that.
    pub is_unique: bool,
}

/// The types of the columns of [`Payment`].
pub(super) type PaymentColumns = (
    Binary,
    Binary,
    Text,
    Text,
    BigInt,
    Nullable<Text>,
    Nullable<Text>,
    SqlTimestamp,
    SqlTimestamp,
    Nullable<Text>,
    Nullable<Text>,
    BigInt,
);
one_by_one!(PaymentId, Payment, PaymentColumns);

/// The columns of [`Payment`], in its order.
#[diesel::dsl::auto_type]
pub(super) fn payment_columns() -> _ {
    (
        payments::id,
        payments::order_id,
        payments::provider,
        payments::status,
        payments::amount_cents,
        payments::currency,
        payments::reference,
        payments::created_at,
        payments::updated_at,
        payments::redirect_url,
        payments::checkout,
        payments::spent_tries,
    )
}

/// When the provider of a payment that comes to this is to be asked for something: what is owed is given back at once.
fn ask_at(to: PaymentStatus, now: Timestamp) -> Option<Timestamp> {
    (to == PaymentStatus::RefundDue).then_some(now)
}

impl DbConn {
    /// Inserts a payment.
    ///
    /// `DbError::Duplicate` when the order has a pending one already.
    pub async fn insert_payment(&mut self, payment: &NewPayment) -> DbResult<()> {
        let conn = self;
        on_db!(conn, diesel::insert_into(payments::table).values(payment).execute(conn).await)?;
        Ok(())
    }

    /// One payment.
    pub async fn find_payment(&mut self, id: PaymentId) -> DbResult<Option<Payment>> {
        let conn = self;
        let query = payments::table.select(payment_columns()).filter(payments::id.eq(id));
        let found: Option<Row<PaymentId, Payment>> = on_db!(conn, query.get_result(conn).await.optional())?;
        one(PAYMENTS, found)
    }

    /// The pending payment of an order.
    pub async fn pending_payment(&mut self, order: OrderId) -> DbResult<Option<Payment>> {
        let conn = self;
        let query = payments::table.select(payment_columns()).filter(payments::pending_order.eq(order));
        let found: Option<Row<PaymentId, Payment>> = on_db!(conn, query.get_result(conn).await.optional())?;
        one(PAYMENTS, found)
    }

    /// Payments of an order, the newest first.
    pub async fn payments_of_order(&mut self, order: OrderId, limit: i64) -> DbResult<Readable<Payment, PaymentId>> {
        let conn = self;
        let query = payments::table
            .select(payment_columns())
            .filter(payments::order_id.eq(order))
            .order(payments::id.desc())
            .limit(limit);
        let found: Vec<Row<PaymentId, Payment>> = on_db!(conn, query.load(conn).await)?;
        Ok(readable(PAYMENTS, found))
    }

    /// Those of these payments that there are.
    pub async fn payments(&mut self, ids: &[PaymentId]) -> DbResult<Vec<Payment>> {
        let conn = self;
        let query = payments::table.select(payment_columns()).filter(payments::id.eq_any(ids));
        let found: Vec<Row<PaymentId, Payment>> = on_db!(conn, query.load(conn).await)?;
        all(PAYMENTS, found)
    }

    /// The products of the orders of these payments, by ascending id: the order in which everybody locks them.
    pub async fn products_of_payments(&mut self, ids: &[PaymentId]) -> DbResult<Vec<ProductId>> {
        let conn = self;
        let query = payments::table
            .inner_join(orders::table.on(orders::id.eq(payments::order_id)))
            .select(orders::product_id)
            .filter(payments::id.eq_any(ids))
            .distinct()
            .order(orders::product_id);
        on_db!(conn, query.load(conn).await)
    }

    /// Who has those of these references that a payment has for itself.
    pub async fn payments_by_reference(
        &mut self,
        provider: ProviderName,
        references: &[&str],
    ) -> DbResult<Vec<(Option<String>, PaymentId)>> {
        let conn = self;
        let query = payments::table
            .select((payments::unique_reference, payments::id))
            .filter(payments::provider.eq(provider))
            .filter(payments::unique_reference.eq_any(references));
        on_db!(conn, query.load(conn).await)
    }

    /// Changes payments, each once.
    pub async fn change_payments(&mut self, changes: &[PaymentChange], at: Timestamp) -> DbResult<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let case = |column: &str| {
            let cases = " WHEN ? THEN ?".repeat(changes.len());
            format!("{column} = CASE id{cases} END")
        };
        let text = format!(
            "UPDATE payments SET {}, {}, {}, {}, asked = 0, pending_order = NULL, updated_at = ? WHERE id IN ({})",
            case("status"),
            case("reference"),
            case("unique_reference"),
            case("ask_at"),
            vec!["?"; changes.len()].join(", "),
        );
        macro_rules! bound {
            ($database:ty) => {{
                let mut update = sql_query(text).into_boxed::<$database>();
                for change in changes {
                    update = update.bind::<Binary, _>(change.id).bind::<Text, _>(change.to);
                }
                for change in changes {
                    update = update.bind::<Binary, _>(change.id).bind::<Nullable<Text>, _>(change.reference.clone());
                }
                for change in changes {
                    let unique = change.reference.clone().filter(|_| change.is_unique);
                    update = update.bind::<Binary, _>(change.id).bind::<Nullable<Text>, _>(unique);
                }
                for change in changes {
                    update =
                        update.bind::<Binary, _>(change.id).bind::<Nullable<SqlTimestamp>, _>(ask_at(change.to, at));
                }
                update = update.bind::<SqlTimestamp, _>(at);
                for change in changes {
                    update = update.bind::<Binary, _>(change.id);
                }
                update
            }};
        }
        match self {
            Self::MySql(conn) => {
                let changed = bound!(diesel::mysql::Mysql).execute(&mut **conn).await;
                diagnosed(&mut **conn, changed).await?;
            }
            Self::Sqlite(conn) => {
                let changed = bound!(diesel::sqlite::Sqlite).execute(&mut **conn).await;
                diagnosed(&mut **conn, changed).await?;
            }
        }
        let due = changes.iter().filter(|change| change.to == PaymentStatus::RefundDue);
        let due: Vec<PaymentId> = due.map(|change| change.id).collect();
        self.tell_if_due(&due, PaymentStatus::RefundDue, at).await
    }

    /// Notes what became of a late payment. Its reference stays as it is.
    pub async fn decide_payment(&mut self, id: PaymentId, to: PaymentStatus, at: Timestamp) -> DbResult<()> {
        let conn = self;
        let asked = (payments::ask_at.eq(ask_at(to, at)), payments::asked.eq(0));
        let set =
            (payments::status.eq(to), payments::pending_order.eq(None::<OrderId>), payments::updated_at.eq(at), asked);
        on_db!(conn, diesel::update(payments::table.filter(payments::id.eq(id))).set(set).execute(conn).await)?;
        conn.tell_if_due(&[id], to, at).await
    }

    /// Notes the provider's own id of a payment of which nothing is decided yet, for itself.
    ///
    /// `DbError::Duplicate` when another payment has it.
    pub async fn note_reference(&mut self, id: PaymentId, reference: &str) -> DbResult<()> {
        let conn = self;
        let set = (payments::reference.eq(Some(reference)), payments::unique_reference.eq(Some(reference)));
        on_db!(conn, diesel::update(payments::table.filter(payments::id.eq(id))).set(set).execute(conn).await)?;
        Ok(())
    }

    /// Notes that the money which paid an order must be given back, or was.
    pub async fn change_paying_payment(&mut self, order: OrderId, to: PaymentStatus, at: Timestamp) -> DbResult<()> {
        let conn = self;
        let paying =
            payments::table.filter(payments::order_id.eq(order)).filter(payments::status.eq(PaymentStatus::Succeeded));
        let ids: Vec<PaymentId> = on_db!(conn, paying.select(payments::id).load(conn).await)?;
        let paying = payments::table.filter(payments::id.eq_any(&ids));
        let asked = (payments::ask_at.eq(ask_at(to, at)), payments::asked.eq(0));
        let set = (payments::status.eq(to), payments::updated_at.eq(at), asked);
        on_db!(conn, diesel::update(paying).set(set).execute(conn).await)?;
        conn.tell_if_due(&ids, to, at).await
    }

    /// Whoever brings payments somewhere calls this: money that must be given back is told.
    async fn tell_if_due(&mut self, ids: &[PaymentId], to: PaymentStatus, at: Timestamp) -> DbResult<()> {
        match to {
            PaymentStatus::RefundDue => self.tell_of_payments(EventType::PaymentRefundDue, ids, at).await,
            _ => Ok(()),
        }
    }

    /// Those of these events that are known.
    pub async fn known_payment_events(&mut self, provider: ProviderName, ids: &[&str]) -> DbResult<Vec<String>> {
        let conn = self;
        let query = payment_events::table
            .select(payment_events::event_id)
            .filter(payment_events::provider.eq(provider))
            .filter(payment_events::event_id.eq_any(ids));
        on_db!(conn, query.load(conn).await)
    }

    /// Remembers events.
    ///
    /// `DbError::Duplicate` when one of them is known.
    pub async fn insert_payment_events(&mut self, events: Vec<NewPaymentEvent>) -> DbResult<()> {
        match self {
            DbConn::MySql(conn) => {
                let inserted = diesel::insert_into(payment_events::table).values(&events).execute(&mut **conn).await;
                diagnosed(&mut **conn, inserted).await?;
            }
            // See `insert_orders`.
            DbConn::Sqlite(conn) => {
                let insert = move |conn: &mut SqliteConnection| {
                    diesel::RunQueryDsl::execute(diesel::insert_into(payment_events::table).values(&events), conn)
                };
                let inserted = conn.spawn_blocking(insert).await;
                diagnosed(&mut **conn, inserted).await?;
            }
        }
        Ok(())
    }

    /// Forgets events that were received before that time, the oldest first and about `most` of them; how many. Safe on several
    /// instances at once.
    pub async fn forget_payment_events(&mut self, before: Timestamp, most: i64) -> DbResult<usize> {
        let conn = self;
        let old = payment_events::table.filter(payment_events::received_at.lt(before));
        // See `forget_keys`.
        let last = old.select(payment_events::received_at).order(payment_events::received_at).offset(most - 1).limit(1);
        let last: Option<Timestamp> = on_db!(conn, last.get_result(conn).await.optional())?;
        match last {
            None => on_db!(conn, diesel::delete(old).execute(conn).await),
            Some(last) => {
                let oldest = payment_events::table.filter(payment_events::received_at.le(last));
                on_db!(conn, diesel::delete(oldest).execute(conn).await)
            }
        }
    }
}
