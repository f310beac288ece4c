//! What the database says of a sale. These queries are the bench's own: the server needs none of them, so nobody has to
//! keep them in step with what it does, and the proof does not come from the code that it is about.

use diesel::dsl::{count, count_star};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use crate::db::{DbConn, DbResult};
use crate::model::{OrderId, ProductId};

/// The columns that are counted.
mod tables {
    diesel::table! {
        products (id) {
            id -> BigInt,
            stock -> BigInt,
            sold -> BigInt,
            price_cents -> BigInt,
        }
    }

    diesel::table! {
        orders (id) {
            id -> Binary,
            product_id -> BigInt,
            user_id -> BigInt,
            live_user -> Nullable<BigInt>,
            status -> Text,
            quantity -> BigInt,
        }
    }

    diesel::table! {
        payments (id) {
            id -> Binary,
            order_id -> Binary,
            status -> Text,
            amount_cents -> BigInt,
        }
    }

    diesel::allow_tables_to_appear_in_same_query!(products, orders, payments);
}
use tables::{orders, payments, products};

/// What a sale has come to.
#[derive(Debug, Clone, Copy)]
pub(super) struct SaleCount {
    /// Units in all.
    pub(super) stock: i64,
    /// Units that live orders hold, as the product's row says.
    pub(super) sold: i64,
    /// Live orders there are.
    pub(super) live_orders: i64,
    /// Users who hold them.
    pub(super) buyers: i64,
}

/// What was paid in a sale.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Money {
    /// Orders that nobody has paid yet.
    pub(super) unpaid: i64,
    /// Orders that were not paid in time.
    pub(super) expired: i64,
    /// Orders that are paid.
    pub(super) paid: i64,
    /// What their units cost, in minor units.
    pub(super) asked_cents: i64,
    /// What came and was kept.
    pub(super) kept_cents: i64,
    /// Payments it came by.
    pub(super) payments: i64,
}

/// Runs a query on whichever database the connection is to.
macro_rules! ask {
    ($conn:ident, $query:expr) => {
        match $conn {
            DbConn::MySql($conn) => {
                let $conn = &mut **$conn;
                $query
            }
            DbConn::Sqlite($conn) => {
                let $conn = &mut **$conn;
                $query
            }
        }
    };
}

/// Units of a product that have an order in the database; `None`: there is no such product.
pub(super) async fn sold(conn: &mut DbConn, product: ProductId) -> DbResult<Option<i64>> {
    let row = products::table.select(products::sold).filter(products::id.eq(product));
    Ok(ask!(conn, row.get_result(conn).await.optional())?)
}

/// Counts what a sale has come to.
pub(super) async fn count_sale(conn: &mut DbConn, product: ProductId) -> DbResult<SaleCount> {
    let live = orders::table.filter(orders::product_id.eq(product)).filter(orders::live_user.is_not_null());
    let counts = live.select((count_star(), count(orders::user_id).aggregate_distinct()));
    let (live_orders, buyers) = ask!(conn, counts.get_result(conn).await)?;
    let row = products::table.select((products::stock, products::sold)).filter(products::id.eq(product));
    let (stock, sold) = ask!(conn, row.get_result(conn).await)?;
    Ok(SaleCount { stock, sold, live_orders, buyers })
}

/// Orders that nobody has paid yet, by id, and whose they are.
pub(super) async fn unpaid(conn: &mut DbConn, product: ProductId) -> DbResult<Vec<(OrderId, i64)>> {
    let unpaid = orders::table.filter(orders::product_id.eq(product)).filter(orders::status.eq("unpaid"));
    let query = unpaid.select((orders::id, orders::user_id)).order(orders::id);
    Ok(ask!(conn, query.load(conn).await)?)
}

/// Counts what was paid.
pub(super) async fn count_money(conn: &mut DbConn, product: ProductId) -> DbResult<Money> {
    let row = products::table.select(products::price_cents).filter(products::id.eq(product));
    let price_cents: i64 = ask!(conn, row.get_result(conn).await)?;
    let each = orders::table.filter(orders::product_id.eq(product)).select((orders::status, orders::quantity));
    let each: Vec<(String, i64)> = ask!(conn, each.load(conn).await)?;
    let count = |status: &str| each.iter().filter(|(found, _)| found == status).count() as i64;
    let paid_units: i64 = each.iter().filter(|(status, _)| status == "paid").map(|(_, units)| units).sum();
    let kept = payments::table
        .inner_join(orders::table.on(orders::id.eq(payments::order_id)))
        .filter(orders::product_id.eq(product))
        .filter(payments::status.eq("succeeded"))
        .select((payments::order_id, payments::amount_cents));
    let kept: Vec<(OrderId, i64)> = ask!(conn, kept.load(conn).await)?;
    Ok(Money {
        unpaid: count("unpaid"),
        expired: count("expired"),
        paid: count("paid"),
        asked_cents: paid_units * price_cents,
        kept_cents: kept.iter().map(|(_, amount)| amount).sum(),
        payments: kept.len() as i64,
    })
}
