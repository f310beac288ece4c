//! A waiting line that gives each address its turn, however many wait behind it: who floods us waits behind himself.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};

use crate::model::Network;

/// See the module.
pub(super) struct Line<T> {
    of_address: HashMap<Option<Network>, VecDeque<T>>,
    /// Addresses of those who wait, in the order of their turns.
    addresses: VecDeque<Option<Network>>,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { of_address: HashMap::new(), addresses: VecDeque::new() }
    }
}

impl<T> Line<T> {
    /// Waits as the last one of its address.
    pub(super) fn push(&mut self, address: Option<Network>, who: T) {
        match self.of_address.entry(address) {
            Entry::Occupied(mut line) => line.get_mut().push_back(who),
            Entry::Vacant(none) => {
                none.insert(VecDeque::from([who]));
                self.addresses.push_back(address);
            }
        }
    }

    /// The first one of the address whose turn it is.
    pub(super) fn pop(&mut self) -> Option<T> {
        let address = self.addresses.pop_front()?;
        let line = self.of_address.get_mut(&address)?;
        let first = line.pop_front();
        if line.is_empty() {
            self.of_address.remove(&address);
        } else {
            self.addresses.push_back(address);
        }
        first
    }

    pub(super) fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_of_one_address_waits_behind_itself() {
        let mut line = Line::default();
        let address = |host| Some(Network::of([192, 0, 2, host].into()));
        let (crowd, buyer) = (address(1), address(2));
        for number in 0..1_000 {
            line.push(crowd, number);
        }
        line.push(buyer, 5_000);
        line.push(None, 6_000);
        line.push(buyer, 5_001);
        let order: Vec<_> = std::iter::from_fn(|| line.pop()).collect();
        assert_eq!(order[..6], [0, 5_000, 6_000, 1, 5_001, 2]);
        assert_eq!(order[6..], (3..1_000).collect::<Vec<_>>());
        assert!(line.is_empty());
        line.push(buyer, 7);
        assert_eq!(line.pop(), Some(7));
    }
}
