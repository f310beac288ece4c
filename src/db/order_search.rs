//! What finds orders for the merchant beside the lookup, and what is shown with them: whose they are, how they were paid. Each is one
//! query, however many orders a page has.

use std::collections::HashMap;

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Binary, Text};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::conn::{DbConn, on_db};
use super::diagnosis::diagnosed;
use super::error::DbResult;
use super::order_lookup::{OrderPlace, PlaceRow, places};
use super::payments::{PAYMENTS, payment_columns};
use super::readable::{Row, one_by_one, readable};
use super::schema::{external_users, orders, payments, products, users};
use crate::model::{OrderId, Payment, PaymentId, ProductId, UserId};

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

/// Numbers of ours only.
fn of_user_mysql(product: Option<ProductId>, limit: i64) -> String {
    let of_product = product.map(|product| format!(" AND products.id = {product}")).unwrap_or_default();
    format!(
        "SELECT orders.id FROM products STRAIGHT_JOIN orders FORCE INDEX (orders_live) ON orders.product_id = products.id \
         WHERE orders.user_id = ? AND orders.id < ?{of_product} ORDER BY orders.id DESC LIMIT {limit}"
    )
}

impl DbConn {
    /// Orders of a user before `before`, of one product or of all, the newest first. Of all it looks sale by sale, as the index of
    /// buyers begins with the product, and reads nothing but that index: what a buyer has let lapse over the years lies all over
    /// the table. A server is told so: left to itself, it may rather go through all orders from the newest on.
    pub async fn orders_of_user(
        &mut self,
        user: UserId,
        product: Option<ProductId>,
        before: Uuid,
        limit: i64,
    ) -> DbResult<Vec<Uuid>> {
        let found: Vec<Vec<u8>> = match self {
            DbConn::MySql(conn) => {
                let query = sql_query(of_user_mysql(product, limit))
                    .bind::<BigInt, _>(user)
                    .bind::<Binary, _>(before.as_bytes().to_vec());
                let found = query.load::<OwnId>(&mut **conn).await;
                let found = diagnosed(&mut **conn, found).await?;
                found.into_iter().map(|order| order.id).collect()
            }
            DbConn::Sqlite(conn) => {
                let mut query = orders::table
                    .select(orders::id)
                    .filter(orders::user_id.eq(user))
                    .filter(orders::id.lt(before.as_bytes().to_vec()))
                    .order(orders::id.desc())
                    .limit(limit)
                    .into_boxed::<diesel::sqlite::Sqlite>();
                query = match product {
                    Some(product) => query.filter(orders::product_id.eq(product)),
                    None => query.filter(orders::product_id.eq_any(products::table.select(products::id))),
                };
                let found = query.load(&mut **conn).await;
                diagnosed(&mut **conn, found).await?
            }
        };
        Ok(found.iter().filter_map(|id| Uuid::from_slice(id).ok()).collect())
    }

    /// Those of these orders that there are.
    pub async fn places_of(&mut self, ids: &[Uuid]) -> DbResult<Vec<OrderPlace>> {
        let ids: Vec<&[u8]> = ids.iter().map(|id| id.as_bytes().as_slice()).collect();
        let conn = self;
        let query =
            orders::table.select((orders::id, orders::product_id, orders::status)).filter(orders::id.eq_any(ids));
        let found: Vec<PlaceRow> = on_db!(conn, query.load(conn).await)?;
        Ok(places(found))
    }

    /// Orders before `before` with a payment that has this reference, whoever took it, the newest first, each once.
    pub async fn orders_with_reference(&mut self, reference: &str, before: Uuid, limit: i64) -> DbResult<Vec<Uuid>> {
        let conn = self;
        let query = payments::table
            .select(payments::order_id)
            .filter(payments::reference.eq(reference))
            .filter(payments::order_id.lt(before.as_bytes().to_vec()))
            .order(payments::order_id.desc())
            .distinct()
            .limit(limit);
        let found: Vec<Vec<u8>> = on_db!(conn, query.load(conn).await)?;
        Ok(found.iter().filter_map(|id| Uuid::from_slice(id).ok()).collect())
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
