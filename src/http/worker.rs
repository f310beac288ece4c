//! The connections of one thread: who may come in, and who has waited for too long, which is looked at twice a second.
//!
//! This and the turns of those who wait (`turns`) are two tasks that hold nothing of their own: after a panic they begin
//! again with the same connections, and `/readyz` names them meanwhile.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::connection::Connection;
use super::doors::{Doors, Entry};
use super::refusal::Refusal;
use super::turns::Turns;
use crate::supervision::Supervisor;

/// How often connections are looked at, which is also their clock.
const TICK: Duration = Duration::from_millis(500);
/// Connections are looked at in parts of so many or more, one part after the other within a tick.
const PART: usize = 32;
const MAX_PARTS: usize = 25;
/// Connections ended in a tick at most, evenly over its parts: what is ended comes back, with a request that costs more than
/// the wait of one that is not ended yet.
const ENDED_A_TICK: usize = 100;
/// From so many on, or so much that is kept for them, those that do not take their replies are given little time.
const STALLED_CROWD: usize = 500;
const KEPT_BACK_MAX_BYTES: usize = 64 * 1024 * 1024;
/// Looked at for one that can be closed for a newcomer.
const EVICTION_SAMPLE: usize = 64;
/// The names of the two tasks.
const LOOKING: &str = "http-deadlines";
const MOVING: &str = "http-turns";
/// A summary of what was cut is logged this often at most.
const LOG_EVERY_TICKS: u32 = seconds(10);

/// A time in ticks.
pub(super) const fn seconds(seconds: u32) -> u32 {
    seconds * 1000 / TICK.as_millis() as u32
}

/// See the module.
pub(super) struct Worker {
    doors: Arc<Doors>,
    now: Cell<u32>,
    connections: RefCell<Vec<Rc<Connection>>>,
    /// Where the search for an idle connection goes on.
    next_look: Cell<usize>,
    /// Connections that do not take what is sent.
    pub(super) stalled: Cell<usize>,
    pub(super) turns: Turns,
    cut: RefCell<Vec<(&'static str, u32)>>,
    logged_at: Cell<u32>,
}

impl Worker {
    /// Begins to look at connections; must be called in the worker's thread.
    pub(super) fn start(doors: Arc<Doors>, supervisor: &Supervisor) -> Rc<Self> {
        let worker = Rc::new(Self {
            doors,
            now: Cell::new(LOG_EVERY_TICKS),
            connections: RefCell::default(),
            next_look: Cell::new(0),
            stalled: Cell::new(0),
            turns: Turns::default(),
            cut: RefCell::default(),
            logged_at: Cell::new(0),
        });
        let (looking, moving) = (worker.clone(), worker.clone());
        supervisor.keep_local(LOOKING, move || looking.clone().look());
        supervisor.keep_local(MOVING, move || moving.clone().move_on());
        worker
    }

    /// Ticks since the worker began.
    pub(super) fn now(&self) -> u32 {
        self.now.get()
    }

    async fn look(self: Rc<Self>) {
        loop {
            let begun = Instant::now();
            let now = self.now.get() + 1;
            self.now.set(now);
            self.turns.tick();
            let crowded = self.is_crowded();
            // A part at a time: thousands that came together and are ended at once would take the thread for as long as a
            // purchase may wait, and would come back together.
            let parts = (self.connections.borrow().len() / PART).clamp(1, MAX_PARTS);
            for part in 1..=parts {
                // From the beginning of this tick: after a pause of the whole machine nobody is late twice.
                sleep_until(begun + TICK * part as u32 / parts as u32).await;
                crash_point!("http_look");
                self.look_at(part, parts, now, crowded);
            }
            self.log(now);
        }
    }

    /// Looks at a part of the connections. Those that come and go meanwhile may be looked at twice, or at the next tick.
    fn look_at(&self, part: usize, parts: usize, now: u32, crowded: bool) {
        let connections = self.connections.borrow();
        let bound = |part: usize| connections.len() * part / parts;
        let mut left = ENDED_A_TICK / parts;
        for connection in connections[bound(part - 1)..bound(part)].iter().filter(|connection| !connection.is_cut()) {
            if let Some(why) = connection.check(now, crowded) {
                self.count(why);
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
    }

    async fn move_on(self: Rc<Self>) {
        tokio::join!(self.turns.move_line(), self.turns.move_queue());
    }

    fn is_crowded(&self) -> bool {
        let kept_back = || self.connections.borrow().iter().map(|connection| connection.kept_back()).sum::<usize>();
        self.stalled.get() > STALLED_CROWD || (self.stalled.get() > 0 && kept_back() > KEPT_BACK_MAX_BYTES)
    }

    fn count(&self, why: &'static str) {
        let mut cut = self.cut.borrow_mut();
        match cut.iter_mut().find(|(known, _)| *known == why) {
            Some((_, count)) => *count += 1,
            None => cut.push((why, 1)),
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

    fn log(&self, now: u32) {
        let mut cut = self.cut.borrow_mut();
        if cut.is_empty() || now - self.logged_at.get() < LOG_EVERY_TICKS {
            return;
        }
        let words: Vec<String> = cut.drain(..).map(|(why, count)| format!("{count} {why}")).collect();
        self.logged_at.set(now);
        let open = self.connections.borrow().len();
        tracing::warn!(ended = words.join(", "), open, "Ended connections that misbehave");
    }
}

/// Newcomers.
impl Worker {
    /// Lets a newcomer in, if need be in the place of a connection that does nothing.
    pub(super) fn enter(self: &Rc<Self>, address: Option<IpAddr>) -> Result<Entered, Refusal> {
        crash_point!("http_enter");
        self.turns.has_arrived();
        match self.doors.enter(address) {
            Entry::Free => {}
            Entry::Full if self.evict() => {}
            Entry::Full => {
                self.doors.leave(address);
                self.note(Refusal::Full);
                return Err(Refusal::Full);
            }
            Entry::TooMany => {
                self.note(Refusal::TooMany);
                return Err(Refusal::TooMany);
            }
        }
        let connection = Rc::new(Connection::new(self.clone(), self.doors.is_proxy(address)));
        let mut connections = self.connections.borrow_mut();
        connection.place.set(connections.len());
        connections.push(connection.clone());
        Ok(Entered { worker: self.clone(), connection, address })
    }

    /// Closes the idlest of some connections.
    fn evict(&self) -> bool {
        let connections = self.connections.borrow();
        let (now, from) = (self.now.get(), self.next_look.get());
        let sample = connections.iter().cycle().skip(from % connections.len().max(1));
        let sample = sample.take(EVICTION_SAMPLE.min(connections.len()));
        self.next_look.set(from.wrapping_add(EVICTION_SAMPLE));
        let idlest = sample.filter_map(|connection| Some((connection.idleness(now)?, connection)));
        let Some((_, connection)) = idlest.max_by_key(|(idleness, _)| *idleness) else { return false };
        self.count(connection.end("idle, for a newcomer"));
        true
    }

    fn leave(&self, connection: &Connection) {
        let mut connections = self.connections.borrow_mut();
        let place = connection.place.get();
        connections.swap_remove(place);
        if let Some(moved) = connections.get(place) {
            moved.place.set(place);
        }
    }
}

/// A connection that is open.
pub(super) struct Entered {
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    address: Option<IpAddr>,
}

impl Entered {
    pub(super) fn connection(&self) -> &Rc<Connection> {
        &self.connection
    }

    /// Whether its task may go on; if not, it is woken when its turn comes.
    pub(super) fn has_turn(&self) -> bool {
        self.connection.has_turn(self.address)
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.connection.closed();
        self.worker.leave(&self.connection);
        self.worker.doors.leave(self.address);
    }
}
