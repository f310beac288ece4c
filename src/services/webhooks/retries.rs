//! When a delivery that failed is tried again.

use std::time::Duration;

use chrono::{DateTime, NaiveDateTime, Utc};
use uuid::Uuid;

use crate::model::Timestamp;

/// Nobody is believed who wants to be left alone for longer.
const LONGEST_WAIT: Duration = Duration::from_secs(86_400);
/// Pauses from this on differ by a tenth, so that what failed together does not come again together.
const WITH_JITTER: Duration = Duration::from_secs(60);
/// RFC 9110's preferred form of a date, and the two that are obsolete.
const DATES: [&str; 3] = ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"];

/// Pauses before the tries, the first one first.
#[derive(Debug, Clone)]
pub(super) struct Schedule(Vec<Duration>);

impl Schedule {
    pub(super) fn new(seconds: &[u32]) -> Self {
        Self(seconds.iter().map(|seconds| Duration::from_secs((*seconds).into())).collect())
    }

    /// Before the first try.
    pub(super) fn first(&self) -> Duration {
        self.0.first().copied().unwrap_or_default()
    }

    /// After so many tries that failed; `None`: there is no other.
    pub(super) fn after(&self, tries: usize, retry_after: Option<Duration>) -> Option<Duration> {
        let pause = self.0.get(tries).copied()?;
        let pause = if pause < WITH_JITTER { pause } else { pause + pause.mul_f64(0.1 * dice()) };
        Some(pause.max(retry_after.unwrap_or_default()))
    }
}

/// From 0 to 1.
fn dice() -> f64 {
    f64::from(Uuid::new_v4().as_u128() as u16) / f64::from(u16::MAX)
}

/// What a `Retry-After` asks for: seconds, or a date.
pub(super) fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number holds are a long time, too.
        let wait = value.parse::<u64>().map_or(LONGEST_WAIT, Duration::from_secs);
        return Some(wait.min(LONGEST_WAIT));
    }
    let date = DATES.iter().find_map(|form| NaiveDateTime::parse_from_str(value, form).ok())?;
    let date = DateTime::<Utc>::from_naive_utc_and_offset(date, Utc).timestamp_millis();
    let wait = Timestamp::from_unix_ms(date)?.since(now);
    Some(wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_come_in_their_order_and_end() {
        let schedule = Schedule::new(&[0, 5, 300]);
        let seconds = Duration::from_secs;
        assert_eq!(schedule.first(), seconds(0));
        assert_eq!(schedule.after(1, None), Some(seconds(5)));
        let last = schedule.after(2, None).unwrap();
        assert!((seconds(300)..=seconds(330)).contains(&last), "{last:?}");
        assert_eq!(schedule.after(3, None), None);
        assert_eq!(schedule.after(1, Some(seconds(60))), Some(seconds(60)));
        assert_eq!(schedule.after(1, Some(seconds(2))), Some(seconds(5)), "nobody comes sooner");
        assert_eq!(schedule.after(3, Some(seconds(60))), None, "a server cannot ask for more tries");
    }

    #[test]
    fn who_asks_to_be_left_alone_is_for_a_day_at_most() {
        let now = Timestamp::from_unix_ms(784_111_777_000).unwrap();
        for (value, wait) in [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("86401", Some(86_400)),
            ("99999999999999999999999", Some(86_400)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
            ("Sun Nov  6 08:50:37 1994", Some(60)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("Sun, 06 Nov 2094 08:49:37 GMT", None),
            ("Sat, 06 Nov 2094 08:49:37 GMT", Some(86_400)),
            ("", None),
            ("-5", None),
            ("1.5", None),
            ("soon", None),
            ("2026-11-29T08:00:00Z", None),
        ] {
            assert_eq!(retry_after(value, now), wait.map(Duration::from_secs), "{value:?}");
        }
    }
}
