//! What the log says of Redis: once when a trouble begins, seldom while it lasts, once when it is over.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::model::ProductId;
use crate::stock::types::GateError;
use crate::telemetry::LogThrottle;

/// A trouble that lasts is told again after this.
const TOLD_AGAIN: Duration = Duration::from_secs(10);
/// Another trouble is told at once, but not more often than this.
const MAX_TOLD: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Troubles {
    /// Where the server is, for people; empty where there is one only.
    server: String,
    /// So that those who have none need no lock.
    some: AtomicBool,
    now: Mutex<Option<Trouble>>,
}

struct Trouble {
    begun: Instant,
    last: Instant,
    told: Instant,
    /// What was told, and when: two kinds may take turns.
    kinds: Vec<(String, Instant)>,
    failures: u64,
}

impl Troubles {
    /// Of the server at that address; empty: of the only one.
    pub(super) fn of(server: String) -> Self {
        Self { server, some: AtomicBool::default(), now: Mutex::default() }
    }

    /// The address as a field of a line of the log.
    fn server(&self) -> Option<&str> {
        Some(self.server.as_str()).filter(|server| !server.is_empty())
    }

    /// A step failed. Only what is the server's own trouble counts.
    pub(super) fn note(&self, error: &GateError) {
        let (refuses, problem) = match error {
            GateError::Refused(problem) | GateError::Misconfigured(problem) => (true, problem),
            GateError::Unreachable(problem) | GateError::Unclear(problem) => (false, problem),
            _ => return,
        };
        let kind = if refuses { problem.split(':').next().unwrap_or_default() } else { "" };
        let at = Instant::now();
        let mut now = self.now.lock();
        let trouble = match &mut *now {
            Some(trouble) => {
                trouble.last = at;
                trouble.failures += 1;
                let is_known = trouble.kinds.iter().any(|(known, told)| known == kind && told.elapsed() < TOLD_AGAIN);
                if is_known || at.saturating_duration_since(trouble.told) < MAX_TOLD {
                    return;
                }
                trouble
            }
            None => {
                self.some.store(true, Ordering::Relaxed);
                now.insert(Trouble { begun: at, last: at, told: at, kinds: Vec::new(), failures: 1 })
            }
        };
        trouble.told = at;
        trouble.kinds.retain(|(known, told)| known != kind && told.elapsed() < TOLD_AGAIN);
        trouble.kinds.push((kind.to_owned(), at));
        let failures = trouble.failures;
        if refuses {
            tracing::warn!(failures, server = self.server(), "Redis refuses; purchases are answered 503. {problem}");
        } else {
            tracing::warn!(
                failures,
                server = self.server(),
                "Redis does not answer; purchases are answered 503. Does it run, where redis.addr or redis.nodes says? {problem}"
            );
        }
    }

    /// What a purchase needs has just been done. A trouble of this very moment is not over yet.
    pub(super) fn over(&self) {
        if !self.some.load(Ordering::Relaxed) {
            return;
        }
        let mut now = self.now.lock();
        if let Some(trouble) = now.take_if(|trouble| trouble.last.elapsed() >= MAX_TOLD) {
            self.some.store(false, Ordering::Relaxed);
            let seconds = trouble.last.duration_since(trouble.begun).as_secs();
            tracing::info!(failures = trouble.failures, seconds, server = self.server(), "Redis works again");
        }
    }
}

/// What the log says of keys that cannot be read.
pub(super) struct BrokenGates(LogThrottle);

impl Default for BrokenGates {
    fn default() -> Self {
        Self(LogThrottle::new(MAX_TOLD))
    }
}

impl BrokenGates {
    /// Something of a product's gate cannot be read.
    pub(super) fn note(&self, product: ProductId, problem: &str) {
        let Some(untold) = self.0.now() else { return };
        tracing::warn!(product.id = %product, untold, "A key of a gate in Redis cannot be read; other products go on. {problem}");
    }
}
