//! What becomes of orders after they are written, and `order_changes`, which keeps it.
//!
//! Whoever changes orders locks their product's row first ([`DbConn::lock_product`]). Every change is an update `WHERE status =
//! …`, so whoever comes first has decided, also beside a program that takes no lock.

use std::collections::HashMap;

use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Binary, Nullable, Text, Timestamp as SqlTimestamp};
use diesel_async::RunQueryDsl;

use super::conn::{DbConn, on_db};
use super::diagnosis::diagnosed;
use super::error::DbResult;
use super::order_gaps::NewGap;
use super::orders::ORDERS;
use super::readable::{Row, all, one, one_by_one, readable};
use super::schema::{order_changes, orders, products, users};
use crate::model::{
    ChangedBy, EventType, Life, OrderChange, OrderId, OrderStatus, PaymentId, ProductId, Purchase, Quantity, Timestamp,
    UserId,
};

/// Its name where a row of it cannot be read.
const ORDER_CHANGES: &str = "order_changes";
/// Changes of one order that are listed at most. There are a few.
const MAX_CHANGES: i64 = 1_000;

/// Where an order stands, for whoever is about to change it.
#[derive(Debug, Clone, Copy, Queryable)]
pub struct OrderState {
    /// Its id.
    pub id: OrderId,
    /// Whose it is.
    pub user_id: UserId,
    /// Of which product.
    pub product_id: ProductId,
    /// Where it stands.
    pub status: OrderStatus,
    /// Its units.
    pub quantity: Quantity,
    /// The price of one of them, in minor units.
    pub price_cents: i64,
    /// The late payment that revived it.
    pub revived_by: Option<PaymentId>,
}

impl OrderState {
    /// The purchase that it came from, as the gate knows it.
    pub fn purchase(&self) -> Purchase {
        Purchase { order_id: self.id, user_id: self.user_id, quantity: self.quantity }
    }

    /// The life that it is in, or was in last.
    pub fn life(&self) -> Life {
        Life { purchase: self.purchase(), revived_by: self.revived_by }
    }
}

/// Orders of one product that go from one status to another together, as its row counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Move {
    from: OrderStatus,
    to: OrderStatus,
    units: i64,
    cents: i64,
}

impl Move {
    /// Of these orders.
    pub fn of<'a>(from: OrderStatus, to: OrderStatus, orders: impl IntoIterator<Item = &'a OrderState>) -> Self {
        let mut whole = Self { from, to, units: 0, cents: 0 };
        for order in orders {
            let units = order.quantity.get();
            whole.units += units;
            whole.cents = whole.cents.saturating_add(order.price_cents.saturating_mul(units));
        }
        whole
    }

    /// What a count of what has a status, `amount` here, changes by.
    fn more(&self, counts: impl Fn(OrderStatus) -> bool, amount: i64) -> i64 {
        let of = |status| if counts(status) { amount } else { 0 };
        of(self.to) - of(self.from)
    }
}

/// A change that is about to be made.
#[derive(Debug, Clone)]
pub struct NewChange {
    /// Where the orders stand.
    pub from: OrderStatus,
    /// Where they are to stand.
    pub to: OrderStatus,
    /// By whom.
    pub by: ChangedBy,
    /// Which buyer or administrator.
    pub user: Option<UserId>,
    /// Why.
    pub reason: Option<String>,
    /// When. Not before any of the orders was made.
    pub at: Timestamp,
}

#[derive(Debug, Clone, Insertable)]
#[diesel(table_name = order_changes)]
struct ChangeRow {
    order_id: OrderId,
    from_status: OrderStatus,
    to_status: OrderStatus,
    changed_by: ChangedBy,
    changed_by_user: Option<UserId>,
    reason: Option<String>,
    changed_at: Timestamp,
}

/// What a product's row counts changes by so much, if it then still counts as sold what is possible. The other counts are for the
/// merchant to read, and somebody may have changed orders by hand: they never stand in the way.
const COUNT_MOVE: &str = "UPDATE products SET sold = sold + ?, \
    paid = CASE WHEN paid + ? < 0 THEN 0 ELSE paid + ? END, \
    expired = CASE WHEN expired + ? < 0 THEN 0 ELSE expired + ? END, \
    cancelled = CASE WHEN cancelled + ? < 0 THEN 0 ELSE cancelled + ? END, \
    revenue_cents = CASE WHEN revenue_cents + ? < 0 THEN 0 ELSE revenue_cents + ? END \
    WHERE id = ? AND sold + ? BETWEEN 0 AND stock";

one_by_one!(OrderId, OrderState, (Binary, BigInt, BigInt, Text, BigInt, BigInt, Nullable<Binary>));
one_by_one!(OrderId, (OrderId, ChangedBy), (Binary, Text));
one_by_one!(
    i64,
    OrderChange,
    (BigInt, SqlTimestamp, Text, Text, Text, Nullable<BigInt>, Nullable<Text>, Nullable<Text>)
);

/// The columns of [`OrderState`], in its order.
#[diesel::dsl::auto_type]
fn state_columns() -> _ {
    (
        orders::id,
        orders::user_id,
        orders::product_id,
        orders::status,
        orders::quantity,
        orders::price_cents,
        orders::revived_by,
    )
}

impl DbConn {
    /// The time by which deadlines count: the server's, which all instances share; of a file, this machine's.
    pub async fn now(&mut self) -> DbResult<Timestamp> {
        match self {
            DbConn::MySql(conn) => {
                let now = diesel::select(sql::<SqlTimestamp>("UTC_TIMESTAMP(3)")).get_result(&mut **conn).await;
                diagnosed(&mut **conn, now).await
            }
            DbConn::Sqlite(_) => Ok(Timestamp::now()),
        }
    }

    /// Where an order stands.
    pub async fn order_state(&mut self, id: OrderId) -> DbResult<Option<OrderState>> {
        let conn = self;
        let query = orders::table.select(state_columns()).filter(orders::id.eq(id));
        let found: Option<Row<OrderId, OrderState>> = on_db!(conn, query.get_result(conn).await.optional())?;
        one(ORDERS, found)
    }

    /// Where these orders stand, those that there are.
    pub async fn order_states(&mut self, ids: &[OrderId]) -> DbResult<Vec<OrderState>> {
        let conn = self;
        let query = orders::table.select(state_columns()).filter(orders::id.eq_any(ids));
        let found: Vec<Row<OrderId, OrderState>> = on_db!(conn, query.load(conn).await)?;
        all(ORDERS, found)
    }

    /// Those of these orders that are unpaid.
    pub async fn unpaid_of(&mut self, ids: &[OrderId]) -> DbResult<Vec<OrderState>> {
        let conn = self;
        let query = orders::table
            .select(state_columns())
            .filter(orders::id.eq_any(ids))
            .filter(orders::status.eq(OrderStatus::Unpaid));
        let found: Vec<Row<OrderId, OrderState>> = on_db!(conn, query.load(conn).await)?;
        Ok(readable(ORDERS, found).rows)
    }

    /// Counts in a product's row what becomes of its orders. False: it would count fewer than none or more than there are as sold,
    /// and stays as it is.
    pub async fn count_move(&mut self, id: ProductId, whole: Move) -> DbResult<bool> {
        let Move { units, cents, .. } = whole;
        let is = |wanted| move |status| status == wanted;
        let sold = whole.more(OrderStatus::is_live, units);
        let conn = self;
        let (paid, revenue) = (whole.more(is(OrderStatus::Paid), units), whole.more(is(OrderStatus::Paid), cents));
        let (expired, cancelled) =
            (whole.more(is(OrderStatus::Expired), units), whole.more(is(OrderStatus::Cancelled), units));
        let update = sql_query(COUNT_MOVE)
            .bind::<BigInt, _>(sold)
            .bind::<BigInt, _>(paid)
            .bind::<BigInt, _>(paid)
            .bind::<BigInt, _>(expired)
            .bind::<BigInt, _>(expired)
            .bind::<BigInt, _>(cancelled)
            .bind::<BigInt, _>(cancelled)
            .bind::<BigInt, _>(revenue)
            .bind::<BigInt, _>(revenue)
            .bind::<BigInt, _>(id)
            .bind::<BigInt, _>(sold);
        Ok(on_db!(conn, update.execute(conn).await)? == 1)
    }

    /// Counts units of purchases that could not become orders.
    pub async fn count_rejected(&mut self, id: ProductId, units: i64) -> DbResult<()> {
        let conn = self;
        let product = products::table.filter(products::id.eq(id));
        let more = products::rejected.eq(products::rejected + units);
        on_db!(conn, diesel::update(product).set(more).execute(conn).await)?;
        Ok(())
    }

    /// Changes those of these orders that stand where the change begins, and keeps that it did; how many they were. A live order
    /// becomes a dead one whose units the gate is to give back, or a paid one.
    pub async fn change_orders(&mut self, ids: &[OrderId], change: &NewChange) -> DbResult<usize> {
        let orders: Vec<_> = ids.iter().map(|id| (*id, change.reason.clone())).collect();
        self.change_each(&orders, change).await
    }

    /// The same, each for a reason of its own.
    pub async fn change_each(&mut self, orders: &[(OrderId, Option<String>)], change: &NewChange) -> DbResult<usize> {
        let NewChange { from, to, at, .. } = *change;
        let ids: Vec<OrderId> = orders.iter().map(|(id, _)| *id).collect();
        let conn = self;
        let before = orders::table.filter(orders::id.eq_any(&ids)).filter(orders::status.eq(from));
        let moved = (orders::status.eq(to), orders::updated_at.eq(at));
        let changed = if to.is_live() {
            let set = (moved, orders::paid_at.eq(Some(at)));
            on_db!(conn, diesel::update(before).set(set).execute(conn).await)?
        } else {
            let set = (moved, orders::live_user.eq(None::<UserId>), orders::release_due.eq(Some(true)));
            on_db!(conn, diesel::update(before).set(set).execute(conn).await)?
        };
        if changed == ids.len() {
            conn.keep_changes(orders, change).await?;
        }
        Ok(changed)
    }

    /// Makes a dead order that was never revived paid by a late payment, if it stands where the change begins. The gate has nothing to
    /// give back any more: what its first life had is the second one's. False: it stands elsewhere.
    ///
    /// `DbError::Duplicate` when its buyer has another live order of the product.
    pub async fn revive_order(&mut self, order: &OrderState, by: PaymentId, change: &NewChange) -> DbResult<bool> {
        let conn = self;
        let dead = orders::table
            .filter(orders::id.eq(order.id))
            .filter(orders::status.eq(change.from))
            .filter(orders::live_user.is_null())
            .filter(orders::revived_by.is_null());
        let set = (
            orders::status.eq(change.to),
            orders::updated_at.eq(change.at),
            orders::paid_at.eq(Some(change.at)),
            orders::live_user.eq(Some(order.user_id)),
            orders::revived_by.eq(Some(by)),
            orders::release_due.eq(None::<bool>),
        );
        if on_db!(conn, diesel::update(dead).set(set).execute(conn).await)? != 1 {
            return Ok(false);
        }
        conn.keep_changes(&[(order.id, change.reason.clone())], change).await?;
        Ok(true)
    }

    /// Who has changed each of these orders last, as far as that can be read.
    pub async fn last_changed_by(&mut self, ids: &[OrderId]) -> DbResult<HashMap<OrderId, ChangedBy>> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let conn = self;
        let query = order_changes::table
            .select((order_changes::order_id, order_changes::changed_by))
            .filter(order_changes::order_id.eq_any(ids))
            .order(order_changes::id);
        let found: Vec<Row<OrderId, (OrderId, ChangedBy)>> = on_db!(conn, query.load(conn).await)?;
        Ok(readable(ORDER_CHANGES, found).rows.into_iter().collect())
    }

    /// Keeps that these orders have changed, for their history, for the lookup and for who wants to be told.
    async fn keep_changes(&mut self, orders: &[(OrderId, Option<String>)], change: &NewChange) -> DbResult<()> {
        let ids: Vec<OrderId> = orders.iter().map(|(id, _)| *id).collect();
        self.insert_changes(orders, change).await?;
        if let Some(event_type) = EventType::of_order(change.to) {
            self.tell_of_orders(event_type, &ids, change.at).await?;
        }
        self.insert_gaps(NewGap::of_changed(ids)).await
    }

    async fn insert_changes(&mut self, orders: &[(OrderId, Option<String>)], change: &NewChange) -> DbResult<()> {
        let row = |(id, reason): &(OrderId, Option<String>)| ChangeRow {
            order_id: *id,
            from_status: change.from,
            to_status: change.to,
            changed_by: change.by,
            changed_by_user: change.user,
            reason: reason.clone(),
            changed_at: change.at,
        };
        let rows: Vec<ChangeRow> = orders.iter().map(row).collect();
        match self {
            DbConn::MySql(conn) => {
                let inserted = diesel::insert_into(order_changes::table).values(&rows).execute(&mut **conn).await;
                diagnosed(&mut **conn, inserted).await?;
            }
            // See `insert_orders`.
            DbConn::Sqlite(conn) => {
                let insert = move |conn: &mut SqliteConnection| {
                    diesel::RunQueryDsl::execute(diesel::insert_into(order_changes::table).values(&rows), conn)
                };
                let inserted = conn.spawn_blocking(insert).await;
                diagnosed(&mut **conn, inserted).await?;
            }
        }
        Ok(())
    }

    /// Every change of an order, the first one first.
    pub async fn order_history(&mut self, id: OrderId) -> DbResult<Vec<OrderChange>> {
        let conn = self;
        let query = order_changes::table
            .left_join(users::table.on(order_changes::changed_by_user.eq(users::id.nullable())))
            .select((
                order_changes::id,
                order_changes::changed_at,
                order_changes::from_status,
                order_changes::to_status,
                order_changes::changed_by,
                order_changes::changed_by_user,
                users::username.nullable(),
                order_changes::reason,
            ))
            .filter(order_changes::order_id.eq(id))
            .order(order_changes::id)
            .limit(MAX_CHANGES);
        let found: Vec<Row<i64, OrderChange>> = on_db!(conn, query.load(conn).await)?;
        Ok(readable(ORDER_CHANGES, found).rows)
    }
}
