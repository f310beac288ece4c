//! Rows that cannot be read: each is left out by itself, named in the log, and counted.
//!
//! Somebody has edited the table by hand, restored half of it, or another program has written to it. Whoever reads many rows
//! goes on with the others; a caller that needs that one row learns which it is ([`DbError::Unreadable`]).

use std::fmt::Write;
use std::sync::LazyLock;
use std::time::Duration;

use diesel::backend::Backend;
use diesel::deserialize::FromSql;
use diesel::row::{Field, Row as SqlRow};
use diesel::sql_types::{BigInt, Binary};
use moka::sync::Cache;
use uuid::Uuid;

use super::error::{DbError, DbResult};
use crate::model::{OrderId, PaymentId};
use crate::telemetry::{LogThrottle, metrics};

/// A row is named again after this.
const TOLD_AGAIN: Duration = Duration::from_secs(600);
/// Rows are named at this rate at most.
const MAX_TOLD: Duration = Duration::from_secs(1);
/// Named rows that are remembered.
const MAX_ROWS: u64 = 1_000;

static TOLD: LazyLock<Cache<(&str, String), ()>> =
    LazyLock::new(|| Cache::builder().max_capacity(MAX_ROWS).time_to_live(TOLD_AGAIN).build());
static THROTTLE: LogThrottle = LogThrottle::new(MAX_TOLD);

/// A row that was asked for: its first column, which names it, and what it is as a whole, if it can be read.
pub(super) struct Row<K: Key, T> {
    key: Option<K::Raw>,
    value: Result<T, String>,
}

/// The first column of a table's rows.
pub(super) trait Key: Sized {
    /// Its type in SQL.
    type Sql;
    /// What there can be in it.
    type Raw: Send + 'static;

    /// A key by which a list can go on; `None`: nobody can ask for it.
    fn read(raw: &Self::Raw) -> Option<Self>;

    /// As an operator would look for it.
    fn name(raw: &Self::Raw) -> String;
}

impl Key for i64 {
    type Sql = BigInt;
    type Raw = i64;

    fn read(raw: &i64) -> Option<Self> {
        Some(*raw)
    }

    fn name(raw: &i64) -> String {
        raw.to_string()
    }
}

impl Key for OrderId {
    type Sql = Binary;
    type Raw = Vec<u8>;

    fn read(raw: &Vec<u8>) -> Option<Self> {
        Uuid::from_slice(raw).ok()?.try_into().ok()
    }

    fn name(raw: &Vec<u8>) -> String {
        hex(raw)
    }
}

impl Key for PaymentId {
    type Sql = Binary;
    type Raw = Vec<u8>;

    fn read(raw: &Vec<u8>) -> Option<Self> {
        PaymentId::from_stored(raw).ok()
    }

    fn name(raw: &Vec<u8>) -> String {
        hex(raw)
    }
}

/// As both databases write bytes.
fn hex(raw: &[u8]) -> String {
    raw.iter().fold("0x".to_owned(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

impl<K: Key, T> Row<K, T> {
    /// `key`: what the first column holds.
    pub(super) fn of(key: Option<K::Raw>, value: Result<T, String>) -> Self {
        Self { key, value }
    }
}

/// Has rows of these columns read one by one: key, what a row is, and the columns' types in SQL.
macro_rules! one_by_one {
    ($key:ty, $value:ty, $sql:ty) => {
        $crate::db::readable::one_by_one!($key, $value, $sql, diesel::mysql::Mysql);
        $crate::db::readable::one_by_one!($key, $value, $sql, diesel::sqlite::Sqlite);
    };
    ($key:ty, $value:ty, $sql:ty, $database:ty) => {
        impl diesel::deserialize::FromSqlRow<$sql, $database> for $crate::db::readable::Row<$key, $value> {
            fn build_from_row<'a>(row: &impl diesel::row::Row<'a, $database>) -> diesel::deserialize::Result<Self> {
                let value = <$value as diesel::deserialize::FromSqlRow<$sql, $database>>::build_from_row(row);
                Ok(Self::of(
                    $crate::db::readable::first_column::<_, $key>(row),
                    value.map_err(|error| error.to_string()),
                ))
            }
        }
    };
}
pub(super) use one_by_one;

/// What the first column holds.
pub(super) fn first_column<'a, DB, K>(row: &impl SqlRow<'a, DB>) -> Option<K::Raw>
where
    DB: Backend,
    K: Key,
    K::Raw: FromSql<K::Sql, DB>,
{
    row.get(0).and_then(|first| K::Raw::from_nullable_sql(first.value()).ok())
}

/// Those rows of a page that could be read.
#[derive(Debug)]
pub struct Readable<T, K> {
    /// They.
    pub rows: Vec<T>,
    /// The keys of all rows, in their order, as far as a list can go on after them.
    pub keys: Vec<K>,
    /// How many rows there were.
    pub count: usize,
}

/// Leaves out what cannot be read.
pub(super) fn readable<K: Key, T>(table: &'static str, found: Vec<Row<K, T>>) -> Readable<T, K> {
    let count = found.len();
    let keys = found.iter().filter_map(|row| K::read(row.key.as_ref()?)).collect();
    let rows = found.into_iter().filter_map(|row| row.read(table).ok()).collect();
    Readable { rows, keys, count }
}

/// All rows, where one that is missing would be a mistake.
pub(super) fn all<K: Key, T>(table: &'static str, found: impl IntoIterator<Item = Row<K, T>>) -> DbResult<Vec<T>> {
    found.into_iter().map(|row| row.read(table)).collect()
}

/// The row that was asked for, if it is there.
pub(super) fn one<K: Key, T>(table: &'static str, found: Option<Row<K, T>>) -> DbResult<Option<T>> {
    found.map(|row| row.read(table)).transpose()
}

impl<K: Key, T> Row<K, T> {
    fn read(self, table: &'static str) -> DbResult<T> {
        let Self { key, value } = self;
        value.map_err(|problem| {
            let row = key.as_ref().map_or_else(|| "without a key".to_owned(), K::name);
            log(table, &row, &problem);
            DbError::Unreadable { table, row, problem }
        })
    }
}

/// Counts it, and says so now and then.
fn log(table: &'static str, row: &str, problem: &str) {
    metrics::unreadable_row(table);
    let name = (table, row.to_owned());
    if TOLD.contains_key(&name) {
        return;
    }
    let Some(untold) = THROTTLE.now() else { return };
    TOLD.insert(name, ());
    tracing::warn!(
        table,
        row.id = row,
        problem,
        untold,
        "A row of the database cannot be read: it is left out, everything else goes on. Correct or delete it"
    );
}
