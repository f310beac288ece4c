//! Whether the stores answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

use crate::db::Db;
use crate::metrics::Metrics;
use crate::queue::OrderQueue;
use crate::stock::StockGate;
use crate::supervision::Supervisor;

/// See the module.
pub struct Health {
    db: Db,
    gate: Arc<StockGate>,
    queue: Arc<OrderQueue>,
    supervisor: Supervisor,
    stopping: AtomicBool,
}

/// Whether a store answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Check {
    /// It does.
    Up,
    /// It does not.
    Down,
}

/// One answer a store, and one for the tasks behind it all.
#[derive(Debug, Clone, Serialize)]
pub struct Checks {
    database: Check,
    gate: Check,
    queue: Check,
    /// What is wrong with it, in one word.
    #[serde(skip_serializing_if = "Option::is_none")]
    queue_trouble: Option<&'static str>,
    tasks: Check,
    /// The tasks that are down.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tasks_down: Vec<&'static str>,
}

impl Checks {
    /// Whether purchases can be taken and written.
    pub fn all_up(&self) -> bool {
        [self.database, self.gate, self.queue, self.tasks].iter().all(|check| *check == Check::Up)
    }
}

impl Health {
    /// Asks these stores.
    pub fn new(db: Db, gate: Arc<StockGate>, queue: Arc<OrderQueue>, supervisor: Supervisor) -> Self {
        Self { db, gate, queue, supervisor, stopping: AtomicBool::new(false) }
    }

    /// From now on nobody new should be sent here.
    pub fn begin_stopping(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Whether the process is about to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Notes what the queue and the pool hold just now.
    pub fn measure(&self, metrics: &Metrics) {
        if let Some(depth) = self.queue.depth() {
            metrics.queue_messages.set(depth.messages);
            metrics.dead_letters.set(depth.dead);
        }
        metrics.pool(self.db.pool_use());
    }

    /// Asks them now.
    pub async fn check(&self) -> Checks {
        let (database, gate) = tokio::join!(self.db.ping(), self.gate.ping());
        let queue_trouble = self.queue.trouble();
        let tasks_down = self.supervisor.down();
        Checks {
            database: up_if(database.is_ok()),
            gate: up_if(gate.is_ok()),
            queue: up_if(queue_trouble.is_none()),
            queue_trouble,
            tasks: up_if(tasks_down.is_empty()),
            tasks_down,
        }
    }
}

fn up_if(answers: bool) -> Check {
    if answers { Check::Up } else { Check::Down }
}
