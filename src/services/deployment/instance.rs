//! An instance of a deployment: what it knows of whose Redis and queue it uses, and whether it may promise.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::judgment::{Mismatch, foreign_redis};
use super::newest_epochs::NewestEpochs;
use crate::config::RedisPlace;
use crate::db::Db;
use crate::error::{Error, Result};
use crate::model::ProductId;
use crate::queue::OrderQueue;
use crate::stock::StockGate;
use crate::telemetry::{Metrics, SharedOutage};

/// A confirm that comes later than this after the click earns no 202: T in docs/protocol.md (`#promise-age`).
pub(in crate::services) const PROMISE_MAX_AGE: Duration = Duration::from_secs(2);
/// Between two looks at the database.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A look that takes longer counts as one that the database did not answer.
const LOOK_TIMEOUT: Duration = Duration::from_millis(750);
/// An instance whose last look was over longer ago than this gives no promise: it was frozen.
const LOOKED_WITHIN: Duration = Duration::from_secs(2);
/// What a promise may need from the last check to its way out, and a clock that is read in milliseconds.
const MARGIN: Duration = Duration::from_millis(250);
/// Later than this after the database named another Redis, nobody promises anything from the one that was left. A rebuild waits
/// for longer; docs/protocol.md (`#deposed-gate`) says why.
pub(in crate::services) const LEFT_AFTER: Duration = LOOK_TIMEOUT.saturating_add(LOOKED_WITHIN).saturating_add(MARGIN);
// One slow look after another is not taken for a process that was frozen.
const _: () =
    assert!(LOOK_EVERY.as_millis() + LOOK_TIMEOUT.as_millis() + MARGIN.as_millis() <= LOOKED_WITHIN.as_millis());
/// Between two looks for instances that have died.
const DEAD_FORGOTTEN_EVERY: Duration = Duration::from_secs(10);
/// A gate counts as deposed for so long after it was seen to be. Longer than a promise that it gave can be under way.
const DEPOSED_FOR: Duration = Duration::from_secs(5);
/// At a start, other instances may still have to notice that Redis or the queue was emptied.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// What an operator does about an instance that cannot compare.
const COMPARING_ADVICE: &str =
    "bring the database back, make it writable, or grant the account of mysql.dsn what the message names";

/// Why an embedded deployment has nothing to compare.
pub(super) const NO_OTHER_STORES: &str = "backend: embedded keeps everything in its data folder";

/// This instance's part in the deployment: whether what it uses is what the others use, and so whether it may promise.
pub struct Membership {
    pub(in crate::services) db: Db,
    pub(in crate::services) gate: Arc<StockGate>,
    pub(in crate::services) queue: Arc<OrderQueue>,
    pub(in crate::services) metrics: Arc<Metrics>,
    /// Id of this process among the instances.
    pub(super) instance: String,
    pub(super) redis: RedisPlace,
    pub(super) queue_name: String,
    deployment_id: Mutex<Option<String>>,
    /// What this instance uses is what the deployment uses.
    agrees: AtomicBool,
    /// Redis answers, but its key does not say whose gates it holds.
    pub(super) unreadable: AtomicBool,
    comparing: SharedOutage,
    begun: Instant,
    /// When the last look was over, in milliseconds after `begun`.
    looked_at: AtomicU64,
    /// What was found last. One look at a time.
    found: tokio::sync::Mutex<LastComparison>,
    pub(super) newest_epochs: NewestEpochs,
    /// Products whose gate here is older than the database says.
    deposed: RwLock<HashMap<ProductId, Deposed>>,
}

/// A gate that is older than the database says.
struct Deposed {
    /// The epoch there.
    epoch: i64,
    /// When it was seen last.
    seen: Instant,
}

#[derive(Default)]
pub(super) struct LastComparison {
    /// When it began.
    begun_at: Option<Instant>,
    /// What lies in Redis, as it was read last.
    pub(super) redis_id: Option<String>,
    /// It was read by the last look.
    pub(super) reads_redis: bool,
    problem: Option<String>,
}

impl Membership {
    /// `redis` says to people where that is.
    pub fn new(db: Db, gate: Arc<StockGate>, queue: Arc<OrderQueue>, metrics: Arc<Metrics>, redis: RedisPlace) -> Self {
        let queue_name = queue.name();
        // A data folder has one process and no other stores.
        let agrees = AtomicBool::new(gate.shared().is_none());
        Self {
            db,
            gate,
            queue,
            metrics,
            instance: Uuid::new_v4().to_string(),
            redis,
            queue_name,
            deployment_id: Mutex::default(),
            agrees,
            unreadable: AtomicBool::default(),
            comparing: SharedOutage::new(
                "Cannot compare yet whether Redis and the queue are those of the database; no purchases until then",
                "Redis and the queue are those of the database",
            ),
            begun: Instant::now(),
            looked_at: AtomicU64::default(),
            found: tokio::sync::Mutex::default(),
            newest_epochs: NewestEpochs::default(),
            deposed: RwLock::default(),
        }
    }

    /// Id of this process among the instances.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Compares before anything is sold. An error names the setting that leads elsewhere. Redis and RabbitMQ need not answer.
    pub async fn join(&self) -> std::result::Result<(), String> {
        if self.gate.shared().is_none() {
            // Nobody else can have another.
            self.metrics.deployment_agrees.set(1);
            return Ok(());
        }
        let id = self.id().await.map_err(|error| format!("reading the deployment: {error}"))?;
        self.queue.join(&id, false).await?;
        let begun = Instant::now();
        loop {
            let mut found = self.found.lock().await;
            let compared = self.compare(&mut found).await;
            let reads_redis = found.reads_redis;
            drop(found);
            match compared {
                Ok(Ok(())) if reads_redis => break,
                // Redis is away, which others report: a look will find it.
                Ok(Ok(())) => return Ok(()),
                Ok(Err(Mismatch::OthersDiffer(_))) if begun.elapsed() < START_PATIENCE => {
                    tokio::time::sleep(LOOK_EVERY).await;
                    // Two instances may have written at once whose queue this is; one of both stays.
                    self.queue.join(&id, false).await?;
                }
                // Told by the look. It sells as soon as somebody has mended the key.
                Ok(Err(Mismatch::Unreadable(_))) => return Ok(()),
                Ok(Err(problem)) => return Err(problem.text()),
                Err(error) => {
                    self.comparing.failed("database", &error, COMPARING_ADVICE);
                    return Ok(());
                }
            }
        }
        self.set(true);
        self.looked();
        self.note_redis_name().await;
        Ok(())
    }

    /// Has the database say where the Redis is by the configuration of now, such as a longer list of nodes. What it is, its id says.
    async fn note_redis_name(&self) {
        let Some(redis_id) = self.found.lock().await.redis_id.clone() else { return };
        let name = self.redis.name.clone();
        let noted = self.db.run_first(move |conn| {
            Box::pin(async move { Ok::<_, Error>(conn.change_redis(Some(&redis_id), &redis_id, &name).await?) })
        });
        if let Err(error) = noted.await {
            tracing::debug!(%error, "Could not note where Redis is");
        }
    }

    /// Forgets that this process was an instance.
    pub(super) async fn leave(&self) {
        let instance = self.instance.clone();
        let forget = self.db.run_first(move |conn| Box::pin(async move { conn.forget_instance(&instance).await }));
        let _ = tokio::time::timeout(LOOK_TIMEOUT, forget).await;
    }

    pub(super) fn foreign(&self, row_name: Option<&str>) -> String {
        foreign_redis(&self.redis.name, row_name, self.redis.key)
    }

    /// What is wrong with the key that says whose gates these are, and what to do.
    pub(super) fn spoiled(&self, problem: &str) -> String {
        format!(
            "redis.key_prefix: the key `deployment` behind this prefix, in the Redis {}, does not say whose gates these are \
             ({problem}); if they are this deployment's: seckill deployment adopt --take",
            self.redis.name
        )
    }

    /// Looks again and again until `stop`; then this instance is forgotten.
    pub async fn watch(&self, stop: CancellationToken) {
        if self.gate.shared().is_none() {
            return stop.cancelled().await;
        }
        let mut forgotten_at = None::<Instant>;
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            if forgotten_at.is_none_or(|at| at.elapsed() >= DEAD_FORGOTTEN_EVERY) {
                forgotten_at = Some(Instant::now());
                // Beside it: a look must not come later for this.
                tokio::join!(self.look(), self.forget_dead());
            } else {
                self.look().await;
            }
        }
        self.leave().await;
    }

    /// Forgets instances that have died and so could not say that they stop. If it fails, the next time.
    async fn forget_dead(&self) {
        let forget =
            self.db.run_first(|conn| Box::pin(async move { Ok::<_, Error>(conn.forget_dead_instances().await?) }));
        let _ = tokio::time::timeout(LOOK_TIMEOUT, forget).await;
    }

    /// Whether a purchase may be promised now, as far as the deployment is concerned.
    pub fn may_promise(&self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.begun).as_millis() as u64;
        self.agrees.load(Ordering::Relaxed)
            && (self.gate.shared().is_none()
                || since.saturating_sub(self.looked_at.load(Ordering::Relaxed)) <= LOOKED_WITHIN.as_millis() as u64)
    }

    /// Whether a gate of that epoch may still sell, as far as it is known here.
    pub fn is_current(&self, product: ProductId, epoch: i64) -> bool {
        if self.newest_epochs.is_over(product, epoch) {
            return false;
        }
        let deposed = self.deposed.read();
        deposed.is_empty() || deposed.get(&product).is_none_or(|newer| epoch >= newer.epoch)
    }

    /// Whether this instance uses what the deployment uses, as it was found last.
    pub fn agrees(&self) -> bool {
        self.agrees.load(Ordering::Relaxed)
    }

    /// Whether Redis answers, but its key does not say whose gates it holds. The log says which and what to do.
    pub fn is_unreadable(&self) -> bool {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// Compares the epoch of an open gate here with that in the database. An older gate must not sell.
    pub(in crate::services) fn saw_gate(&self, product: ProductId, gate: i64, database: i64) {
        if gate >= database {
            if self.has_deposed_gates() {
                self.deposed.write().remove(&product);
            }
            return;
        }
        let deposed = Deposed { epoch: database, seen: Instant::now() };
        let before = self.deposed.write().insert(product, deposed);
        if before.is_none_or(|before| before.epoch != database) {
            self.metrics.deposed_gates.inc();
            tracing::error!(
                product.id = %product, gate.epoch = gate, database.epoch = database,
                "An open gate is older than the database says: closing it; it is rebuilt, and no promise is lost. Another \
                 instance has begun a newer gate (in another Redis? `seckill deployment show`), or `seckill deployment \
                 rebuild-gate` has, or a backup of the database was restored"
            );
        }
    }

    /// Every gate of a sale that goes on was looked at. One that has not been seen to be deposed for a while is none any more:
    /// it was closed, or its sale is over.
    pub(in crate::services) fn saw_all_gates(&self) {
        if self.has_deposed_gates() {
            let mut deposed = self.deposed.write();
            deposed.retain(|_, deposed| deposed.seen.elapsed() < DEPOSED_FOR);
        }
    }

    /// Whether a gate here was found to be older than the database says, and not rebuilt since.
    pub fn has_deposed_gates(&self) -> bool {
        !self.deposed.read().is_empty()
    }

    /// Compares now, for whoever wants to begin an epoch. The id of what lies in Redis, if that is the deployment's.
    pub(in crate::services) async fn redis_id(&self) -> Result<String> {
        self.look().await;
        let found = self.found.lock().await;
        match (&found.problem, &found.redis_id) {
            // Of a cluster, the master that keeps this key may be away, and other gates need not wait for it: what was read last is
            // compared with the row when the epoch begins.
            (None, Some(redis_id)) if self.agrees() && (found.reads_redis || self.gate.is_on_several_servers()) => {
                Ok(redis_id.clone())
            }
            (problem, _) => Err(Error::Unavailable(
                problem.clone().unwrap_or_else(|| "Redis and the database could not be compared".to_owned()),
            )),
        }
    }

    /// Looks now. Whoever had to wait for one that began meanwhile uses that: after a Redis is lost, hundreds of rebuilds ask.
    async fn look(&self) {
        let asked_at = Instant::now();
        let mut found = self.found.lock().await;
        if found.begun_at.is_some_and(|begun_at| begun_at >= asked_at) {
            return;
        }
        found.begun_at = Some(Instant::now());
        let compared = tokio::time::timeout(LOOK_TIMEOUT, self.compare(&mut found)).await;
        match compared {
            // As long as Redis does not answer, what was wrong with it is wrong, and what was never known is not known.
            Ok(Ok(Ok(()))) if !found.reads_redis && (found.problem.is_some() || found.redis_id.is_none()) => {}
            // Told already. The gates that it has are those that it had, so the sale goes on.
            Ok(Ok(Err(Mismatch::Unreadable(_)))) => {}
            Ok(Ok(Ok(()))) => {
                if found.problem.take().is_some() {
                    tracing::warn!(
                        redis = self.redis.name,
                        queue = self.queue_name,
                        "This instance uses what the deployment uses again"
                    );
                }
                self.comparing.worked();
                self.set(true);
            }
            Ok(Ok(Err(problem))) => {
                let problem = problem.text();
                if found.problem.as_ref() != Some(&problem) {
                    tracing::error!("This instance sells nothing: {problem}");
                }
                found.problem = Some(problem);
                self.set(false);
            }
            // What was known stays. Others report that the database is away, but nobody else what keeps an instance from its first
            // comparison.
            Ok(Err(_)) | Err(_) if self.agrees() || found.problem.is_some() => {}
            Ok(Err(error)) => self.comparing.failed("database", &error, COMPARING_ADVICE),
            Err(elapsed) => self.comparing.failed("timed_out", &elapsed, COMPARING_ADVICE),
        }
        self.looked();
    }

    /// A look is over.
    fn looked(&self) {
        let now = self.begun.elapsed().as_millis() as u64;
        let before = self.looked_at.swap(now, Ordering::Relaxed);
        let since = now.saturating_sub(before);
        if self.gate.shared().is_some() && since > LOOKED_WITHIN.as_millis() as u64 {
            tracing::warn!(
                seconds = since / 1000,
                "What the deployment uses was not looked at for so long, so this instance sold nothing: it had no processor time, \
                 or was stopped"
            );
        }
    }

    fn set(&self, agrees: bool) {
        self.agrees.store(agrees, Ordering::Relaxed);
        self.metrics.deployment_agrees.set(i64::from(agrees));
    }

    pub(super) async fn id(&self) -> Result<String> {
        if let Some(id) = self.deployment_id.lock().clone() {
            return Ok(id);
        }
        let new = Uuid::new_v4().to_string();
        let row = self.db.run_first(|conn| Box::pin(async move { conn.deployment(&new).await })).await?;
        *self.deployment_id.lock() = Some(row.deployment_id.clone());
        Ok(row.deployment_id)
    }
}
