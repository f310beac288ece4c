//! Queries on the columns of `products` that say which gate may sell, and the lock of its row.

use diesel::dsl::sql;
use diesel::expression::SqlLiteral;
use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Binary, Nullable};
use diesel_async::RunQueryDsl;

use super::conn::{DbConn, on_db};
use super::diagnosis::diagnosed;
use super::error::DbResult;
use super::orders::ORDERS;
use super::readable::{Row, all, one_by_one, readable};
use super::schema::{orders, products};
use crate::model::{Life, OrderId, PaymentId, ProductId, Purchase, Quantity, Timestamp, UserId};

/// Stands for the server of a gate that was retired: its sale had ended, and every purchase that it had admitted was
/// written. Nothing of such a product is on its way.
pub(super) const RETIRED: &str = "retired";
/// Stands for a server that nobody knows: what was admitted there may be on its way.
pub(super) const UNKNOWN: &str = "";

/// Which gate may sell a product.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub struct GateRow {
    /// Its epoch.
    pub epoch: i64,
    /// Purchases of an older epoch come too late. Equal to `epoch`: the gate is being installed, or open.
    pub fence: i64,
    /// Identity of the server that keeps it.
    pub server_id: String,
}

impl GateRow {
    /// Whether there is no gate, because the sale had ended, and nothing on its way.
    pub fn is_retired(&self) -> bool {
        self.server_id == RETIRED
    }
}

/// What a transaction that holds the product's row needs of it.
#[derive(Debug, Clone, Copy, Queryable)]
pub struct ProductLock {
    /// Units that the sale was given in all, also those that are withheld since: what is enforced. [`crate::model::Sale::stock`] and the
    /// gate's settings say what is offered.
    pub given: i64,
    /// Units that live orders hold.
    pub sold: i64,
    /// Epoch of the gate that may sell.
    pub gate_epoch: i64,
    /// Purchases that a gate of an older epoch admitted are late: they become rejected orders.
    pub gate_fence: i64,
    /// Units that are offered.
    pub offered: i64,
    /// The sale has ended and its gate was retired: nobody can take a unit.
    pub retired: bool,
}

/// What has become of a sale's orders, in units; of the paid ones also in minor units of money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Queryable)]
pub struct SaleCounts {
    /// Paid.
    pub paid: i64,
    /// Not paid in time.
    pub expired: i64,
    /// Given up, or called off.
    pub cancelled: i64,
    /// Admitted at a gate, and could not become orders.
    pub rejected: i64,
    /// What the paid ones cost.
    pub revenue_cents: i64,
}

/// A sale's row, as its summary shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Queryable)]
pub struct SaleRow {
    /// Units that are offered in all.
    pub stock: i64,
    /// Units that live orders hold.
    pub sold: i64,
    /// What has become of the orders.
    pub counts: SaleCounts,
    /// Number of the revision of its settings.
    pub revision: i64,
    /// Epoch of the gate that may sell.
    pub gate_epoch: i64,
    /// The sale has ended and its gate was retired.
    pub retired: bool,
}

/// The columns of [`SaleCounts`], in its order.
#[diesel::dsl::auto_type]
fn count_columns() -> _ {
    (products::paid, products::expired, products::cancelled, products::rejected, products::revenue_cents)
}

/// What the database says of a sale.
#[derive(Debug, Clone, Copy)]
pub struct SaleAudit {
    /// Units that are offered in all.
    pub stock: i64,
    /// Units that live orders hold, as the product's row says.
    pub sold: i64,
    /// Number of the revision of its settings.
    pub revision: i64,
    /// Epoch of the gate that may sell.
    pub gate_epoch: i64,
    /// When buying ends.
    pub ends_at: Option<Timestamp>,
    /// The sale has ended and its gate was retired.
    pub retired: bool,
    /// Live orders there are.
    pub live_orders: i64,
    /// Their units.
    pub live_units: i64,
    /// What has become of the orders, as the product's row says.
    pub counts: SaleCounts,
    /// The same, counted.
    pub counted: SaleCounts,
    /// Rejected orders.
    pub rejected: i64,
    /// Dead orders whose units the gate has not given back.
    pub release_due: i64,
}

type LiveOrder = (OrderId, UserId, Quantity, Option<PaymentId>);
one_by_one!(OrderId, LiveOrder, (Binary, BigInt, BigInt, Nullable<Binary>));
/// A dead order, and its product with the epoch.
type DueOrder = (OrderId, UserId, Quantity, Option<PaymentId>, ProductId, i64);
one_by_one!(OrderId, DueOrder, (Binary, BigInt, BigInt, Nullable<Binary>, BigInt, BigInt));

impl DbConn {
    /// Which gate may sell a product.
    pub async fn gate_row(&mut self, id: ProductId) -> DbResult<Option<GateRow>> {
        let conn = self;
        let query = products::table
            .select((products::gate_epoch, products::gate_fence, products::gate_home))
            .filter(products::id.eq(id));
        on_db!(conn, query.get_result(conn).await.optional())
    }

    /// Notes the server on which the first gate of a new product is opened.
    pub async fn set_gate_home(&mut self, id: ProductId, server_id: &str) -> DbResult<()> {
        let conn = self;
        let product = products::table.filter(products::id.eq(id));
        on_db!(conn, diesel::update(product).set(products::gate_home.eq(server_id)).execute(conn).await)?;
        Ok(())
    }

    /// Locks a product's row until the transaction ends. In SQLite a transaction that writes has locked everything.
    pub async fn lock_product(&mut self, id: ProductId) -> DbResult<Option<ProductLock>> {
        let query = products::table
            .select((
                products::stock,
                products::sold,
                products::gate_epoch,
                products::gate_fence,
                products::stock - products::withheld,
                products::gate_home.eq(RETIRED),
            ))
            .filter(products::id.eq(id));
        match self {
            DbConn::MySql(conn) => {
                let row = query.for_update().get_result(&mut **conn).await.optional();
                diagnosed(&mut **conn, row).await
            }
            DbConn::Sqlite(conn) => {
                let row = query.get_result(&mut **conn).await.optional();
                diagnosed(&mut **conn, row).await
            }
        }
    }

    /// Raises the fence: purchases of older epochs can no longer become orders. Only if `epoch` is still the one that may sell.
    pub async fn raise_fence(&mut self, id: ProductId, epoch: i64) -> DbResult<()> {
        let conn = self;
        let product = products::table.filter(products::id.eq(id)).filter(products::gate_epoch.eq(epoch));
        on_db!(conn, diesel::update(product).set(products::gate_fence.eq(epoch)).execute(conn).await)?;
        Ok(())
    }

    /// Notes that the gate of `epoch` on this server was retired, and gives the next one an epoch of its own: if an old
    /// gate of this one comes back, nobody takes it for the present one. False: the row has changed since, so it may say
    /// that the sale goes on.
    pub async fn retire_gate(
        &mut self,
        id: ProductId,
        epoch: i64,
        server_id: &str,
        ended_before: Timestamp,
    ) -> DbResult<bool> {
        let conn = self;
        let product = products::table
            .filter(products::id.eq(id))
            .filter(products::gate_epoch.eq(epoch))
            .filter(products::gate_fence.eq(epoch))
            .filter(products::gate_home.eq(server_id))
            .filter(products::ends_at.le(ended_before));
        let next =
            (products::gate_epoch.eq(epoch + 1), products::gate_fence.eq(epoch + 1), products::gate_home.eq(RETIRED));
        Ok(on_db!(conn, diesel::update(product).set(next).execute(conn).await)? == 1)
    }

    /// Notes that something may be on its way of a product that has no gate: its next gate is to wait for it. False: it has
    /// another epoch by now.
    pub async fn doubt_retirement(&mut self, id: ProductId, epoch: i64) -> DbResult<bool> {
        let conn = self;
        let product = products::table.filter(products::id.eq(id)).filter(products::gate_epoch.eq(epoch));
        // Counted by its condition: MySQL does not count a row that stays as it is.
        on_db!(conn, diesel::update(product).set(products::gate_home.eq(UNKNOWN)).execute(conn).await)?;
        let epoch_now = products::table.select(products::gate_epoch).filter(products::id.eq(id));
        let epoch_now: Option<i64> = on_db!(conn, epoch_now.get_result(conn).await.optional())?;
        Ok(epoch_now == Some(epoch))
    }

    /// Forgets what the gate of a sale that has ended was to give back, for it has none: the next one is filled from the live
    /// orders. `retired`: only if the row says that the gate was retired. In a transaction.
    pub async fn forget_release_due(&mut self, id: ProductId, ended_before: Timestamp, retired: bool) -> DbResult<()> {
        if self.lock_product(id).await?.is_none() {
            return Ok(());
        }
        let conn = self;
        let row =
            products::table.select((products::ends_at, products::gate_home.eq(RETIRED))).filter(products::id.eq(id));
        let (ends_at, is_retired): (Option<Timestamp>, bool) = on_db!(conn, row.get_result(conn).await)?;
        if ends_at.is_none_or(|end| end > ended_before) || retired && !is_retired {
            return Ok(());
        }
        let due = orders::table.filter(orders::product_id.eq(id)).filter(orders::release_due.eq(true));
        on_db!(conn, diesel::update(due).set(orders::release_due.eq(None::<bool>)).execute(conn).await)?;
        Ok(())
    }

    /// Live orders of a product whose buyers come after `after`, by buyer; `None`: from the first, also if it has a number that
    /// no buyer can have. One that cannot be read is an error: without it a gate would give its unit away once more.
    pub async fn live_orders_after(&mut self, id: ProductId, after: Option<UserId>, limit: i64) -> DbResult<Vec<Life>> {
        let conn = self;
        let after = after.map_or(i64::MIN, UserId::get);
        let query = orders::table
            .select((orders::id, orders::user_id, orders::quantity, orders::revived_by))
            .filter(orders::product_id.eq(id))
            .filter(orders::user_id.gt(after))
            .filter(orders::live_user.is_not_null())
            .order(orders::user_id)
            .limit(limit);
        let found: Vec<Row<OrderId, LiveOrder>> = on_db!(conn, query.load(conn).await)?;
        let rows = all(ORDERS, found)?;
        let life = |(order_id, user_id, quantity, revived_by)| Life {
            purchase: Purchase { order_id, user_id, quantity },
            revived_by,
        };
        Ok(rows.into_iter().map(life).collect())
    }

    /// Dead orders whose units the gate has not given back, with their products' epochs. Those of sales that had ended at
    /// `ended_after` are left out: nobody can buy the units.
    pub async fn release_due(&mut self, ended_after: Timestamp, limit: i64) -> DbResult<Vec<(ProductId, i64, Life)>> {
        let conn = self;
        let query = orders::table
            .inner_join(products::table)
            .select((
                orders::id,
                orders::user_id,
                orders::quantity,
                orders::revived_by,
                products::id,
                products::gate_epoch,
            ))
            .filter(orders::release_due.eq(true))
            .filter(products::ends_at.is_null().or(products::ends_at.gt(ended_after)))
            .limit(limit);
        let found: Vec<Row<OrderId, DueOrder>> = on_db!(conn, query.load(conn).await)?;
        let due = |(order_id, user_id, quantity, revived_by, product, epoch)| {
            (product, epoch, Life { purchase: Purchase { order_id, user_id, quantity }, revived_by })
        };
        Ok(readable(ORDERS, found).rows.into_iter().map(due).collect())
    }

    /// Products whose sale had ended at `ended_before` and whose gate was to give something back.
    pub async fn products_with_release_due(&mut self, ended_before: Timestamp, limit: i64) -> DbResult<Vec<ProductId>> {
        let conn = self;
        let query = orders::table
            .inner_join(products::table)
            .select(products::id)
            .distinct()
            .filter(orders::release_due.eq(true))
            .filter(products::ends_at.le(ended_before))
            .limit(limit);
        on_db!(conn, query.load(conn).await)
    }

    /// Counts what a sale has come to. `None`: there is no such product.
    pub async fn audit_sale(&mut self, id: ProductId) -> DbResult<Option<SaleAudit>> {
        let conn = self;
        let columns = (
            products::stock - products::withheld,
            products::sold,
            products::revision,
            products::gate_epoch,
            products::ends_at,
            products::gate_home.eq(RETIRED),
            count_columns(),
        );
        let row = products::table.select(columns).filter(products::id.eq(id));
        let Some((stock, sold, revision, gate_epoch, ends_at, retired, counts)) =
            on_db!(conn, row.get_result(conn).await.optional())?
        else {
            return Ok(None);
        };
        let of_sale = orders::table.filter(orders::product_id.eq(id));
        let live = of_sale.filter(orders::live_user.is_not_null());
        let live = live.select((diesel::dsl::count_star(), sum(UNITS), sum(PAID), sum(REVENUE)));
        let (live_orders, live_units, paid, revenue_cents) = on_db!(conn, live.get_result(conn).await)?;
        let dead = of_sale.filter(orders::live_user.is_null());
        let dead = dead.select((sum(EXPIRED), sum(CANCELLED), sum(REJECTED), sum(REJECTED_ORDERS), sum(DUE)));
        let (expired, cancelled, rejected_units, rejected, release_due) = on_db!(conn, dead.get_result(conn).await)?;
        let counted = SaleCounts { paid, expired, cancelled, rejected: rejected_units, revenue_cents };
        Ok(Some(SaleAudit {
            stock,
            sold,
            revision,
            gate_epoch,
            ends_at,
            retired,
            live_orders,
            live_units,
            counts,
            counted,
            rejected,
            release_due,
        }))
    }

    /// The row of a sale.
    pub async fn sale_row(&mut self, id: ProductId) -> DbResult<Option<SaleRow>> {
        let columns = (
            products::stock - products::withheld,
            products::sold,
            count_columns(),
            products::revision,
            products::gate_epoch,
            products::gate_home.eq(RETIRED),
        );
        let conn = self;
        let row = products::table.select(columns).filter(products::id.eq(id));
        on_db!(conn, row.get_result(conn).await.optional())
    }

    /// Units of a product's orders that have a payment whose money is due back.
    pub async fn refund_due_units(&mut self, id: ProductId) -> DbResult<i64> {
        let units: Units = match self {
            DbConn::MySql(conn) => {
                let found = sql_query(REFUND_DUE_MYSQL).bind::<BigInt, _>(id).get_result(&mut **conn).await;
                diagnosed(&mut **conn, found).await?
            }
            DbConn::Sqlite(conn) => {
                let found = sql_query(REFUND_DUE_SQLITE).bind::<BigInt, _>(id).get_result(&mut **conn).await;
                diagnosed(&mut **conn, found).await?
            }
        };
        Ok(units.units)
    }
}

/// A sum of these values over orders. It is of another type in MySQL than what it adds up.
fn sum(value: &str) -> SqlLiteral<BigInt> {
    sql::<BigInt>(&format!("CAST(COALESCE(SUM({value}), 0) AS SIGNED)"))
}

const UNITS: &str = "quantity";
const PAID: &str = "CASE WHEN status = 'paid' THEN quantity ELSE 0 END";
const REVENUE: &str = "CASE WHEN status = 'paid' THEN price_cents * quantity ELSE 0 END";
const EXPIRED: &str = "CASE WHEN status = 'expired' THEN quantity ELSE 0 END";
const CANCELLED: &str = "CASE WHEN status = 'cancelled' THEN quantity ELSE 0 END";
const REJECTED: &str = "CASE WHEN status = 'rejected' THEN quantity ELSE 0 END";
const REJECTED_ORDERS: &str = "CASE WHEN status = 'rejected' THEN 1 ELSE 0 END";
const DUE: &str = "CASE WHEN release_due = 1 THEN 1 ELSE 0 END";

#[derive(QueryableByName)]
struct Units {
    #[diesel(sql_type = BigInt)]
    units: i64,
}

/// From the few payments to their orders, never from the sale's many orders: each database has its own word for that.
const REFUND_DUE_MYSQL: &str = "SELECT CAST(COALESCE(SUM(orders.quantity), 0) AS SIGNED) AS units \
    FROM (SELECT DISTINCT order_id FROM payments WHERE status = 'refund_due') AS due \
    STRAIGHT_JOIN orders ON orders.id = due.order_id WHERE orders.product_id = ?";
const REFUND_DUE_SQLITE: &str = "SELECT COALESCE(SUM(orders.quantity), 0) AS units \
    FROM (SELECT DISTINCT order_id FROM payments WHERE status = 'refund_due') AS due \
    CROSS JOIN orders ON orders.id = due.order_id WHERE orders.product_id = ?";
