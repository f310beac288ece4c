//! How the parts of a link learn that it has failed.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::problem::Problem;

/// The first thing that went wrong with a link, told to all its parts.
#[derive(Clone, Default)]
pub(super) struct Failure {
    happened: CancellationToken,
    problem: Arc<Mutex<Option<Problem>>>,
}

impl Failure {
    pub(super) fn report(&self, problem: Problem) {
        self.problem.lock().get_or_insert(problem);
        self.happened.cancel();
    }

    /// What was reported first.
    pub(super) fn problem(&self) -> Option<Problem> {
        self.problem.lock().clone()
    }

    pub(super) fn token(&self) -> &CancellationToken {
        &self.happened
    }
}
