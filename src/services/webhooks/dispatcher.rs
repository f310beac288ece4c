//! Has a sender for each endpoint that is switched on, and wakes it when something is due. Runs in every instance.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ConstantBuilder};
use tokio::sync::Notify;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

use super::exchange::Threads;
use super::retries::Schedule;
use super::sender::{Common, IN_FLIGHT, Sender};
use super::{MAX_ENDPOINTS, wanted};
use crate::config::Config;
use crate::db::{Db, Endpoint};
use crate::error::{Error, Result};
use crate::model::{EndpointId, Timestamp};
use crate::supervision::Supervisor;
use crate::telemetry::{Metrics, Outage};

/// Between two looks: 125 to 250 ms, so that instances do not look together.
const PAUSES: ConstantBuilder =
    ConstantBuilder::new().with_delay(Duration::from_millis(125)).with_jitter().without_max_times();
/// So many times as long while there is no endpoint.
const IDLE_TIMES: u32 = 4;
/// A look that fails is told after this: the database that it lacks is told of at once.
const TOLD_AFTER: Duration = Duration::from_secs(15);
/// What is due is counted so often, and so far.
const COUNTED_EVERY: Duration = Duration::from_secs(10);
const COUNTED_MOST: i64 = 10_000;
/// A sender that panicked is not started again before this.
const AFTER_PANIC: Duration = Duration::from_secs(5);

/// See the module.
pub struct WebhookDispatcher {
    db: Db,
    /// For what all senders have in common.
    schedule: Schedule,
    currency: crate::model::Currency,
    allow_private: bool,
    threads: Threads,
    wake: Arc<Notify>,
    supervisor: Supervisor,
    metrics: Arc<Metrics>,
}

/// A sender that runs.
struct Running {
    poke: Arc<Notify>,
    stop: CancellationToken,
    task: Id,
}

/// The senders.
struct Senders {
    common: Common,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    running: HashMap<EndpointId, Running>,
    /// Endpoints whose sender panicked, and when.
    panicked: HashMap<EndpointId, Instant>,
}

impl WebhookDispatcher {
    /// Looks into `db`, also whenever it is woken by `wake`.
    pub fn new(
        db: Db,
        config: &Config,
        wake: Arc<Notify>,
        supervisor: Supervisor,
        metrics: Arc<Metrics>,
    ) -> Result<Self> {
        let threads = Threads::new(MAX_ENDPOINTS as usize * IN_FLIGHT);
        let threads = threads.map_err(|error| Error::Internal(format!("threads for webhooks: {error}")))?;
        Ok(Self {
            db,
            schedule: Schedule::new(&config.webhooks.retry_seconds),
            currency: config.shop.currency,
            allow_private: config.webhooks.allow_private,
            threads,
            wake,
            supervisor,
            metrics,
        })
    }

    /// Looks again and again until `stop`; then waits for the senders to end.
    pub async fn run(&self, stop: CancellationToken) {
        let Some(threads) = self.threads.handle() else { return stop.cancelled().await };
        let common = Common {
            db: self.db.clone(),
            schedule: self.schedule.clone(),
            currency: self.currency,
            allow_private: self.allow_private,
            threads: threads.clone(),
            metrics: self.metrics.clone(),
        };
        let mut senders = Senders {
            common,
            stop: stop.clone(),
            tasks: JoinSet::new(),
            running: HashMap::new(),
            panicked: HashMap::new(),
        };
        let mut outage = Outage::after(
            TOLD_AFTER,
            "Could not look which endpoints are to be told something",
            "Endpoints are looked after again",
        );
        let mut counted = None;
        for pause in PAUSES.build() {
            let wait = match self.look(&mut senders, &mut counted).await {
                Ok(is_idle) => {
                    outage.ended();
                    if is_idle { pause * IDLE_TIMES } else { pause }
                }
                Err(error) => {
                    self.metrics.readings.webhook_oldest_due_seconds.unknown();
                    outage.failed(error.code(), &error, "see what the log says of the database; nothing is lost");
                    pause * IDLE_TIMES
                }
            };
            let woken = async {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = self.wake.notified() => {}
                }
            };
            if stop.run_until_cancelled(woken).await.is_none() {
                break;
            }
        }
        while senders.tasks.join_next().await.is_some() {}
    }

    /// True: there is no endpoint.
    async fn look(&self, senders: &mut Senders, counted: &mut Option<Instant>) -> Result<bool> {
        senders.reap(&self.supervisor);
        let read = self.db.run_first(|conn| {
            Box::pin(async move { Ok::<_, Error>((conn.endpoints_with_next_due().await?, conn.now().await?)) })
        });
        let (endpoints, now) = read.await?;
        let all: Vec<Endpoint> = endpoints.iter().map(|(endpoint, _)| endpoint.clone()).collect();
        self.db.set_wanted_events(wanted(&all));
        let active: Vec<(EndpointId, Option<Timestamp>)> = endpoints
            .iter()
            .filter(|(endpoint, _)| endpoint.active)
            .map(|(endpoint, due)| (endpoint.id, *due))
            .collect();
        senders.keep(&active, now);
        let oldest = active.iter().filter_map(|(_, due)| *due).min();
        let readings = &self.metrics.readings;
        readings.webhook_oldest_due_seconds.set(oldest.map_or(0.0, |due| now.since(due).as_secs_f64()));
        readings.webhooks_off.set(all.iter().filter(|endpoint| endpoint.off_reason.is_some()).count() as f64);
        if counted.is_none_or(|at| at.elapsed() >= COUNTED_EVERY) {
            *counted = Some(Instant::now());
            readings.webhook_deliveries_due.set(self.count_due(&active, now).await? as f64);
        }
        Ok(all.is_empty())
    }

    async fn count_due(&self, active: &[(EndpointId, Option<Timestamp>)], now: Timestamp) -> Result<usize> {
        let due = |(_, due): &&(EndpointId, Option<Timestamp>)| due.is_some_and(|due| due <= now);
        let ids: Vec<EndpointId> = active.iter().filter(due).map(|(id, _)| *id).collect();
        if ids.is_empty() {
            return Ok(0);
        }
        let read = self.db.read(move |conn| {
            Box::pin(async move {
                let mut count = 0;
                for id in ids {
                    count += conn.count_due_deliveries(id, now, COUNTED_MOST).await?;
                }
                Ok::<_, Error>(count)
            })
        });
        read.await
    }
}

impl Senders {
    /// Forgets those that have ended.
    fn reap(&mut self, supervisor: &Supervisor) {
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            let (task, has_panicked) = match ended {
                Ok((task, ())) => (task, false),
                Err(error) => (error.id(), error.is_panic()),
            };
            let of = self.running.iter().find(|(_, running)| running.task == task).map(|(id, _)| *id);
            let Some(id) = of else { continue };
            self.running.remove(&id);
            if has_panicked {
                supervisor.survived("webhooks");
                self.panicked.insert(id, Instant::now());
            }
        }
        self.panicked.retain(|_, at| at.elapsed() < AFTER_PANIC);
    }

    /// Has a sender for each of these and for no other, and wakes it if something is due.
    fn keep(&mut self, active: &[(EndpointId, Option<Timestamp>)], now: Timestamp) {
        for (id, running) in &self.running {
            if !active.iter().any(|(other, _)| other == id) {
                running.stop.cancel();
            }
        }
        for (id, due) in active {
            if due.is_none_or(|due| due > now) || self.panicked.contains_key(id) {
                continue;
            }
            match self.running.get(id) {
                Some(running) => running.poke.notify_one(),
                None => self.start(*id),
            }
        }
    }

    fn start(&mut self, id: EndpointId) {
        let (poke, stop) = (Arc::new(Notify::new()), self.stop.child_token());
        let sender = Sender::new(id, self.common.clone(), poke.clone(), stop.clone());
        let task = self.tasks.spawn(sender.run()).id();
        self.running.insert(id, Running { poke, stop, task });
    }
}

/// A panic here ends them; what they held comes again when its lease is over.
impl Drop for Senders {
    fn drop(&mut self) {
        for running in self.running.values() {
            running.stop.cancel();
        }
    }
}
