//! Background tasks: each has a name and is watched, so that none ends unseen.
//!
//! A task that can begin anew from what the stores hold is started again after a pause ([`Supervisor::keep`]). One that
//! owns what cannot be had twice, such as the receiving end of a channel, ends the process ([`Supervisor::vital`]):
//! nothing that was promised is lost by that, and whoever started the process starts it anew. Meanwhile `/readyz` names
//! the task. What a supervisor sees is a task that ends or panics, not one that waits for ever. So what a task waits for has a
//! time limit of its own. Without one are only the next piece of work, the disk of the embedded backend, room in a
//! consumer's channel for what RabbitMQ has delivered, and room for an acknowledgement on the link to RabbitMQ.

use std::collections::HashMap;
use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use parking_lot::{Mutex, MutexGuard};
use prometheus::IntCounterVec;
use tokio::task::spawn_local;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Pause before a task that failed is started again; doubled with each failure that follows soon.
const RESTART_FIRST: Duration = Duration::from_millis(200);
const MAX_RESTART: Duration = Duration::from_secs(10);
/// A task that has run this long since its last failure is well again.
const WELL_AFTER: Duration = Duration::from_secs(1);
/// A task that has run this long without a failure begins again with the shortest pause.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Supervisor(Arc<Watched>);

struct Watched {
    restarts: IntCounterVec,
    failures: Mutex<HashMap<&'static str, Failures>>,
    /// Set before anything is taken down: a task that ends after it has done so rightly.
    stopping: CancellationToken,
    /// Which vital task has ended, and how.
    broken: Mutex<Option<String>>,
    broke: CancellationToken,
}

/// How a task has failed.
#[derive(Clone, Copy)]
struct Failures {
    last: Instant,
    /// When it runs again; `None` for one that will not.
    runs_from: Option<Instant>,
    pause: Duration,
}

impl Supervisor {
    /// Counts in `restarts`, whose one label is the task.
    pub fn new(restarts: IntCounterVec) -> Self {
        Self(Arc::new(Watched {
            restarts,
            failures: Mutex::default(),
            stopping: CancellationToken::new(),
            broken: Mutex::default(),
            broke: CancellationToken::new(),
        }))
    }

    /// Runs what `begin` makes on `tracker`, and again whenever it panics or ends, until `stop`.
    pub fn keep<F>(
        &self,
        task: &'static str,
        tracker: &TaskTracker,
        stop: &CancellationToken,
        begin: impl FnMut() -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        self.register(task);
        tracker.spawn(self.clone().run_again(task, stop.clone(), begin));
    }

    /// The same on the thread that calls it, until that thread ends.
    pub fn keep_local<F: Future<Output = ()> + 'static>(&self, task: &'static str, begin: impl FnMut() -> F + 'static) {
        self.register(task);
        spawn_local(self.clone().run_again(task, CancellationToken::new(), begin));
    }

    async fn run_again<F: Future<Output = ()>>(
        self,
        task: &'static str,
        stop: CancellationToken,
        mut begin: impl FnMut() -> F,
    ) {
        loop {
            let ended = AssertUnwindSafe(begin()).catch_unwind().await;
            if stop.is_cancelled() {
                return;
            }
            let pause = self.failed(task, if ended.is_err() { "panicked" } else { "ended by itself" });
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Runs `work`, which must not end before the process stops.
    pub fn vital<F: Future<Output = ()>>(&self, task: &'static str, work: F) -> impl Future<Output = ()> + use<F> {
        self.register(task);
        let supervisor = self.clone();
        async move {
            let ended = AssertUnwindSafe(work).catch_unwind().await;
            supervisor.ended(task, if ended.is_err() { "panicked" } else { "ended by itself" });
        }
    }

    /// Runs `work`, which must not panic. It ends when nobody can ask it for anything any more, as that of an HTTP worker whose
    /// thread has died: that is seen elsewhere, and another one takes its place.
    pub fn vital_while_asked<F: Future<Output = ()>>(
        &self,
        task: &'static str,
        work: F,
    ) -> impl Future<Output = ()> + use<F> {
        self.register(task);
        let supervisor = self.clone();
        async move {
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                supervisor.ended(task, "panicked");
            }
        }
    }

    /// Runs `work` on a thread of its own; it must not panic. What it holds is dropped after its end was told, so a task that lives by
    /// that does not end first, and is not taken for the culprit.
    pub fn vital_thread(&self, task: &'static str, mut work: impl FnMut() + Send + 'static) {
        self.register(task);
        let supervisor = self.clone();
        let run = move || {
            if catch_unwind(AssertUnwindSafe(&mut work)).is_err() {
                supervisor.ended(task, "panicked");
            }
        };
        if let Err(error) = std::thread::Builder::new().name(task.to_owned()).spawn(run) {
            self.ended(task, format!("could not be started: {error}"));
        }
    }

    /// Notes that a part of a task's work was lost to a panic, and the task goes on.
    pub fn survived(&self, task: &'static str) {
        self.failed(task, "lost a part of its work to a panic");
    }

    /// Notes the end of a task that cannot be started again.
    pub fn ended(&self, task: &'static str, how: impl Display) {
        if self.0.stopping.is_cancelled() {
            return;
        }
        tracing::error!(task, %how, "A task has ended that cannot be started again here: the process ends");
        let now = Instant::now();
        self.failures().insert(task, Failures { last: now, runs_from: None, pause: RESTART_FIRST });
        let mut broken = self.0.broken.lock();
        broken.get_or_insert_with(|| format!("task {task} {how}"));
        self.0.broke.cancel();
    }

    /// Counts a task's restarts, from 0 on.
    pub fn register(&self, task: &'static str) {
        self.0.restarts.with_label_values(&[task]);
    }

    /// From now on tasks may end.
    pub fn stopping(&self) {
        self.0.stopping.cancel();
    }

    /// Tasks that do not run, or have not run long enough since they failed, by name.
    pub fn down(&self) -> Vec<&'static str> {
        let is_down = |failures: &Failures| failures.runs_from.is_none_or(|from| Instant::now() < from + WELL_AFTER);
        let mut down: Vec<_> =
            self.failures().iter().filter(|(_, failures)| is_down(failures)).map(|(task, _)| *task).collect();
        down.sort_unstable();
        down
    }

    /// Whether a task has ended that cannot be started again.
    pub fn is_broken(&self) -> bool {
        self.0.broke.is_cancelled()
    }

    /// Waits until a task has ended that cannot be started again; which, and how.
    pub async fn broken(&self) -> String {
        self.0.broke.cancelled().await;
        let broken = self.0.broken.lock();
        broken.clone().unwrap_or_default()
    }

    fn failed(&self, task: &'static str, how: &'static str) -> Duration {
        self.0.restarts.with_label_values(&[task]).inc();
        let now = Instant::now();
        let mut failures = self.failures();
        let before = failures.get(task).filter(|before| now - before.last < FORGIVEN_AFTER);
        let pause = before.map_or(RESTART_FIRST, |before| (before.pause * 2).min(MAX_RESTART));
        failures.insert(task, Failures { last: now, runs_from: Some(now + pause), pause });
        drop(failures);
        tracing::error!(task, ?pause, "A task {how}: it goes on after a pause");
        pause
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<&'static str, Failures>> {
        self.0.failures.lock()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use prometheus::Opts;

    use super::*;

    fn supervisor() -> Supervisor {
        Supervisor::new(IntCounterVec::new(Opts::new("restarts", "of tasks"), &["task"]).unwrap())
    }

    #[tokio::test]
    async fn a_task_that_panics_is_named_counted_and_started_again() {
        let (supervisor, tracker) = (supervisor(), TaskTracker::new());
        let starts = Arc::new(AtomicU32::new(0));
        let counted = starts.clone();
        supervisor.keep("sweeper", &tracker, &CancellationToken::new(), move || {
            let start = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                assert!(start > 1, "this one panics at its first two starts");
                std::future::pending::<()>().await;
            }
        });
        while supervisor.down().is_empty() {
            tokio::task::yield_now().await;
        }
        assert_eq!(supervisor.down(), ["sweeper"]);
        while !supervisor.down().is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(starts.load(Ordering::Relaxed), 3);
        assert_eq!(supervisor.0.restarts.with_label_values(&["sweeper"]).get(), 2);
        assert!(supervisor.broken().now_or_never().is_none(), "the process goes on");
    }

    #[tokio::test]
    async fn the_end_of_a_vital_task_ends_the_process_unless_it_stops() {
        let supervisor = supervisor();
        supervisor.vital("consumer", async {}).await;
        assert_eq!(supervisor.broken().await, "task consumer ended by itself");
        assert_eq!(supervisor.down(), ["consumer"]);

        let supervisor = self::supervisor();
        supervisor.stopping();
        supervisor.vital("consumer", async {}).await;
        assert!(supervisor.broken().now_or_never().is_none());
    }

    /// Seen: an HTTP worker died without another open connection; its batcher was asked by nobody any more, and its end ended
    /// the process.
    #[tokio::test]
    async fn a_task_that_nobody_can_ask_any_more_ends_rightly_and_one_that_panics_does_not() {
        let supervisor = supervisor();
        let (asking, mut asked) = tokio::sync::mpsc::channel::<()>(1);
        let work = supervisor.vital_while_asked("purchases", async move { while asked.recv().await.is_some() {} });
        drop(asking);
        work.await;
        assert!(supervisor.broken().now_or_never().is_none(), "the process goes on");
        supervisor.vital_while_asked("purchases", async { panic!("on purpose") }).await;
        assert_eq!(supervisor.broken().await, "task purchases panicked");
    }

    /// Guards against: the process says that another task ended by itself, which lives by what the thread held.
    #[test]
    fn a_thread_that_panics_is_seen_before_what_it_held_is_gone() {
        let supervisor = supervisor();
        let (held, mut by_others) = tokio::sync::mpsc::channel::<()>(1);
        supervisor.vital_thread("journal", move || {
            let _ = &held;
            panic!("on purpose");
        });
        assert_eq!(by_others.blocking_recv(), None);
        let broken = supervisor.broken().now_or_never();
        assert_eq!(broken.as_deref(), Some("task journal panicked"));
        assert!(!supervisor.down().is_empty());
    }
}
