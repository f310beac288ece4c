//! Which product ids there are, as far as one can say without a query: ids that nobody gave out cost none.
//!
//! Ids grow, so whatever is greater than the greatest there was a moment ago was invented, and the few gaps below it are
//! remembered for a moment. A product that another instance makes is known here after [`AGAIN_AFTER`] at the latest.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use moka::sync::Cache;
use tokio::sync::Mutex;

use crate::db::Db;
use crate::error::{Error, Result};
use crate::model::ProductId;

/// The greatest id is read again after this, if somebody asks for a greater one.
const AGAIN_AFTER: Duration = Duration::from_millis(100);
const MAX_GAPS: u64 = 10_000;

/// See the module.
pub struct KnownProducts {
    db: Db,
    greatest: AtomicI64,
    reading: Mutex<Reading>,
    gaps: Cache<ProductId, ()>,
}

/// When the greatest id was asked for last.
#[derive(Default)]
struct Reading {
    read_at: Option<Instant>,
    failed_at: Option<Instant>,
}

impl KnownProducts {
    /// Asks `db` now and then.
    pub fn new(db: Db) -> Self {
        let gaps = Cache::builder().max_capacity(MAX_GAPS).time_to_live(AGAIN_AFTER).build();
        Self { db, greatest: AtomicI64::new(0), reading: Mutex::default(), gaps }
    }

    /// Whether there may be such a product.
    pub async fn may_exist(&self, id: ProductId) -> Result<bool> {
        if self.is_in_range(id) {
            return Ok(!self.gaps.contains_key(&id));
        }
        // Everybody who asks meanwhile waits for the same answer, also if it is none: else each of them would wait in turn.
        let asked_at = Instant::now();
        let mut reading = self.reading.lock().await;
        if reading.failed_at.is_some_and(|failed_at| failed_at >= asked_at) {
            return Err(Error::Unavailable("which products there are could not be read".to_owned()));
        }
        if !self.is_in_range(id) && reading.read_at.is_none_or(|at| at.elapsed() >= AGAIN_AFTER) {
            let begun = Instant::now();
            match self.db.read(|conn| Box::pin(conn.greatest_product())).await {
                Ok(greatest) => {
                    self.greatest.fetch_max(greatest, Ordering::Relaxed);
                    reading.read_at = Some(begun);
                }
                Err(error) => {
                    reading.failed_at = Some(Instant::now());
                    return Err(error.into());
                }
            }
        }
        Ok(self.is_in_range(id))
    }

    /// This instance has made a product, or published one that was not to be seen before.
    pub fn made(&self, id: ProductId) {
        self.greatest.fetch_max(id.get(), Ordering::Relaxed);
        self.gaps.invalidate(&id);
    }

    /// There is no such product in the database.
    pub fn missed(&self, id: ProductId) {
        self.gaps.insert(id, ());
    }

    fn is_in_range(&self, id: ProductId) -> bool {
        id.get() <= self.greatest.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use tokio::net::TcpListener;

    use super::*;
    use crate::config;

    #[tokio::test]
    async fn who_waits_for_a_database_that_does_not_answer_waits_once() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dsn = format!("mysql://user:password@{}/shop", silent.local_addr().unwrap());
        let known = KnownProducts::new(Db::mysql(&config::MySql {
            dsn: dsn.into(),
            pool_size: 1,
            tls: config::Tls::Off,
            tls_ca_file: "".into(),
        }));
        let begun = Instant::now();
        let answers = join_all((1..=5).map(|id| known.may_exist(ProductId::try_from(id).unwrap()))).await;
        assert!(answers.iter().all(Result::is_err));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?} for five", begun.elapsed());
    }
}
