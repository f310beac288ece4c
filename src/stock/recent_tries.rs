//! The rate limit of one sale, where this process keeps it.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::RATE_WINDOW;
use crate::model::UserId;

/// Who tried within the last [`RATE_WINDOW`]; older tries are forgotten as new ones come.
#[derive(Default)]
pub(super) struct RecentTries {
    by_user: HashMap<UserId, Instant>,
    by_age: VecDeque<(Instant, UserId)>,
}

impl RecentTries {
    /// Notes a try; `Err` is the wait when the last one is too recent, which is not noted.
    pub(super) fn note(&mut self, user: UserId, now: Instant) -> Result<(), Duration> {
        while let Some((at, old)) = self.by_age.front().copied()
            && now.duration_since(at) >= RATE_WINDOW
        {
            self.by_age.pop_front();
            self.by_user.remove(&old);
        }
        match self.by_user.get(&user) {
            Some(at) => Err(RATE_WINDOW - now.duration_since(*at)),
            None => {
                self.by_user.insert(user, now);
                self.by_age.push_back((now, user));
                Ok(())
            }
        }
    }
}
