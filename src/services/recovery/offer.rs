//! Lowering the stock of a sale breaks no promise: what clicks have taken meanwhile is offered again.

use crate::db::{Db, Offer, ProductChange};
use crate::error::{Error, Result};
use crate::model::{Product, ProductId};

/// Raises what is offered to what is taken, within what the sale was given: a promise that was made while the stock was
/// lowered is kept. `None`: so much is offered.
pub(in crate::services) async fn offer_at_least(db: &Db, id: ProductId, taken: i64) -> Result<Option<Product>> {
    db.transaction(move |conn| {
        Box::pin(async move {
            let row = conn.lock_product(id).await?.ok_or(Error::ProductNotFound)?;
            let wanted = taken.min(row.stock);
            let product = conn.find_product(id).await?.ok_or(Error::ProductNotFound)?;
            if product.stock >= wanted {
                return Ok(None);
            }
            conn.update_product(id, &ProductChange::default(), Some(Offer::of(wanted, row.stock))).await?;
            Ok(conn.find_product(id).await?)
        })
    })
    .await
}
