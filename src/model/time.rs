//! Instants as the API and the database know them: UTC, to the millisecond.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Datelike, NaiveDateTime, SecondsFormat, Timelike};
use diesel::backend::Backend;
use diesel::deserialize::{self, FromSql, FromSqlRow};
use diesel::expression::AsExpression;
use diesel::mysql::Mysql;
use diesel::serialize::{self, IsNull, Output, ToSql};
use diesel::sqlite::Sqlite;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The years the databases can store, as milliseconds since 1970: 1970 to 9999.
const RANGE_MS: std::ops::Range<i64> = 0..253_402_300_800_000;

/// An instant, UTC: milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, AsExpression, FromSqlRow)]
#[diesel(sql_type = diesel::sql_types::Timestamp)]
pub struct Timestamp(i64);

impl Timestamp {
    /// This machine's clock. Cut rather than rounded, so that it is never in the future.
    pub fn now() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self((since_1970.as_millis() as i64).min(RANGE_MS.end - 1))
    }

    /// Milliseconds since 1970-01-01T00:00:00Z; `None` outside the years 1970 to 9999.
    pub fn from_unix_ms(ms: i64) -> Option<Self> {
        RANGE_MS.contains(&ms).then_some(Self(ms))
    }

    /// Milliseconds since 1970-01-01T00:00:00Z.
    pub fn unix_ms(self) -> i64 {
        self.0
    }

    /// Bytes of [`Timestamp::push_sortable`].
    pub const SORTABLE_LENGTH: usize = 23;

    /// Appends `2026-11-27 09:00:00.500`: text of one length, so that it sorts as the times do.
    pub fn push_sortable(self, text: &mut String) {
        let calendar = self.calendar();
        let (date, time) = (calendar.date(), calendar.time());
        push_digits(text, date.year().unsigned_abs(), 4, "-");
        push_digits(text, date.month(), 2, "-");
        push_digits(text, date.day(), 2, " ");
        push_digits(text, time.hour(), 2, ":");
        push_digits(text, time.minute(), 2, ":");
        push_digits(text, time.second(), 2, ".");
        push_digits(text, time.nanosecond() / 1_000_000, 3, "");
    }

    fn calendar(self) -> NaiveDateTime {
        DateTime::from_timestamp_millis(self.0).unwrap_or_default().naive_utc()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.calendar().and_utc().to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    /// RFC 3339 with any offset.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
        DateTime::parse_from_rfc3339(&text)
            .ok()
            .and_then(|time| Self::from_unix_ms(time.timestamp_millis()))
            .ok_or_else(|| serde::de::Error::custom("must be an RFC 3339 time such as 2026-11-27T09:00:00Z"))
    }
}

impl ToSql<diesel::sql_types::Timestamp, Mysql> for Timestamp {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Mysql>) -> serialize::Result {
        ToSql::<diesel::sql_types::Timestamp, Mysql>::to_sql(&self.calendar(), &mut out.reborrow())
    }
}

impl ToSql<diesel::sql_types::Timestamp, Sqlite> for Timestamp {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, Sqlite>) -> serialize::Result {
        let mut text = String::with_capacity(Self::SORTABLE_LENGTH);
        self.push_sortable(&mut text);
        out.set_value(text);
        Ok(IsNull::No)
    }
}

/// Two of these are written with each order; the formatter of the time library takes a microsecond for one.
fn push_digits(text: &mut String, number: u32, digits: u32, end: &str) {
    for place in (0..digits).rev() {
        text.push(char::from(b'0' + (number / 10_u32.pow(place) % 10) as u8));
    }
    text.push_str(end);
}

impl<DB: Backend> FromSql<diesel::sql_types::Timestamp, DB> for Timestamp
where
    NaiveDateTime: FromSql<diesel::sql_types::Timestamp, DB>,
{
    fn from_sql(raw: DB::RawValue<'_>) -> deserialize::Result<Self> {
        let ms = NaiveDateTime::from_sql(raw)?.and_utc().timestamp_millis();
        Self::from_unix_ms(ms).ok_or_else(|| "a time outside the years 1970 to 9999".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_utc_with_milliseconds() {
        let time: Timestamp = serde_json::from_str("\"2026-11-27T10:00:00.5+01:00\"").unwrap();
        assert_eq!(time.to_string(), "2026-11-27T09:00:00.500Z");
    }

    #[test]
    fn times_that_no_database_can_store_are_refused() {
        for text in ["1969-12-31T23:59:59Z", "+10000-01-01T00:00:00Z", "2026-11-27", "now"] {
            assert!(serde_json::from_str::<Timestamp>(&format!("{text:?}")).is_err(), "{text}");
        }
    }
}
