//! What the log says of gates that are rebuilt: a line at once when one is lost, one now and then while it goes on, and one when
//! no rebuild is under way any more. A Redis with thousands of sales would be thousands of lines otherwise.

use std::fmt::Display;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::model::ProductId;

/// Between two lines, while rebuilds are under way; twice as long after each line that none succeeded.
const LOGGED_EVERY: Duration = Duration::from_secs(5);
/// Between two lines at most.
const LOGGED_AT_LEAST_EVERY: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Default)]
pub(super) struct RebuildLog(Mutex<Unlogged>);

/// What has happened since the last line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Unlogged {
    logged_at: Option<Instant>,
    /// Lines in a row that told of failures only.
    futile: u32,
    lost: u64,
    opened: u64,
    buyers: usize,
    failed: u64,
    /// The last product of them, and what was wrong with the last one that failed.
    product: Option<ProductId>,
    problem: String,
}

impl RebuildLog {
    /// A gate was found to be lost, and a new epoch begun.
    pub(super) fn lost(&self, product: ProductId) {
        self.note(product, |unlogged| unlogged.lost += 1);
    }

    /// A gate is open again, with so many buyers.
    pub(super) fn opened(&self, product: ProductId, buyers: usize) {
        self.note(product, |unlogged| {
            unlogged.opened += 1;
            unlogged.buyers += buyers;
        });
    }

    /// A gate could not be rebuilt; it is tried again.
    pub(super) fn failed(&self, product: ProductId, problem: &dyn Display) {
        self.note(product, |unlogged| {
            unlogged.failed += 1;
            unlogged.problem = problem.to_string();
        });
    }

    /// No rebuild is under way any more.
    pub(super) fn ended(&self) {
        let mut unlogged = self.0.lock();
        // What fails again and again is logged by the clock.
        if unlogged.opened > 0 {
            unlogged.log();
        }
    }

    fn note(&self, product: ProductId, happened: impl FnOnce(&mut Unlogged)) {
        let mut unlogged = self.0.lock();
        unlogged.product = Some(product);
        happened(&mut unlogged);
        if unlogged.logged_at.is_none_or(|at| at.elapsed() >= pause_after(unlogged.futile)) {
            unlogged.log();
        }
    }
}

fn pause_after(futile: u32) -> Duration {
    (LOGGED_EVERY * 2_u32.saturating_pow(futile.saturating_sub(1).min(10))).min(LOGGED_AT_LEAST_EVERY)
}

impl Unlogged {
    fn log(&mut self) -> Self {
        let futile = if self.failed > 0 && self.opened == 0 { self.futile + 1 } else { 0 };
        let since = std::mem::replace(self, Self { logged_at: Some(Instant::now()), futile, ..Self::default() });
        let Self { lost: gates_lost, opened: gates_opened, buyers, failed: tries_failed, ref problem, .. } = since;
        let product = since.product.map(ProductId::get);
        if tries_failed > 0 {
            tracing::warn!(
                tries_failed,
                gates_opened,
                product.id = product,
                problem,
                "Could not rebuild gates yet; their purchases are answered 503"
            );
        } else if gates_opened > 0 {
            tracing::warn!(
                gates_opened,
                buyers,
                product.id = product,
                "Gates are rebuilt with all their buyers: purchases are taken again"
            );
        } else {
            tracing::warn!(
                gates_lost,
                product.id = product,
                "Redis has no gates of these sales (it was restarted or emptied, or is another one): they are rebuilt from the database, \
                 with some seconds of 503. No purchase is lost"
            );
        }
        since
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_are_due(log: &RebuildLog) -> bool {
        log.0.lock().logged_at.is_none_or(|at| at.elapsed() >= LOGGED_EVERY)
    }

    #[test]
    fn what_fails_again_and_again_is_told_ever_more_seldom() {
        assert_eq!([0, 1, 2, 3, 4, 5, 99].map(|futile| pause_after(futile).as_secs()), [5, 5, 10, 20, 40, 60, 60]);
        let mut unlogged = Unlogged::default();
        for futile in 1..4 {
            unlogged.failed = 1;
            unlogged.log();
            assert_eq!(unlogged.futile, futile);
        }
        unlogged.opened = 1;
        unlogged.log();
        assert_eq!(unlogged.futile, 0);
    }

    #[test]
    fn thousands_of_gates_are_a_line_at_once_and_one_at_the_end() {
        let (log, product) = (RebuildLog::default(), ProductId::try_from(7).unwrap());
        assert!(lines_are_due(&log));
        log.lost(product);
        assert_eq!(log.0.lock().lost, 0, "the first one was logged");
        for _ in 1..2_000 {
            log.lost(product);
            log.failed(product, &"away");
        }
        (0..2_000).for_each(|_| log.opened(product, 3));
        assert!(!lines_are_due(&log));
        let unlogged = log.0.lock().clone();
        assert_eq!((unlogged.lost, unlogged.failed, unlogged.opened, unlogged.buyers), (1_999, 1_999, 2_000, 6_000));
        log.ended();
        let unlogged = log.0.lock().clone();
        assert_eq!((unlogged.lost, unlogged.opened, unlogged.problem), (0, 0, String::new()), "all of it was logged");
    }
}
