//! One look: what Redis, the queue and the database say of whose they are.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::instance::{LastComparison, Membership};
use super::judgment::{Mismatch, judge, uses_row};
use crate::config::RedisPlace;
use crate::db::{DeploymentRow, InstanceUse, Knows};
use crate::error::{Error, Result};
use crate::stock::GateError;

/// What Redis has not answered by then is not known at this look.
const OWNER_PATIENCE: Duration = Duration::from_millis(500);

impl Membership {
    /// Says what this instance uses, and compares it with what the deployment uses. What was emptied is taken over under its
    /// new id, unless an instance that runs still uses what was there.
    pub(super) async fn compare(&self, found: &mut LastComparison) -> Result<std::result::Result<(), Mismatch>> {
        let id = self.id().await?;
        let Some(gate) = self.gate.shared() else { return Ok(Ok(())) };
        let known = found.redis_id.clone().filter(|_| found.reads_redis);
        let reported = self.uses(known);
        // Both at once: what the database says must be known in time, whatever Redis does meanwhile.
        let owner = tokio::time::timeout(OWNER_PATIENCE, gate.owner(&id));
        let (owner, row) = tokio::join!(owner, self.report(&reported, id.clone()));
        found.reads_redis = false;
        let unreadable = match owner {
            Ok(Ok(owner)) if owner.deployment == id => {
                (found.redis_id, found.reads_redis) = (Some(owner.redis_id), true);
                None
            }
            Ok(Ok(_)) => {
                let row = row?;
                return Ok(Err(Mismatch::Misconfigured(self.foreign(row.redis_name.as_deref()))));
            }
            Ok(Err(GateError::Protocol(problem))) => Some(problem),
            Ok(Err(_)) | Err(_) => None,
        };
        self.note_unreadable(unreadable.as_deref(), found.reads_redis);
        let mut row = row?;
        if !found.reads_redis {
            // Whoever cannot read which Redis this is must still learn that the one it knew was left.
            let left = found.redis_id.is_some() && row.redis_id.is_some() && found.redis_id != row.redis_id;
            return Ok(match (left, unreadable) {
                (true, _) => Err(Mismatch::Misconfigured(self.left(&row))),
                (false, Some(problem)) => Err(Mismatch::Unreadable(self.spoiled(&problem))),
                (false, None) => judge(&self.uses(None), &row, &[], self.redis.key),
            });
        }
        let uses = self.uses(found.redis_id.clone());
        if uses != reported {
            row = self.report(&uses, id).await?;
        }
        let mut others = Vec::new();
        if !uses_row(&uses, &row) {
            let instance = self.instance.clone();
            let read = self.db.run_first(move |conn| Box::pin(async move { conn.other_instances(&instance).await }));
            others = read.await?;
        }
        if let Err(problem) = judge(&uses, &row, &others, self.redis.key) {
            return Ok(Err(problem));
        }
        self.take_over(&uses, row).await?;
        Ok(Ok(()))
    }

    /// What this instance uses, if this lies in its Redis.
    pub(super) fn uses(&self, redis_id: Option<String>) -> InstanceUse {
        InstanceUse {
            redis_id,
            redis_name: self.redis.name.clone(),
            queue_id: self.queue.identity(),
            queue_name: self.queue_name.clone(),
        }
    }

    /// Says what this instance uses, and reads which gates are over; what the deployment uses.
    async fn report(&self, uses: &InstanceUse, new: String) -> Result<DeploymentRow> {
        let (instance, uses, since) = (self.instance.clone(), uses.clone(), self.newest_epochs.since());
        let read = self.db.run_first(move |conn| {
            Box::pin(async move {
                conn.report_instance(&instance, &uses).await?;
                let row = conn.deployment(&new).await?;
                Ok::<_, Error>((row, conn.all_instances_know(Knows::Bundles).await?, conn.epochs_begun(since).await?))
            })
        });
        let (row, all_read_bundles, epochs) = read.await?;
        self.newest_epochs.take_over(since, epochs);
        self.queue.set_bundles(all_read_bundles);
        Ok(row)
    }

    /// Writes down that the key in Redis cannot be read, and that it can again.
    fn note_unreadable(&self, problem: Option<&str>, reads: bool) {
        match problem {
            Some(problem) if !self.unreadable.swap(true, Ordering::Relaxed) => {
                tracing::error!("{}", self.spoiled(problem));
            }
            None if reads && self.unreadable.swap(false, Ordering::Relaxed) => {
                tracing::info!(redis = self.redis.name, "Redis says again whose gates it holds");
            }
            _ => {}
        }
    }

    fn left(&self, row: &DeploymentRow) -> String {
        let now = row.redis_name.as_deref().unwrap_or_default();
        let RedisPlace { name, key } = &self.redis;
        format!("{key}: the deployment has left what was in the Redis {name}; it uses {now}")
    }

    /// Makes what this instance uses that of the deployment.
    pub(super) async fn take_over(&self, uses: &InstanceUse, row: DeploymentRow) -> Result<()> {
        if uses_row(uses, &row) {
            return Ok(());
        }
        let InstanceUse { redis_id, redis_name, queue_id, queue_name } = uses.clone();
        for (what, new, before, name) in
            [("Redis", &redis_id, &row.redis_id, &redis_name), ("queue", &queue_id, &row.queue_id, &queue_name)]
        {
            match (new, before) {
                (Some(_), None) => tracing::info!(name, "The {what} of this deployment is from now on this one"),
                (Some(new), Some(before)) if new != before => {
                    tracing::warn!(name, "The {what} of this deployment was emptied or replaced; no promise is lost");
                }
                _ => {}
            }
        }
        self.db
            .run_first(move |conn| {
                Box::pin(async move {
                    if let Some(id) = redis_id.filter(|id| row.redis_id.as_ref() != Some(id)) {
                        conn.change_redis(row.redis_id.as_deref(), &id, &redis_name).await?;
                    }
                    if let Some(id) = queue_id.filter(|id| row.queue_id.as_ref() != Some(id)) {
                        conn.change_queue(row.queue_id.as_deref(), &id, &queue_name).await?;
                    }
                    Ok(())
                })
            })
            .await
    }
}
