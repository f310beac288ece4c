//! What can go wrong with the database, sorted by what can be done about it.
//!
//! Two questions matter. Does it pass? Then those who have time ask again, however long it takes. Is it the row's own fault?
//! Only then may a message be set aside. What nobody knows passes: waiting too long costs less than losing a promise.

use diesel::result::{DatabaseErrorKind, Error as QueryError};

/// Result of a query.
pub type DbResult<T> = Result<T, DbError>;

/// Why a query did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// No connection could be had; nothing was done.
    #[error("database unreachable: {0}")]
    Unreachable(String),
    /// The address of the database, or what client and server agree on, cannot work. Names the setting.
    #[error("database cannot be used: {0}")]
    Misconfigured(String),
    /// Too many wait for a connection already; nothing was done.
    #[error("database overloaded: {0}")]
    Overloaded(String),
    /// The connection broke in the middle. A commit under way may have happened.
    #[error("database connection or transaction lost: {0}")]
    Lost(String),
    /// A row changed although its lock, or that of its product, was held. The transaction is rolled back.
    #[error("database lock did not hold: {0}")]
    ChangedUnderLock(&'static str),
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
    /// The database refused the statement.
    #[error("database: {0}")]
    Refused(Refused),
    /// A row holds what no program of ours writes. Whoever can do without it does.
    #[error("row {row} of table {table} cannot be read: {problem}")]
    Unreadable {
        /// Its table.
        table: &'static str,
        /// Its key.
        row: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A value that does not fit into its type here, or a statement that cannot be built: a defect.
    #[error(transparent)]
    Query(QueryError),
    /// The schema could not be brought up to date.
    #[error("{0}")]
    Migration(String),
}

/// A database's own words.
#[derive(Debug, thiserror::Error)]
#[error("{}{message}", number.map(|number| format!("error {number}: ")).unwrap_or_default())]
pub struct Refused {
    /// What it means.
    pub class: ErrorClass,
    /// The server's number of the error, if it could be had.
    pub number: Option<u16>,
    /// In the language of the server.
    pub message: String,
    /// Whether it is the embedded backend's file that refuses, and no server.
    pub is_file: bool,
}

/// Numbers of MySQL and MariaDB of which more is known than their class says, and what an operator does about them.
const ADVICE: &[(&[u16], &str)] = &[
    (
        &[1045, 1131, 1132, 1251, 1524, 1698, 1873],
        "correct the user and the password in mysql.dsn; the account may also be made for another host than this one, or the \
         server take nobody without TLS (mysql.tls: verify)",
    ),
    (&[1044], "correct the database's name at the end of mysql.dsn, or grant its account the rights on that database"),
    (&[1049], "create this database, or correct its name at the end of mysql.dsn"),
    (&[1820, 1862], "the password of the account has expired: renew it at the database"),
    (&[3118, 3955, 4151], "the account is locked: unlock it at the database, or name another one in mysql.dsn"),
    (&[3159], "the server wants TLS: set mysql.tls: verify, and mysql.tls_ca_file if its CA is your own"),
];

impl Refused {
    fn advice(&self) -> &'static str {
        if self.is_file {
            return self.class.advice_for_a_file();
        }
        let known = ADVICE.iter().find(|(numbers, _)| self.number.is_some_and(|number| numbers.contains(&number)));
        known.map_or_else(|| self.class.advice(), |(_, advice)| advice)
    }
}

/// What an error means for those who asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// Nobody answers.
    Unreachable,
    /// The connection broke, was killed, or its server stops.
    Lost,
    /// It took too long.
    TimedOut,
    /// A limit of connections, statements, memory or of the account.
    Overloaded,
    /// A replica, a server before or after its time as primary, a file system that may not be written.
    ReadOnly,
    /// No room: disk, quota, table.
    Full,
    /// Somebody holds a lock.
    Locked,
    /// The account may not do this, or may not log in.
    Denied,
    /// A table or column is missing, or different: a migration under way, another version, a restored backup.
    Schema,
    /// The storage cannot be read or written, or what is in it is damaged.
    Storage,
    /// More than the server takes in one message. Less of it will do.
    TooLarge,
    /// A unique index turned the row away.
    Duplicate,
    /// A constraint or the type of a column turned the row away: the row's own fault.
    Violation,
    /// A row holds what nobody here has written. It passes when somebody corrects it.
    Unreadable,
    /// A number that is not in our table.
    Unknown,
    /// A defect here.
    Defect,
}

impl ErrorClass {
    /// All of them, for those who count.
    pub const ALL: [Self; 16] = [
        Self::Unreachable,
        Self::Lost,
        Self::TimedOut,
        Self::Overloaded,
        Self::ReadOnly,
        Self::Full,
        Self::Locked,
        Self::Denied,
        Self::Schema,
        Self::Storage,
        Self::TooLarge,
        Self::Duplicate,
        Self::Violation,
        Self::Unreadable,
        Self::Unknown,
        Self::Defect,
    ];

    /// Its name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::Lost => "lost",
            Self::TimedOut => "timed_out",
            Self::Overloaded => "overloaded",
            Self::ReadOnly => "read_only",
            Self::Full => "full",
            Self::Locked => "locked",
            Self::Denied => "denied",
            Self::Schema => "schema",
            Self::Storage => "storage",
            Self::TooLarge => "too_large",
            Self::Duplicate => "duplicate",
            Self::Violation => "violation",
            Self::Unreadable => "unreadable",
            Self::Unknown => "unknown",
            Self::Defect => "defect",
        }
    }

    /// What an operator does about it; nothing is lost meanwhile.
    fn advice(self) -> &'static str {
        match self {
            Self::Unreachable => "start the database, or correct mysql.dsn",
            Self::Lost => "it reconnects by itself; look for restarts and kills in the database's log",
            Self::TimedOut => {
                "see whether its machine can be reached; else look for slow statements and a slow or full disk there"
            }
            Self::Overloaded => "raise the limit that the message names, or lower mysql.pool_size",
            Self::ReadOnly => "make the primary writable, or lead mysql.dsn to it",
            Self::Full => "free disk space, or raise the quota or the table space of the database",
            Self::Locked => "end the transaction that holds the lock, if it does not end by itself",
            Self::Denied => "grant the account of mysql.dsn SELECT, INSERT, UPDATE and DELETE on its database",
            Self::Schema => "run `seckill migrate` with the version that serves, or restore the right backup",
            Self::Storage => "check the database's disk and its log",
            Self::TooLarge => "nothing: less is sent at a time; max_allowed_packet of 1 MiB avoids it",
            Self::Duplicate => "nothing, if it passes",
            Self::Violation => {
                "drop the constraint that the message names, or correct it; then put the dead letters back"
            }
            Self::Unreadable => "correct or delete the row that the message names",
            Self::Unknown => "look the message up in the database's manual",
            Self::Defect => "report it: this is a defect of seckill",
        }
    }

    /// The same where the database is a file in embedded.data_dir.
    fn advice_for_a_file(self) -> &'static str {
        match self {
            Self::ReadOnly => "make the folder embedded.data_dir and its disk writable",
            Self::Full => "free disk space where embedded.data_dir is, or raise the quota",
            Self::Locked => "end the other program that holds the file, such as sqlite3 or a backup",
            Self::Denied => "give the user of this process the right to read and write the files in embedded.data_dir",
            Self::Storage => {
                "check embedded.data_dir, its disk and its rights; if the file itself is damaged, restore a backup"
            }
            Self::Overloaded => "give this process more memory",
            other => other.advice(),
        }
    }

    /// Whether asking again later can help.
    pub fn is_passing(self) -> bool {
        !matches!(self, Self::Duplicate | Self::Violation | Self::Defect)
    }

    /// Whether another connection could do better, perhaps to another server.
    pub(super) fn spoils_connection(self) -> bool {
        matches!(
            self,
            Self::Unreachable
                | Self::Lost
                | Self::TimedOut
                | Self::ReadOnly
                | Self::Denied
                | Self::Storage
                | Self::TooLarge
        )
    }
}

impl DbError {
    /// What it means.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Unreachable(_) => ErrorClass::Unreachable,
            Self::Overloaded(_) => ErrorClass::Overloaded,
            Self::Lost(_) | Self::ChangedUnderLock(_) | Self::Task(_) => ErrorClass::Lost,
            Self::TimedOut => ErrorClass::TimedOut,
            Self::Duplicate(_) => ErrorClass::Duplicate,
            Self::Refused(refused) => refused.class,
            Self::Migration(_) => ErrorClass::Schema,
            Self::Misconfigured(_) => ErrorClass::Denied,
            Self::Unreadable { .. } => ErrorClass::Unreadable,
            Self::Panicked(_) | Self::Query(_) => ErrorClass::Defect,
        }
    }

    /// What an operator does about it; nothing is lost meanwhile.
    pub fn advice(&self) -> &'static str {
        match self {
            Self::Refused(refused) => refused.advice(),
            Self::Misconfigured(_) => "correct the setting that the message names",
            other => other.class().advice(),
        }
    }

    /// Whether asking again later can help.
    pub fn is_transient(&self) -> bool {
        self.class().is_passing()
    }

    /// An error that the database sent or a driver made, once its class is known.
    pub(super) fn of_class(class: ErrorClass, number: Option<u16>, message: String) -> Self {
        match class {
            ErrorClass::Unreachable => Self::Unreachable(message),
            ErrorClass::Lost => Self::Lost(message),
            ErrorClass::Duplicate => Self::Duplicate(message),
            class => Self::Refused(Refused { class, number, message, is_file: false }),
        }
    }

    /// An error of the embedded backend's file, once its class is known.
    pub(super) fn of_file(class: ErrorClass, message: String) -> Self {
        match Self::of_class(class, None, message) {
            Self::Refused(refused) => Self::Refused(Refused { is_file: true, ..refused }),
            other => other,
        }
    }
}

/// What Diesel itself knows, without the number of the error. It sorts the kinds by number, so they hold in any language.
impl From<QueryError> for DbError {
    fn from(error: QueryError) -> Self {
        let (kind, message) = match &error {
            QueryError::DatabaseError(kind, problem) => (kind, problem.message().to_owned()),
            QueryError::BrokenTransactionManager | QueryError::AlreadyInTransaction | QueryError::NotInTransaction => {
                return Self::Lost(error.to_string());
            }
            QueryError::RollbackErrorOnCommit { commit_error, .. } => return Self::Lost(commit_error.to_string()),
            _ => return Self::Query(error),
        };
        let class = match kind {
            DatabaseErrorKind::UniqueViolation => ErrorClass::Duplicate,
            DatabaseErrorKind::NotNullViolation
            | DatabaseErrorKind::CheckViolation
            | DatabaseErrorKind::ForeignKeyViolation => ErrorClass::Violation,
            DatabaseErrorKind::ReadOnlyTransaction => ErrorClass::ReadOnly,
            DatabaseErrorKind::SerializationFailure => ErrorClass::Locked,
            DatabaseErrorKind::ClosedConnection | DatabaseErrorKind::UnableToSendCommand => ErrorClass::Lost,
            _ => ErrorClass::Unknown,
        };
        Self::of_class(class, None, message)
    }
}
