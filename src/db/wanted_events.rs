//! Which types of events somebody wants to be told of, and whether orders are being written in a rush, where every connection can look
//! without asking the database.
//!
//! What nobody wants costs nothing: no row, no query. Until somebody has looked it counts as wanted, for a row too many does no harm.

use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::model::{EventType, EventTypes};

/// Orders are counted for so long.
const COUNTED_FOR: Duration = Duration::from_millis(100);
/// So many within that time, or in one transaction, are a rush.
const RUSH: usize = 500;
/// It is over when there were fewer for so long.
const OVER_AFTER: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug)]
pub(super) struct WantedEvents {
    wanted: AtomicU16,
    rush: Mutex<Rush>,
}

/// Orders that were written here, of which somebody is to be told.
#[derive(Debug, Default)]
struct Rush {
    /// Since when orders are counted, and how many.
    counted: Option<(Instant, usize)>,
    /// When it began, and when it was last seen.
    seen: Option<(Instant, Instant)>,
}

impl Rush {
    fn writes(&mut self, orders: usize, now: Instant) {
        let (since, before) = self.counted.filter(|(since, _)| now - *since < COUNTED_FOR).unwrap_or((now, 0));
        let count = before + orders;
        self.counted = Some((since, count));
        if count >= RUSH {
            self.seen = Some((now - self.lasts(now).unwrap_or_default(), now));
        }
    }

    fn lasts(&self, now: Instant) -> Option<Duration> {
        let (began, seen) = self.seen.filter(|(_, seen)| now - *seen < OVER_AFTER)?;
        debug_assert!(began <= seen);
        Some(now - began)
    }
}

impl Default for WantedEvents {
    fn default() -> Self {
        Self { wanted: AtomicU16::new(EventTypes::all().bits()), rush: Mutex::default() }
    }
}

impl WantedEvents {
    pub(super) fn set(&self, wanted: EventTypes) {
        self.wanted.store(wanted.bits(), Ordering::Relaxed);
    }

    /// Orders were written that somebody is to be told of.
    pub(super) fn writes(&self, orders: usize) {
        self.rush.lock().writes(orders, Instant::now());
    }

    /// How long they have been written in a rush.
    pub(super) fn rush(&self) -> Option<Duration> {
        self.rush.lock().lasts(Instant::now())
    }

    pub(super) fn wants(&self, event_type: EventType) -> bool {
        EventTypes::from_bits(self.wanted.load(Ordering::Relaxed)).contains(event_type)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rush_is_many_orders_in_a_short_time_and_ends_a_moment_after_them() {
        let begin = Instant::now();
        let at = |ms: u64| begin + Duration::from_millis(ms);
        let mut rush = Rush::default();
        // 1,000 a second, for a second.
        for ms in (0..1_000).step_by(50) {
            rush.writes(50, at(ms));
            assert_eq!(rush.lasts(at(ms)), None);
        }
        rush.writes(8_000, at(2_000));
        assert_eq!(rush.lasts(at(2_010)), Some(Duration::from_millis(10)));
        for ms in (2_200..3_200).step_by(200) {
            rush.writes(2_000, at(ms));
        }
        assert_eq!(
            rush.lasts(at(3_100)),
            Some(Duration::from_millis(1_100)),
            "one rush, although there are pauses in it"
        );
        assert_eq!(rush.lasts(at(3_600)), None);
        rush.writes(2_000, at(9_000));
        assert_eq!(rush.lasts(at(9_000)), Some(Duration::ZERO), "another one");
    }
}
