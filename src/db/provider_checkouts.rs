//! Queries on `payments` for providers that give each payment a checkout of its own, and must be asked now and then what became of it.
//!
//! What is asked decides nothing: the answer does, as a callback does. So these queries lock no product's row.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Nullable, Timestamp as SqlTimestamp};
use diesel_async::RunQueryDsl;

use super::conn::{DbConn, on_db};
use super::error::DbResult;
use super::payments::{PAYMENTS, PaymentColumns, payment_columns};
use super::readable::{Readable, Row, one_by_one, readable};
use super::schema::payments;
use crate::model::{OrderId, Payment, PaymentId, PaymentStatus, ProviderName, Timestamp};

/// A payment whose provider is to be asked about it.
#[derive(Debug, Clone, Queryable)]
pub struct DueQuestion {
    /// The payment.
    pub payment: Payment,
    /// When that is to be: it names the question.
    pub ask_at: Option<Timestamp>,
    /// How often that settled nothing.
    pub asked: i64,
}

one_by_one!(PaymentId, DueQuestion, (PaymentColumns, Nullable<SqlTimestamp>, BigInt));

impl DbConn {
    /// Payments whose provider is to be asked by `now`, those that wait longest first.
    pub async fn due_questions(
        &mut self,
        provider: ProviderName,
        now: Timestamp,
        limit: i64,
    ) -> DbResult<Readable<DueQuestion, PaymentId>> {
        let conn = self;
        let query = payments::table
            .select((payment_columns(), payments::ask_at, payments::asked))
            .filter(payments::provider.eq(provider))
            .filter(payments::ask_at.le(now))
            .order(payments::ask_at)
            .limit(limit);
        let found: Vec<Row<PaymentId, DueQuestion>> = on_db!(conn, query.load(conn).await)?;
        Ok(readable(PAYMENTS, found))
    }

    /// Puts a question off, if it is still the one of `was`. False: somebody else has it, or it is settled.
    pub async fn put_question_off(
        &mut self,
        id: PaymentId,
        was: Option<Timestamp>,
        to: Timestamp,
        asked: i64,
    ) -> DbResult<bool> {
        let conn = self;
        let question = payments::table.filter(payments::id.eq(id)).filter(payments::ask_at.eq(was));
        let set = (payments::ask_at.eq(Some(to)), payments::asked.eq(asked));
        Ok(on_db!(conn, diesel::update(question).set(set).execute(conn).await)? == 1)
    }

    /// Has the provider of an order's pending payment asked at once: nobody is to pay any more.
    pub async fn ask_of_order_now(&mut self, order: OrderId, now: Timestamp) -> DbResult<()> {
        let conn = self;
        let pending = payments::table.filter(payments::pending_order.eq(order)).filter(payments::ask_at.gt(now));
        on_db!(conn, diesel::update(pending).set(payments::ask_at.eq(Some(now))).execute(conn).await)?;
        Ok(())
    }

    /// Keeps where a pending payment is paid, unless that is known.
    pub async fn note_checkout(&mut self, id: PaymentId, checkout: &str, redirect_url: &str) -> DbResult<()> {
        let conn = self;
        let pending = payments::table
            .filter(payments::id.eq(id))
            .filter(payments::status.eq(PaymentStatus::Pending))
            .filter(payments::checkout.is_null());
        let set = (payments::checkout.eq(Some(checkout)), payments::redirect_url.eq(Some(redirect_url)));
        on_db!(conn, diesel::update(pending).set(set).execute(conn).await)?;
        Ok(())
    }

    /// Notes that the provider gave an answer that it would repeat for ever, unless that is known.
    pub async fn spend_try(&mut self, id: PaymentId, spent: i64) -> DbResult<()> {
        let conn = self;
        let payment = payments::table.filter(payments::id.eq(id)).filter(payments::spent_tries.eq(spent));
        on_db!(conn, diesel::update(payment).set(payments::spent_tries.eq(spent + 1)).execute(conn).await)?;
        Ok(())
    }
}
