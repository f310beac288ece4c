//! Lowering the stock of a sale breaks no promise: what clicks have taken meanwhile is offered again.

use crate::db::{Db, DbConn, Offer, ProductChange};
use crate::error::{Error, Result};
use crate::model::{Product, ProductId};

/// Raises what is offered to what is taken, within what the sale was given: a promise that was made while the stock was
/// lowered is kept. What is sold counts, too: an order that was written after its gate was lost or retired is in no gate that
/// is open. `None`: so much is offered.
pub(in crate::services) async fn offer_at_least(db: &Db, id: ProductId, taken: i64) -> Result<Option<Product>> {
    db.transaction(move |conn| Box::pin(raise_offer(conn, id, taken))).await
}

/// The same in a transaction of the caller's.
pub(super) async fn raise_offer(conn: &mut DbConn, id: ProductId, taken: i64) -> Result<Option<Product>> {
    let row = conn.lock_product(id).await?.ok_or(Error::ProductNotFound)?;
    let wanted = taken.max(row.sold).min(row.given);
    let product = conn.find_product(id).await?.ok_or(Error::ProductNotFound)?;
    if product.stock >= wanted {
        return Ok(None);
    }
    conn.update_product(id, &ProductChange::default(), Some(Offer::of(wanted, row.given))).await?;
    Ok(conn.find_product(id).await?)
}
