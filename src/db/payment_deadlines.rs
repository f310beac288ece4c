//! Queries on `payment_deadlines`: when to look for orders that were not paid in time.
//!
//! One row stands for all orders of a transaction, so that a deadline costs an order nothing. It says where to look, and when at
//! the earliest; whose deadline is over, the orders and their revisions say.

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Nullable, Timestamp as SqlTimestamp};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::conn::{DbConn, on_db};
use super::diagnosis::diagnosed;
use super::error::DbResult;
use super::orders::{ORDERS, number_or};
use super::readable::{Readable, Row, one, one_by_one, readable};
use super::revisions::BEFORE_REVISIONS;
use super::schema::{orders, payment_deadlines, product_revisions};
use crate::model::{OrderId, OrderStatus, PaymentWindow, ProductId, Timestamp, UserId};

/// Its name where a row of it cannot be read.
const PAYMENT_DEADLINES: &str = "payment_deadlines";

/// A row that is about to be inserted.
#[derive(Debug, Clone, PartialEq, Eq, Insertable)]
#[diesel(table_name = payment_deadlines)]
pub struct NewDeadline {
    first_order: Vec<u8>,
    last_order: Vec<u8>,
    due_at: Timestamp,
}

impl NewDeadline {
    /// To look at `due_at` for orders from `first` to `last`.
    pub fn new(first: OrderId, last: OrderId, due_at: Timestamp) -> Self {
        Self { first_order: bytes(first), last_order: bytes(last), due_at }
    }
}

/// Orders to look for.
#[derive(Debug, Clone, Queryable)]
pub struct DueRange {
    /// Number of the row.
    id: i64,
    first: Vec<u8>,
    last: Vec<u8>,
}

impl DueRange {
    /// Number of its row.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Its part up to this order, to be looked at again at `due_at`.
    pub fn until(&self, last: OrderId, due_at: Timestamp) -> NewDeadline {
        NewDeadline { first_order: self.first.clone(), last_order: bytes(last), due_at }
    }
}

/// An order that waits for its payment.
#[derive(Debug, Clone, Copy, Queryable)]
pub struct UnpaidOrder {
    /// Its id.
    pub id: OrderId,
    /// Whose it is.
    pub user_id: UserId,
    /// Of which product.
    pub product_id: ProductId,
    /// Of which of its revisions; 0: of none.
    pub revision: i64,
    /// How long it may stay unpaid.
    pub window: Option<PaymentWindow>,
}

/// Number of a row, when it is due, and what time it is.
type Next = ((i64, Timestamp), Timestamp);

one_by_one!(OrderId, UnpaidOrder, (Binary, BigInt, BigInt, BigInt, Nullable<BigInt>));
one_by_one!(i64, Next, ((BigInt, SqlTimestamp), SqlTimestamp));

fn bytes(order: OrderId) -> Vec<u8> {
    Uuid::from(order).as_bytes().to_vec()
}

/// [`DbConn::insert_deadline`] in the words of synchronous Diesel.
pub(super) fn insert_deadline_blocking(conn: &mut SqliteConnection, deadline: &NewDeadline) -> QueryResult<()> {
    let insert = diesel::insert_into(payment_deadlines::table).values(deadline);
    diesel::RunQueryDsl::execute(insert, conn).map(drop)
}

impl DbConn {
    /// Adds a row.
    pub async fn insert_deadline(&mut self, deadline: &NewDeadline) -> DbResult<()> {
        let conn = self;
        let insert = diesel::insert_into(payment_deadlines::table).values(deadline);
        on_db!(conn, insert.execute(conn).await)?;
        Ok(())
    }

    /// When there is something to look for next, and what time it is; `None`: there are no deadlines. One that cannot be read is
    /// over.
    pub async fn next_deadline(&mut self) -> DbResult<Option<(Timestamp, Timestamp)>> {
        let columns = (payment_deadlines::id, payment_deadlines::due_at);
        let table = payment_deadlines::table.order(payment_deadlines::due_at).limit(1);
        let found: Option<Row<i64, Next>> = match self {
            DbConn::MySql(conn) => {
                let query = table.select((columns, sql::<SqlTimestamp>("UTC_TIMESTAMP(3)")));
                let found = query.get_result(&mut **conn).await.optional();
                diagnosed(&mut **conn, found).await?
            }
            DbConn::Sqlite(conn) => {
                let query = table.select((columns, Timestamp::now().into_sql::<SqlTimestamp>()));
                let found = query.get_result(&mut **conn).await.optional();
                diagnosed(&mut **conn, found).await?
            }
        };
        let next = |row| match one(PAYMENT_DEADLINES, Some(row)) {
            Ok(Some(((_, due_at), now))) => (due_at, now),
            _ => (Timestamp::EARLIEST, Timestamp::now()),
        };
        Ok(found.map(next))
    }

    /// What is due by `now`, the oldest first. Nobody else gets it before this transaction ends.
    pub async fn claim_due_ranges(&mut self, now: Timestamp, limit: i64) -> DbResult<Vec<DueRange>> {
        let query = payment_deadlines::table
            .select((payment_deadlines::id, payment_deadlines::first_order, payment_deadlines::last_order))
            .filter(payment_deadlines::due_at.le(now))
            .order(payment_deadlines::due_at)
            .limit(limit);
        match self {
            DbConn::MySql(conn) => {
                let found = query.for_update().skip_locked().load(&mut **conn).await;
                diagnosed(&mut **conn, found).await
            }
            DbConn::Sqlite(conn) => {
                let found = query.load(&mut **conn).await;
                diagnosed(&mut **conn, found).await
            }
        }
    }

    /// The first unpaid orders of a range, by id.
    pub async fn unpaid_in(&mut self, range: &DueRange, limit: i64) -> DbResult<Readable<UnpaidOrder, OrderId>> {
        let conn = self;
        let revision = number_or(orders::revision, BEFORE_REVISIONS);
        let query = orders::table
            .left_join(
                product_revisions::table.on(product_revisions::product_id
                    .eq(orders::product_id)
                    .and(product_revisions::revision.nullable().eq(orders::revision))),
            )
            .select((
                orders::id,
                orders::user_id,
                orders::product_id,
                revision,
                product_revisions::payment_window_seconds.nullable(),
            ))
            .filter(orders::id.between(&range.first, &range.last))
            .filter(orders::status.eq(OrderStatus::Unpaid))
            .order(orders::id)
            .limit(limit);
        let found: Vec<Row<OrderId, UnpaidOrder>> = on_db!(conn, query.load(conn).await)?;
        Ok(readable(ORDERS, found))
    }

    /// Has a range looked at again at `due_at`, from `first` to `last` alone if they are given.
    pub async fn put_off(
        &mut self,
        range: &DueRange,
        due_at: Timestamp,
        within: Option<(OrderId, OrderId)>,
    ) -> DbResult<()> {
        let conn = self;
        let row = payment_deadlines::table.filter(payment_deadlines::id.eq(range.id));
        let bounds = within.map(|(first, last)| {
            (payment_deadlines::first_order.eq(bytes(first)), payment_deadlines::last_order.eq(bytes(last)))
        });
        let set = (payment_deadlines::due_at.eq(due_at), bounds);
        on_db!(conn, diesel::update(row).set(set).execute(conn).await)?;
        Ok(())
    }

    /// Has the rest of a range looked at as soon as can be: everything after this order.
    pub async fn go_on_after(&mut self, range: &DueRange, last: OrderId) -> DbResult<()> {
        let conn = self;
        let next = Uuid::from_u128(Uuid::from(last).as_u128().saturating_add(1));
        let row = payment_deadlines::table.filter(payment_deadlines::id.eq(range.id));
        let set = payment_deadlines::first_order.eq(next.as_bytes().to_vec());
        on_db!(conn, diesel::update(row).set(set).execute(conn).await)?;
        Ok(())
    }

    /// Forgets ranges: nothing in them is unpaid and has a deadline.
    pub async fn delete_deadlines(&mut self, ids: &[i64]) -> DbResult<()> {
        let conn = self;
        let rows = payment_deadlines::table.filter(payment_deadlines::id.eq_any(ids));
        on_db!(conn, diesel::delete(rows).execute(conn).await)?;
        Ok(())
    }
}
