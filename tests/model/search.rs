//! Visits every state that can be reached, the nearest first, so that the first violation has the shortest way to it.
//!
//! A state that was seen is remembered by 64 bits of hash, which tell some millions of states apart.

use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::hash::{BuildHasherDefault, Hash, Hasher};

use crate::invariants::Claim;
use crate::state::State;
use crate::system::{Step, System};

/// A state that breaks an invariant, and how it came to be.
pub struct Violation {
    pub broken: &'static str,
    pub steps: Vec<Step>,
}

/// What was seen of a system.
pub struct Explored {
    pub states: usize,
    pub violation: Option<Violation>,
    /// Goals that no state reached.
    pub missed: Vec<&'static str>,
}

/// Looks for the shortest way to break one of `invariants`, and for states that reach the `goals`.
pub fn explore(system: &System, invariants: &[Claim], goals: &[Claim]) -> Explored {
    let mut missed = goals.to_vec();
    // How each state was first reached.
    let mut origins: Vec<Option<(u32, Step)>> = vec![];
    let mut broken = None;
    visit(
        system,
        |state, origin| {
            origins.push(origin);
            missed.retain(|goal| !(goal.holds)(system, state));
            broken = invariants.iter().find(|invariant| !(invariant.holds)(system, state));
            broken.is_none()
        },
        |_, _| {},
    );
    let violation = broken.map(|invariant| Violation { broken: invariant.name, steps: way_to_last(&origins) });
    Explored { states: origins.len(), violation, missed: missed.iter().map(|goal| goal.name).collect() }
}

fn way_to_last(origins: &[Option<(u32, Step)>]) -> Vec<Step> {
    let (mut steps, mut at) = (vec![], origins.len() - 1);
    while let Some((before, step)) = origins[at] {
        steps.push(step);
        at = before as usize;
    }
    steps.reverse();
    steps
}

/// How many states there are, and from how many of them no quiet one can be reached: something would hang for ever.
pub fn stuck_states(system: &System) -> (usize, usize) {
    let mut quiet = vec![];
    let mut origins: Vec<Vec<u32>> = vec![];
    let mut links = vec![];
    visit(
        system,
        |state, _| {
            quiet.push(system.is_quiet(state));
            true
        },
        |from, to| links.push((from, to)),
    );
    origins.resize(quiet.len(), vec![]);
    for (from, to) in links {
        origins[to as usize].push(from);
    }
    let mut rests = quiet;
    let mut todo: Vec<u32> = (0..).zip(&rests).filter(|(_, quiet)| **quiet).map(|(number, _)| number).collect();
    while let Some(number) = todo.pop() {
        for before in &origins[number as usize] {
            if !std::mem::replace(&mut rests[*before as usize], true) {
                todo.push(*before);
            }
        }
    }
    (rests.len(), rests.iter().filter(|rests| !**rests).count())
}

/// Numbers the states as they are found. `found` says whether to go on; `link` is told of each step between two.
fn visit(system: &System, mut found: impl FnMut(&State, Option<(u32, Step)>) -> bool, mut link: impl FnMut(u32, u32)) {
    let start = system.start();
    let mut seen = HashMap::<u64, u32, BuildHasherDefault<AsIs>>::default();
    seen.insert(hash(&start), 0);
    if !found(&start, None) {
        return;
    }
    let mut todo = VecDeque::from([start]);
    let mut steps = vec![];
    for number in 0.. {
        let Some(state) = todo.pop_front() else { return };
        steps.clear();
        system.enabled(&state, &mut steps);
        for step in &steps {
            let Some(next) = system.after(&state, *step) else { continue };
            let count = seen.len() as u32;
            match seen.entry(hash(&next)) {
                Entry::Occupied(known) => link(number, *known.get()),
                Entry::Vacant(new) => {
                    new.insert(count);
                    link(number, count);
                    if !found(&next, Some((number, *step))) {
                        return;
                    }
                    todo.push_back(next);
                }
            }
        }
    }
}

fn hash(state: &State) -> u64 {
    let mut mixed = Mixed(0);
    state.hash(&mut mixed);
    mixed.finish()
}

/// Multiplies and rotates: a debug build has to hash millions of states.
struct Mixed(u64);

impl Mixed {
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(26) ^ word).wrapping_mul(0xF135_7AEA_2E62_A9C5);
    }
}

impl Hasher for Mixed {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.add(u64::from(*byte));
        }
    }

    fn write_u8(&mut self, number: u8) {
        self.add(u64::from(number));
    }

    fn write_u16(&mut self, number: u16) {
        self.add(u64::from(number));
    }

    fn write_usize(&mut self, number: usize) {
        self.add(number as u64);
    }

    fn write_isize(&mut self, number: isize) {
        self.add(number as u64);
    }

    fn finish(&self) -> u64 {
        (self.0 ^ (self.0 >> 32)).wrapping_mul(0xF135_7AEA_2E62_A9C5)
    }
}

/// Hashes what is a hash already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers are looked up");
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
