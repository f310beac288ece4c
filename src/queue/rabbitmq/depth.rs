//! What the queues hold, as far as this instance knows.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::queue::report::Depth;

/// A count that is older says nothing any more.
const FRESH: Duration = Duration::from_secs(15);

/// What the broker says.
#[derive(Clone, Copy)]
pub(super) struct Counted {
    /// Messages that wait to be delivered.
    pub(super) ready: i64,
    /// Messages set aside.
    pub(super) dead: i64,
}

/// See the module.
#[derive(Default)]
pub(super) struct DepthKept {
    counted: Mutex<Option<(Counted, Instant)>>,
    unacknowledged: AtomicI64,
    refused_dead: AtomicI64,
    logged_at: Mutex<Option<Instant>>,
}

/// A message on its way to the dead-letter queue.
pub(super) struct BeingSetAside<'a>(&'a DepthKept);

impl Drop for BeingSetAside<'_> {
    fn drop(&mut self) {
        self.0.refused_dead.fetch_sub(1, Ordering::Relaxed);
    }
}

impl DepthKept {
    pub(super) fn counted(&self, counted: Counted) {
        *self.counted.lock() = Some((counted, Instant::now()));
    }

    /// So many messages were delivered to this instance and are not acknowledged: the broker does not count them.
    pub(super) fn unacknowledged(&self, messages: usize) {
        self.unacknowledged.store(messages as i64, Ordering::Relaxed);
    }

    /// Counts a message until it is set aside.
    pub(super) fn being_set_aside(&self) -> BeingSetAside<'_> {
        self.refused_dead.fetch_add(1, Ordering::Relaxed);
        BeingSetAside(self)
    }

    /// Whether it is time to log again that there are messages that cannot be set aside.
    pub(super) fn may_log(&self, every: Duration) -> bool {
        let mut logged_at = self.logged_at.lock();
        let may = logged_at.is_none_or(|at| at.elapsed() > every);
        if may {
            *logged_at = Some(Instant::now());
        }
        may
    }

    /// All of it; `None` while the broker does not say.
    pub(super) fn read(&self) -> Option<Depth> {
        let (counted, at) = (*self.counted.lock())?;
        (at.elapsed() < FRESH).then(|| Depth {
            messages: counted.ready + self.unacknowledged.load(Ordering::Relaxed),
            dead: counted.dead,
            refused_dead: self.refused_dead.load(Ordering::Relaxed),
        })
    }
}
