//! Queries on the columns of `products` that say which gate may sell.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary};
use diesel_async::RunQueryDsl;

use super::orders::ORDERS;
use super::readable::{Row, all, one_by_one, readable};
use super::schema::{orders, products};
use super::{DbConn, DbResult, on_db};
use crate::model::{OrderId, OrderStatus, ProductId, Purchase, Timestamp, UserId};

/// Which gate may sell a product.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub struct GateRow {
    /// Its epoch.
    pub epoch: i64,
    /// Purchases of an older epoch come too late. Equal to `epoch`: the gate is being installed, or open.
    pub fence: i64,
    /// Identity of the server that keeps it.
    pub home: String,
}

/// What the database says of a sale.
#[derive(Debug, Clone, Copy)]
pub struct SaleAudit {
    /// Units in all.
    pub stock: i64,
    /// Units that live orders hold, as the product's row says.
    pub sold: i64,
    /// Version of its terms.
    pub ver: i64,
    /// Epoch of the gate that may sell.
    pub gate_epoch: i64,
    /// Live orders there are.
    pub live_orders: i64,
    /// Rejected orders.
    pub rejected: i64,
    /// Dead orders whose units the gate has not given back.
    pub release_due: i64,
}

one_by_one!(OrderId, (OrderId, UserId), (Binary, BigInt));
one_by_one!(OrderId, (OrderId, UserId, ProductId, i64), (Binary, BigInt, BigInt, BigInt));

impl DbConn {
    /// Which gate may sell a product.
    pub async fn gate_row(&mut self, id: ProductId) -> DbResult<Option<GateRow>> {
        let conn = self;
        let query = products::table
            .select((products::gate_epoch, products::gate_fence, products::gate_home))
            .filter(products::id.eq(id));
        on_db!(conn, query.get_result(conn).await.optional())
    }

    /// Fences purchases of older epochs off, if `epoch` is still the one that may sell.
    pub async fn fence(&mut self, id: ProductId, epoch: i64) -> DbResult<()> {
        let conn = self;
        let product = products::table.filter(products::id.eq(id)).filter(products::gate_epoch.eq(epoch));
        on_db!(conn, diesel::update(product).set(products::gate_fence.eq(epoch)).execute(conn).await)?;
        Ok(())
    }

    /// Live orders of a product whose buyers come after `after`, by buyer. One that cannot be read is an error: without it a
    /// gate would give its unit away once more.
    pub async fn live_orders_after(&mut self, id: ProductId, after: i64, limit: i64) -> DbResult<Vec<Purchase>> {
        let conn = self;
        let query = orders::table
            .select((orders::id, orders::user_id))
            .filter(orders::product_id.eq(id))
            .filter(orders::user_id.gt(after))
            .filter(orders::live_user.is_not_null())
            .order(orders::user_id)
            .limit(limit);
        let found: Vec<Row<OrderId, (OrderId, UserId)>> = on_db!(conn, query.load(conn).await)?;
        let rows = all(ORDERS, found)?;
        Ok(rows.into_iter().map(|(order_id, user_id)| Purchase { order_id, user_id }).collect())
    }

    /// Dead orders whose units the gate has not given back, with their products' epochs. Those of sales that had ended at
    /// `ended_after` are left: nobody can buy the units.
    pub async fn release_due(
        &mut self,
        ended_after: Timestamp,
        limit: i64,
    ) -> DbResult<Vec<(ProductId, i64, Purchase)>> {
        let conn = self;
        let query = orders::table
            .inner_join(products::table)
            .select((orders::id, orders::user_id, products::id, products::gate_epoch))
            .filter(orders::release_due.eq(true))
            .filter(products::ends_at.is_null().or(products::ends_at.gt(ended_after)))
            .limit(limit);
        let found: Vec<Row<OrderId, (OrderId, UserId, ProductId, i64)>> = on_db!(conn, query.load(conn).await)?;
        let due = |(order_id, user_id, product, epoch)| (product, epoch, Purchase { order_id, user_id });
        Ok(readable(ORDERS, found).rows.into_iter().map(due).collect())
    }

    /// Counts what a sale has come to. `None`: there is no such product.
    pub async fn audit_sale(&mut self, id: ProductId) -> DbResult<Option<SaleAudit>> {
        let conn = self;
        let columns = (products::stock, products::sold, products::ver, products::gate_epoch);
        let row = products::table.select(columns).filter(products::id.eq(id));
        let Some((stock, sold, ver, gate_epoch)) = on_db!(conn, row.get_result(conn).await.optional())? else {
            return Ok(None);
        };
        let of_sale = orders::table.filter(orders::product_id.eq(id));
        let live = of_sale.filter(orders::live_user.is_not_null()).count();
        let live_orders = on_db!(conn, live.get_result(conn).await)?;
        let dead = of_sale.filter(orders::live_user.is_null());
        let rejected = dead.filter(orders::status.eq(OrderStatus::Rejected)).count();
        let rejected = on_db!(conn, rejected.get_result(conn).await)?;
        let due = dead.filter(orders::release_due.eq(true)).count();
        let release_due = on_db!(conn, due.get_result(conn).await)?;
        Ok(Some(SaleAudit { stock, sold, ver, gate_epoch, live_orders, rejected, release_due }))
    }
}
