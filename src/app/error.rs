//! Why the process could not start.

/// Why the process could not start, in one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub(super) String);

impl From<String> for StartError {
    fn from(problem: String) -> Self {
        Self(problem)
    }
}
