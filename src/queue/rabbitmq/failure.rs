//! How the parts of a link learn that it has failed.

use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// The first thing that went wrong with a link, told to all its parts.
#[derive(Clone, Default)]
pub(super) struct Failure {
    happened: CancellationToken,
    reason: Arc<Mutex<Option<String>>>,
}

impl Failure {
    pub(super) fn report(&self, reason: impl Into<String>) {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| reason.into());
        self.happened.cancel();
    }

    pub(super) fn reason(&self) -> String {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_else(|| "stopped".to_owned())
    }

    pub(super) fn token(&self) -> &CancellationToken {
        &self.happened
    }
}
