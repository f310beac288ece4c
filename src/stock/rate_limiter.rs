//! The rate limit, where this process keeps it.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use parking_lot::{Mutex, MutexGuard};

use crate::model::{ProductId, Purchase, Timestamp, UserId};

/// One try per user and product in this time.
pub const RATE_WINDOW: Duration = Duration::from_secs(1);

/// So that the workers seldom wait for each other.
const LOCK_PARTS: usize = 16;

/// Who tried to buy what within the last [`RATE_WINDOW`], of all sales together: what it takes in memory depends on how
/// many try, not on how many sales there were.
#[derive(Default)]
pub(super) struct RateLimiter {
    hasher: RandomState,
    parts: [Mutex<LockPart>; LOCK_PARTS],
}

/// Tries are forgotten all at once: those of a whole window when the next one is over.
#[derive(Default)]
struct LockPart {
    young: Tries,
    old: Tries,
    /// When the first of the young ones came.
    since: Option<Instant>,
}

type Tries = HashMap<(ProductId, UserId), Instant, RandomState>;

impl RateLimiter {
    /// Notes a try; `Err` is the wait when the last one is too recent, which is not noted.
    pub(super) fn note(&self, product: ProductId, user: UserId, now: Instant) -> Result<(), Duration> {
        let mut part = self.part(user);
        match part.wait((product, user), now) {
            Some(wait) => Err(wait),
            None => {
                part.insert((product, user), now, now);
                Ok(())
            }
        }
    }

    /// How long a user has to wait for the next try.
    pub(super) fn wait(&self, product: ProductId, user: UserId, now: Instant) -> Option<Duration> {
        self.part(user).wait((product, user), now)
    }

    /// Lets a user wait so long for the next try.
    pub(super) fn let_wait(&self, product: ProductId, user: UserId, now: Instant, wait: Duration) {
        let ago = RATE_WINDOW.saturating_sub(wait);
        if let Some(tried) = now.checked_sub(ago).filter(|_| ago < RATE_WINDOW) {
            self.part(user).insert((product, user), tried, now);
        }
    }

    fn part(&self, user: UserId) -> MutexGuard<'_, LockPart> {
        self.parts[self.hasher.hash_one(user) as usize % LOCK_PARTS].lock()
    }
}

impl LockPart {
    fn wait(&self, key: (ProductId, UserId), now: Instant) -> Option<Duration> {
        let tried = self.young.get(&key).or_else(|| self.old.get(&key))?;
        RATE_WINDOW.checked_sub(now.duration_since(*tried)).filter(|wait| !wait.is_zero())
    }

    fn insert(&mut self, key: (ProductId, UserId), tried: Instant, now: Instant) {
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since) >= RATE_WINDOW {
            let room = self.young.len();
            self.old =
                std::mem::replace(&mut self.young, Tries::with_capacity_and_hasher(room, RandomState::default()));
            self.since = Some(now);
        }
        self.young.insert(key, tried);
    }
}

/// The rest of the rate window for a buyer whose unit is given back. While a buyer held a unit, later tries
/// were not counted.
pub(super) fn rate_wait(purchase: &Purchase, now: Timestamp) -> Duration {
    RATE_WINDOW.saturating_sub(now.since(purchase.order_id.drawn_at()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_may_try_once_a_window_for_each_product() {
        let (tries, begin) = (RateLimiter::default(), Instant::now());
        let try_for = |product: i64, user: i64, ms: u64| {
            let at = begin + Duration::from_millis(ms);
            tries.note(product.try_into().unwrap(), user.try_into().unwrap(), at)
        };
        let try_at = |user, ms| try_for(1, user, ms);
        assert_eq!(try_at(1, 0), Ok(()));
        assert_eq!(try_for(2, 1, 0), Ok(()), "another product");
        assert_eq!(try_at(1, 999), Err(Duration::from_millis(1)));
        assert_eq!(try_at(2, 900), Ok(()));
        assert_eq!(try_at(1, 1000), Ok(()), "a refused try has not extended the wait");
        assert_eq!(try_at(2, 1899), Err(Duration::from_millis(1)), "of the window before");
        assert_eq!(try_at(2, 1900), Ok(()));
        for user in 3..1000 {
            assert_eq!(try_at(user, 5000), Ok(()));
        }
        assert_eq!(try_at(99, 7000), Ok(()), "long forgotten");
    }
}
