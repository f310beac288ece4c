//! One deployment: the instances of one database use one Redis and one queue.
//!
//! Two gates for one database would sell apart from each other: what the one promises is turned down when the other was
//! rebuilt. So the database keeps which Redis and which queue belong to it, both of them hold random ids that say so, and an
//! instance that reaches others does not start. While it runs, each instance compares twice a second, and says what it uses.
//!
//! Invariant: a promise is given only while this instance has lately asked the database and not been told that its Redis or
//! its queue was left. When the database does not answer, the sale goes on: nobody can leave a Redis without it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::db::{Db, DeploymentRow, InstanceUse};
use crate::error::{Error, Result};
use crate::model::ProductId;
use crate::queue::OrderQueue;
use crate::stock::StockGate;
use crate::telemetry::Metrics;

/// A confirm that comes later than this after the click earns no 202: T in docs/protocol.md (`#promise-age`).
pub(super) const PROMISE_MAX_AGE: Duration = Duration::from_secs(2);
/// Between two looks at the database.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A look that takes longer counts as one that the database did not answer.
const LOOK_TIMEOUT: Duration = Duration::from_secs(1);
/// An instance whose last look was over longer ago than this gives no promise: it was frozen. With [`LOOK_TIMEOUT`] not
/// more than a rebuild waits for older promises; docs/protocol.md (`#deposed-gate`) says why.
const LOOKED_WITHIN: Duration = Duration::from_secs(2);
/// A gate counts as deposed for so long after it was seen to be. Longer than a promise that it gave can be under way.
const DEPOSED_FOR: Duration = Duration::from_secs(5);
/// At a start, other instances may still have to notice that Redis or the queue was emptied.
const START_PATIENCE: Duration = Duration::from_secs(5);

/// Why an embedded deployment has nothing to compare.
const NO_OTHER_STORES: &str = "backend: embedded keeps everything in its data folder";

/// See the module.
pub struct Deployment {
    pub(super) db: Db,
    pub(super) gate: Arc<StockGate>,
    pub(super) queue: Arc<OrderQueue>,
    pub(super) metrics: Arc<Metrics>,
    /// Id of this process among the instances.
    instance: String,
    redis_name: String,
    queue_name: String,
    deployment_id: Mutex<Option<String>>,
    /// What this instance uses is what the deployment uses.
    agrees: AtomicBool,
    begun: Instant,
    /// When the last look was over, in milliseconds after `begun`.
    looked_at: AtomicU64,
    /// What was found last. One look at a time.
    found: tokio::sync::Mutex<Found>,
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
struct Found {
    redis_id: Option<String>,
    problem: Option<String>,
}

/// Why an instance must not sell.
enum Problem {
    /// It is configured to use something else than the deployment does.
    Misconfigured(String),
    /// Instances that run use something else of the same name; some may not have noticed yet that it was emptied.
    OthersDiffer(String),
}

impl Problem {
    fn text(self) -> String {
        match self {
            Self::Misconfigured(text) | Self::OthersDiffer(text) => text,
        }
    }
}

impl Deployment {
    /// `redis_name` and `queue_name` say to people where these are.
    pub fn new(
        db: Db,
        gate: Arc<StockGate>,
        queue: Arc<OrderQueue>,
        metrics: Arc<Metrics>,
        redis_name: String,
    ) -> Self {
        let queue_name = queue.name();
        // A data folder has one process and no other stores.
        let agrees = AtomicBool::new(gate.shared().is_none());
        Self {
            db,
            gate,
            queue,
            metrics,
            instance: Uuid::new_v4().to_string(),
            redis_name,
            queue_name,
            deployment_id: Mutex::default(),
            agrees,
            begun: Instant::now(),
            looked_at: AtomicU64::default(),
            found: tokio::sync::Mutex::default(),
            deposed: RwLock::default(),
        }
    }

    /// Compares before anything is sold. An error names the setting that leads elsewhere. Redis and RabbitMQ need not answer.
    pub async fn join(&self) -> std::result::Result<(), String> {
        if self.gate.shared().is_none() {
            return Ok(());
        }
        let id = self.id().await.map_err(|error| format!("reading the deployment: {error}"))?;
        self.queue.join(&id, false).await?;
        let begun = Instant::now();
        loop {
            match self.compare(&mut *self.found.lock().await).await {
                Ok(Ok(())) => break,
                Ok(Err(Problem::OthersDiffer(_))) if begun.elapsed() < START_PATIENCE => {
                    tokio::time::sleep(LOOK_EVERY).await;
                    // Two instances may have written at once whose queue this is; one of both stays.
                    self.queue.join(&id, false).await?;
                }
                Ok(Err(problem)) => return Err(problem.text()),
                Err(error) => {
                    tracing::warn!(%error, "Starting without a comparison of the stores; purchases are refused until then");
                    return Ok(());
                }
            }
        }
        self.set(true);
        self.looked();
        Ok(())
    }

    /// Makes what this configuration leads to the deployment's, whatever it was before; what that was. Instances that use
    /// something else sell nothing from then on. `take`: also if they belong to another deployment, whose database is gone.
    pub async fn adopt(&self, take: bool) -> std::result::Result<DeploymentRow, String> {
        let failed = |error: Error| error.to_string();
        let gate = self.gate.shared().ok_or(NO_OTHER_STORES)?;
        let id = self.id().await.map_err(failed)?;
        self.queue.join(&id, take).await?;
        let owner = if take { gate.take(&id).await } else { gate.owner(&id).await };
        let owner = owner.map_err(|error| format!("redis.addr: {error}"))?;
        if owner.deployment != id {
            return Err(self.foreign());
        }
        let uses = InstanceUse {
            redis_id: Some(owner.redis_id),
            redis_name: self.redis_name.clone(),
            queue_id: Some(self.queue.identity().ok_or("rabbitmq.url: RabbitMQ does not answer")?),
            queue_name: self.queue_name.clone(),
        };
        let (row, _) = self.show().await?;
        self.take_over(&uses, row.clone()).await.map_err(failed)?;
        Ok(row)
    }

    /// What the deployment uses, and what the instances that run use.
    pub async fn show(&self) -> std::result::Result<(DeploymentRow, Vec<InstanceUse>), String> {
        self.gate.shared().ok_or(NO_OTHER_STORES)?;
        let (new, instance) = (Uuid::new_v4().to_string(), self.instance.clone());
        let shown = self.db.read(move |conn| {
            Box::pin(
                async move { Ok::<_, Error>((conn.deployment(&new).await?, conn.other_instances(&instance).await?)) },
            )
        });
        shown.await.map_err(|error| error.to_string())
    }

    /// Begins a new epoch of a product's gate; the new epoch. Running instances find the gate deposed within a second, close it and
    /// rebuild it from the live orders. What was promised stays promised.
    pub async fn rebuild_gate(&self, product: ProductId) -> std::result::Result<i64, String> {
        self.gate.shared().ok_or(NO_OTHER_STORES)?;
        self.join().await?;
        let failed = |error: Error| error.to_string();
        let redis_id = self.redis_id().await.map_err(failed)?;
        let row = self.db.read(move |conn| Box::pin(async move { Ok::<_, Error>(conn.gate_row(product).await?) }));
        let row = row.await.map_err(failed)?.ok_or_else(|| format!("there is no product {product}"))?;
        if row.is_retired() {
            let why = "the sale of product {} has ended and its gate was taken away; a later ends_at makes it anew";
            return Err(why.replace("{}", &product.to_string()));
        }
        let (epoch, next) = (row.epoch, row.epoch + 1);
        let begun = self.db.transaction(move |conn| {
            Box::pin(async move {
                Ok::<_, Error>(conn.begin_epoch(product, epoch, next, &row.server_id, &redis_id, false).await?)
            })
        });
        let begun = begun.await.map_err(failed)?;
        self.leave().await;
        begun.then_some(next).ok_or_else(|| "the gate is being rebuilt already".to_owned())
    }

    /// Forgets that this process was an instance.
    async fn leave(&self) {
        let instance = self.instance.clone();
        let forget = self.db.read(move |conn| Box::pin(async move { conn.forget_instance(&instance).await }));
        let _ = tokio::time::timeout(LOOK_TIMEOUT, forget).await;
    }

    fn foreign(&self) -> String {
        format!(
            "redis.key_prefix: the Redis {} holds the gates of another deployment; if its database is \
             gone: seckill deployment adopt --take",
            self.redis_name
        )
    }

    /// Looks again and again until `stop`; then this instance is forgotten.
    pub async fn watch(&self, stop: CancellationToken) {
        if self.gate.shared().is_none() {
            return stop.cancelled().await;
        }
        while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            self.look().await;
        }
        self.leave().await;
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
        let deposed = self.deposed.read().unwrap_or_else(PoisonError::into_inner);
        deposed.is_empty() || deposed.get(&product).is_none_or(|newer| epoch >= newer.epoch)
    }

    /// Whether this instance uses what the deployment uses, as it was found last.
    pub fn agrees(&self) -> bool {
        self.agrees.load(Ordering::Relaxed)
    }

    /// Compares the epoch of an open gate here with that in the database. An older gate must not sell.
    pub(super) fn saw_gate(&self, product: ProductId, gate: i64, database: i64) {
        if gate >= database {
            if self.has_deposed_gates() {
                self.deposed.write().unwrap_or_else(PoisonError::into_inner).remove(&product);
            }
            return;
        }
        let deposed = Deposed { epoch: database, seen: Instant::now() };
        let before = self.deposed.write().unwrap_or_else(PoisonError::into_inner).insert(product, deposed);
        if before.is_none_or(|before| before.epoch != database) {
            self.metrics.deposed_gates.inc();
            tracing::error!(
                product.id = %product, gate.epoch = gate, database.epoch = database,
                "An open gate is older than the database says: closing it. Does another instance use another Redis?"
            );
        }
    }

    /// Every gate of a sale that goes on was looked at. One that has not been seen to be deposed for a while is none any more:
    /// it was closed, or its sale is over.
    pub(super) fn saw_all_gates(&self) {
        if self.has_deposed_gates() {
            let mut deposed = self.deposed.write().unwrap_or_else(PoisonError::into_inner);
            deposed.retain(|_, deposed| deposed.seen.elapsed() < DEPOSED_FOR);
        }
    }

    /// Whether a gate here was found to be older than the database says, and not rebuilt since.
    pub fn has_deposed_gates(&self) -> bool {
        !self.deposed.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Compares now, for whoever wants to begin an epoch. The id of what lies in Redis, if that is the deployment's.
    pub(super) async fn redis_id(&self) -> Result<String> {
        self.look().await;
        let found = self.found.lock().await;
        match (&found.problem, &found.redis_id) {
            (None, Some(redis_id)) if self.agrees() => Ok(redis_id.clone()),
            (problem, _) => Err(Error::Unavailable(
                problem.clone().unwrap_or_else(|| "Redis and the database were not compared yet".to_owned()),
            )),
        }
    }

    async fn look(&self) {
        let mut found = self.found.lock().await;
        let compared = tokio::time::timeout(LOOK_TIMEOUT, self.compare(&mut found)).await;
        match compared {
            // As long as Redis does not answer, what was wrong with it is wrong.
            Ok(Ok(Ok(()))) if found.redis_id.is_none() && found.problem.is_some() => {}
            Ok(Ok(Ok(()))) => {
                if found.problem.take().is_some() || !self.agrees() {
                    tracing::warn!(
                        redis = self.redis_name,
                        queue = self.queue_name,
                        "This instance uses what the deployment uses again"
                    );
                }
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
            // Redis or the database is away, which others report. What was known stays.
            Ok(Err(_)) | Err(_) => {}
        }
        self.looked();
    }

    /// A look is over.
    fn looked(&self) {
        self.looked_at.store(self.begun.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn set(&self, agrees: bool) {
        self.agrees.store(agrees, Ordering::Relaxed);
        self.metrics.deployment_agrees.set(i64::from(agrees));
    }

    async fn id(&self) -> Result<String> {
        if let Some(id) = self.deployment_id.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Ok(id);
        }
        let new = Uuid::new_v4().to_string();
        let row = self.db.read(|conn| Box::pin(async move { conn.deployment(&new).await })).await?;
        *self.deployment_id.lock().unwrap_or_else(PoisonError::into_inner) = Some(row.deployment_id.clone());
        Ok(row.deployment_id)
    }

    /// Says what this instance uses, and compares it with what the deployment uses. What was emptied is taken over under its
    /// new id, unless an instance that runs still uses what was there.
    async fn compare(&self, found: &mut Found) -> Result<std::result::Result<(), Problem>> {
        let id = self.id().await?;
        let Some(gate) = self.gate.shared() else { return Ok(Ok(())) };
        match gate.owner(&id).await {
            Ok(owner) if owner.deployment == id => found.redis_id = Some(owner.redis_id),
            Ok(_) => {
                return Ok(Err(Problem::Misconfigured(self.foreign())));
            }
            Err(_) => found.redis_id = None,
        }
        let uses = InstanceUse {
            redis_id: found.redis_id.clone(),
            redis_name: self.redis_name.clone(),
            queue_id: self.queue.identity(),
            queue_name: self.queue_name.clone(),
        };
        let (instance, own, new) = (self.instance.clone(), uses.clone(), id);
        let (row, others) = self
            .db
            .read(move |conn| {
                Box::pin(async move {
                    conn.report_instance(&instance, &own).await?;
                    let row = conn.deployment(&new).await?;
                    let others =
                        if uses_row(&own, &row) { Vec::new() } else { conn.other_instances(&instance).await? };
                    Ok::<_, Error>((row, others))
                })
            })
            .await?;
        if let Err(problem) = judge(&uses, &row, &others) {
            return Ok(Err(problem));
        }
        self.take_over(&uses, row).await?;
        Ok(Ok(()))
    }

    /// Makes what this instance uses that of the deployment.
    async fn take_over(&self, uses: &InstanceUse, row: DeploymentRow) -> Result<()> {
        if uses_row(uses, &row) {
            return Ok(());
        }
        let InstanceUse { redis_id, redis_name, queue_id, queue_name } = uses.clone();
        tracing::warn!(
            redis = redis_name,
            queue = queue_name,
            "This deployment's Redis or queue is new or was emptied"
        );
        self.db
            .read(move |conn| {
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

/// What an instance uses is what the deployment uses, as far as the instance knows it.
fn uses_row(uses: &InstanceUse, row: &DeploymentRow) -> bool {
    (uses.redis_id.is_none() || uses.redis_id == row.redis_id)
        && (uses.queue_id.is_none() || uses.queue_id == row.queue_id)
}

fn judge(uses: &InstanceUse, row: &DeploymentRow, others: &[InstanceUse]) -> std::result::Result<(), Problem> {
    let redis = Side { own: &uses.redis_id, own_name: &uses.redis_name, row: &row.redis_id, row_name: &row.redis_name };
    redis.judge(
        &["redis.addr", "redis.db", "redis.key_prefix"],
        others.iter().map(|other| (&other.redis_id, &other.redis_name)),
    )?;
    let queue = Side { own: &uses.queue_id, own_name: &uses.queue_name, row: &row.queue_id, row_name: &row.queue_name };
    queue.judge(
        &["rabbitmq.url", "rabbitmq.url", "rabbitmq.queue"],
        others.iter().map(|other| (&other.queue_id, &other.queue_name)),
    )
}

/// Redis, or the queue: what an instance uses, and what the database says.
struct Side<'a> {
    own: &'a Option<String>,
    own_name: &'a str,
    row: &'a Option<String>,
    row_name: &'a Option<String>,
}

impl Side<'_> {
    /// `keys`: the settings behind the parts of a name.
    fn judge<'o>(
        &self,
        keys: &[&str],
        others: impl Iterator<Item = (&'o Option<String>, &'o String)>,
    ) -> std::result::Result<(), Problem> {
        let (Some(own), Some(row)) = (self.own, self.row) else { return Ok(()) };
        if own == row {
            return Ok(());
        }
        let row_name = self.row_name.as_deref().unwrap_or_default();
        if row_name != self.own_name {
            return Err(Problem::Misconfigured(format!(
                "{}: this instance uses {}, its database belongs to {row_name}; if that was moved on purpose: \
                 seckill deployment adopt",
                differing_key(keys, self.own_name, row_name),
                self.own_name
            )));
        }
        let mut others = others;
        match others.find(|(id, _)| id.as_ref().is_some_and(|id| id != own)) {
            None => Ok(()),
            Some((_, other)) => Err(Problem::OthersDiffer(format!(
                "{}: this instance reaches another server at {} than the instances that run do at {other}",
                keys[0], self.own_name
            ))),
        }
    }
}

/// The setting behind the first part in which two names differ.
fn differing_key<'k>(keys: &[&'k str], own: &str, other: &str) -> &'k str {
    let differing = own.split('/').zip(other.split('/')).position(|(own, other)| own != other);
    keys[differing.unwrap_or(0).min(keys.len() - 1)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uses(redis: Option<&str>, redis_name: &str, queue: Option<&str>, queue_name: &str) -> InstanceUse {
        InstanceUse {
            redis_id: redis.map(str::to_owned),
            redis_name: redis_name.to_owned(),
            queue_id: queue.map(str::to_owned),
            queue_name: queue_name.to_owned(),
        }
    }

    fn row(redis: Option<&str>, queue: Option<&str>) -> DeploymentRow {
        DeploymentRow {
            deployment_id: "d".to_owned(),
            redis_id: redis.map(str::to_owned),
            redis_name: Some("a:1/0/seckill:".to_owned()),
            queue_id: queue.map(str::to_owned),
            queue_name: Some("b:2/%2f/orders".to_owned()),
        }
    }

    fn problem(uses: &InstanceUse, others: &[InstanceUse]) -> Option<String> {
        judge(uses, &row(Some("r"), Some("q")), others).err().map(Problem::text)
    }

    #[test]
    fn what_leads_elsewhere_is_named() {
        let (redis, queue) = ("a:1/0/seckill:", "b:2/%2f/orders");
        assert_eq!(problem(&uses(Some("r"), "other-name:1/0/seckill:", Some("q"), queue), &[]), None, "the same Redis");
        assert_eq!(problem(&uses(None, redis, None, queue), &[]), None, "not known yet");
        for (name, key) in [
            ("x:1/0/seckill:", "redis.addr: "),
            ("a:1/1/seckill:", "redis.db: "),
            ("a:1/0/other:", "redis.key_prefix: "),
        ] {
            let text = problem(&uses(Some("x"), name, Some("q"), queue), &[]).unwrap();
            assert!(text.starts_with(key) && text.contains("deployment adopt"), "{text}");
        }
        for (name, key) in [
            ("b:3/%2f/orders", "rabbitmq.url: "),
            ("b:2/v/orders", "rabbitmq.url: "),
            ("b:2/%2f/x", "rabbitmq.queue: "),
        ] {
            let text = problem(&uses(Some("r"), redis, Some("x"), name), &[]).unwrap();
            assert!(text.starts_with(key), "{text}");
        }
    }

    #[test]
    fn what_was_emptied_is_taken_over_once_nobody_uses_what_was_there() {
        let emptied = uses(Some("new"), "a:1/0/seckill:", Some("q"), "b:2/%2f/orders");
        assert_eq!(problem(&emptied, &[]), None);
        assert_eq!(problem(&emptied, std::slice::from_ref(&emptied)), None, "the others have noticed");
        let unaware = uses(Some("r"), "a:1/0/seckill:", Some("q"), "b:2/%2f/orders");
        assert!(problem(&emptied, &[unaware]).unwrap().starts_with("redis.addr: "));
        let away = uses(None, "a:1/0/seckill:", None, "b:2/%2f/orders");
        assert_eq!(problem(&emptied, &[away]), None, "an instance that reaches no Redis sells nothing");
    }
}
