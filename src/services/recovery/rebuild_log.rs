//! What the log says of gates that are rebuilt: a line at once when one is lost, one now and then while it goes on, and one when
//! no rebuild is under way any more. A Redis with thousands of sales would be thousands of lines otherwise.

use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::model::ProductId;

/// Between two lines, while rebuilds are under way.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// See the module.
#[derive(Default)]
pub(in crate::services) struct RebuildLog(Mutex<Untold>);

/// What has happened since the last line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Untold {
    told: Option<Instant>,
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
    pub(in crate::services) fn lost(&self, product: ProductId) {
        self.note(product, |untold| untold.lost += 1);
    }

    /// A gate is open again, with so many buyers.
    pub(in crate::services) fn opened(&self, product: ProductId, buyers: usize) {
        self.note(product, |untold| {
            untold.opened += 1;
            untold.buyers += buyers;
        });
    }

    /// A gate could not be rebuilt; it is tried again.
    pub(in crate::services) fn failed(&self, product: ProductId, problem: &dyn Display) {
        self.note(product, |untold| {
            untold.failed += 1;
            untold.problem = problem.to_string();
        });
    }

    /// No rebuild is under way any more.
    pub(in crate::services) fn ended(&self) {
        let mut untold = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // What fails again and again is told by the clock.
        if untold.opened > 0 {
            untold.tell();
        }
    }

    fn note(&self, product: ProductId, happened: impl FnOnce(&mut Untold)) {
        let mut untold = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        untold.product = Some(product);
        happened(&mut untold);
        if untold.told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
            untold.tell();
        }
    }
}

impl Untold {
    fn tell(&mut self) -> Self {
        let told = std::mem::replace(self, Self { told: Some(Instant::now()), ..Self::default() });
        let Self { lost, opened, buyers, failed, ref problem, .. } = told;
        let product = told.product.map(ProductId::get);
        if failed > 0 {
            tracing::warn!(failed, lost, opened, product.id = product, problem, "Could not rebuild gates yet");
        } else if opened > 0 {
            tracing::warn!(opened, buyers, lost, product.id = product, "Opened rebuilt gates");
        } else {
            tracing::warn!(lost, product.id = product, "Gates are lost: rebuilding them");
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_are_due(log: &RebuildLog) -> bool {
        log.0.lock().unwrap().told.is_none_or(|told| told.elapsed() >= TOLD_EVERY)
    }

    #[test]
    fn thousands_of_gates_are_a_line_at_once_and_one_at_the_end() {
        let (log, product) = (RebuildLog::default(), ProductId::try_from(7).unwrap());
        assert!(lines_are_due(&log));
        log.lost(product);
        assert_eq!(log.0.lock().unwrap().lost, 0, "the first one was told");
        for _ in 1..2_000 {
            log.lost(product);
            log.failed(product, &"away");
        }
        (0..2_000).for_each(|_| log.opened(product, 3));
        assert!(!lines_are_due(&log));
        let untold = log.0.lock().unwrap().clone();
        assert_eq!((untold.lost, untold.failed, untold.opened, untold.buyers), (1_999, 1_999, 2_000, 6_000));
        log.ended();
        let untold = log.0.lock().unwrap().clone();
        assert_eq!((untold.lost, untold.opened, untold.problem), (0, 0, String::new()), "all of it was told");
    }
}
