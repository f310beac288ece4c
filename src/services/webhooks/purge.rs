//! Deliveries and events are kept for a month; then they are forgotten. So is what was left of endpoints that were deleted. Runs in every
//! instance.

use std::time::Duration;

use backon::{BackoffBuilder, ConstantBuilder};
use tokio_util::sync::CancellationToken;

use crate::db::Db;
use crate::error::Result;
use crate::model::Timestamp;

/// How long deliveries and events are kept.
const KEPT: Duration = Duration::from_secs(30 * 86_400);
/// Between two looks for old ones: 10 to 20 minutes, so that instances that started together do not look together for long.
const PAUSES: ConstantBuilder =
    ConstantBuilder::new().with_delay(Duration::from_secs(600)).with_jitter().without_max_times();
const AT_A_TIME: i64 = 500;
/// Between two transactions: who sells has a turn in between.
const PAUSE: Duration = Duration::from_millis(20);

/// See the module.
pub struct WebhookPurge {
    db: Db,
}

impl WebhookPurge {
    /// Looks in `db`.
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// Forgets now and then, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        for pause in PAUSES.build() {
            if let Some(Err(error)) = stop.run_until_cancelled(self.forget(Timestamp::now())).await {
                tracing::debug!(%error, "Could not forget old deliveries; the next round does");
            }
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Some at a time, for they are locked meanwhile. Deliveries go before their events.
    async fn forget(&self, now: Timestamp) -> Result<()> {
        let before = now.before(KEPT);
        loop {
            let ids = self.db.read(move |conn| Box::pin(conn.orphaned_deliveries(AT_A_TIME))).await?;
            if self.forget_deliveries(ids).await? < AT_A_TIME as usize {
                break;
            }
        }
        loop {
            let ids = self.db.read(move |conn| Box::pin(conn.old_deliveries(before, AT_A_TIME))).await?;
            if self.forget_deliveries(ids).await? < AT_A_TIME as usize {
                break;
            }
        }
        let mut after = 0;
        loop {
            let look = self.db.transaction(move |conn| Box::pin(conn.forget_told_events(before, after, AT_A_TIME)));
            match look.await? {
                Some((last, 1..)) => after = last,
                _ => return Ok(()),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// How many there were to be forgotten.
    async fn forget_deliveries(&self, ids: Vec<i64>) -> Result<usize> {
        let found = ids.len();
        if found > 0 {
            self.db.transaction(move |conn| Box::pin(async move { conn.forget_deliveries(&ids).await })).await?;
            tokio::time::sleep(PAUSE).await;
        }
        Ok(found)
    }
}
