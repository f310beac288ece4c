//! Counts registrations and failed log-ins, per address and per account, and says when it is enough.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use moka::sync::Cache;

use crate::error::{Error, Result};
use crate::model::Username;

const WINDOW: Duration = Duration::from_secs(60);
/// Addresses and accounts remembered at most; an attacker with more of them evicts the oldest.
const KEYS_MOST: u64 = 100_000;

#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Registrations(IpAddr),
    FailuresFrom(IpAddr),
    FailuresOf(String),
}

#[derive(Clone)]
struct Count {
    since: Instant,
    count: Arc<AtomicU32>,
}

/// See the module. Windows of a minute, each beginning with the first event.
pub(super) struct AuthLimiter {
    most: u32,
    counts: Cache<Key, Count>,
}

impl AuthLimiter {
    /// `most` a minute; 0 is no limit.
    pub(super) fn new(most: u32) -> Self {
        Self { most, counts: Cache::builder().max_capacity(KEYS_MOST).time_to_live(WINDOW).build() }
    }

    /// Counts a registration, or turns it away.
    pub(super) fn registration(&self, from: IpAddr) -> Result<()> {
        let key = Key::Registrations(from);
        self.check(&key)?;
        self.count(key);
        Ok(())
    }

    /// Turns a log-in away after too many failures.
    pub(super) fn log_in(&self, from: IpAddr, account: Option<&Username>) -> Result<()> {
        self.check(&Key::FailuresFrom(from))?;
        account.map_or(Ok(()), |account| self.check(&Key::FailuresOf(account.key())))
    }

    /// Counts a failed log-in.
    pub(super) fn log_in_failed(&self, from: IpAddr, account: Option<&Username>) {
        self.count(Key::FailuresFrom(from));
        if let Some(account) = account {
            self.count(Key::FailuresOf(account.key()));
        }
    }

    fn check(&self, key: &Key) -> Result<()> {
        if self.most == 0 {
            return Ok(());
        }
        match self.counts.get(key) {
            Some(seen) if seen.count.load(Ordering::Relaxed) >= self.most => {
                Err(Error::RateLimited(WINDOW.saturating_sub(seen.since.elapsed())))
            }
            _ => Ok(()),
        }
    }

    fn count(&self, key: Key) {
        if self.most > 0 {
            let first = || Count { since: Instant::now(), count: Arc::default() };
            self.counts.get_with(key, first).count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

    #[test]
    fn failures_count_against_the_address_and_the_account() {
        let limiter = AuthLimiter::new(2);
        let alice = Username::parse("Alice").unwrap();
        for _ in 0..2 {
            limiter.log_in(HERE, Some(&alice)).unwrap();
            limiter.log_in_failed(HERE, Some(&alice));
        }
        assert!(limiter.log_in(HERE, None).is_err(), "the address");
        assert!(limiter.log_in(THERE, Some(&Username::parse("alice").unwrap())).is_err(), "the account");
        assert!(limiter.log_in(THERE, Some(&Username::parse("bob").unwrap())).is_ok());
    }

    #[test]
    fn zero_is_no_limit() {
        let limiter = AuthLimiter::new(0);
        (0..1000).for_each(|_| limiter.registration(HERE).unwrap());
    }
}
