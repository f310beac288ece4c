//! Fills the lookup of orders, behind the sale's back: what an index of `orders` would cost every purchase is done later, and slowly
//! while others have much to write.
//!
//! Runs in every instance; one of them does it at a time. Whoever writes or changes orders has noted gaps, and what is not filled yet is
//! found in them by whoever reads. So nothing depends on how far this is. The newest orders come first.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ConstantBuilder};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::db::{Db, DbConn, DbError, DbResult, Gap, OrderPlace};
use crate::telemetry::{Metrics, Outage};

/// Between two looks while there is nothing to do.
const PAUSES: ConstantBuilder =
    ConstantBuilder::new().with_delay(Duration::from_millis(250)).with_jitter().without_max_times();
/// A look that fails is told after this: the database that it lacks is told of at once.
const TOLD_AFTER: Duration = Duration::from_secs(15);
/// Gaps in one transaction.
const MAX_GAPS: i64 = 500;
/// Orders in one transaction, while there is a rush and else: others wait to write to a file meanwhile.
const ORDERS_IN_RUSH: i64 = 250;
const ORDERS: i64 = 2_000;
/// A rush: so many orders a second are written or changed.
const RUSH: f64 = 500.0;
/// The rest after a transaction, in times of what it took: a fiftieth of the time is used in a rush, and half of it else.
const REST_IN_RUSH: u32 = 50;
const REST: u32 = 1;
const MAX_REST: Duration = Duration::from_secs(5);
/// A rush is over only when so long nothing of it was seen.
const RUSH_LASTS: Duration = Duration::from_secs(2);
/// How far it is behind is counted this often.
const COUNTED_EVERY: Duration = Duration::from_secs(5);

/// See the module.
pub struct LookupFiller {
    db: Db,
    metrics: Arc<Metrics>,
}

/// How much others write.
#[derive(Default)]
struct Pace {
    /// The newest gap that was seen, and when.
    seen: Option<(i64, Instant)>,
    rush_seen: Option<Instant>,
    counted: Option<Instant>,
}

impl Pace {
    /// Notes the newest gap, and the orders in those that came since the last look.
    fn note(&mut self, newest: i64, orders: i64, now: Instant) {
        if let Some((_, before)) = self.seen
            && orders as f64 > RUSH * now.saturating_duration_since(before).as_secs_f64()
        {
            self.rush_seen = Some(now);
        }
        self.seen = Some((newest, now));
    }

    fn is_rush(&self, now: Instant) -> bool {
        self.rush_seen.is_some_and(|seen| now.saturating_duration_since(seen) < RUSH_LASTS)
    }
}

impl LookupFiller {
    /// Fills the lookup in `db`.
    pub fn new(db: Db, metrics: Arc<Metrics>) -> Self {
        Self { db, metrics }
    }

    /// Fills it again and again until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut outage = Outage::after(
            TOLD_AFTER,
            "Could not fill the lookup of orders; lists of the merchant take longer",
            "The lookup of orders is filled again",
        );
        let mut pace = Pace::default();
        for pause in PAUSES.build() {
            let begun = Instant::now();
            let rest = match self.look(&mut pace).await {
                Ok(is_more) => {
                    outage.ended();
                    let times = if pace.is_rush(begun) { REST_IN_RUSH } else { REST };
                    if is_more { (begun.elapsed() * times).min(MAX_REST) } else { pause }
                }
                Err(error) => {
                    self.metrics.readings.orders_in_gaps.unknown();
                    let advice = error.advice();
                    outage.failed(error.class().as_str(), &error, advice);
                    pause * 4
                }
            };
            if stop.is_cancelled() || stop.run_until_cancelled(tokio::time::sleep(rest)).await.is_none() {
                return;
            }
        }
    }

    /// One transaction; whether there is more to do.
    async fn look(&self, pace: &mut Pace) -> DbResult<bool> {
        let after = pace.seen.map_or(0, |(newest, _)| newest);
        let (newest, orders) =
            self.db.run_first(move |conn| Box::pin(async move { conn.gaps_since(after).await })).await?;
        let now = Instant::now();
        pace.note(newest, orders, now);
        if pace.counted.is_none_or(|counted| now.saturating_duration_since(counted) >= COUNTED_EVERY) {
            pace.counted = Some(now);
            let behind = self.db.run_first(|conn| Box::pin(conn.orders_in_gaps())).await?;
            self.metrics.readings.orders_in_gaps.set(behind as f64);
        }
        if !self.db.run_first(|conn| Box::pin(conn.has_gaps())).await? {
            return Ok(false);
        }
        let most = if pace.is_rush(now) { ORDERS_IN_RUSH } else { ORDERS };
        crash_point!("fill_lookup");
        self.db.transaction(move |conn| Box::pin(async move { fill_some(conn, most).await })).await
    }
}

/// One transaction; whether there is more to do.
async fn fill_some(conn: &mut DbConn, most: i64) -> Result<bool, DbError> {
    if !conn.take_lookup_turn().await? {
        return Ok(false);
    }
    let gaps = conn.gaps_before(Uuid::max(), MAX_GAPS).await?;
    let mut is_more = gaps.len() == MAX_GAPS as usize;
    let mut room = most;
    for gap in Gap::joined(gaps) {
        if room == 0 {
            is_more = true;
            if gap.rows.len() > 1 {
                // So that those who read have fewer to look at.
                conn.keep_gap(&gap, Some((gap.last, gap.orders))).await?;
            }
            continue;
        }
        let (places, is_cut) = conn.order_places(gap.first, gap.last, room).await?;
        fill(conn, &gap, &places).await?;
        room -= places.len() as i64;
        let left = places.last().filter(|_| is_cut).and_then(|oldest| before(oldest.id));
        conn.keep_gap(&gap, left.map(|last| (last, gap.orders - places.len() as i64))).await?;
    }
    Ok(is_more || room == 0)
}

async fn fill(conn: &mut DbConn, gap: &Gap, places: &[OrderPlace]) -> DbResult<()> {
    if gap.changed {
        let former: Vec<_> = places.iter().flat_map(OrderPlace::former_entries).collect();
        conn.remove_from_lookup(&former).await?;
    }
    let mut entries: Vec<_> = places.iter().flat_map(OrderPlace::entries).collect();
    // In the order of the table: neighbours are written together.
    entries.sort_unstable();
    conn.add_to_lookup(&entries).await
}

fn before(id: Uuid) -> Option<Uuid> {
    id.as_u128().checked_sub(1).map(Uuid::from_u128)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rush_is_what_comes_quickly_and_is_over_a_while_after_it() {
        let (mut pace, begun) = (Pace::default(), Instant::now());
        let at = |ms| begun + Duration::from_millis(ms);
        pace.note(9, 1_000_000, at(0));
        assert!(!pace.is_rush(at(0)), "what was there at the start says nothing");
        pace.note(10, 100, at(1_000));
        assert!(!pace.is_rush(at(1_000)));
        pace.note(11, 600, at(2_000));
        assert!(pace.is_rush(at(2_000)) && pace.is_rush(at(3_999)));
        assert!(!pace.is_rush(at(4_000)));
    }
}
