//! Background tasks: started by name, supervised, and stopped in order.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::queue::OrderQueue;
use crate::supervision::Supervisor;
use crate::telemetry::Metrics;

/// All of them together, at a stop.
const STOP_PATIENCE: Duration = Duration::from_secs(8);

/// What runs beside HTTP.
pub(super) struct Background {
    pub(super) supervisor: Supervisor,
    pub(super) stop: CancellationToken,
    pub(super) tasks: TaskTracker,
    pub(super) consumers: TaskTracker,
}

impl Background {
    /// Counts in `metrics` what it has to start again.
    pub(super) fn new(metrics: &Metrics) -> Self {
        Self {
            supervisor: Supervisor::new(metrics.task_restarts.clone()),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            consumers: TaskTracker::new(),
        }
    }

    /// Runs `run` of a service until the stop, and again whenever it panics.
    pub(super) fn keep<S, F>(&self, task: &'static str, service: &Arc<S>, run: fn(Arc<S>, CancellationToken) -> F)
    where
        S: Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let (service, stop) = (service.clone(), self.stop.clone());
        self.supervisor.keep(task, &self.tasks, &self.stop, move || run(service.clone(), stop.clone()));
    }

    /// Ends the consumers' write batches, then gives what they did not acknowledge back to the queue.
    pub(super) async fn stop(self, queue: &OrderQueue) {
        self.stop.cancel();
        let ending = async {
            self.tasks.close();
            self.tasks.wait().await;
            self.consumers.close();
            self.consumers.wait().await;
            queue.stop().await;
        };
        if tokio::time::timeout(STOP_PATIENCE, ending).await.is_err() {
            tracing::warn!("Stopped without waiting any longer; what was not acknowledged is delivered again");
        }
    }
}
