//! What the log says of log-ins that failed: from where and to which account, so that an operator sees who is guessing.
//! Never a password, never a name that could not be one, and at a bounded rate.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::model::Username;

/// Lines within [`PERIOD`].
const MAX_LINES: u32 = 20;
const PERIOD: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Default)]
pub(super) struct FailureLog(Mutex<Option<Period>>);

struct Period {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl FailureLog {
    /// Logs one, unless there are too many.
    pub(super) fn note(&self, from: IpAddr, account: Option<&Username>) {
        if let Some(left_out) = self.admit(Instant::now()) {
            // A name of another form may hold anything, and an account it is not.
            let account = account.map_or("(no possible name)", Username::as_str);
            if left_out > 0 {
                tracing::info!(address = %from, account, left_out, "A log-in failed; others are left out here");
            } else {
                tracing::info!(address = %from, account, "A log-in failed");
            }
        }
    }

    /// How many were left out before this one; `None`: this one is, too.
    fn admit(&self, now: Instant) -> Option<u64> {
        let mut period = self.0.lock();
        let current = period.get_or_insert(Period { since: now, lines: 0, left_out: 0 });
        let mut left_out = 0;
        if now.duration_since(current.since) >= PERIOD {
            left_out = current.left_out;
            *current = Period { since: now, lines: 0, left_out: 0 };
        }
        if current.lines == MAX_LINES {
            current.left_out += 1;
            return None;
        }
        current.lines += 1;
        Some(left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_failures_is_a_few_lines_that_say_how_many() {
        let (log, begun) = (FailureLog::default(), Instant::now());
        let lines = (0..1000).filter(|_| log.admit(begun).is_some()).count();
        assert_eq!(lines, MAX_LINES as usize);
        assert_eq!(log.admit(begun + PERIOD), Some(1000 - u64::from(MAX_LINES)));
        assert_eq!(log.admit(begun + PERIOD), Some(0));
    }
}
