//! How many connections are open, in all and from each address. All workers share it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::model::{Network, TrustedProxies};

/// See the module.
pub struct Doors {
    /// Connections at most.
    room: usize,
    open: AtomicUsize,
    /// Connections of an address at most; 0 is no limit.
    per_address: usize,
    by_address: Mutex<HashMap<Network, usize>>,
    /// Not counted, for there are many behind each.
    proxies: TrustedProxies,
}

/// Whether a newcomer may come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entry {
    Free,
    /// Only if somebody else goes.
    Full,
    /// Its address has enough.
    TooMany,
}

impl Doors {
    /// Room for so many connections in all, and so many of each address (0: no limit), but for loopback and `proxies`.
    pub fn new(room: usize, per_address: usize, proxies: TrustedProxies) -> Self {
        let by_address = Mutex::new(HashMap::new());
        Self { room, open: AtomicUsize::new(0), per_address, by_address, proxies }
    }

    /// Counts a newcomer, unless its address has too many.
    pub(super) fn enter(&self, address: Option<IpAddr>) -> Entry {
        if let Some(network) = self.counted(address) {
            let mut counts = self.by_address.lock();
            let count = counts.entry(network).or_default();
            if *count >= self.per_address {
                return Entry::TooMany;
            }
            *count += 1;
        }
        if self.open.fetch_add(1, Ordering::Relaxed) < self.room { Entry::Free } else { Entry::Full }
    }

    /// Undoes `enter`.
    pub(super) fn leave(&self, address: Option<IpAddr>) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        if let Some(network) = self.counted(address) {
            let mut counts = self.by_address.lock();
            if let Some(count) = counts.get_mut(&network) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&network);
                }
            }
        }
    }

    /// Whether it is a proxy, with many behind it.
    pub(super) fn is_proxy(&self, address: Option<IpAddr>) -> bool {
        address.is_some_and(|address| self.proxies.trust(address.to_canonical()))
    }

    fn counted(&self, address: Option<IpAddr>) -> Option<Network> {
        let address = address?.to_canonical();
        let is_counted = self.per_address > 0 && !address.is_loopback() && !self.proxies.trust(address);
        is_counted.then(|| Network::of(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn each_address_has_its_share_and_gives_it_back() {
        let proxies = TrustedProxies::parse(["10.0.0.0/8", "::ffff:192.0.2.1", "2001:db8:5::/48"]).unwrap();
        let doors = Doors::new(100, 2, proxies);
        for (address, entries) in [
            ("1.2.3.4", [Entry::Free, Entry::Free, Entry::TooMany]),
            ("::ffff:1.2.3.4", [Entry::TooMany; 3]),
            ("2001:db8::1", [Entry::Free, Entry::Free, Entry::TooMany]),
            ("2001:db8::ffff:2", [Entry::TooMany; 3]),
            ("11.1.2.3", [Entry::Free, Entry::Free, Entry::TooMany]),
            ("10.1.2.3", [Entry::Free; 3]),
            ("::ffff:10.1.2.3", [Entry::Free; 3]),
            ("192.0.2.1", [Entry::Free; 3]),
            ("2001:db8:5::9", [Entry::Free; 3]),
            ("127.0.0.1", [Entry::Free; 3]),
        ] {
            for expected in entries {
                assert_eq!(doors.enter(ip(address)), expected, "{address}");
            }
        }
        doors.leave(ip("1.2.3.4"));
        assert_eq!(doors.enter(ip("1.2.3.4")), Entry::Free);
        assert_eq!(doors.enter(ip("1.2.3.4")), Entry::TooMany);
    }

    #[test]
    fn a_full_house_says_so() {
        let doors = Doors::new(1, 0, TrustedProxies::default());
        assert_eq!(doors.enter(ip("1.2.3.4")), Entry::Free);
        assert_eq!(doors.enter(ip("1.2.3.4")), Entry::Full);
        doors.leave(ip("1.2.3.4"));
        doors.leave(ip("1.2.3.4"));
        assert_eq!(doors.enter(None), Entry::Free);
    }
}
