//! What the database says of a sale. These queries are the bench's own: the server needs none of them, so nobody has to
//! keep them in step with what it does, and the proof does not come from the code that it is about.

use diesel::dsl::{count, count_star};
use diesel::prelude::*;
use diesel_async::RunQueryDsl;

use crate::db::{DbConn, DbResult};
use crate::model::ProductId;

/// The columns that are counted.
mod tables {
    diesel::table! {
        products (id) {
            id -> BigInt,
            stock -> BigInt,
            sold -> BigInt,
        }
    }

    diesel::table! {
        orders (id) {
            id -> Binary,
            product_id -> BigInt,
            user_id -> BigInt,
            live_user -> Nullable<BigInt>,
        }
    }

    diesel::allow_tables_to_appear_in_same_query!(products, orders);
}
use tables::{orders, products};

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
