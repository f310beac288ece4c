//! Queries on `orders`.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Nullable, Text, Timestamp as SqlTimestamp};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::conn::{DbConn, on_db};
use super::diagnosis::diagnosed;
use super::error::DbResult;
use super::order_gaps::NewGap;
use super::readable::Readable;
use super::readable::{Row, all, one, one_by_one, readable};
use super::revisions::BEFORE_REVISIONS;
use super::revisions::RevisionRow;
use super::schema::{orders, product_revisions, products};
use crate::model::{
    EventType, Life, Order, OrderId, OrderStatus, PaymentId, ProductId, Purchase, Quantity, RejectReason, Timestamp,
    UserId,
};

/// Its name where a row of it cannot be read.
pub(super) const ORDERS: &str = "orders";

/// An order that is about to be inserted, live or rejected.
#[derive(Debug, Clone, Insertable)]
#[diesel(table_name = orders, treat_none_as_default_value = false)]
pub struct NewOrder {
    id: OrderId,
    product_id: ProductId,
    user_id: UserId,
    live_user: Option<UserId>,
    status: OrderStatus,
    reason: Option<RejectReason>,
    price_cents: i64,
    release_due: Option<bool>,
    created_at: Timestamp,
    updated_at: Timestamp,
    revision: i64,
    quantity: Quantity,
}

impl NewOrder {
    /// An order that holds units, bought as the product was in that revision.
    pub fn unpaid(purchase: Purchase, product_id: ProductId, bought: &RevisionRow) -> Self {
        let Purchase { order_id: id, user_id, quantity } = purchase;
        Self {
            id,
            product_id,
            user_id,
            live_user: Some(user_id),
            status: OrderStatus::Unpaid,
            reason: None,
            price_cents: bought.price_cents,
            release_due: None,
            created_at: id.drawn_at(),
            // Drawn by another instance's clock, it can lie in the future of ours.
            updated_at: Timestamp::now().max(id.drawn_at()),
            revision: bought.revision,
            quantity,
        }
    }

    /// The same purchase as an order that could not be; the gate owes its unit back.
    pub fn rejected(self, reason: RejectReason) -> Self {
        Self { live_user: None, status: OrderStatus::Rejected, reason: Some(reason), release_due: Some(true), ..self }
    }
}

/// An order that is in the database, as far as its fate goes.
#[derive(Debug, Clone, Copy, Queryable)]
pub struct WrittenOrder {
    /// Its id.
    pub id: OrderId,
    /// Whether it holds a unit.
    pub is_live: bool,
}

/// The index of a sale's orders ends with the row's number.
const LIVE_ORDERS_BY_ROW: &str = "SELECT rowid AS row_number, id, user_id, quantity, revived_by FROM orders \
    WHERE product_id = ? AND rowid > ? AND live_user IS NOT NULL ORDER BY rowid LIMIT ?";

#[derive(QueryableByName)]
struct HeldRow {
    #[diesel(sql_type = BigInt)]
    row_number: i64,
    #[diesel(sql_type = Binary)]
    id: Vec<u8>,
    #[diesel(sql_type = BigInt)]
    user_id: i64,
    #[diesel(sql_type = BigInt)]
    quantity: i64,
    #[diesel(sql_type = Nullable<Binary>)]
    revived_by: Option<Vec<u8>>,
}

diesel::define_sql_function! {
    /// The first that is not NULL.
    #[sql_name = "COALESCE"]
    fn text_or(text: diesel::sql_types::Nullable<diesel::sql_types::Text>, other: diesel::sql_types::Text) -> diesel::sql_types::Text;
}

diesel::define_sql_function! {
    /// The first that is not NULL.
    #[sql_name = "COALESCE"]
    fn number_or(number: diesel::sql_types::Nullable<diesel::sql_types::BigInt>, other: diesel::sql_types::BigInt) -> diesel::sql_types::BigInt;
}

/// The columns of [`Order`], in its order. The name is that of the revision at the click; an order that names none has row
/// [`BEFORE_REVISIONS`]. Only where a program of the version before has left no row the product's present name is shown.
macro_rules! with_what_was_bought {
    ($orders:expr) => {
        $orders
            .inner_join(products::table)
            .left_join(
                product_revisions::table.on(product_revisions::product_id
                    .eq(orders::product_id)
                    .and(product_revisions::revision.eq(number_or(orders::revision, BEFORE_REVISIONS)))),
            )
            .select((
                orders::id,
                orders::user_id,
                orders::product_id,
                text_or(product_revisions::name.nullable(), products::name),
                orders::price_cents,
                number_or(orders::revision, BEFORE_REVISIONS),
                orders::status,
                orders::reason,
                orders::created_at,
                orders::updated_at,
                orders::quantity,
                orders::paid_at,
                product_revisions::currency.nullable(),
                product_revisions::payment_window_seconds.nullable(),
            ))
    };
}

/// The types of the columns of [`with_what_was_bought`].
type OrderColumns = (
    Binary,
    BigInt,
    BigInt,
    Text,
    BigInt,
    BigInt,
    Text,
    Nullable<Text>,
    SqlTimestamp,
    SqlTimestamp,
    BigInt,
    Nullable<SqlTimestamp>,
    Nullable<Text>,
    Nullable<BigInt>,
);
one_by_one!(OrderId, Order, OrderColumns);

impl DbConn {
    /// Inserts orders, all or none.
    pub async fn insert_orders(&mut self, rows: &[NewOrder]) -> DbResult<()> {
        let products = rows.iter().map(|row| row.product_id);
        self.insert_gaps(NewGap::of_written(products, rows.iter().map(|row| row.id))).await?;
        match self {
            DbConn::MySql(conn) => {
                let inserted = diesel::insert_into(orders::table).values(rows).execute(&mut **conn).await;
                diagnosed(&mut **conn, inserted).await?;
            }
            // Inserting many rows is not supported by the asynchronous connection to SQLite (diesel_async issue 277).
            DbConn::Sqlite(conn) => {
                let rows = rows.to_vec();
                let insert = move |conn: &mut SqliteConnection| {
                    diesel::RunQueryDsl::execute(diesel::insert_into(orders::table).values(&rows), conn)
                };
                let inserted = conn.spawn_blocking(insert).await;
                diagnosed(&mut **conn, inserted).await?;
            }
        }
        for status in [OrderStatus::Unpaid, OrderStatus::Rejected] {
            let ids: Vec<OrderId> = rows.iter().filter(|row| row.status == status).map(|row| row.id).collect();
            let (Some(event_type), Some(at)) =
                (EventType::of_order(status), rows.iter().map(|row| row.updated_at).max())
            else {
                continue;
            };
            self.tell_of_orders(event_type, &ids, at).await?;
        }
        Ok(())
    }

    /// Those of the ids that have a row. Whatever its status says, an order holds a unit as long as it is its buyer's live one:
    /// a word that nobody knows must not keep others from being written.
    pub async fn written_orders(&mut self, ids: &[OrderId]) -> DbResult<Vec<WrittenOrder>> {
        let conn = self;
        let query = orders::table.select((orders::id, orders::live_user.is_not_null())).filter(orders::id.eq_any(ids));
        on_db!(conn, query.load(conn).await)
    }

    /// Those of the users that hold a live order for the product, and which.
    pub async fn live_buyers(&mut self, product: ProductId, users: &[UserId]) -> DbResult<Vec<(UserId, OrderId)>> {
        let conn = self;
        let query = orders::table
            .select((orders::user_id, orders::id))
            .filter(orders::product_id.eq(product))
            .filter(orders::user_id.eq_any(users))
            .filter(orders::live_user.is_not_null());
        on_db!(conn, query.load(conn).await)
    }

    /// Live orders of a product, some at a time, the first ones after `cursor`; 0 begins. With them comes the next cursor;
    /// `None`: there are no more. In a file they come in the order of their rows, for whoever follows the index of buyers
    /// reads pages all over the file.
    pub async fn live_orders_page(
        &mut self,
        product: ProductId,
        cursor: i64,
        limit: i64,
    ) -> DbResult<(Vec<Life>, Option<i64>)> {
        let Self::Sqlite(_) = self else {
            let page = self.live_orders_after(product, UserId::try_from(cursor).ok(), limit).await?;
            let next = page.last().map(|last| last.purchase.user_id.get());
            return Ok((page, next));
        };
        let conn = self;
        let query = diesel::sql_query(LIVE_ORDERS_BY_ROW)
            .bind::<BigInt, _>(product)
            .bind::<BigInt, _>(cursor)
            .bind::<BigInt, _>(limit);
        let rows: Vec<HeldRow> = on_db!(conn, query.load(conn).await)?;
        let next = rows.last().map(|last| last.row_number);
        let rows = rows.into_iter().map(|row| Row::<OrderId, _>::of(Some(row.id.clone()), read_held(&row)));
        Ok((all(ORDERS, rows)?, next))
    }

    /// Notes that the gate has given the units of these lives back. One that has been followed by another leaves it to that.
    pub async fn clear_release_due(&mut self, ended: &[Life]) -> DbResult<()> {
        let conn = self;
        let first = |life: &&Life| life.revived_by.is_none();
        let ids: Vec<OrderId> = ended.iter().filter(first).map(|life| life.purchase.order_id).collect();
        if !ids.is_empty() {
            let dead = orders::table.filter(orders::id.eq_any(ids)).filter(orders::revived_by.is_null());
            on_db!(conn, diesel::update(dead).set(orders::release_due.eq(None::<bool>)).execute(conn).await)?;
        }
        for Life { purchase, revived_by } in ended.iter().filter(|life| life.revived_by.is_some()) {
            let dead =
                orders::table.filter(orders::id.eq(purchase.order_id)).filter(orders::revived_by.eq(*revived_by));
            on_db!(conn, diesel::update(dead).set(orders::release_due.eq(None::<bool>)).execute(conn).await)?;
        }
        Ok(())
    }

    /// The same for all dead orders.
    pub async fn clear_all_release_due(&mut self) -> DbResult<()> {
        let conn = self;
        let due = orders::table.filter(orders::release_due.is_not_null());
        on_db!(conn, diesel::update(due).set(orders::release_due.eq(None::<bool>)).execute(conn).await)?;
        Ok(())
    }

    /// One order.
    pub async fn find_order(&mut self, id: OrderId) -> DbResult<Option<Order>> {
        let conn = self;
        let query = with_what_was_bought!(orders::table).filter(orders::id.eq(id));
        let found: Option<Row<OrderId, Order>> = on_db!(conn, query.get_result(conn).await.optional())?;
        one(ORDERS, found)
    }

    /// Those of these orders that there are, the newest first.
    pub async fn find_orders(&mut self, ids: &[Uuid]) -> DbResult<Vec<Order>> {
        Ok(self.find_rows(ids.iter().map(|id| id.as_bytes().as_slice()).collect()).await?.rows)
    }

    /// The same, with the keys of those that cannot be read.
    pub async fn find_written(&mut self, ids: &[OrderId]) -> DbResult<Readable<Order, OrderId>> {
        let ids: Vec<Uuid> = ids.iter().map(|id| Uuid::from(*id)).collect();
        self.find_rows(ids.iter().map(|id| id.as_bytes().as_slice()).collect()).await
    }

    async fn find_rows(&mut self, ids: Vec<&[u8]>) -> DbResult<Readable<Order, OrderId>> {
        let conn = self;
        let query = with_what_was_bought!(orders::table).filter(orders::id.eq_any(ids)).order(orders::id.desc());
        let found: Vec<Row<OrderId, Order>> = on_db!(conn, query.load(conn).await)?;
        Ok(readable(ORDERS, found))
    }

    /// Orders of a user with a smaller id than `before`, newest first.
    pub async fn list_orders(
        &mut self,
        user: UserId,
        before: Option<OrderId>,
        limit: i64,
    ) -> DbResult<Readable<Order, OrderId>> {
        // First which; then what they are, with their products and revisions.
        let before = before.map_or(Uuid::max(), Uuid::from);
        let ids = self.orders_of_user(user, None, before, limit).await?;
        let rows = if ids.is_empty() { Vec::new() } else { self.find_orders(&ids).await? };
        let keys = ids.iter().filter_map(|id| OrderId::try_from(*id).ok()).collect();
        Ok(Readable { rows, keys, count: ids.len() })
    }
}

fn read_held(row: &HeldRow) -> Result<Life, String> {
    let order_id = OrderId::from_stored(&row.id)?;
    let quantity = row.quantity.try_into().map_err(|problem| format!("quantity {problem}"))?;
    let purchase = Purchase { order_id, user_id: UserId::from_stored(row.user_id)?, quantity };
    let revived_by = row.revived_by.as_deref().map(PaymentId::from_stored).transpose()?;
    Ok(Life { purchase, revived_by })
}
