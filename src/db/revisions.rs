//! Queries on `product_revisions`: what a product was called and cost, for each state it has had.
//!
//! Rows are only added. Whoever counts `products.ver` up adds the row of the new number in the same transaction.

use diesel::prelude::*;
use diesel::sql_query;
use diesel::sql_types::BigInt;
use diesel_async::RunQueryDsl;

use super::conn::{DbConn, on_db};
use super::error::DbResult;
use super::schema::{product_revisions, products};
use crate::model::{ProductId, Revision, Timestamp};

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
        let query =
            products::table.select((products::ver, products::name, products::price_cents)).filter(products::id.eq(id));
        on_db!(conn, query.get_result(conn).await.optional())
    }
}
