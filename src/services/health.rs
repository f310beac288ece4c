//! Whether the stores answer.
//!
//! A task asks them twice a second, over connections of its own; who wants to know gets at once what it found last.
//! So a thousand probes cost no more than one, and a busy pool is not taken for a store that is away. It also writes down,
//! once each, that the database went away and that it is back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use crate::db::{Db, DbError};
use crate::model::Timestamp;
use crate::queue::OrderQueue;
use crate::services::deployment::Membership;
use crate::stock::{GateError, StockGate};
use crate::supervision::Supervisor;
use crate::telemetry::Metrics;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A store that has not answered by then is away.
const LOOK_PATIENCE: Duration = Duration::from_secs(1);
/// What was found longer ago than this counts for nothing.
const FOUND_GOOD_FOR: Duration = Duration::from_secs(5);

/// See the module.
pub struct Health {
    db: Db,
    gate: Arc<StockGate>,
    queue: Arc<OrderQueue>,
    supervisor: Supervisor,
    membership: Arc<Membership>,
    stopping: AtomicBool,
    found: Mutex<Option<LastLook>>,
}

/// What the last look at the stores has found.
#[derive(Clone)]
struct LastLook {
    at: Instant,
    database: Check,
    gate: Check,
    gate_trouble: Option<String>,
}

/// The database is away.
struct Absence {
    since: Instant,
    /// The log says so: of what is away for a single look only, it says nothing.
    noted: bool,
}

/// Whether a store answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// It does.
    Up,
    /// It does not.
    Down,
}

/// One answer a store, one for the tasks behind it all, and one for whether this instance uses the stores of its deployment.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Checks {
    database: Check,
    gate: Check,
    /// What is wrong with it, in one word; that of Redis, if it refuses.
    #[serde(skip_serializing_if = "Option::is_none")]
    gate_trouble: Option<String>,
    queue: Check,
    /// The same of the queue.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_trouble: Option<&'static str>,
    /// Told only when it is down, as the next one.
    #[serde(skip_serializing_if = "Check::is_up")]
    tasks: Check,
    #[serde(skip_serializing_if = "Check::is_up")]
    deployment: Check,
    /// The tasks that are down.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tasks_down: Vec<&'static str>,
}

impl Check {
    fn is_up(&self) -> bool {
        *self == Self::Up
    }
}

impl Checks {
    /// Whether purchases can be taken and written.
    pub fn all_up(&self) -> bool {
        [self.database, self.gate, self.queue, self.tasks, self.deployment].iter().all(|check| *check == Check::Up)
    }
}

impl Health {
    /// Asks these stores.
    pub fn new(
        db: Db,
        gate: Arc<StockGate>,
        queue: Arc<OrderQueue>,
        supervisor: Supervisor,
        membership: Arc<Membership>,
    ) -> Self {
        Self { db, gate, queue, supervisor, membership, stopping: AtomicBool::new(false), found: Mutex::default() }
    }

    /// From now on nobody new should be sent here.
    pub fn begin_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the process is about to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Notes what can be used just now, and what the queue and the pool hold.
    pub fn measure(&self, metrics: &Metrics) {
        let checks = self.checks();
        for (name, check) in
            [("database", checks.database), ("gate", checks.gate), ("queue", checks.queue), ("tasks", checks.tasks)]
        {
            metrics.dependency(name, check == Check::Up);
        }
        metrics.gate_servers_down.set(self.gate.servers_down() as i64);
        let depth = self.queue.depth();
        metrics.readings.queue_messages.note(depth.map(|depth| depth.messages as f64));
        metrics.readings.dead_letters.note(depth.map(|depth| depth.dead as f64));
        metrics.readings.dead_letters_refused.note(depth.map(|depth| depth.refused_dead as f64));
        metrics.pool(self.db.pool_use());
    }

    /// What is known of them now.
    pub fn checks(&self) -> Checks {
        let found = self.found.lock().clone();
        let found = found.filter(|found| found.at.elapsed() < FOUND_GOOD_FOR);
        let queue_trouble = self.queue.trouble();
        let tasks_down = self.supervisor.down();
        let (mut gate, mut gate_trouble) =
            found.as_ref().map_or((Check::Down, None), |found| (found.gate, found.gate_trouble.clone()));
        if gate.is_up() && self.membership.is_unreadable() {
            // It sells what it has, but once lost it could not be opened again, and no instance can start.
            (gate, gate_trouble) = (Check::Down, Some(GateError::Protocol(String::new()).trouble().to_owned()));
        }
        Checks {
            database: found.as_ref().map_or(Check::Down, |found| found.database),
            gate,
            gate_trouble,
            queue: up_if(queue_trouble.is_none()),
            queue_trouble,
            tasks: up_if(tasks_down.is_empty()),
            deployment: up_if(self.membership.may_promise(Instant::now()) && !self.membership.has_deposed_gates()),
            tasks_down,
        }
    }

    /// Asks the stores again and again, until `stop`.
    pub async fn watch(&self, stop: CancellationToken) {
        let mut away = None;
        while stop.run_until_cancelled(self.look(&mut away)).await.is_some() {
            if stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_none() {
                return;
            }
        }
    }

    async fn look(&self, away: &mut Option<Absence>) {
        let database = tokio::time::timeout(LOOK_PATIENCE, self.db.ping());
        let gate = tokio::time::timeout(LOOK_PATIENCE, self.gate.ping());
        let (database, gate) = tokio::join!(database, gate);
        let gate_trouble = match &gate {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error.trouble().to_owned()),
            Err(_) => Some("no_answer".to_owned()),
        };
        let database = note(database, away);
        // Those who use Redis and the queue log what is wrong with them, and what to do about it.
        let gate = up_if(matches!(gate, Ok(Ok(()))));
        if Timestamp::is_before_1970() {
            // The HTTP server cannot write its date then, and no token can be checked.
            self.supervisor.ended("clock", "stands before 1970");
        }
        let found = LastLook { at: Instant::now(), database, gate, gate_trouble };
        *self.found.lock() = Some(found);
    }
}

/// Writes down that the database has gone away, or is back.
fn note(answer: Result<Result<(), DbError>, tokio::time::error::Elapsed>, away: &mut Option<Absence>) -> Check {
    let error = match answer {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(error),
        Err(_) => Some(DbError::TimedOut),
    };
    match (&error, &mut *away) {
        (Some(_), None) => *away = Some(Absence { since: Instant::now(), noted: false }),
        (Some(error), Some(absence)) if !absence.noted => {
            absence.noted = true;
            let (class, problem) = (error.class().as_str(), error.to_string());
            tracing::warn!(class, problem, advice = error.advice(), "The database cannot be used; not ready");
        }
        (None, Some(absence)) => {
            if absence.noted {
                tracing::info!(seconds = absence.since.elapsed().as_secs(), "The database can be used again");
            }
            *away = None;
        }
        _ => {}
    }
    up_if(error.is_none())
}

fn up_if(answers: bool) -> Check {
    if answers { Check::Up } else { Check::Down }
}
