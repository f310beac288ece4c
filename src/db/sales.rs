//! The transaction that sells: stock and orders of whole purchase groups, all or nothing.

use std::fmt::Write;

use diesel::prelude::*;
use diesel::result::Error as QueryError;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Binary, Text};
use diesel_async::AsyncMysqlConnection;
use uuid::Uuid;

use super::conn::DbConn;
use super::diagnosis::diagnosed;
use super::error::{DbError, DbResult};
use super::order_gaps::{NewGap, insert_gaps_blocking};
use super::outbox::{NewEvents, put_in_outbox_blocking};
use super::payment_deadlines::{NewDeadline, insert_deadline_blocking};
use super::pool::{Db, DbPool};
use super::schema::products;
use crate::model::{EventType, Purchase, PurchaseGroup, Quantity, Timestamp};

/// Sent when a purchase names no revision. No row has it, so the order gets the product's present revision. The same happens
/// if the row of a named revision is missing.
const NO_REVISION: i64 = -1;

/// Leaves a transaction that is to be rolled back.
enum Abort {
    Conflict,
    Failed(DbError),
}

impl From<DbError> for Abort {
    fn from(error: DbError) -> Self {
        Self::Failed(error)
    }
}

impl Db {
    /// Takes the units of all groups and inserts their orders (I1). False: something was in the way of at least one
    /// purchase, and nothing was done.
    ///
    /// The groups come in the order of their products, one of each: whoever locks several rows locks them in this order.
    /// A product or an order id that comes twice is in the way, too. `deadline`: when the first of these orders must be paid.
    pub async fn sell(&self, groups: Vec<PurchaseGroup>, deadline: Option<NewDeadline>) -> DbResult<bool> {
        if !groups.is_sorted_by(|a, b| a.product_id < b.product_id) {
            return Ok(false);
        }
        let at = updated_at(groups.iter().flat_map(|group| &group.items));
        let told = self.is_wanted(EventType::OrderCreated).then(|| told_of(&groups, at)).flatten();
        let told_orders = told.as_ref().map(|_| groups.iter().map(|group| group.items.len()).sum());
        let sold = match &self.pool {
            DbPool::MySql(_) => {
                self.transaction(move |conn| Box::pin(sell_together(conn, groups, at, deadline, told))).await
            }
            DbPool::Sqlite(..) => self.sell_in_one_step(groups, at, deadline, told).await,
        };
        match sold {
            Ok(()) => {
                if let Some(orders) = told_orders {
                    self.wanted_events.writes(orders);
                }
                Ok(true)
            }
            Err(Abort::Conflict) => Ok(false),
            Err(Abort::Failed(error)) => Err(error),
        }
    }

    /// Every step to another thread costs more than a query of a local file, so this runs in the caller's task, which blocks its
    /// thread. The caller must be on the main runtime: an actix worker's does not allow that, and panics.
    async fn sell_in_one_step(
        &self,
        groups: Vec<PurchaseGroup>,
        at: Timestamp,
        deadline: Option<NewDeadline>,
        told: Option<NewEvents>,
    ) -> Result<(), Abort> {
        let gaps = gaps_of(&groups);
        let Some(mut writer) = self.pool.take_turn().await? else { return Err(Abort::Conflict) };
        let sold = writer.transaction(|conn| {
            groups.iter().try_for_each(|group| sell_group_blocking(conn, group, at))?;
            insert_gaps_blocking(conn, &gaps)?;
            deadline.iter().try_for_each(|deadline| insert_deadline_blocking(conn, deadline))?;
            told.iter().try_for_each(|told| put_in_outbox_blocking(conn, told))
        })?;
        sold.ok_or(Abort::Conflict)
    }
}

/// Nearly always one, whatever the number of orders.
fn gaps_of(groups: &[PurchaseGroup]) -> Vec<NewGap> {
    let ids = groups.iter().flat_map(|group| &group.items).map(|item| item.order_id);
    NewGap::of_written(groups.iter().map(|group| group.product_id), ids)
}

/// One row for all of these orders, since they become what they are together.
fn told_of(groups: &[PurchaseGroup], at: Timestamp) -> Option<NewEvents> {
    let orders = groups.iter().flat_map(|group| &group.items).map(|item| item.order_id);
    NewEvents::of_orders(EventType::OrderCreated, orders, at)
}

/// Three statements, however many products there are; one more if any of the orders must be paid in time, and one if somebody wants
/// to be told of them.
async fn sell_together(
    db: &mut DbConn,
    groups: Vec<PurchaseGroup>,
    at: Timestamp,
    deadline: Option<NewDeadline>,
    told: Option<NewEvents>,
) -> Result<(), Abort> {
    // First, while nobody waits for a row that this transaction has locked.
    db.insert_gaps(gaps_of(&groups)).await?;
    if let Some(told) = told {
        db.put_in_outbox(vec![told]).await?;
    }
    let DbConn::MySql(conn) = db else {
        return Err(DbError::Unreachable("SQLite sells in one step".to_owned()).into());
    };
    let conn = &mut **conn;
    let orders: usize = groups.iter().map(|group| group.items.len()).sum();
    let taken = take_stock(conn, &groups).await;
    if diagnosed(conn, taken).await? != groups.len() {
        return Err(Abort::Conflict);
    }
    let inserted = insert_or_ignore(conn, &groups, at).await;
    if diagnosed(conn, inserted).await? != orders {
        return Err(Abort::Conflict);
    }
    if let Some(deadline) = deadline {
        db.insert_deadline(&deadline).await?;
    }
    Ok(())
}

/// Product, units and epoch of each group come as one JSON value, whose order is the order of the locks.
const TAKE_STOCK: &str = "UPDATE JSON_TABLE(?, '$[*]' COLUMNS \
           (product_id BIGINT PATH '$[0]', units BIGINT PATH '$[1]', epoch BIGINT PATH '$[2]')) AS wanted \
    STRAIGHT_JOIN products ON products.id = wanted.product_id \
    SET products.sold = products.sold + wanted.units \
    WHERE products.sold + wanted.units <= products.stock AND products.gate_fence <= wanted.epoch";

/// Takes the units of those groups whose product has them and whose epoch is not older than the fence. Returns the number of
/// these groups.
async fn take_stock(conn: &mut AsyncMysqlConnection, groups: &[PurchaseGroup]) -> QueryResult<usize> {
    let mut list = String::with_capacity(groups.len() * 32);
    for group in groups {
        let _ = write!(list, "[{},{},{}],", group.product_id, group.units(), group.epoch);
    }
    let update = sql_query(TAKE_STOCK).bind::<Text, _>(json_list(list));
    diesel_async::RunQueryDsl::execute(update, conn).await
}

/// One short text whatever the number of rows: they come as one JSON value, a list for each product with its revision; each
/// row with its id, its buyer, the milliseconds between the first row's time and its own, and its units if they are several. `IGNORE` hides range and null errors too,
/// of which these rows can have none.
const INSERT_OR_IGNORE: &str = "INSERT IGNORE INTO orders \
    (id, product_id, user_id, live_user, status, price_cents, created_at, updated_at, revision, quantity) \
    SELECT UNHEX(item.id), item.product_id, item.buyer, item.buyer, 'unpaid', COALESCE(bought.price_cents, products.price_cents), \
           DATE_ADD(?, INTERVAL item.later * 1000 MICROSECOND), ?, COALESCE(bought.revision, products.ver), \
           COALESCE(item.quantity, 1) \
    FROM JSON_TABLE(?, '$[*]' COLUMNS (product_id BIGINT PATH '$[0]', revision BIGINT PATH '$[1]', NESTED PATH '$[2][*]' COLUMNS \
           (id CHAR(32) PATH '$[0]', buyer BIGINT PATH '$[1]', later BIGINT PATH '$[2]', quantity BIGINT PATH '$[3]'))) AS item \
    STRAIGHT_JOIN products ON products.id = item.product_id \
    LEFT JOIN product_revisions AS bought ON bought.product_id = item.product_id AND bought.revision = item.revision";

/// Inserts live orders, leaving out those that a unique key refuses; how many went in. The count is exact, so a
/// transaction that needs all of them rolls back when it falls short.
async fn insert_or_ignore(
    conn: &mut AsyncMysqlConnection,
    groups: &[PurchaseGroup],
    at: Timestamp,
) -> QueryResult<usize> {
    let all = || groups.iter().flat_map(|group| &group.items);
    let Some(first) = all().next().map(|item| item.order_id.drawn_at()) else { return Ok(0) };
    let mut list = String::with_capacity(all().count() * 64);
    for PurchaseGroup { product_id, revision, items, .. } in groups {
        let _ = write!(list, "[{product_id},{},", revision.map_or(NO_REVISION, i64::from));
        for (place, item) in items.iter().enumerate() {
            list.push_str(if place == 0 { "[[\"" } else { ",[\"" });
            list.push_str(Uuid::from(item.order_id).simple().encode_lower(&mut Uuid::encode_buffer()));
            list.push_str("\",");
            list.push_str(itoa::Buffer::new().format(item.user_id.get()));
            list.push(',');
            list.push_str(itoa::Buffer::new().format(item.order_id.drawn_at().unix_ms() - first.unix_ms()));
            if item.quantity != Quantity::ONE {
                list.push(',');
                list.push_str(itoa::Buffer::new().format(item.quantity.get()));
            }
            list.push(']');
        }
        list.push_str("]],");
    }
    let insert = sql_query(INSERT_OR_IGNORE)
        .bind::<diesel::sql_types::Timestamp, _>(first)
        .bind::<diesel::sql_types::Timestamp, _>(at)
        .bind::<Text, _>(json_list(list));
    diesel_async::RunQueryDsl::execute(insert, conn).await
}

/// The time of these orders' writing: now, but never before any of them was drawn, by the clock of another instance.
fn updated_at<'a>(items: impl IntoIterator<Item = &'a Purchase>) -> Timestamp {
    items.into_iter().map(|item| item.order_id.drawn_at()).fold(Timestamp::now(), Timestamp::max)
}

/// Makes a JSON list: `a,b,` becomes `[a,b]`.
fn json_list(mut values: String) -> String {
    values.pop();
    values.insert(0, '[');
    values.push(']');
    values
}

/// [`INSERT_OR_IGNORE`] of one product for SQLite: ids and times come as two strings of bytes, 16 and 23 a row, the buyers
/// as a JSON list, quantities as two digits a row unless all are one. What is the same for all rows is worked out once.
const INSERT_OR_IGNORE_INTO_FILE: &str = "INSERT OR IGNORE INTO orders \
    (id, product_id, user_id, live_user, status, price_cents, created_at, updated_at, revision, quantity) \
    SELECT substr(?1, 16 * key + 1, 16), ?2, value, value, 'unpaid', \
           (SELECT COALESCE(bought.price_cents, products.price_cents) FROM products LEFT JOIN product_revisions AS bought \
            ON bought.product_id = products.id AND bought.revision = ?6 WHERE products.id = ?2), \
           CAST(substr(?3, 23 * key + 1, 23) AS TEXT), ?4, \
           (SELECT COALESCE(bought.revision, products.ver) FROM products LEFT JOIN product_revisions AS bought \
            ON bought.product_id = products.id AND bought.revision = ?6 WHERE products.id = ?2), \
           CASE ?7 WHEN '' THEN 1 ELSE CAST(substr(?7, 2 * key + 1, 2) AS INTEGER) END \
    FROM json_each(?5)";

/// [`insert_or_ignore`] in the words of synchronous Diesel.
fn insert_or_ignore_blocking(conn: &mut SqliteConnection, group: &PurchaseGroup, at: Timestamp) -> QueryResult<usize> {
    let rows = group.items.len();
    let (mut ids, mut times) =
        (Vec::with_capacity(rows * 16), String::with_capacity(rows * Timestamp::SORTABLE_LENGTH));
    let mut buyers = String::with_capacity(rows * 8);
    // Two digits each, or nothing if all of them are one.
    let mut quantities = String::new();
    if group.units() != rows as i64 {
        group.items.iter().for_each(|item| {
            let _ = write!(quantities, "{:02}", item.quantity.get());
        });
    }
    for item in &group.items {
        ids.extend_from_slice(Uuid::from(item.order_id).as_bytes());
        item.order_id.drawn_at().push_sortable(&mut times);
        buyers.push(if buyers.is_empty() { '[' } else { ',' });
        buyers.push_str(itoa::Buffer::new().format(item.user_id.get()));
    }
    buyers.push(']');
    let insert = sql_query(INSERT_OR_IGNORE_INTO_FILE)
        .bind::<Binary, _>(ids)
        .bind::<BigInt, _>(group.product_id)
        .bind::<Binary, _>(times.into_bytes())
        .bind::<diesel::sql_types::Timestamp, _>(at)
        .bind::<Text, _>(buyers)
        .bind::<BigInt, _>(group.revision.map_or(NO_REVISION, i64::from))
        .bind::<Text, _>(quantities);
    insert.execute(conn)
}

/// [`sell_together`] for one group, in the words of synchronous Diesel.
fn sell_group_blocking(conn: &mut SqliteConnection, group: &PurchaseGroup, at: Timestamp) -> QueryResult<()> {
    let (orders, units) = (group.items.len(), group.units());
    let with_stock = products::table
        .filter(products::id.eq(group.product_id))
        .filter((products::sold + units).le(products::stock))
        .filter(products::gate_fence.le(group.epoch));
    let taken = diesel::update(with_stock).set(products::sold.eq(products::sold + units)).execute(conn)?;
    if taken == 0 || insert_or_ignore_blocking(conn, group, at)? != orders {
        return Err(QueryError::RollbackTransaction);
    }
    Ok(())
}
