//! Makes of each event a delivery for each endpoint that wants it. Runs in every instance; several do it together.
//!
//! Thousands of orders that were written together are one row of the outbox. They are taken apart some at a time, with pauses, and in a
//! rush not before it has gone on for a while: a sale keeps its speed, and who sends them is slower than this anyway.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ConstantBuilder};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::retries::Schedule;
use crate::config::Config;
use crate::db::{Db, DbConn, Endpoint, NewDelivery};
use crate::error::Result;
use crate::model::EndpointId;
use crate::telemetry::Outage;

/// Between two looks: 100 to 200 ms, so that instances do not look together.
const PAUSES: ConstantBuilder =
    ConstantBuilder::new().with_delay(Duration::from_millis(100)).with_jitter().without_max_times();
/// A look that fails is told after this: the database that it lacks is told of at once.
const TOLD_AFTER: Duration = Duration::from_secs(15);
/// Rows of the outbox in one transaction.
const MAX_ROWS: i64 = 20;
/// Deliveries in one transaction.
const MAX_DELIVERIES: usize = 1_000;
/// A transaction that made many deliveries is followed by a pause of so many times its length.
const PAUSE_TIMES: u32 = 20;
/// Orders that are written in a rush come first: nobody is told of them before this time, nor again before it is over.
const PAUSE_IN_A_RUSH: Duration = Duration::from_secs(2);
/// What is many.
const MANY: usize = 100;

/// See the module.
pub struct WebhookFanOut {
    db: Db,
    schedule: Schedule,
    /// Wakes the dispatcher.
    wake: Arc<Notify>,
}

/// What one transaction has done.
struct FanOutStep {
    deliveries: usize,
    /// There may be more to do.
    is_full: bool,
}

impl WebhookFanOut {
    /// Looks into `db`. `wake`: the dispatcher's.
    pub fn new(db: Db, config: &Config, wake: Arc<Notify>) -> Self {
        Self { db, schedule: Schedule::new(&config.webhooks.retry_seconds), wake }
    }

    /// Looks again and again until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        let mut outage = Outage::after(
            TOLD_AFTER,
            "Could not look for what endpoints are to be told",
            "What endpoints are to be told is looked for again",
        );
        for pause in PAUSES.build() {
            let wait = match self.look().await {
                Ok(wait) => {
                    outage.ended();
                    wait.unwrap_or(pause)
                }
                Err(error) => {
                    outage.failed(error.code(), &error, "see what the log says of the database; nothing is lost");
                    pause * 2
                }
            };
            if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                return;
            }
        }
    }

    /// One transaction, if there is anything to do; how long to wait before the next one.
    async fn look(&self) -> Result<Option<Duration>> {
        if self.db.rush().is_some_and(|lasts| lasts < PAUSE_IN_A_RUSH) {
            return Ok(None);
        }
        if !self.db.run_first(|conn| Box::pin(conn.has_pending_events())).await? {
            return Ok(None);
        }
        let (begun, schedule) = (Instant::now(), self.schedule.clone());
        let step = self.db.transaction(move |conn| Box::pin(async move { fan_out_some(conn, &schedule).await }));
        let FanOutStep { deliveries, is_full } = step.await?;
        crash_point!("after_fan_out_commit");
        if deliveries > 0 {
            self.wake.notify_one();
        }
        let pause = match self.db.rush() {
            _ if deliveries < MANY => Duration::ZERO,
            None => (begun.elapsed() * PAUSE_TIMES).min(PAUSE_IN_A_RUSH),
            Some(_) => PAUSE_IN_A_RUSH,
        };
        Ok(is_full.then_some(pause))
    }
}

async fn fan_out_some(conn: &mut DbConn, schedule: &Schedule) -> Result<FanOutStep> {
    let now = conn.now().await?;
    let rows = conn.claim_pending_events(MAX_ROWS).await?;
    let mut is_full = rows.len() == MAX_ROWS as usize;
    let mut endpoints = conn.list_endpoints().await?;
    endpoints.retain(|endpoint| endpoint.active);
    let due_at = now.after(schedule.first());
    let (mut deliveries, mut done, mut advanced) = (Vec::new(), Vec::new(), None);
    for row in &rows {
        let wants = |endpoint: &&Endpoint| endpoint.events().contains(row.event_type);
        let wanting: Vec<EndpointId> = endpoints.iter().filter(wants).map(|endpoint| endpoint.id).collect();
        if wanting.is_empty() {
            // Nobody wants it any more.
            done.push(row.id);
            continue;
        }
        let (all, mut fanned_out) = (row.all(), usize::try_from(row.fanned_out).unwrap_or(usize::MAX));
        for event in all.iter().skip(fanned_out) {
            if deliveries.len() >= MAX_DELIVERIES {
                break;
            }
            let delivery =
                |endpoint: &EndpointId| NewDelivery::new(*endpoint, row.id, row.event_type, *event, row.at, due_at);
            deliveries.extend(wanting.iter().map(delivery));
            fanned_out += 1;
        }
        if fanned_out < all.len() {
            advanced = Some((row.id, fanned_out as i64));
            is_full = true;
            break;
        }
        done.push(row.id);
    }
    let count = deliveries.len();
    conn.insert_deliveries(deliveries).await?;
    conn.end_events(&done).await?;
    if let Some((id, fanned_out)) = advanced {
        conn.advance_events(id, fanned_out).await?;
    }
    crash_point!("before_fan_out_commit");
    Ok(FanOutStep { deliveries: count, is_full })
}
