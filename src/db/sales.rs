//! The transaction that sells: stock and orders of whole batches, all or nothing.

use diesel::prelude::*;
use diesel::result::Error as QueryError;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Binary, Text};
use uuid::Uuid;

use super::schema::products;
use super::{Db, DbConn, DbError, DbPool, DbResult};
use crate::model::{PurchaseBatch, Timestamp};

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
    /// Takes the units of all batches and inserts their orders (I1). Returns the epoch of each product's gate.
    ///
    /// `None`: something was in the way of at least one purchase, and nothing was done. The batches are of different
    /// products; several at once only where [`Db::has_one_writer`]. An order id that comes twice is in the way, too.
    pub async fn sell(&self, batches: Vec<PurchaseBatch>) -> DbResult<Option<Vec<i64>>> {
        let sold = match &self.pool {
            DbPool::MySql(_) => self.transaction(move |conn| Box::pin(sell_each(conn, batches))).await,
            DbPool::Sqlite(..) => self.sell_in_one_step(batches).await,
        };
        match sold {
            Ok(epochs) => Ok(Some(epochs)),
            Err(Abort::Conflict) => Ok(None),
            Err(Abort::Failed(error)) => Err(error),
        }
    }
}

async fn sell_each(conn: &mut DbConn, batches: Vec<PurchaseBatch>) -> Result<Vec<i64>, Abort> {
    let mut epochs = Vec::with_capacity(batches.len());
    for batch in &batches {
        epochs.push(sell_batch(conn, batch).await?);
    }
    Ok(epochs)
}

impl Db {
    /// Every step to another thread costs more than a query of a local file, so nothing changes threads here.
    async fn sell_in_one_step(&self, batches: Vec<PurchaseBatch>) -> Result<Vec<i64>, Abort> {
        let Some(mut writer) = self.pool.take_turn().await? else { return Err(Abort::Conflict) };
        let sold = writer.transaction(|conn| batches.iter().map(|batch| sell_batch_blocking(conn, batch)).collect());
        sold.map_err(|error| match error {
            QueryError::RollbackTransaction => Abort::Conflict,
            error => Abort::Failed(error.into()),
        })
    }
}

async fn sell_batch(conn: &mut DbConn, batch: &PurchaseBatch) -> Result<i64, Abort> {
    let units = batch.items.len();
    if !conn.take_stock(batch.product_id, units as i64, batch.epoch).await? {
        return Err(Abort::Conflict);
    }
    let row = conn.lock_product(batch.product_id).await?.ok_or(Abort::Conflict)?;
    if insert_or_ignore(conn, batch, row.price_cents).await? != units {
        return Err(Abort::Conflict);
    }
    Ok(row.gate_epoch)
}

/// One short text whatever the number of rows: the rows come as one JSON value, each with its id, its buyer and the
/// milliseconds between the first row's time and its own. `IGNORE` hides range and null errors too, of which these rows
/// can have none.
const INSERT_OR_IGNORE: &str = "INSERT IGNORE INTO orders \
    (id, product_id, user_id, live_user, status, price_cents, created_at, updated_at) \
    SELECT UNHEX(item.id), ?, item.buyer, item.buyer, 'unpaid', ?, \
           DATE_ADD(?, INTERVAL item.later * 1000 MICROSECOND), ? \
    FROM JSON_TABLE(?, '$[*]' COLUMNS \
           (id CHAR(32) PATH '$[0]', buyer BIGINT PATH '$[1]', later BIGINT PATH '$[2]')) AS item";

/// Inserts live orders, leaving out those that a unique key refuses; how many went in. The count is exact, so a
/// transaction that needs all of them rolls back when it falls short.
async fn insert_or_ignore(conn: &mut DbConn, batch: &PurchaseBatch, price_cents: i64) -> DbResult<usize> {
    let Some(first) = batch.items.first().map(|item| item.order_id.drawn_at()) else { return Ok(0) };
    let mut rows = String::with_capacity(batch.items.len() * 64);
    for item in &batch.items {
        let later = item.order_id.drawn_at().unix_ms() - first.unix_ms();
        rows.push_str(if rows.is_empty() { "[[\"" } else { ",[\"" });
        rows.push_str(Uuid::from(item.order_id).simple().encode_lower(&mut Uuid::encode_buffer()));
        rows.push_str("\",");
        rows.push_str(itoa::Buffer::new().format(item.user_id.get()));
        rows.push(',');
        rows.push_str(itoa::Buffer::new().format(later));
        rows.push(']');
    }
    rows.push(']');
    let insert = sql_query(INSERT_OR_IGNORE)
        .bind::<BigInt, _>(batch.product_id)
        .bind::<BigInt, _>(price_cents)
        .bind::<diesel::sql_types::Timestamp, _>(first)
        .bind::<diesel::sql_types::Timestamp, _>(Timestamp::now())
        .bind::<Text, _>(rows);
    match conn {
        DbConn::MySql(conn) => Ok(diesel_async::RunQueryDsl::execute(insert, &mut **conn).await?),
        DbConn::Sqlite(_) => Err(DbError::Unreachable("SQLite sells in one step".to_owned())),
    }
}

/// The same for SQLite: ids and times come as two strings of bytes, 16 and 23 a row, the buyers as a JSON list.
const INSERT_OR_IGNORE_INTO_FILE: &str = "INSERT OR IGNORE INTO orders \
    (id, product_id, user_id, live_user, status, price_cents, created_at, updated_at) \
    SELECT substr(?1, 16 * key + 1, 16), ?2, value, value, 'unpaid', ?3, \
           CAST(substr(?4, 23 * key + 1, 23) AS TEXT), ?5 \
    FROM json_each(?6)";

/// [`insert_or_ignore`] in the words of synchronous Diesel.
fn insert_or_ignore_blocking(
    conn: &mut SqliteConnection,
    batch: &PurchaseBatch,
    price_cents: i64,
) -> QueryResult<usize> {
    let rows = batch.items.len();
    let (mut ids, mut times) =
        (Vec::with_capacity(rows * 16), String::with_capacity(rows * Timestamp::SORTABLE_LENGTH));
    let mut buyers = String::with_capacity(rows * 8);
    for item in &batch.items {
        ids.extend_from_slice(Uuid::from(item.order_id).as_bytes());
        item.order_id.drawn_at().push_sortable(&mut times);
        buyers.push(if buyers.is_empty() { '[' } else { ',' });
        buyers.push_str(itoa::Buffer::new().format(item.user_id.get()));
    }
    buyers.push(']');
    let insert = sql_query(INSERT_OR_IGNORE_INTO_FILE)
        .bind::<Binary, _>(ids)
        .bind::<BigInt, _>(batch.product_id)
        .bind::<BigInt, _>(price_cents)
        .bind::<Binary, _>(times.into_bytes())
        .bind::<diesel::sql_types::Timestamp, _>(Timestamp::now())
        .bind::<Text, _>(buyers);
    insert.execute(conn)
}

/// [`sell_batch`] in the words of synchronous Diesel.
fn sell_batch_blocking(conn: &mut SqliteConnection, batch: &PurchaseBatch) -> QueryResult<i64> {
    let units = batch.items.len();
    let product = products::table.filter(products::id.eq(batch.product_id));
    let with_stock = product
        .filter((products::sold + units as i64).le(products::stock))
        .filter(products::gate_fence.le(batch.epoch));
    let taken = diesel::update(with_stock).set(products::sold.eq(products::sold + units as i64)).execute(conn)?;
    if taken == 0 {
        return Err(QueryError::RollbackTransaction);
    }
    let (price_cents, gate_epoch) = product.select((products::price_cents, products::gate_epoch)).first(conn)?;
    if insert_or_ignore_blocking(conn, batch, price_cents)? != units {
        return Err(QueryError::RollbackTransaction);
    }
    Ok(gate_epoch)
}
