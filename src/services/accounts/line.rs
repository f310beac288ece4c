//! The line of those who wait for a password to be hashed: fair to addresses, and one hash at a time an account.
//!
//! Addresses take turns, so one that sends much waits for itself. Within an address who came first is first. A place
//! stays its owner's for a while when they stop waiting: who is told to come again (429) and does finds it where it would
//! be now. Everything is bounded: places, places of an address, requests that are held open.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::model::Network;

/// Places in all; an address with few of them gets one more all the same.
const MAX_PLACES: usize = 16_384;
/// Places of one address, and the few that it has even in a full line.
const MAX_OF_ADDRESS: usize = 1_024;
const FEW: usize = 4;
/// Addresses in line.
const MAX_ADDRESSES: usize = 16_384;
/// Requests of one address that are held open.
const MAX_HELD_OF_ADDRESS: usize = 256;
/// Places that one account has at one address.
const MAX_OF_ACCOUNT: usize = 8;
/// How long a place is kept when its turn has come and nobody is there.
const KEPT_FOR: Duration = Duration::from_secs(60);

/// Who waits in a place.
pub(super) trait Waiter {
    /// Whether they have hung up, or were told to come again.
    fn is_gone(&self) -> bool;
}

/// How somebody got on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Joined {
    /// Is in line, with so many turns before theirs.
    Held(usize),
    /// Has a place, with so many turns before it, but should not wait here.
    ComeAgain(usize),
    /// There is no place; so many are waiting.
    Full(usize),
}

struct Place<W> {
    account: String,
    waiter: Option<W>,
    missed: Option<Instant>,
}

/// See the module.
pub(super) struct Line<W> {
    places: HashMap<Network, VecDeque<Place<W>>>,
    /// Whose turn is next.
    turns: VecDeque<Network>,
    /// Places in all.
    count: usize,
}

impl<W> Default for Line<W> {
    fn default() -> Self {
        Self { places: HashMap::new(), turns: VecDeque::new(), count: 0 }
    }
}

impl<W: Waiter> Place<W> {
    fn is_empty(&self) -> bool {
        self.waiter.as_ref().is_none_or(Waiter::is_gone)
    }
}

impl<W: Waiter> Line<W> {
    /// Takes a place, or the one that was left. Who would wait for more than `patience` turns is not held.
    pub(super) fn join(&mut self, network: Network, account: &str, waiter: W, patience: usize) -> Joined {
        let own = self.places.get(&network);
        let left = own.and_then(|own| own.iter().position(|place| place.account == account && place.is_empty()));
        let position = match left {
            Some(position) => position,
            None => {
                let here = own.map_or(0, VecDeque::len);
                let of_account = own.map_or(0, |own| own.iter().filter(|place| place.account == account).count());
                let room = here < MAX_OF_ADDRESS && (self.count < MAX_PLACES || here < FEW);
                let room = room && (here > 0 || self.places.len() < MAX_ADDRESSES);
                if !room || of_account >= MAX_OF_ACCOUNT {
                    return Joined::Full(self.turns_before(here));
                }
                if here == 0 {
                    self.turns.push_back(network);
                }
                let place = Place { account: account.to_owned(), waiter: None, missed: None };
                self.places.entry(network).or_default().push_back(place);
                self.count += 1;
                here
            }
        };
        let before = self.turns_before(position);
        let Some(own) = self.places.get_mut(&network) else { return Joined::Full(before) };
        let held = own.iter().filter(|place| !place.is_empty()).count();
        let Some(place) = own.get_mut(position) else { return Joined::Full(before) };
        if before > patience || held >= MAX_HELD_OF_ADDRESS {
            return Joined::ComeAgain(before);
        }
        place.waiter = Some(waiter);
        Joined::Held(before)
    }

    /// Turns before that of whoever stands at this place of an address, if nobody else comes.
    fn turns_before(&self, position: usize) -> usize {
        self.places.values().map(|places| places.len().min(position + 1)).sum::<usize>().saturating_sub(1)
    }

    /// Turns before that of an account's first place at an address; 0 if it has none.
    pub(super) fn turns_before_account(&self, network: Network, account: &str) -> usize {
        let own = self.places.get(&network);
        let position = own.and_then(|own| own.iter().position(|place| place.account == account));
        position.map_or(0, |position| self.turns_before(position))
    }

    /// Who is next: the first of the address whose turn it is, past those who are not there and those whose account is
    /// `busy`.
    pub(super) fn next(&mut self, now: Instant, busy: &HashMap<String, Instant>) -> Option<(String, W)> {
        for _ in 0..self.turns.len() {
            let network = self.turns.pop_front()?;
            let next = self.next_of(network, now, busy);
            if self.places.contains_key(&network) {
                self.turns.push_back(network);
            }
            if next.is_some() {
                return next;
            }
        }
        None
    }

    fn next_of(&mut self, network: Network, now: Instant, busy: &HashMap<String, Instant>) -> Option<(String, W)> {
        let own = self.places.get_mut(&network)?;
        let before = own.len();
        own.retain(|place| {
            place.missed.is_none_or(|missed| now.duration_since(missed) < KEPT_FOR) || !place.is_empty()
        });
        let mut found = None;
        for (position, place) in own.iter_mut().enumerate() {
            if place.is_empty() {
                place.missed.get_or_insert(now);
            } else if !busy.contains_key(&place.account) {
                found = Some(position);
                break;
            }
        }
        let place = found.and_then(|position| own.remove(position));
        self.count -= before - own.len();
        if own.is_empty() {
            self.places.remove(&network);
        }
        place.and_then(|place| place.waiter.map(|waiter| (place.account, waiter)))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    #[derive(Clone)]
    struct Test(&'static str, Rc<Cell<bool>>);

    impl Waiter for Test {
        fn is_gone(&self) -> bool {
            self.1.get()
        }
    }

    fn who(name: &'static str) -> Test {
        Test(name, Rc::default())
    }

    fn network(host: u8) -> Network {
        Network::of([192, 0, 2, host].into())
    }

    fn order(line: &mut Line<Test>) -> Vec<&'static str> {
        std::iter::from_fn(|| line.next(Instant::now(), &HashMap::new())).map(|(_, Test(name, _))| name).collect()
    }

    #[test]
    fn addresses_take_turns_and_within_one_who_came_first_is_first() {
        let mut line = Line::default();
        for name in ["a1", "a2", "a3", "a4"] {
            line.join(network(1), name, who(name), 99);
        }
        assert_eq!(line.join(network(2), "b1", who("b1"), 99), Joined::Held(1), "behind one of the four");
        line.join(network(2), "b2", who("b2"), 99);
        assert_eq!(order(&mut line), ["a1", "b1", "a2", "b2", "a3", "a4"]);
        assert!(line.count == 0 && line.turns.is_empty());
    }

    #[test]
    fn one_account_has_one_turn_at_a_time() {
        let mut line = Line::default();
        for name in ["alice", "alice", "bob"] {
            line.join(network(1), name, who(name), 99);
        }
        line.join(network(2), "alice", who("alice elsewhere"), 99);
        let busy = HashMap::from([("alice".to_owned(), Instant::now())]);
        assert_eq!(line.next(Instant::now(), &busy).unwrap().0, "bob");
        assert!(line.next(Instant::now(), &busy).is_none());
        assert_eq!(order(&mut line).len(), 3);
    }

    #[test]
    fn who_comes_again_finds_the_place_that_was_left() {
        let mut line = Line::default();
        let alice = who("alice");
        line.join(network(1), "alice", alice.clone(), 99);
        line.join(network(1), "bob", who("bob"), 99);
        alice.1.set(true);
        assert_eq!(line.join(network(1), "carol", who("carol"), 1), Joined::ComeAgain(2), "is not held, has a place");
        assert_eq!(line.join(network(1), "dave", who("dave"), 99), Joined::Held(3));
        assert_eq!(line.join(network(1), "carol", who("carol"), 99), Joined::Held(2));
        assert_eq!(line.join(network(1), "alice", who("alice"), 99), Joined::Held(0));
        assert_eq!(order(&mut line), ["alice", "bob", "carol", "dave"]);
    }

    #[test]
    fn a_missed_turn_is_first_when_its_owner_comes_and_gone_when_they_do_not() {
        let mut line = Line::default();
        let (late, never, begun) = (who("late"), who("never"), Instant::now());
        line.join(network(1), "late", late.clone(), 99);
        line.join(network(1), "never", never.clone(), 99);
        line.join(network(1), "bob", who("bob"), 99);
        line.join(network(1), "carol", who("carol"), 99);
        late.1.set(true);
        never.1.set(true);
        assert_eq!(line.next(begun, &HashMap::new()).unwrap().0, "bob");
        assert_eq!(line.join(network(1), "late", who("late"), 99), Joined::Held(0));
        assert_eq!(line.next(begun, &HashMap::new()).unwrap().0, "late");
        assert_eq!(line.next(begun + KEPT_FOR, &HashMap::new()).unwrap().0, "carol");
        assert!(line.count == 0, "nobody keeps a place for ever");
    }

    #[test]
    fn one_address_cannot_take_all_places() {
        let mut line = Line::default();
        for number in 0..MAX_OF_ADDRESS {
            assert!(!matches!(line.join(network(1), &number.to_string(), who("a"), 9_999), Joined::Full(_)));
        }
        assert!(matches!(line.join(network(1), "one more", who("a"), 9_999), Joined::Full(_)));
        assert_eq!(line.join(network(2), "bob", who("b"), 9_999), Joined::Held(1));
        for number in 0..MAX_PLACES {
            let address = Network::of(std::net::IpAddr::from([10, 0, (number / 200) as u8, 1]));
            line.join(address, &number.to_string(), who("c"), 9_999);
        }
        assert!(matches!(line.join(network(3), "carol", who("d"), 99_999), Joined::Held(_)), "not even together");
        for number in 0..20 {
            line.join(network(4), "alice", who("d"), 9_999);
            assert!(line.places[&network(4)].len() <= MAX_OF_ACCOUNT.min(FEW), "{number}");
        }
    }

    #[test]
    fn requests_held_open_are_bounded_and_the_others_keep_their_place() {
        let mut line = Line::default();
        for number in 0..MAX_HELD_OF_ADDRESS {
            assert_eq!(line.join(network(1), &number.to_string(), who("a"), 9_999), Joined::Held(number));
        }
        assert_eq!(line.join(network(1), "late", who("late"), 9_999), Joined::ComeAgain(MAX_HELD_OF_ADDRESS));
        line.next(Instant::now(), &HashMap::new());
        assert_eq!(line.join(network(1), "late", who("late"), 9_999), Joined::Held(MAX_HELD_OF_ADDRESS - 1));
    }
}
