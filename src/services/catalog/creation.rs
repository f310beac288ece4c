//! A product whose commit has an unknown result: it may exist or not, and must not go on sale by itself after its merchant
//! was told 503.

use std::time::Duration;

use crate::db::{Db, ProductChange};
use crate::error::Result;
use crate::model::{Product, ProductId};

/// The database is asked this often, while the merchant waits, whether the product is there.
const LOOKS: u32 = 10;
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// Between two attempts to take it off sale.
const WITHDRAW_PAUSE: Duration = Duration::from_millis(500);

/// The product, if its creation has happened after all.
pub(in crate::services) async fn look_for(db: &Db, id: ProductId) -> Option<Product> {
    for _ in 0..LOOKS {
        if !fails!("hide_created")
            && let Ok(Some(product)) = db.read(move |conn| Box::pin(conn.find_product(id))).await
        {
            return Some(product);
        }
        tokio::time::sleep(LOOK_PAUSE).await;
    }
    None
}

/// Sees to it that a product, if it exists after all, is paused: its merchant was told 503 and may make it again.
pub(in crate::services) async fn withdraw(db: Db, id: ProductId) {
    loop {
        // Waits for the creation's own transaction, should it be still open, so what it finds is final.
        let pause = ProductChange { paused: Some(true), ..ProductChange::default() };
        let paused: Result<bool> =
            db.transaction(move |conn| Box::pin(async move { Ok(conn.update_product(id, &pause, None).await?) })).await;
        match paused {
            Ok(true) => {
                tracing::warn!(product.id = %id, "Paused a product whose creation was answered 503");
                return;
            }
            Ok(false) => return,
            Err(error) => tracing::debug!(product.id = %id, %error, "Could not look for a product yet"),
        }
        tokio::time::sleep(WITHDRAW_PAUSE).await;
    }
}
