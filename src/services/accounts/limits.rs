//! Counts registrations and log-ins, and says when it is enough.
//!
//! Failures count against the address they came from, and against the pair of address and account. They never lock an
//! account: whoever fails elsewhere, its owner always has a try. Many failures on one account from many addresses only
//! leave strangers fewer tries each; an address from which somebody has logged in to it lately is no stranger.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use moka::sync::Cache;

use crate::error::{Error, Limited, Result};
use crate::model::{Network, Username};

const WINDOW: Duration = Duration::from_secs(60);
/// Addresses and accounts remembered at most; an attacker with more of them evicts those used least.
const MAX_KEYS: u64 = 100_000;
/// How long an address is known from which somebody has logged in, at most this many of them.
const KNOWN_FOR: Duration = Duration::from_secs(30 * 86_400);
const MAX_KNOWN: u64 = 100_000;
/// Tries that a stranger has a minute at an account which many strangers try.
const TRIES_OF_A_STRANGER: u32 = 3;

#[derive(Clone, PartialEq, Eq, Hash)]
enum Key {
    Registrations(Network),
    FailuresFrom(Network),
    FailuresOf(String),
    FailuresOfFrom(String, Network),
    SuccessesOfFrom(String, Network),
}

#[derive(Clone)]
struct Count {
    since: Instant,
    count: Arc<AtomicU32>,
}

/// See the module. Windows of a minute, each beginning with the first event. Cheap to clone.
#[derive(Clone)]
pub(super) struct AuthLimiter {
    most: u32,
    counts: Cache<Key, Count>,
    known: Cache<(String, Network), ()>,
}

impl AuthLimiter {
    /// `most` a minute; 0 is no limit.
    pub(super) fn new(most: u32) -> Self {
        let counts = Cache::builder().max_capacity(MAX_KEYS).time_to_live(WINDOW).build();
        let known = Cache::builder().max_capacity(MAX_KNOWN).time_to_live(KNOWN_FOR).build();
        Self { most, counts, known }
    }

    /// Turns a registration away after too many of them.
    pub(super) fn registration(&self, from: IpAddr) -> Result<()> {
        self.check(&Key::Registrations(Network::of(from)), self.most)
    }

    /// Counts a registration.
    pub(super) fn registered(&self, from: IpAddr) {
        self.count(Key::Registrations(Network::of(from)));
    }

    /// Whether somebody has logged in to this account from there lately.
    pub(super) fn is_known(&self, from: IpAddr, account: &Username) -> bool {
        self.known.contains_key(&(account.key(), Network::of(from)))
    }

    /// Turns a log-in away after too many.
    pub(super) fn log_in(&self, from: IpAddr, account: &Username) -> Result<()> {
        let (key, network) = (account.key(), Network::of(from));
        self.check(&Key::SuccessesOfFrom(key.clone(), network), self.most)?;
        let failures = Key::FailuresOfFrom(key.clone(), network);
        // Neither strangers elsewhere nor neighbours at the same address shut out who has been in.
        if self.is_known(from, account) {
            return self.check(&failures, self.most);
        }
        self.check(&Key::FailuresFrom(network), self.most)?;
        let many_try = self.check(&Key::FailuresOf(key), self.most).is_err();
        self.check(&failures, if many_try { TRIES_OF_A_STRANGER.min(self.most) } else { self.most })
    }

    /// Counts a failed log-in; without an account, one to a name that nobody can have.
    pub(super) fn log_in_failed(&self, from: IpAddr, account: Option<&Username>) {
        let network = Network::of(from);
        self.count(Key::FailuresFrom(network));
        if let Some(account) = account {
            self.count(Key::FailuresOf(account.key()));
            self.count(Key::FailuresOfFrom(account.key(), network));
        }
    }

    /// Turns away who has tried too many names that nobody can have.
    pub(super) fn impossible_log_in(&self, from: IpAddr) -> Result<()> {
        self.check(&Key::FailuresFrom(Network::of(from)), self.most)
    }

    /// Counts a log-in.
    pub(super) fn logged_in(&self, from: IpAddr, account: &Username) {
        let network = Network::of(from);
        self.count(Key::SuccessesOfFrom(account.key(), network));
        self.known.insert((account.key(), network), ());
    }

    fn check(&self, key: &Key, most: u32) -> Result<()> {
        if self.most == 0 {
            return Ok(());
        }
        match self.counts.get(key) {
            Some(seen) if seen.count.load(Ordering::Relaxed) >= most => {
                Err(Error::RateLimited(Limited::LogIns, WINDOW.saturating_sub(seen.since.elapsed())))
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

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn name(text: &str) -> Username {
        Username::parse(text).unwrap()
    }

    fn fail(limiter: &AuthLimiter, from: &str, account: &str, times: u32) {
        (0..times).for_each(|_| limiter.log_in_failed(ip(from), Some(&name(account))));
    }

    #[test]
    fn failures_shut_out_the_address_they_come_from_and_nobody_else() {
        let limiter = AuthLimiter::new(30);
        fail(&limiter, "192.0.2.1", "Admin", 30);
        assert!(limiter.log_in(ip("192.0.2.1"), &name("admin")).is_err(), "at this account");
        assert!(limiter.log_in(ip("192.0.2.1"), &name("bob")).is_err(), "at any account");
        assert!(limiter.log_in(ip("198.51.100.7"), &name("admin")).is_ok(), "the owner, elsewhere");
    }

    #[test]
    fn an_account_that_many_strangers_try_leaves_each_a_few_tries_and_who_is_known_all() {
        let limiter = AuthLimiter::new(30);
        limiter.logged_in(ip("198.51.100.7"), &name("admin"));
        for host in 1..=10 {
            fail(&limiter, &format!("192.0.2.{host}"), "admin", 3);
        }
        assert!(limiter.log_in(ip("192.0.2.1"), &name("admin")).is_err(), "a guesser has had three");
        assert!(limiter.log_in(ip("203.0.113.9"), &name("admin")).is_ok(), "a stranger has three");
        fail(&limiter, "203.0.113.9", "admin", 3);
        assert!(limiter.log_in(ip("203.0.113.9"), &name("admin")).is_err(), "and no more");
        fail(&limiter, "198.51.100.7", "admin", 29);
        assert!(limiter.log_in(ip("198.51.100.7"), &name("admin")).is_ok(), "who is known has all");
        fail(&limiter, "198.51.100.7", "bob", 30);
        assert!(limiter.log_in(ip("198.51.100.7"), &name("admin")).is_ok(), "whatever neighbours do");
        fail(&limiter, "198.51.100.7", "admin", 1);
        assert!(limiter.log_in(ip("198.51.100.7"), &name("admin")).is_err());
    }

    #[test]
    fn a_v6_line_counts_as_one_address() {
        let limiter = AuthLimiter::new(2);
        fail(&limiter, "2001:db8::1", "alice", 1);
        fail(&limiter, "2001:db8::2", "alice", 1);
        assert!(limiter.log_in(ip("2001:db8::3"), &name("bob")).is_err());
        assert!(limiter.log_in(ip("2001:db8:0:1::3"), &name("bob")).is_ok());
    }

    #[test]
    fn log_ins_that_succeed_count_too() {
        let limiter = AuthLimiter::new(2);
        let log_in = |from: &str, account: &str| {
            limiter.log_in(ip(from), &name(account)).map(|()| limiter.logged_in(ip(from), &name(account)))
        };
        assert!(log_in("192.0.2.1", "alice").is_ok() && log_in("192.0.2.1", "alice").is_ok());
        assert!(log_in("192.0.2.1", "alice").is_err());
        assert!(log_in("192.0.2.1", "bob").is_ok() && log_in("192.0.2.2", "alice").is_ok());
    }

    #[test]
    fn zero_is_no_limit() {
        let limiter = AuthLimiter::new(0);
        for _ in 0..1000 {
            limiter.registration(ip("192.0.2.1")).unwrap();
            limiter.registered(ip("192.0.2.1"));
        }
    }
}
