//! What can go wrong with the database, sorted by what the caller can do about it.

use diesel::result::{DatabaseErrorKind, Error as QueryError};

/// Result of a query.
pub type DbResult<T> = Result<T, DbError>;

/// Why a query did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// No connection could be had; nothing was done.
    #[error("database unreachable: {0}")]
    Unreachable(String),
    /// The link broke, or the server turned the statement away for a reason that passes (deadlock, shutdown).
    /// A commit under way may have happened.
    #[error("database connection or transaction lost: {0}")]
    Lost(String),
    /// No answer in time. What was asked may have happened.
    #[error("database did not answer in time")]
    TimedOut,
    /// The process is going down.
    #[error("database task stopped: {0}")]
    Task(String),
    /// The task that ran the query panicked: a defect here.
    #[error("database task panicked: {0}")]
    Panicked(String),
    /// A unique index turned the row away.
    #[error("unique constraint: {0}")]
    Duplicate(String),
    /// Anything else: a defect, here or in the schema.
    #[error(transparent)]
    Query(QueryError),
    /// The schema could not be brought up to date.
    #[error("migration failed: {0}")]
    Migration(String),
}

impl DbError {
    /// Whether asking again later can help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Lost(_) | Self::TimedOut | Self::Task(_))
    }
}

/// How the messages of passing troubles begin. The driver hands on the text of an error, not its number.
const PASSING: &[&str] = &[
    "Input/output error",
    "Driver error",
    "Deadlock found",
    "Lock wait timeout exceeded",
    "Server shutdown in progress",
    "Too many connections",
    "Query execution was interrupted",
    "Connection was killed",
    "unable to open database file",
    "database is locked",
    "database or disk is full",
    "disk I/O error",
];

impl From<QueryError> for DbError {
    fn from(error: QueryError) -> Self {
        match &error {
            QueryError::DatabaseError(DatabaseErrorKind::UniqueViolation, problem) => {
                Self::Duplicate(problem.message().to_owned())
            }
            QueryError::DatabaseError(DatabaseErrorKind::ClosedConnection, problem) => {
                Self::Lost(problem.message().to_owned())
            }
            QueryError::DatabaseError(DatabaseErrorKind::Unknown, problem)
                if PASSING.iter().any(|start| problem.message().starts_with(start)) =>
            {
                Self::Lost(problem.message().to_owned())
            }
            QueryError::BrokenTransactionManager => Self::Lost(error.to_string()),
            QueryError::RollbackErrorOnCommit { commit_error, .. } => Self::Lost(commit_error.to_string()),
            _ => Self::Query(error),
        }
    }
}
