//! A product whose commit nobody has confirmed: it may exist or not, and must not go on sale by itself after its merchant
//! was told 503.

use std::time::Duration;

use super::catalog::Catalog;
use crate::db::ProductChange;
use crate::error::{Error, Result};
use crate::model::{Product, ProductId};

/// The database is asked this often, while the merchant waits, whether the product is there.
const LOOKS: u32 = 10;
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// Between two attempts to take it off sale.
const WITHDRAW_PAUSE: Duration = Duration::from_millis(500);

impl Catalog {
    /// Whether a creation that failed with `error` has happened all the same. `made` is the id that was given, if it came
    /// so far.
    pub(in crate::services) async fn was_created(&self, error: &Error, made: Option<ProductId>) -> Option<Product> {
        // Any other error came before the commit.
        let (Error::Unavailable(_), Some(id)) = (error, made) else { return None };
        for _ in 0..LOOKS {
            if !fails!("hide_created")
                && let Ok(Some(product)) = self.db.read(move |conn| Box::pin(conn.find_product(id))).await
            {
                return Some(product);
            }
            tokio::time::sleep(LOOK_PAUSE).await;
        }
        None
    }

    /// Sees to it that a product, if it exists after all, is paused: its merchant was told 503 and may make it again.
    /// With an `Idempotency-Key` this is not needed, for a repeat finds the product.
    pub(in crate::services) fn withdraw(&self, id: ProductId) {
        let db = self.db.clone();
        let withdrawing = async move {
            loop {
                // Waits for the creation's own transaction, should it be still open, so what it finds is final.
                let pause = ProductChange { paused: Some(true), ..ProductChange::default() };
                let paused: Result<bool> = db
                    .transaction(move |conn| Box::pin(async move { Ok(conn.update_product(id, &pause).await?) }))
                    .await;
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
        };
        self.runtime.spawn(withdrawing);
    }
}
