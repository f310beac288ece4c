//! The rate limit of one sale, where this process keeps it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;

use super::RATE_WINDOW;
use crate::model::UserId;

/// Who tried within the last [`RATE_WINDOW`]. Older tries are forgotten all at once: those of a whole window when the
/// next one is over.
#[derive(Default)]
pub(super) struct RecentTries {
    young: HashMap<UserId, Instant, RandomState>,
    old: HashMap<UserId, Instant, RandomState>,
    /// When the first of the young ones came.
    since: Option<Instant>,
}

impl RecentTries {
    /// Notes a try; `Err` is the wait when the last one is too recent, which is not noted.
    pub(super) fn note(&mut self, user: UserId, now: Instant) -> Result<(), Duration> {
        let since = *self.since.get_or_insert(now);
        if now.duration_since(since) >= RATE_WINDOW {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
            self.since = Some(now);
        }
        if let Some(at) = self.young.get(&user).or_else(|| self.old.get(&user))
            && let Some(wait) = RATE_WINDOW.checked_sub(now.duration_since(*at)).filter(|wait| !wait.is_zero())
        {
            return Err(wait);
        }
        self.young.insert(user, now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_may_try_once_a_window() {
        let (mut tries, begin) = (RecentTries::default(), Instant::now());
        let mut try_at = |user: i64, ms: u64| tries.note(user.try_into().unwrap(), begin + Duration::from_millis(ms));
        assert_eq!(try_at(1, 0), Ok(()));
        assert_eq!(try_at(1, 999), Err(Duration::from_millis(1)));
        assert_eq!(try_at(2, 900), Ok(()));
        assert_eq!(try_at(1, 1000), Ok(()), "a refused try has not extended the wait");
        assert_eq!(try_at(2, 1899), Err(Duration::from_millis(1)), "of the window before");
        assert_eq!(try_at(2, 1900), Ok(()));
        for user in 3..100 {
            assert_eq!(try_at(user, 5000), Ok(()));
        }
        assert_eq!(try_at(99, 7000), Ok(()), "long forgotten");
    }
}
