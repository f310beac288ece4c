//! What the connections of one thread share: their clock, their turns, and what was ended of them.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use super::refusal::Refusal;
use super::turns::Turns;

/// How often connections are looked at, which is also their clock.
pub(super) const TICK: Duration = Duration::from_millis(500);
/// A summary of what was ended is logged this often at most.
const LOG_EVERY_TICKS: u32 = seconds(10);

/// A time in ticks.
pub(super) const fn seconds(seconds: u32) -> u32 {
    seconds * 1000 / TICK.as_millis() as u32
}

/// See the module. `C`: a connection.
pub(super) struct Thread<C> {
    now: Cell<u32>,
    /// Connections that do not take what is sent.
    pub(super) stalled: Cell<usize>,
    pub(super) turns: Turns<C>,
    ended: RefCell<Vec<(&'static str, u32)>>,
    logged_at: Cell<u32>,
}

impl<C> Default for Thread<C> {
    fn default() -> Self {
        Self {
            now: Cell::new(LOG_EVERY_TICKS),
            stalled: Cell::new(0),
            turns: Turns::default(),
            ended: RefCell::default(),
            logged_at: Cell::new(0),
        }
    }
}

impl<C> Thread<C> {
    /// Ticks since the thread began.
    pub(super) fn now(&self) -> u32 {
        self.now.get()
    }

    /// Another tick has begun; says which.
    pub(super) fn tick(&self) -> u32 {
        let now = self.now.get() + 1;
        self.now.set(now);
        self.turns.tick();
        now
    }

    /// A connection was ended.
    pub(super) fn count(&self, why: &'static str) {
        let mut ended = self.ended.borrow_mut();
        match ended.iter_mut().find(|(known, _)| *known == why) {
            Some((_, count)) => *count += 1,
            None => ended.push((why, 1)),
        }
    }

    /// A connection was ended with a reply.
    pub(super) fn note(&self, refusal: Refusal) {
        self.count(match refusal {
            Refusal::Malformed => "malformed",
            Refusal::SlowHead => "slow head",
            Refusal::LargeHead => "large head",
            Refusal::TooMany => "too many of one address",
            Refusal::Full => "too many",
        });
    }

    /// Logs what was ended, if it is time; `open`: connections that there are.
    pub(super) fn log(&self, open: usize) {
        let mut ended = self.ended.borrow_mut();
        let now = self.now.get();
        if ended.is_empty() || now - self.logged_at.get() < LOG_EVERY_TICKS {
            return;
        }
        let words: Vec<String> = ended.drain(..).map(|(why, count)| format!("{count} {why}")).collect();
        self.logged_at.set(now);
        tracing::warn!(ended = words.join(", "), open, "Ended connections that misbehave");
    }
}
