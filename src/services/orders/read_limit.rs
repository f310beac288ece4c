//! How often a user may look after their orders: some times a second, more in a burst. Enough for a page that looks once
//! a second and is open in several tabs.
//!
//! The memory is the same whoever asks and however many they are: users share places by chance, by a seed that nobody
//! outside knows, so that a stranger cannot choose with whom.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use crate::error::{Error, Limited, Result};
use crate::model::UserId;

const PLACES: usize = 1 << 16;
/// Between two looks, in the long run.
const INTERVAL_MS: u64 = 100;
/// Looks at once, after a pause.
const BURST: u64 = 30;

/// See the module.
pub(super) struct ReadLimit {
    begun: Instant,
    seed: RandomState,
    /// When the looks so far would have been over, had they kept the interval: milliseconds since `begun`.
    over_at: Box<[AtomicU64]>,
}

impl ReadLimit {
    pub(super) fn new() -> Self {
        let over_at = (0..PLACES).map(|_| AtomicU64::new(0)).collect();
        Self { begun: Instant::now(), seed: RandomState::default(), over_at }
    }

    /// Notes a look of a user, or says how long to wait before the next one.
    pub(super) fn note(&self, user: UserId) -> Result<()> {
        self.note_at(user, self.begun.elapsed().as_millis() as u64)
    }

    fn note_at(&self, user: UserId, now: u64) -> Result<()> {
        let place = &self.over_at[self.seed.hash_one(user) as usize % PLACES];
        let latest = now + INTERVAL_MS * (BURST - 1);
        let next = |over_at: u64| (over_at <= latest).then(|| over_at.max(now) + INTERVAL_MS);
        match place.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next) {
            Ok(_) => Ok(()),
            Err(over_at) => Err(Error::RateLimited(Limited::Reads, Duration::from_millis(over_at - latest))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_an_interval() {
        let (limit, user) = (ReadLimit::new(), UserId::try_from(7).unwrap());
        let passed = |at| (0..100).take_while(|_| limit.note_at(user, at).is_ok()).count() as u64;
        assert_eq!(passed(0), BURST);
        assert!(
            matches!(limit.note_at(user, 0), Err(Error::RateLimited(Limited::Reads, wait)) if wait == Duration::from_millis(100))
        );
        assert_eq!(passed(99), 0, "a refused look does not make the wait longer");
        assert_eq!(passed(100), 1);
        assert_eq!(passed(1_100), 10);
        assert_eq!(passed(1_000_000), BURST);
    }

    #[test]
    fn whoever_looks_twice_a_second_is_never_refused() {
        let (limit, user) = (ReadLimit::new(), UserId::try_from(7).unwrap());
        assert!((0..10_000).all(|look| limit.note_at(user, look * 500).is_ok()));
    }
}
