//! Queries on `products`.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Bool, Nullable, Text, Timestamp as SqlTimestamp};
use diesel_async::RunQueryDsl;

use super::conn::{DbConn, on_db};
use super::error::{DbError, DbResult};
use super::gates::{RETIRED, UNKNOWN};
use super::readable::Readable;
use super::readable::{Row, one, one_by_one, readable};
use super::schema::products;
use crate::model::{
    AddressLimit, Currency, EventType, PaymentWindow, Product, ProductId, Quantity, Sale, SaleState, Timestamp,
};

/// Its name where a row of it cannot be read.
pub(super) const PRODUCTS: &str = "products";

/// A product that is about to be inserted.
#[derive(Debug, Clone, Insertable)]
#[diesel(table_name = products)]
pub struct NewProduct {
    /// Shown to buyers.
    pub name: String,
    /// Shown to buyers.
    pub description: String,
    /// Price in minor units.
    pub price_cents: i64,
    /// Units in all.
    pub stock: i64,
    /// When buying begins.
    pub starts_at: Timestamp,
    /// When buying ends; `None`: open-ended.
    pub ends_at: Option<Timestamp>,
    /// When it was made.
    pub created_at: Timestamp,
    /// Of its price.
    pub currency: Currency,
    /// How long an order may stay unpaid.
    #[diesel(column_name = payment_window_seconds)]
    pub payment_window: Option<PaymentWindow>,
    /// Units that one order may have at most.
    pub max_per_order: Quantity,
    /// Units that buyers of one network address may take in all.
    pub max_per_address: Option<AddressLimit>,
    /// A picture.
    pub image_url: Option<String>,
    /// Nobody can buy yet.
    pub paused: bool,
    /// Only administrators see it.
    pub draft: bool,
}

/// What a patch sets; `None` leaves a field as it is.
#[derive(Debug, Clone, Default, AsChangeset)]
#[diesel(table_name = products)]
pub struct ProductChange {
    /// Shown to buyers.
    pub name: Option<String>,
    /// Shown to buyers.
    pub description: Option<String>,
    /// Price in minor units.
    pub price_cents: Option<i64>,
    /// When buying begins.
    pub starts_at: Option<Timestamp>,
    /// When buying ends; `Some(None)`: open-ended.
    pub ends_at: Option<Option<Timestamp>>,
    /// Stops and resumes buying.
    pub paused: Option<bool>,
    /// Of its price.
    pub currency: Option<Currency>,
    /// How long an order may stay unpaid; `Some(None)`: for ever.
    #[diesel(column_name = payment_window_seconds)]
    pub payment_window: Option<Option<PaymentWindow>>,
    /// Units that one order may have at most.
    pub max_per_order: Option<Quantity>,
    /// Units that buyers of one network address may take in all; `Some(None)`: as many as there are.
    pub max_per_address: Option<Option<AddressLimit>>,
    /// A picture; `Some(None)`: none.
    pub image_url: Option<Option<String>>,
    /// Takes it out of the lists.
    pub archived_at: Option<Timestamp>,
    /// `Some(false)` publishes it.
    pub draft: Option<bool>,
}

/// Units that are offered of those that a sale was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, AsChangeset)]
#[diesel(table_name = products)]
pub struct Offer {
    stock: i64,
    withheld: i64,
}

impl Offer {
    /// So many, of a sale that was given `given`. The sale is given more if need be, but never less: a purchase on its way
    /// must find its unit.
    pub fn of(offered: i64, given: i64) -> Self {
        let stock = given.max(offered);
        Self { stock, withheld: stock - offered }
    }
}

impl DbConn {
    /// Inserts a product whose gate has epoch 1.
    pub async fn insert_product(&mut self, product: &NewProduct) -> DbResult<ProductId> {
        let conn = self;
        // Where its gate is to be, may depend on the id: see `set_gate_home`.
        let row = (product, products::gate_home.eq(UNKNOWN));
        on_db!(conn, diesel::insert_into(products::table).values(row).execute(conn).await)?;
        let id = ProductId::from_stored(conn.last_inserted().await?).map_err(|problem| DbError::Unreadable {
            table: PRODUCTS,
            row: "new".to_owned(),
            problem,
        })?;
        conn.keep_revision(id).await?;
        conn.tell_of_product(EventType::ProductChanged, id).await?;
        Ok(id)
    }

    /// One product.
    pub async fn find_product(&mut self, id: ProductId) -> DbResult<Option<Product>> {
        let conn = self;
        let query = products::table.select(product_columns()).filter(products::id.eq(id));
        let found: Option<Row<i64, Product>> = on_db!(conn, query.get_result(conn).await.optional())?;
        one(PRODUCTS, found)
    }

    /// Those of these products that there are.
    pub async fn find_products(&mut self, ids: &[ProductId]) -> DbResult<Vec<Product>> {
        let conn = self;
        let ids: Vec<i64> = ids.iter().map(|id| id.get()).collect();
        let query = products::table.select(product_columns()).filter(products::id.eq_any(ids));
        let found: Vec<Row<i64, Product>> = on_db!(conn, query.load(conn).await)?;
        Ok(readable(PRODUCTS, found).rows)
    }

    /// Published products with a smaller id than `before`, newest first; `state` looks at the sale window only.
    pub async fn list_products(
        &mut self,
        state: Option<SaleState>,
        now: Timestamp,
        before: Option<i64>,
        limit: i64,
    ) -> DbResult<Readable<Product, i64>> {
        let conn = self;
        let before = before.unwrap_or(ProductId::GREATEST + 1);
        let query = products::table
            .select(product_columns())
            .filter(products::id.lt(before))
            .filter(products::archived_at.is_null())
            .filter(products::draft.eq(false))
            .order(products::id.desc())
            .limit(limit);
        let begun = products::starts_at.le(now);
        let ended = products::ends_at.le(now);
        let open = products::ends_at.is_null().or(products::ends_at.gt(now));
        let found: Vec<Row<i64, Product>> = match state {
            None => on_db!(conn, query.load(conn).await)?,
            Some(SaleState::Upcoming) => on_db!(conn, query.filter(products::starts_at.gt(now)).load(conn).await)?,
            Some(SaleState::Ended) => on_db!(conn, query.filter(ended).load(conn).await)?,
            Some(_) => on_db!(conn, query.filter(begun).filter(open).load(conn).await)?,
        };
        Ok(readable(PRODUCTS, found))
    }

    /// The same of all products, whatever their sale; `archived`: only those that are, or are not.
    pub async fn list_all_products(
        &mut self,
        archived: Option<bool>,
        before: Option<i64>,
        limit: i64,
    ) -> DbResult<Readable<Product, i64>> {
        let conn = self;
        let before = before.unwrap_or(ProductId::GREATEST + 1);
        let query = products::table.select(product_columns()).filter(products::id.lt(before));
        let query = query.order(products::id.desc()).limit(limit);
        let found: Vec<Row<i64, Product>> = match archived {
            None => on_db!(conn, query.load(conn).await)?,
            Some(true) => on_db!(conn, query.filter(products::archived_at.is_not_null()).load(conn).await)?,
            Some(false) => on_db!(conn, query.filter(products::archived_at.is_null()).load(conn).await)?,
        };
        Ok(readable(PRODUCTS, found))
    }

    /// One product without its texts.
    pub async fn find_sale(&mut self, id: ProductId) -> DbResult<Option<Sale>> {
        let conn = self;
        let query = products::table.select(sale_columns()).filter(products::id.eq(id));
        let found: Option<Row<i64, Sale>> = on_db!(conn, query.get_result(conn).await.optional())?;
        one(PRODUCTS, found)
    }

    /// The greatest id of a product; 0 if there is none. One that nobody can ask for does not count.
    pub async fn greatest_product(&mut self) -> DbResult<i64> {
        let conn = self;
        let known = products::table.filter(products::id.le(ProductId::GREATEST));
        let query = known.select(products::id).order(products::id.desc());
        let greatest: Option<i64> = on_db!(conn, query.first(conn).await.optional())?;
        Ok(greatest.unwrap_or_default())
    }

    /// Ids of the products whose sale had not ended at `ended_after`, and of these that had.
    pub async fn unfinished_products(&mut self, ended_after: Timestamp, and: &[ProductId]) -> DbResult<Vec<ProductId>> {
        let conn = self;
        let unfinished = products::ends_at.is_null().or(products::ends_at.gt(ended_after));
        let query = products::table.select(products::id);
        // An empty list would still be looked through.
        let found: Vec<Row<i64, ProductId>> = match and {
            [] => on_db!(conn, query.filter(unfinished).load(conn).await)?,
            and => on_db!(conn, query.filter(unfinished.or(products::id.eq_any(and))).load(conn).await)?,
        };
        Ok(readable(PRODUCTS, found).rows)
    }

    /// Sales that had not ended at `ended_after` and these that had, with greater ids than `after`, by id. With them comes
    /// the next `after`; `None`: there were none.
    pub async fn unfinished_after(
        &mut self,
        ended_after: Timestamp,
        and: &[ProductId],
        after: i64,
        limit: i64,
    ) -> DbResult<(Vec<Sale>, Option<i64>)> {
        let conn = self;
        let unfinished = products::ends_at.is_null().or(products::ends_at.gt(ended_after));
        let query =
            products::table.select(sale_columns()).filter(products::id.gt(after)).order(products::id).limit(limit);
        let found: Vec<Row<i64, Sale>> = match and {
            [] => on_db!(conn, query.filter(unfinished).load(conn).await)?,
            and => on_db!(conn, query.filter(unfinished.or(products::id.eq_any(and))).load(conn).await)?,
        };
        let Readable { rows, keys, .. } = readable(PRODUCTS, found);
        Ok((rows, keys.last().copied()))
    }

    /// Changes a product and counts its version up. False: there is no such product.
    pub async fn update_product(
        &mut self,
        id: ProductId,
        change: &ProductChange,
        offer: Option<Offer>,
    ) -> DbResult<bool> {
        self.keep_revision_before_change(id).await?;
        let conn = self;
        let counted = products::revision.eq(products::revision + 1);
        let rows = on_db!(
            conn,
            diesel::update(products::table.filter(products::id.eq(id)))
                .set((change, offer, counted))
                .execute(conn)
                .await
        )?;
        conn.keep_revision(id).await?;
        if rows == 1 {
            conn.tell_of_product(EventType::ProductChanged, id).await?;
        }
        Ok(rows == 1)
    }

    /// Adds units and counts the version up. False: there is no such product, or it would exceed `most` units.
    pub async fn add_stock(&mut self, id: ProductId, units: i64, most: i64) -> DbResult<bool> {
        self.keep_revision_before_change(id).await?;
        let conn = self;
        let product = products::table.filter(products::id.eq(id)).filter(products::stock.le(most - units));
        let change = (products::stock.eq(products::stock + units), products::revision.eq(products::revision + 1));
        let rows = on_db!(conn, diesel::update(product).set(change).execute(conn).await)?;
        conn.keep_revision(id).await?;
        if rows == 1 {
            conn.tell_of_product(EventType::ProductChanged, id).await?;
        }
        Ok(rows == 1)
    }

    /// Notes when the last unit of a sale was sold, or that there are some again. False: that is known already.
    pub async fn note_sold_out(&mut self, id: ProductId, at: Option<Timestamp>) -> DbResult<bool> {
        let conn = self;
        let product = products::table.filter(products::id.eq(id));
        let set = products::sold_out_at.eq(at);
        let rows = match at {
            Some(_) => {
                let unknown = product.filter(products::sold_out_at.is_null());
                on_db!(conn, diesel::update(unknown).set(set).execute(conn).await)?
            }
            None => {
                let known = product.filter(products::sold_out_at.is_not_null());
                on_db!(conn, diesel::update(known).set(set).execute(conn).await)?
            }
        };
        if rows == 1 {
            let event_type = at.map_or(EventType::ProductChanged, |_| EventType::ProductSoldOut);
            conn.tell_of_product(event_type, id).await?;
        }
        Ok(rows == 1)
    }

    /// Takes `units` for purchases admitted in `epoch`, all or none (I1). Locks the product's row when it succeeds.
    pub async fn take_stock(&mut self, id: ProductId, units: i64, epoch: i64) -> DbResult<bool> {
        let conn = self;
        let product = products::table
            .filter(products::id.eq(id))
            .filter((products::sold + units).le(products::stock))
            .filter(products::gate_fence.le(epoch));
        let change = products::sold.eq(products::sold + units);
        let rows = on_db!(conn, diesel::update(product).set(change).execute(conn).await)?;
        Ok(rows == 1)
    }
}

/// The types of [`product_columns()`] and of [`sale_columns()`].
type ProductColumns = (
    BigInt,
    Text,
    Text,
    BigInt,
    BigInt,
    BigInt,
    BigInt,
    SqlTimestamp,
    Nullable<SqlTimestamp>,
    Bool,
    BigInt,
    BigInt,
    BigInt,
    Bool,
    SqlTimestamp,
    Nullable<Text>,
    Nullable<BigInt>,
    BigInt,
    Nullable<Text>,
    Nullable<SqlTimestamp>,
    Nullable<SqlTimestamp>,
    Bool,
    Nullable<BigInt>,
);
type SaleColumns = (
    BigInt,
    BigInt,
    BigInt,
    SqlTimestamp,
    Nullable<SqlTimestamp>,
    Bool,
    BigInt,
    BigInt,
    Bool,
    BigInt,
    Nullable<BigInt>,
    BigInt,
    Nullable<BigInt>,
    Nullable<SqlTimestamp>,
);
one_by_one!(i64, Product, ProductColumns);
one_by_one!(i64, Sale, SaleColumns);
one_by_one!(i64, ProductId, BigInt);

/// The columns of [`Sale`], in its order.
#[diesel::dsl::auto_type]
fn sale_columns() -> _ {
    let retired: &'static str = RETIRED;
    (
        products::id,
        products::stock - products::withheld,
        products::sold,
        products::starts_at,
        products::ends_at,
        products::paused,
        products::revision,
        products::gate_epoch,
        products::gate_home.eq(retired),
        products::price_cents,
        products::payment_window_seconds,
        products::max_per_order,
        products::max_per_address,
        products::sold_out_at,
    )
}

/// The columns of [`Product`], in its order.
#[diesel::dsl::auto_type]
fn product_columns() -> _ {
    let retired: &'static str = RETIRED;
    (
        products::id,
        products::name,
        products::description,
        products::price_cents,
        products::stock - products::withheld,
        products::sold,
        products::paid,
        products::starts_at,
        products::ends_at,
        products::paused,
        products::revision,
        products::gate_epoch,
        products::gate_fence,
        products::gate_home.eq(retired),
        products::created_at,
        products::currency,
        products::payment_window_seconds,
        products::max_per_order,
        products::image_url,
        products::sold_out_at,
        products::archived_at,
        products::draft,
        products::max_per_address,
    )
}
