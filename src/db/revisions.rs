//! Queries on `product_revisions`: what a product was called and cost, for each state it has had.
//!
//! Rows are only added. Whoever counts `products.ver` up adds the row of the new number in the same transaction.

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::{BigInt, Nullable, Text};
use diesel_async::RunQueryDsl;

use super::conn::{DbConn, on_db};
use super::diagnosis::diagnosed;
use super::error::DbResult;
use super::products::PRODUCTS;
use super::readable::{Row, one, one_by_one, readable};
use super::schema::{product_revisions, products};
use crate::model::{Currency, PaymentWindow, ProductId, Revision, Timestamp};

/// Its name where a row of it cannot be read.
const PRODUCT_REVISIONS: &str = "product_revisions";

/// Number of the row for orders that name no revision: they are older than the table.
pub(super) const BEFORE_REVISIONS: i64 = 0;

/// What binds for orders of one revision.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub struct RevisionRow {
    /// Its number.
    pub revision: i64,
    /// What the product was called.
    pub name: String,
    /// What it cost, in minor units.
    pub price_cents: i64,
}

/// The same, with what only readers need: whoever writes orders does not wait until somebody corrects a row.
#[derive(Debug, Clone, PartialEq, Eq, Queryable)]
pub struct RevisionTerms {
    /// Its number.
    pub revision: i64,
    /// What the product was called.
    pub name: String,
    /// What it cost, in minor units.
    pub price_cents: i64,
    /// Of its price; `None`: the shop's own.
    pub currency: Option<Currency>,
    /// How long an order may stay unpaid.
    pub payment_window: Option<PaymentWindow>,
}

/// The same, and of which product.
type ProductTerms = (ProductId, RevisionTerms);

/// How long orders of a revision may stay unpaid.
#[derive(Debug, Clone, Copy, Queryable)]
pub struct RevisionWindow {
    /// Of which product.
    pub product: ProductId,
    /// Its number.
    pub revision: i64,
    /// How long; `None`: for ever.
    pub window: Option<PaymentWindow>,
}

one_by_one!(i64, RevisionTerms, (BigInt, Text, BigInt, Nullable<Text>, Nullable<BigInt>));
one_by_one!(i64, ProductTerms, (BigInt, (BigInt, Text, BigInt, Nullable<Text>, Nullable<BigInt>)));
one_by_one!(i64, RevisionWindow, (BigInt, BigInt, Nullable<BigInt>));

/// The rows of these revisions, and of their products as they are now.
macro_rules! terms_of {
    ($conn:expr, $database:ty, $bought:expr) => {{
        let mut query = product_revisions::table
            .select((
                product_revisions::product_id,
                (
                    product_revisions::revision,
                    product_revisions::name,
                    product_revisions::price_cents,
                    product_revisions::currency,
                    product_revisions::payment_window_seconds,
                ),
            ))
            .filter(diesel::dsl::sql::<diesel::sql_types::Bool>("1 = 0"))
            .into_boxed::<$database>();
        for (product, revision) in $bought {
            if let Some(revision) = revision {
                let is_it = product_revisions::product_id.eq(product);
                query = query.or_filter(is_it.and(product_revisions::revision.eq(i64::from(*revision))));
            }
        }
        let revisions = query.load($conn).await;
        let revisions: Vec<Row<i64, ProductTerms>> = diagnosed($conn, revisions).await?;
        let products = products::table
            .select((
                products::id,
                (
                    products::revision,
                    products::name,
                    products::price_cents,
                    products::currency,
                    products::payment_window_seconds,
                ),
            ))
            .filter(products::id.eq_any($bought.iter().map(|(product, _)| *product)));
        let products = products.load($conn).await;
        let products: Vec<Row<i64, ProductTerms>> = diagnosed($conn, products).await?;
        (revisions, products)
    }};
}

impl DbConn {
    /// Keeps the state that a product has now, under its number. Does nothing if it is kept already.
    pub(super) async fn keep_revision(&mut self, id: ProductId) -> DbResult<()> {
        self.keep_as(id, "ver").await?;
        Ok(())
    }

    /// To be called before a product is changed. While this version came into use, programs of the one before it may have
    /// made or changed the product, and kept nothing; their orders name no revision.
    pub(super) async fn keep_revision_before_change(&mut self, id: ProductId) -> DbResult<()> {
        if self.keep_as(id, "ver").await? {
            self.keep_as(id, "0").await?;
        }
        Ok(())
    }

    /// `number`: of SQL. Whether there was none of that number.
    async fn keep_as(&mut self, id: ProductId, number: &str) -> DbResult<bool> {
        let conn = self;
        let ignore = match conn {
            DbConn::MySql(_) => "IGNORE",
            DbConn::Sqlite(_) => "OR IGNORE",
        };
        let insert = sql_query(format!(
            "INSERT {ignore} INTO product_revisions \
             (product_id, revision, name, price_cents, currency, payment_window_seconds, created_at) \
             SELECT id, {number}, name, price_cents, currency, payment_window_seconds, ? FROM products WHERE id = ?"
        ));
        let insert = insert.bind::<diesel::sql_types::Timestamp, _>(Timestamp::now()).bind::<BigInt, _>(id);
        Ok(on_db!(conn, insert.execute(conn).await)? == 1)
    }

    /// What the product was called and cost in that revision; in the one it has now if there is none, or `None` is asked
    /// for.
    pub async fn find_revision(&mut self, id: ProductId, revision: Option<Revision>) -> DbResult<Option<RevisionRow>> {
        let conn = self;
        if let Some(revision) = revision {
            let query = product_revisions::table
                .select((product_revisions::revision, product_revisions::name, product_revisions::price_cents))
                .filter(product_revisions::product_id.eq(id))
                .filter(product_revisions::revision.eq(i64::from(revision)));
            let found: Option<RevisionRow> = on_db!(conn, query.get_result(conn).await.optional())?;
            if found.is_some() {
                return Ok(found);
            }
        }
        let query = products::table
            .select((products::revision, products::name, products::price_cents))
            .filter(products::id.eq(id));
        on_db!(conn, query.get_result(conn).await.optional())
    }

    /// The currencies in which a product was sold, once each; `None`: the shop's own. Those of revisions that were over before the
    /// sale began are left out: nobody has bought at them.
    pub async fn currencies_of(&mut self, id: ProductId) -> DbResult<Vec<Option<Currency>>> {
        let conn = self;
        let starts_at = products::table.select(products::starts_at).filter(products::id.eq(id));
        let Some(starts_at) = on_db!(conn, starts_at.get_result::<Timestamp>(conn).await.optional())? else {
            return Ok(Vec::new());
        };
        let of_product = product_revisions::table.filter(product_revisions::product_id.eq(id));
        let first = of_product
            .select(diesel::dsl::max(product_revisions::revision))
            .filter(product_revisions::created_at.le(starts_at));
        let first: Option<i64> = on_db!(conn, first.get_result(conn).await)?;
        let sold_in = of_product
            .select(product_revisions::currency)
            .filter(product_revisions::revision.ge(first.unwrap_or_default()))
            .distinct();
        let found: Vec<Option<String>> = on_db!(conn, sold_in.load(conn).await)?;
        // One that somebody has spoiled is told of where its revision is read.
        let read = |currency: Option<String>| currency.map(|code| Currency::try_from(code.as_str()).ok());
        Ok(found.into_iter().map(|currency| read(currency).flatten()).collect())
    }

    /// [`DbConn::find_revision`], with its terms.
    pub async fn find_terms(&mut self, id: ProductId, revision: Option<Revision>) -> DbResult<Option<RevisionTerms>> {
        let conn = self;
        if let Some(revision) = revision {
            let query = product_revisions::table
                .select((
                    product_revisions::revision,
                    product_revisions::name,
                    product_revisions::price_cents,
                    product_revisions::currency,
                    product_revisions::payment_window_seconds,
                ))
                .filter(product_revisions::product_id.eq(id))
                .filter(product_revisions::revision.eq(i64::from(revision)));
            let found: Option<Row<i64, RevisionTerms>> = on_db!(conn, query.get_result(conn).await.optional())?;
            if let Some(found) = one(PRODUCT_REVISIONS, found)? {
                return Ok(Some(found));
            }
        }
        let query = products::table
            .select((
                products::revision,
                products::name,
                products::price_cents,
                products::currency,
                products::payment_window_seconds,
            ))
            .filter(products::id.eq(id));
        let found: Option<Row<i64, RevisionTerms>> = on_db!(conn, query.get_result(conn).await.optional())?;
        one(PRODUCTS, found)
    }

    /// The same of several, in their order, in two queries however many they are. `None`: there is no such product, or its row cannot
    /// be read.
    pub async fn terms_of(&mut self, bought: &[(ProductId, Option<Revision>)]) -> DbResult<Vec<Option<RevisionTerms>>> {
        let (revisions, products) = match self {
            DbConn::MySql(conn) => terms_of!(&mut **conn, diesel::mysql::Mysql, bought),
            DbConn::Sqlite(conn) => terms_of!(&mut **conn, diesel::sqlite::Sqlite, bought),
        };
        let (revisions, products) = (readable(PRODUCT_REVISIONS, revisions), readable(PRODUCTS, products));
        let of = |product: ProductId| {
            let is_its = |(of, _): &&ProductTerms| *of == product;
            if revisions.keys.contains(&product.get()) {
                return revisions.rows.iter().find(is_its);
            }
            products.rows.iter().find(is_its)
        };
        Ok(bought.iter().map(|(product, _)| of(*product).map(|(_, terms)| terms.clone())).collect())
    }

    /// How long orders of these products may stay unpaid, in those of their revisions that have one of these numbers. What
    /// cannot be read is left out.
    pub async fn payment_windows(&mut self, products: &[ProductId], numbers: &[i64]) -> DbResult<Vec<RevisionWindow>> {
        let conn = self;
        let query = product_revisions::table
            .select((
                product_revisions::product_id,
                product_revisions::revision,
                product_revisions::payment_window_seconds,
            ))
            .filter(product_revisions::product_id.eq_any(products))
            .filter(product_revisions::revision.eq_any(numbers));
        let found: Vec<Row<i64, RevisionWindow>> = on_db!(conn, query.load(conn).await)?;
        Ok(readable(PRODUCT_REVISIONS, found).rows)
    }
}
