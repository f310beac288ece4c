//! Instants as the API and the database know them: UTC, to the millisecond.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Datelike, NaiveDateTime, Timelike};
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
    /// A clock that stands before 1970 shows 1970.
    pub fn now() -> Self {
        Self(clock_ms().clamp(RANGE_MS.start, RANGE_MS.end - 1))
    }

    /// Whether this machine's clock stands before 1970, when there were no tokens and no HTTP.
    pub fn is_before_1970() -> bool {
        clock_ms() < RANGE_MS.start
    }

    /// So much earlier, but not before 1970.
    pub fn before(self, by: Duration) -> Self {
        Self(self.0.saturating_sub_unsigned(whole_ms(by)).max(RANGE_MS.start))
    }

    /// So much later, but not after 9999.
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add_unsigned(whole_ms(by)).min(RANGE_MS.end - 1))
    }

    /// How long ago `earlier` was; nothing if it is later, as it can be by another machine's clock.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0).max(0) as u64)
    }

    /// The first one there is.
    pub const EARLIEST: Self = Self(RANGE_MS.start);

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
        // As RFC 3339 has it. Every 202 shows one, and chrono takes its time.
        let mut text = String::with_capacity(Self::SORTABLE_LENGTH);
        self.push_sortable(&mut text);
        let (date, time) = text.split_at("2026-11-27".len());
        write!(f, "{date}T{}Z", &time[1..])
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
        let time = DateTime::parse_from_rfc3339(&text)
            .map_err(|_| serde::de::Error::custom("must be an RFC 3339 time such as 2026-11-27T09:00:00Z"))?;
        Self::from_unix_ms(time.timestamp_millis())
            .ok_or_else(|| serde::de::Error::custom("must be a time in the years 1970 to 9999"))
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

/// Milliseconds between 1970 and what this machine's clock shows.
fn clock_ms() -> i64 {
    let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or_else(|before| -ms(before.duration()), ms);
    #[cfg(feature = "failpoints")]
    let now = now.saturating_add(wrong_clock::ms_ahead());
    now
}

fn whole_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
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

/// Lets the clock go wrong, for the fault tests. Compiled out of a build that is used.
#[cfg(feature = "failpoints")]
mod wrong_clock {
    use std::path::PathBuf;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicI64, Ordering};
    use std::time::{Duration, Instant};

    const LOOK_EVERY: Duration = Duration::from_millis(20);
    static FILE: LazyLock<Option<PathBuf>> =
        LazyLock::new(|| std::env::var_os("SECKILL_WRONG_CLOCK").map(PathBuf::from));
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    static LOOK_AT_MS: AtomicI64 = AtomicI64::new(0);
    static AHEAD_MS: AtomicI64 = AtomicI64::new(0);

    /// Milliseconds to add to the time, from the file that the environment names. It may change at any time.
    pub(super) fn ms_ahead() -> i64 {
        let Some(file) = &*FILE else { return 0 };
        let now = BEGUN.elapsed().as_millis() as i64;
        if now >= LOOK_AT_MS.load(Ordering::Relaxed) {
            LOOK_AT_MS.store(now + LOOK_EVERY.as_millis() as i64, Ordering::Relaxed);
            let ahead = std::fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok());
            AHEAD_MS.store(ahead.unwrap_or_default(), Ordering::Relaxed);
        }
        AHEAD_MS.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_with_times_ends_at_the_first_and_the_last_of_them() {
        let (first, last) = (Timestamp(RANGE_MS.start), Timestamp(RANGE_MS.end - 1));
        assert_eq!(first.before(Duration::from_secs(1)), first);
        assert_eq!(last.after(Duration::MAX), last);
        assert_eq!(first.since(last), Duration::ZERO);
        assert_eq!(last.before(Duration::from_millis(5)), Timestamp(RANGE_MS.end - 6));
        assert_eq!(last.since(last.before(Duration::from_secs(3))), Duration::from_secs(3));
    }

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
