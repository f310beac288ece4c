//! Which product ids there are, as far as one can say without a query: ids that nobody gave out cost none.
//!
//! Ids grow, so whatever is greater than the greatest there was a moment ago was invented, and the few gaps below it are
//! remembered for a moment. A product that another instance makes is known here after [`AGAIN_AFTER`] at the latest.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use moka::sync::Cache;
use tokio::sync::Mutex;

use crate::db::Db;
use crate::error::Result;
use crate::model::ProductId;

/// The greatest id is read again after this, if somebody asks for a greater one.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
const MAX_GAPS: u64 = 10_000;

/// See the module.
pub struct KnownProducts {
    db: Db,
    greatest: AtomicI64,
    read_at: Mutex<Option<Instant>>,
    gaps: Cache<ProductId, ()>,
}

impl KnownProducts {
    /// Asks `db` now and then.
    pub fn new(db: Db) -> Self {
        let gaps = Cache::builder().max_capacity(MAX_GAPS).time_to_live(AGAIN_AFTER).build();
        Self { db, greatest: AtomicI64::new(0), read_at: Mutex::default(), gaps }
    }

    /// Whether there may be such a product.
    pub async fn may_exist(&self, id: ProductId) -> Result<bool> {
        if self.is_in_range(id) {
            return Ok(!self.gaps.contains_key(&id));
        }
        // Everybody who asks meanwhile waits for the same answer.
        let mut read_at = self.read_at.lock().await;
        if !self.is_in_range(id) && read_at.is_none_or(|at| at.elapsed() >= AGAIN_AFTER) {
            let begun = Instant::now();
            let greatest = self.db.read(|conn| Box::pin(conn.greatest_product())).await?;
            self.greatest.fetch_max(greatest, Ordering::Relaxed);
            *read_at = Some(begun);
        }
        Ok(self.is_in_range(id))
    }

    /// This instance has made a product.
    pub fn made(&self, id: ProductId) {
        self.greatest.fetch_max(id.get(), Ordering::Relaxed);
    }

    /// There is no such product in the database.
    pub fn missed(&self, id: ProductId) {
        self.gaps.insert(id, ());
    }

    fn is_in_range(&self, id: ProductId) -> bool {
        id.get() <= self.greatest.load(Ordering::Relaxed)
    }
}
