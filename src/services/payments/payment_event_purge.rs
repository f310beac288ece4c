//! Callbacks are remembered for a month, longer than any provider repeats one; then they are forgotten. Runs in every instance.

use std::time::Duration;

use backon::{BackoffBuilder, ConstantBuilder};
use tokio_util::sync::CancellationToken;

use crate::db::Db;
use crate::error::Result;
use crate::model::Timestamp;

/// How long a callback is remembered.
const KEPT: Duration = Duration::from_secs(30 * 86_400);
/// Between two looks for old ones: 10 to 20 minutes, so that instances that started together do not look together for long.
const PAUSES: ConstantBuilder =
    ConstantBuilder::new().with_delay(Duration::from_secs(600)).with_jitter().without_max_times();
const AT_A_TIME: i64 = 500;

/// See the module.
pub struct PaymentEventPurge {
    db: Db,
}

impl PaymentEventPurge {
    /// Looks in `db`.
    pub fn new(db: Db) -> Self {
        Self { db }
    }

    /// Forgets now and then, until `stop`.
    pub async fn run(&self, stop: CancellationToken) {
        for pause in PAUSES.build() {
            if let Some(Err(error)) = stop.run_until_cancelled(self.forget(Timestamp::now())).await {
                tracing::debug!(%error, "Could not forget old callbacks; the next round does");
            }
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Some at a time, for they are locked meanwhile.
    async fn forget(&self, now: Timestamp) -> Result<()> {
        let before = now.before(KEPT);
        loop {
            let forgotten = self
                .db
                .transaction(move |conn| Box::pin(async move { conn.forget_payment_events(before, AT_A_TIME).await }))
                .await?;
            if (forgotten as i64) < AT_A_TIME {
                return Ok(());
            }
        }
    }
}
