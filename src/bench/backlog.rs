//! How fast consumers write what has piled up: they are held back by a lock on the product's row while all buy.

use std::sync::Arc;
use std::time::{Duration, Instant};

use diesel::sql_query;
use diesel_async::{RunQueryDsl, SimpleAsyncConnection};

use super::generator::{Load, Pace};
use super::proof::Proof;
use super::sale::{Target, expect_only};
use super::target::fire_with_bar;
use crate::config::Config;
use crate::db::connect_mysql;

const CONNECTIONS: usize = 256;
const DATABASE_PATIENCE: Duration = Duration::from_secs(10);

/// Lets `stock` purchases pile up in the queue; orders written a second once they may be.
pub(super) async fn drain(target: &Target<'_>, config: &Config, stock: usize) -> Result<(f64, Proof), String> {
    let address = target.api.address();
    let product = target.api.new_product(stock).await?;
    let requests = target.api.clicks(product, 0, stock)?;
    let locking = async {
        let mut conn = connect_mysql(&config.mysql).await.map_err(text)?;
        conn.batch_execute("BEGIN").await.map_err(text)?;
        let lock = format!("SELECT id FROM products WHERE id = {product} FOR UPDATE");
        sql_query(lock).execute(&mut conn).await.map_err(text)?;
        Ok::<_, String>(conn)
    };
    let mut lock = within(locking).await?;
    let load = Load { addresses: vec![address], requests, count: stock, connections: CONNECTIONS, pace: Pace::Closed };
    let run = fire_with_bar(load, "backlog", &Arc::default()).await?;
    expect_only(&run, "202", stock)?;
    let unlocking = async { lock.batch_execute("COMMIT").await.map_err(text) };
    within(unlocking).await?;
    // From the first order on: until then the consumer may still be waiting for the lock.
    let mut begun = None;
    let proof = Proof::wait(target.db, product, stock as u64, |written| {
        if written > 0 {
            begun.get_or_insert((Instant::now(), written));
        }
    });
    let proof = proof.await?;
    let (begun, first) = begun.ok_or("backlog: no order was written")?;
    let time = proof.written_at.duration_since(begun).as_secs_f64();
    Ok(((stock as i64 - first) as f64 / time, proof))
}

async fn within<T>(step: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let late = |_| "the database did not lock a row in time".to_owned();
    tokio::time::timeout(DATABASE_PATIENCE, step).await.map_err(late)?
}

fn text(error: impl std::fmt::Display) -> String {
    format!("backlog: {error}")
}
