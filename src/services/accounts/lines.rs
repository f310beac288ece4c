//! The two lines before the threads that hash: of those who are known, and of strangers. Who is next, and how long it takes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::line::{Line, Waiter};

/// A hash of cost 12, with the rest after it, until we have seen one.
const FIRST_GUESS: Duration = Duration::from_millis(500);

/// Work that waits for its turn.
pub(super) trait Job: Send {
    fn is_unwanted(&self) -> bool;
    fn run(self: Box<Self>);
}

/// See the module.
pub(super) struct Lines {
    known: Line<Box<dyn Job>>,
    strangers: Line<Box<dyn Job>>,
    /// Who was last.
    last_was_known: bool,
    /// Accounts of which a hash is being made, and since when.
    busy: HashMap<String, Instant>,
    /// What turns took, lately.
    pub(super) turn: Duration,
    pub(super) ended: bool,
}

impl Waiter for Box<dyn Job> {
    fn is_gone(&self) -> bool {
        self.is_unwanted()
    }
}

impl Lines {
    /// Before threads that hash at this cost.
    pub(super) fn new(cost: u32) -> Self {
        Self {
            known: Line::default(),
            strangers: Line::default(),
            last_was_known: false,
            busy: HashMap::new(),
            turn: FIRST_GUESS.mul_f64(f64::from(cost as i32 - 12).exp2()),
            ended: false,
        }
    }

    pub(super) fn line(&mut self, known: bool) -> &mut Line<Box<dyn Job>> {
        if known { &mut self.known } else { &mut self.strangers }
    }

    /// Whose turn it is. Known addresses have every other turn, if they want it.
    pub(super) fn next(&mut self) -> Option<(String, Box<dyn Job>)> {
        let (now, first) = (Instant::now(), !self.last_was_known);
        for known in [first, !first] {
            let line = if known { &mut self.known } else { &mut self.strangers };
            if let Some((account, job)) = line.next(now, &self.busy) {
                self.last_was_known = known;
                self.busy.insert(account.clone(), now);
                return Some((account, job));
            }
        }
        None
    }

    /// A hash is made, of this account; its thread rests before the next one.
    pub(super) fn note_made(&mut self, account: &str) {
        self.busy.remove(account);
    }

    /// A turn with its rest took so long.
    pub(super) fn note_turn(&mut self, took: Duration) {
        self.turn = smoothed(self.turn, took);
    }

    /// What a turn takes. A busy machine may leave these threads next to nothing, so the turn that is not over counts, too.
    fn turn(&self) -> Duration {
        let running = self.busy.values().map(Instant::elapsed).max().unwrap_or_default();
        self.turn.max(smoothed(self.turn, running))
    }

    /// How long so many turns take.
    pub(super) fn time(&self, turns: usize, threads: u32) -> Duration {
        let turns = u32::try_from(turns).unwrap_or(u32::MAX);
        (self.turn() / threads).saturating_mul(turns)
    }

    /// How many turns are over within `time`.
    pub(super) fn turns_within(&self, time: Duration, threads: u32) -> usize {
        (time.as_secs_f64() * f64::from(threads) / self.turn().as_secs_f64().max(1e-6)) as usize
    }
}

fn smoothed(before: Duration, now: Duration) -> Duration {
    (before * 7 + now) / 8
}
