//! What finds orders of a buyer, what finds them for the merchant beside the lookup, and what is shown with them: whose they are, how
//! they were paid. Each is one query, however many orders a page has.

use std::collections::{HashMap, HashSet};

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Binary, Text};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::conn::{DbConn, on_db};
use super::diagnosis::diagnosed;
use super::error::DbResult;
use super::order_lookup::{OrderPlace, PlaceRow, list_of_buyer, places};
use super::payments::{PAYMENTS, payment_columns};
use super::readable::{Row, one_by_one, readable};
use super::schema::{external_users, orders, payments, users};
use crate::model::{OrderId, Payment, PaymentId, PaymentStatus, ProductId, UserId};

/// Payments that are read for one page.
const MAX_PAYMENTS: i64 = 10_000;

/// Number and name of an account.
type NamedUser = (UserId, String);
/// Number and subject of a user of the shop's directory.
type NamedSubject = (UserId, Vec<u8>);
one_by_one!(i64, NamedUser, (BigInt, Text));
one_by_one!(i64, NamedSubject, (BigInt, Binary));

#[derive(QueryableByName)]
struct OwnId {
    #[diesel(sql_type = Binary)]
    id: Vec<u8>,
}

/// Products whose orders may not be in their buyers' lists yet: no rows, but in a rush and shortly after it. Where a gap does not say
/// which, they are all; else no product is looked at.
const UNFILLED_MYSQL: &str = "SELECT item.product_id \
        FROM (SELECT DISTINCT product_ids FROM order_lookup_gaps) AS gaps \
        JOIN JSON_TABLE(gaps.product_ids, '$[*]' COLUMNS (product_id BIGINT PATH '$')) AS item \
    UNION SELECT products.id FROM (SELECT 1 FROM order_lookup_gaps WHERE product_ids IS NULL LIMIT 1) AS silent \
        STRAIGHT_JOIN products";
const UNFILLED_SQLITE: &str = "SELECT item.value AS product_id \
        FROM (SELECT DISTINCT product_ids FROM order_lookup_gaps WHERE product_ids IS NOT NULL) AS gaps \
        JOIN json_each(gaps.product_ids) AS item \
    UNION SELECT products.id FROM (SELECT 1 FROM order_lookup_gaps WHERE product_ids IS NULL LIMIT 1) AS silent \
        CROSS JOIN products";

/// Ids of a buyer's newest orders: those in the buyer's list, and those of the products whose orders may be missing there. The index is
/// named because MariaDB otherwise scans all orders, the newest first. What is put into the text are numbers of ours.
fn of_user(unfilled: &str, use_index: &str, user: UserId, limit: i64) -> String {
    let list = list_of_buyer(user);
    format!(
        "SELECT id FROM (\
           SELECT * FROM (SELECT order_id AS id FROM order_lookup WHERE list = {list} AND order_id < ? \
             ORDER BY order_id DESC LIMIT {limit}) AS of_list \
           UNION SELECT * FROM (SELECT orders.id FROM ({unfilled}) AS unfilled \
             {use_index} ON orders.product_id = unfilled.product_id \
             WHERE orders.user_id = {user} AND orders.id < ? ORDER BY orders.id DESC LIMIT {limit}) AS of_sales\
         ) AS found ORDER BY id DESC LIMIT {limit}"
    )
}

/// The same of one product.
fn of_user_and_product(use_index: &str, user: UserId, product: ProductId, limit: i64) -> String {
    format!(
        "SELECT id FROM orders {use_index} WHERE product_id = {product} AND user_id = {user} AND id < ? \
         ORDER BY id DESC LIMIT {limit}"
    )
}

/// Orders before `$before` with a payment to which this applies, the newest first, each once.
macro_rules! orders_of_payments {
    ($conn:ident, $applies:expr, $before:expr, $limit:expr) => {{
        let query = payments::table
            .select(payments::order_id)
            .filter($applies)
            .filter(payments::order_id.lt($before.as_bytes().to_vec()))
            .order(payments::order_id.desc())
            .distinct()
            .limit($limit);
        let found: Vec<Vec<u8>> = on_db!($conn, query.load($conn).await)?;
        Ok(found.iter().filter_map(|id| Uuid::from_slice(id).ok()).collect())
    }};
}

impl DbConn {
    /// Orders of a user before `before`, of one product or of all, the newest first. One statement, which costs the same however many
    /// products there are and orders the buyer has let lapse; only while the lookup is behind, it also looks at each product of which
    /// orders are missing there.
    pub async fn orders_of_user(
        &mut self,
        user: UserId,
        product: Option<ProductId>,
        before: Uuid,
        limit: i64,
    ) -> DbResult<Vec<Uuid>> {
        let before = before.as_bytes().to_vec();
        macro_rules! found {
            ($conn:expr, $database:ty, $text:expr) => {{
                let mut query = sql_query($text).into_boxed::<$database>();
                for _ in 0..if product.is_some() { 1 } else { 2 } {
                    query = query.bind::<Binary, _>(before.clone());
                }
                let found = query.load::<OwnId>($conn).await;
                diagnosed($conn, found).await?
            }};
        }
        let found: Vec<OwnId> = match self {
            DbConn::MySql(conn) => {
                let text = match product {
                    Some(product) => of_user_and_product("FORCE INDEX (orders_live)", user, product, limit),
                    None => of_user(UNFILLED_MYSQL, "STRAIGHT_JOIN orders FORCE INDEX (orders_live)", user, limit),
                };
                found!(&mut **conn, diesel::mysql::Mysql, text)
            }
            DbConn::Sqlite(conn) => {
                let text = match product {
                    Some(product) => of_user_and_product("INDEXED BY orders_live", user, product, limit),
                    None => of_user(UNFILLED_SQLITE, "CROSS JOIN orders INDEXED BY orders_live", user, limit),
                };
                found!(&mut **conn, diesel::sqlite::Sqlite, text)
            }
        };
        Ok(found.iter().filter_map(|order| Uuid::from_slice(&order.id).ok()).collect())
    }

    /// Those of these orders that there are.
    pub async fn places_of(&mut self, ids: &[Uuid]) -> DbResult<Vec<OrderPlace>> {
        let ids: Vec<&[u8]> = ids.iter().map(|id| id.as_bytes().as_slice()).collect();
        let conn = self;
        let query = orders::table
            .select((orders::id, orders::product_id, orders::user_id, orders::status))
            .filter(orders::id.eq_any(ids));
        let found: Vec<PlaceRow> = on_db!(conn, query.load(conn).await)?;
        Ok(places(found))
    }

    /// Orders before `before` with a payment that has this reference, whoever took it, the newest first, each once.
    pub async fn orders_with_reference(&mut self, reference: &str, before: Uuid, limit: i64) -> DbResult<Vec<Uuid>> {
        let conn = self;
        orders_of_payments!(conn, payments::reference.eq(reference), before, limit)
    }

    /// Orders before `before` of which a payment is due back, the newest first, each once.
    pub async fn orders_with_refund_due(&mut self, before: Uuid, limit: i64) -> DbResult<Vec<Uuid>> {
        let conn = self;
        orders_of_payments!(conn, payments::status.eq(PaymentStatus::RefundDue), before, limit)
    }

    /// Those of these orders of which a payment is due back.
    pub async fn with_refund_due(&mut self, ids: &[OrderId]) -> DbResult<HashSet<OrderId>> {
        let conn = self;
        let query = payments::table
            .select(payments::order_id)
            .filter(payments::order_id.eq_any(ids))
            .filter(payments::status.eq(PaymentStatus::RefundDue));
        let found: Vec<Vec<u8>> = on_db!(conn, query.load(conn).await)?;
        Ok(found.iter().filter_map(|id| OrderId::from_stored(id).ok()).collect())
    }

    /// Payments of these orders, the newest first.
    pub async fn payments_of(&mut self, ids: &[OrderId]) -> DbResult<Vec<Payment>> {
        let conn = self;
        let query = payments::table
            .select(payment_columns())
            .filter(payments::order_id.eq_any(ids))
            .order(payments::id.desc())
            .limit(MAX_PAYMENTS);
        let found: Vec<Row<PaymentId, Payment>> = on_db!(conn, query.load(conn).await)?;
        Ok(readable(PAYMENTS, found).rows)
    }

    /// What these users are called: accounts by their names, users of the shop's directory by their subjects.
    pub async fn names_of(&mut self, ids: &[UserId]) -> DbResult<HashMap<UserId, String>> {
        let conn = self;
        let query = users::table.select((users::id, users::username)).filter(users::id.eq_any(ids));
        let named: Vec<Row<i64, NamedUser>> = on_db!(conn, query.load(conn).await)?;
        let query = external_users::table
            .select((external_users::id, external_users::subject))
            .filter(external_users::id.eq_any(ids));
        let subjects: Vec<Row<i64, NamedSubject>> = on_db!(conn, query.load(conn).await)?;
        let subject = |(id, subject): NamedSubject| Some((id, String::from_utf8(subject).ok()?));
        let subjects = readable("external_users", subjects).rows.into_iter().filter_map(subject);
        Ok(readable("users", named).rows.into_iter().chain(subjects).collect())
    }
}
