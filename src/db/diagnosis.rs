//! From an error of the database to its class, by number and SQLSTATE. The language that a server speaks does not matter.
//!
//! Diesel keeps the text of an error and throws its number away. MySQL still knows it: the same connection is asked, before
//! anything else runs on it. It costs nothing while nothing fails.

use std::future::Future;

use diesel::result::{DatabaseErrorKind, Error as QueryError};
use diesel::{QueryResult, SqliteConnection};
use diesel_async::sync_connection_wrapper::SyncConnectionWrapper;
use diesel_async::{AsyncConnection, AsyncMysqlConnection, SimpleAsyncConnection, TransactionManager};

use super::error::{DbError, DbResult, ErrorClass};

/// How errors of MySQL's client begin. They are its own words, in English whatever the server speaks.
const CLIENT_ERRORS: [&str; 3] = ["Input/output error: ", "Driver error: ", "Other error: "];
/// The client's own check against `max_allowed_packet`, which it reads when it connects.
const CLIENT_PACKET: &str = "packet too large";
/// What an answer begins with.
const ANSWER: &str = "seckill: ";
/// Characters of an error's text that show which error an answer is about.
const TEXT_COMPARED: usize = 40;
/// The only answer in the text protocol that Diesel hands on is the message of an error, so the question ends with one.
/// Text, for a server may be out of prepared statements. The last condition is the error; warnings come before it.
const ASK: &str = "GET DIAGNOSTICS @seckill_n = NUMBER; \
    GET DIAGNOSTICS CONDITION @seckill_n @seckill_e = MYSQL_ERRNO, @seckill_s = RETURNED_SQLSTATE, @seckill_t = MESSAGE_TEXT; \
    SET @seckill_m = CONCAT('seckill: ', @seckill_e, ' ', @seckill_s, ' ', LEFT(@seckill_t, 40)); \
    SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = @seckill_m";

/// Numbers of MySQL and MariaDB, sorted. What is not here passes: see [`by_state`].
const NUMBERS: &[(ErrorClass, &[u16])] = &[
    // 1047: Galera's node is not ready. 1053, 1077..1079, 3032 (MySQL), 3168: it stops or starts. 1317, 1927, 3169: KILL.
    // 1152..1161, 1184: the network. 1130, 1129: a proxy or host that is shut out. 2xxx: errors of clients that proxies
    // hand on. 4031 (MySQL): idle for too long, told apart from MariaDB's number by its state.
    (
        ErrorClass::Lost,
        &[
            1047, 1053, 1077, 1078, 1079, 1080, 1129, 1130, 1152, 1154, 1155, 1156, 1157, 1158, 1159, 1160, 1161, 1184,
            1317, 1927, 2002, 2003, 2006, 2013, 2027, 2055, 3032, 3168, 3169,
        ],
    ),
    // max_statement_time, max_execution_time.
    (ErrorClass::TimedOut, &[1907, 1969, 3024]),
    // Connections, memory, threads, locks, transactions, max_prepared_stmt_count, limits of an account.
    (ErrorClass::Overloaded, &[1037, 1038, 1040, 1041, 1135, 1203, 1206, 1226, 1461, 1637, 1998, 3170, 4150]),
    // 1290: --read-only, --super-read-only. 1792: a read-only transaction or session. 3100, 3101: group replication.
    (ErrorClass::ReadOnly, &[1036, 1207, 1290, 1792, 1836, 1874, 3100]),
    // 1114: also InnoDB's tablespace or temporary files. 1197, 1705: the binary log's caches. 3675: tablespace.
    (ErrorClass::Full, &[1021, 1114, 1197, 1534, 1705, 3675, 4139]),
    // 1099, 1223: LOCK TABLES, FLUSH TABLES WITH READ LOCK. 3572: NOWAIT. 4145: a backup. 3101: certification failed.
    (
        ErrorClass::Locked,
        &[1015, 1020, 1027, 1099, 1100, 1205, 1213, 1223, 1613, 1614, 1689, 1806, 3058, 3101, 3132, 3572, 4145],
    ),
    // 1820, 1862: an expired password. 3118, 3955, 4151: a locked account. 3159: TLS is required.
    (
        ErrorClass::Denied,
        &[
            1044, 1045, 1095, 1131, 1132, 1141, 1142, 1143, 1147, 1227, 1251, 1275, 1370, 1396, 1419, 1449, 1524, 1698,
            1820, 1862, 1873, 3118, 3159, 3879, 3955, 4151,
        ],
    ),
    (
        ErrorClass::Schema,
        &[
            1046, 1049, 1051, 1054, 1064, 1072, 1091, 1109, 1136, 1146, 1176, 1305, 1356, 1364, 1412, 1615, 1812, 1814,
            1932, 1933, 3757, 4026,
        ],
    ),
    // 1030: whatever the engine says, a full disk (28) and an exceeded quota (122) too. Files, pages, indexes.
    (
        ErrorClass::Storage,
        &[
            3, 5, 9, 23, 1004, 1005, 1016, 1017, 1024, 1026, 1030, 1033, 1034, 1035, 1039, 1180, 1181, 1194, 1195,
            1296, 1297, 1712, 1877, 4105,
        ],
    ),
    (ErrorClass::TooLarge, &[1153, 1162, 1301, 2020]),
    (ErrorClass::Duplicate, &[1022, 1062, 1169, 1586, 1859]),
    // 1364 is not here: a column without a default is a change of the schema, and refuses every row.
    (ErrorClass::Violation, &[1048, 1216, 1263, 1264, 1366, 1406, 1452, 1690, 3819]),
];

/// The class of a number and a state, which a proxy may have made up.
pub(super) fn classify(number: Option<u16>, state: &str) -> ErrorClass {
    let listed = NUMBERS.iter().find(|(_, numbers)| number.is_some_and(|number| numbers.contains(&number)));
    match listed {
        Some((class, _)) => *class,
        None => by_state(state),
    }
}

/// The first two characters name the class of SQLSTATE.
fn by_state(state: &str) -> ErrorClass {
    match state {
        "25006" => ErrorClass::ReadOnly,
        "42S02" | "42S22" => ErrorClass::Schema,
        "70100" => ErrorClass::Lost,
        _ => match state.get(..2) {
            Some("08") => ErrorClass::Lost,
            Some("28") => ErrorClass::Denied,
            Some("40") => ErrorClass::Locked,
            Some("53") => ErrorClass::Overloaded,
            // MariaDB's CHECK (4025) has no number of its own in MySQL.
            Some("23") => ErrorClass::Violation,
            _ => ErrorClass::Unknown,
        },
    }
}

/// A connection that can say more about its last error.
pub(super) trait Diagnose: AsyncConnection {
    /// The error of the query that has just failed here, with its class.
    fn diagnose(&mut self, error: QueryError) -> impl Future<Output = DbError> + Send;
}

/// A query's result, its error diagnosed. A connection that is of no more use is marked, and dropped by those who hold it.
pub(super) async fn diagnosed<C: Diagnose, T>(conn: &mut C, result: QueryResult<T>) -> DbResult<T> {
    let error = match result {
        Ok(value) => return Ok(value),
        Err(error) => conn.diagnose(error).await,
    };
    if error.class().spoils_connection() {
        C::TransactionManager::transaction_manager_status_mut(conn).set_in_error();
    }
    Err(error)
}

impl Diagnose for AsyncMysqlConnection {
    async fn diagnose(&mut self, error: QueryError) -> DbError {
        // 1364 is among the nulls, and another matter.
        let QueryError::DatabaseError(DatabaseErrorKind::Unknown | DatabaseErrorKind::NotNullViolation, problem) =
            &error
        else {
            return error.into();
        };
        let message = problem.message().to_owned();
        if CLIENT_ERRORS.iter().any(|start| message.starts_with(start)) {
            let class = if message.contains(CLIENT_PACKET) { ErrorClass::TooLarge } else { ErrorClass::Lost };
            return DbError::of_class(class, None, message);
        }
        let Err(QueryError::DatabaseError(_, answer)) = self.batch_execute(ASK).await else {
            return DbError::of_class(ErrorClass::Unknown, None, message);
        };
        if CLIENT_ERRORS.iter().any(|start| answer.message().starts_with(start)) {
            // The server has hung up, as it does after a message that is too large and when it stops.
            return DbError::Lost(message);
        }
        match read_answer(answer.message(), &message) {
            Some((number, state)) => DbError::of_class(classify(Some(number), state), Some(number), message),
            None => DbError::of_class(ErrorClass::Unknown, None, message),
        }
    }
}

/// Number and state in an answer, if it is about the error of this text: behind a proxy that shares connections another
/// one might be asked.
fn read_answer<'a>(answer: &'a str, message: &str) -> Option<(u16, &'a str)> {
    let mut parts = answer.strip_prefix(ANSWER)?.splitn(3, ' ');
    let (number, state, text) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
    let same = text.chars().take(TEXT_COMPARED).eq(message.chars().take(TEXT_COMPARED));
    same.then_some((number, state))
}

impl Diagnose for SyncConnectionWrapper<SqliteConnection> {
    async fn diagnose(&mut self, error: QueryError) -> DbError {
        of_sqlite(error)
    }
}

/// Diesel hides SQLite's codes. Its texts are built in with it, fixed and never translated (`sqlite3_errstr`, and the few
/// of its parser), so they are as good as numbers.
const SQLITE_TEXTS: &[(ErrorClass, &[&str])] = &[
    // SQLITE_BUSY, SQLITE_LOCKED, SQLITE_PROTOCOL, SQLITE_INTERRUPT, SQLITE_ABORT
    (
        ErrorClass::Locked,
        &[
            "database is locked",
            "database table is locked",
            "database schema is locked",
            "locking protocol",
            "interrupted",
            "query aborted",
        ],
    ),
    (ErrorClass::Full, &["database or disk is full"]),
    (ErrorClass::ReadOnly, &["attempt to write a readonly database"]),
    // SQLITE_PERM, SQLITE_AUTH
    (ErrorClass::Denied, &["access permission denied", "authorization denied", "not authorized", "access to "]),
    // SQLITE_IOERR, SQLITE_CANTOPEN, SQLITE_CORRUPT, SQLITE_NOTADB, SQLITE_NOLFS
    (
        ErrorClass::Storage,
        &[
            "disk I/O error",
            "unable to open database",
            "database disk image is malformed",
            "file is not a database",
            "large file support is disabled",
            "malformed database schema",
            "unsupported file format",
        ],
    ),
    (ErrorClass::Overloaded, &["out of memory"]),
    (ErrorClass::TooLarge, &["string or blob too big", "too many SQL variables"]),
    // SQLITE_SCHEMA and the parser's
    (
        ErrorClass::Schema,
        &["database schema has changed", "no such table", "no such column", "no such index", "table "],
    ),
    // SQLITE_CONSTRAINT_DATATYPE and SQLITE_MISMATCH: the column is STRICT.
    (ErrorClass::Violation, &["cannot store ", "datatype mismatch"]),
];

/// The error of a query to a file.
pub(super) fn of_sqlite(error: QueryError) -> DbError {
    let QueryError::DatabaseError(DatabaseErrorKind::Unknown, problem) = &error else { return error.into() };
    of_sqlite_text(problem.message())
}

/// What SQLite's text means.
pub(super) fn of_sqlite_text(message: &str) -> DbError {
    let listed = SQLITE_TEXTS.iter().find(|(_, texts)| texts.iter().any(|start| message.starts_with(start)));
    DbError::of_file(listed.map_or(ErrorClass::Unknown, |(class, _)| *class), message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(number: u16, state: &str) -> ErrorClass {
        classify(Some(number), state)
    }

    #[test]
    fn what_a_failover_a_full_disk_a_revoked_right_or_a_lock_produces_passes() {
        for (number, state, class) in [
            (1290, "HY000", ErrorClass::ReadOnly),
            (1792, "25006", ErrorClass::ReadOnly),
            (1836, "HY000", ErrorClass::ReadOnly),
            (1874, "HY000", ErrorClass::ReadOnly),
            (9999, "25006", ErrorClass::ReadOnly),
            (1021, "HY000", ErrorClass::Full),
            (1114, "HY000", ErrorClass::Full),
            (3, "HY000", ErrorClass::Storage),
            (1030, "HY000", ErrorClass::Storage),
            (1026, "HY000", ErrorClass::Storage),
            (1142, "42000", ErrorClass::Denied),
            (1044, "42000", ErrorClass::Denied),
            (1045, "28000", ErrorClass::Denied),
            (1227, "42000", ErrorClass::Denied),
            (1370, "42000", ErrorClass::Denied),
            (4151, "HY000", ErrorClass::Denied),
            (1461, "42000", ErrorClass::Overloaded),
            (1040, "08004", ErrorClass::Overloaded),
            (1203, "42000", ErrorClass::Overloaded),
            (1226, "42000", ErrorClass::Overloaded),
            (1205, "HY000", ErrorClass::Locked),
            (1213, "40001", ErrorClass::Locked),
            (1020, "HY000", ErrorClass::Locked),
            (3101, "40000", ErrorClass::Locked),
            (1047, "08S01", ErrorClass::Lost),
            (1053, "08S01", ErrorClass::Lost),
            (1317, "70100", ErrorClass::Lost),
            (1927, "70100", ErrorClass::Lost),
            (4031, "08S01", ErrorClass::Lost),
            (1969, "70100", ErrorClass::TimedOut),
            (3024, "HY000", ErrorClass::TimedOut),
            (1146, "42S02", ErrorClass::Schema),
            (1054, "42S22", ErrorClass::Schema),
            (1364, "HY000", ErrorClass::Schema),
            (1153, "08S01", ErrorClass::TooLarge),
            (1105, "HY000", ErrorClass::Unknown),
            (9001, "HY000", ErrorClass::Unknown),
            (9006, "HY000", ErrorClass::Unknown),
            (60_000, "HY000", ErrorClass::Unknown),
        ] {
            assert_eq!(of(number, state), class, "{number} {state}");
            assert!(class.is_passing(), "{number} {state}");
        }
    }

    #[test]
    fn only_a_constraint_makes_it_the_rows_own_fault() {
        for (number, state) in
            [(4025, "23000"), (3819, "HY000"), (1048, "23000"), (1264, "22003"), (1406, "22001"), (1452, "23000")]
        {
            assert_eq!(of(number, state), ErrorClass::Violation, "{number}");
        }
        assert_eq!(of(1062, "23000"), ErrorClass::Duplicate);
        let passing: Vec<_> = ErrorClass::ALL.iter().filter(|class| !class.is_passing()).collect();
        assert_eq!(passing, [&ErrorClass::Duplicate, &ErrorClass::Violation, &ErrorClass::Defect]);
    }

    #[test]
    fn no_number_is_in_two_classes() {
        let mut all: Vec<u16> = NUMBERS.iter().flat_map(|(_, numbers)| *numbers).copied().collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn an_answer_about_another_error_is_not_believed() {
        let message = "Der MariaDB-Server läuft mit der Option --read-only und kann diese Anweisung nicht ausführen";
        let text: String = message.chars().take(TEXT_COMPARED).collect();
        assert_eq!(read_answer(&format!("seckill: 1290 HY000 {text}"), message), Some((1290, "HY000")));
        assert_eq!(read_answer("seckill: 1213 40001 Deadlock found", message), None);
        assert_eq!(read_answer("Unknown command", message), None);
    }

    /// Guards against: `grant … INSERT` for a wrong password, and mysql.dsn where there is no MySQL.
    #[test]
    fn the_advice_is_about_what_is_wrong() {
        let refused = |number: u16, state: &str| DbError::of_class(of(number, state), Some(number), String::new());
        for (number, state, advice) in [
            (1045, "28000", "the user and the password"),
            (1698, "28000", "the user and the password"),
            (1044, "42000", "the database's name"),
            (1049, "42000", "create this database"),
            (1142, "42000", "grant the account"),
            (1146, "42S02", "seckill migrate"),
            (1862, "HY000", "expired"),
            (4151, "HY000", "locked"),
            (1290, "HY000", "mysql.dsn"),
        ] {
            let error = refused(number, state);
            assert!(error.advice().contains(advice), "{number}: {}", error.advice());
        }
        for text in [
            "database or disk is full",
            "attempt to write a readonly database",
            "database is locked",
            "unable to open database file",
            "access permission denied",
            "disk I/O error",
        ] {
            let advice = of_sqlite_text(text).advice();
            assert!(!advice.contains("mysql"), "{text}: {advice}");
            assert!(advice.contains("embedded.data_dir") || text.contains("locked"), "{text}: {advice}");
        }
    }

    #[test]
    fn texts_of_sqlite_are_as_good_as_its_codes() {
        let of = |text: &str| {
            let problem = Box::new(text.to_owned());
            of_sqlite(QueryError::DatabaseError(DatabaseErrorKind::Unknown, problem)).class()
        };
        for (text, class) in [
            ("database is locked", ErrorClass::Locked),
            ("database table is locked: orders", ErrorClass::Locked),
            ("interrupted", ErrorClass::Locked),
            ("database or disk is full", ErrorClass::Full),
            ("attempt to write a readonly database", ErrorClass::ReadOnly),
            ("access permission denied", ErrorClass::Denied),
            ("not authorized", ErrorClass::Denied),
            ("disk I/O error", ErrorClass::Storage),
            ("unable to open database file", ErrorClass::Storage),
            ("database disk image is malformed", ErrorClass::Storage),
            ("file is not a database", ErrorClass::Storage),
            ("out of memory", ErrorClass::Overloaded),
            ("string or blob too big", ErrorClass::TooLarge),
            ("no such table: orders", ErrorClass::Schema),
            ("table orders has no column named live_user", ErrorClass::Schema),
            ("bad parameter or other API misuse", ErrorClass::Unknown),
        ] {
            assert_eq!(of(text), class, "{text}");
            assert!(class.is_passing(), "{text}");
        }
        assert_eq!(of("cannot store TEXT value in INTEGER column orders.user_id"), ErrorClass::Violation);
    }
}
