//! The connections of one listener in one thread: who may come in, and who has waited for too long, which is looked at twice
//! a second.
//!
//! This and the turns of those who wait (`turns`) are two tasks that hold nothing of their own: after a panic they begin
//! again with the same connections, and `/readyz` names them meanwhile.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::time::{Instant, sleep_until};

use super::connection::Connection;
use super::doors::{Doors, Entry};
use super::refusal::Refusal;
use super::thread::{TICK, Thread};
use crate::supervision::Supervisor;

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

/// See the module.
pub(super) struct Worker {
    doors: Arc<Doors>,
    thread: Rc<Thread<Connection>>,
    connections: RefCell<Vec<Rc<Connection>>>,
    /// Where the search for an idle connection goes on.
    next_look: Cell<usize>,
}

impl Worker {
    /// Begins to look at connections; must be called in the worker's thread.
    pub(super) fn start(doors: Arc<Doors>, supervisor: &Supervisor) -> Rc<Self> {
        let worker =
            Rc::new(Self { doors, thread: Rc::default(), connections: RefCell::default(), next_look: Cell::new(0) });
        let (looking, moving) = (worker.clone(), worker.clone());
        supervisor.keep_local(LOOKING, move || looking.clone().look());
        supervisor.keep_local(MOVING, move || moving.clone().move_on());
        worker
    }

    async fn look(self: Rc<Self>) {
        loop {
            let begun = Instant::now();
            let now = self.thread.tick();
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
            self.thread.log(self.connections.borrow().len());
        }
    }

    /// Looks at a part of the connections. Those that come and go meanwhile may be looked at twice, or at the next tick.
    fn look_at(&self, part: usize, parts: usize, now: u32, crowded: bool) {
        let connections = self.connections.borrow();
        let bound = |part: usize| connections.len() * part / parts;
        let mut left = ENDED_A_TICK / parts;
        for connection in connections[bound(part - 1)..bound(part)].iter().filter(|connection| !connection.is_cut()) {
            if let Some(why) = connection.check(now, crowded) {
                self.thread.count(why);
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
    }

    async fn move_on(self: Rc<Self>) {
        tokio::join!(self.thread.turns.move_line(), self.thread.turns.move_queue());
    }

    fn is_crowded(&self) -> bool {
        let kept_back = || self.connections.borrow().iter().map(|connection| connection.kept_back()).sum::<usize>();
        let stalled = self.thread.stalled.get();
        stalled > STALLED_CROWD || (stalled > 0 && kept_back() > KEPT_BACK_MAX_BYTES)
    }
}

/// Newcomers.
impl Worker {
    /// Whether one more connection may be accepted in this iteration of the event loop; if not, the task of `cx` is woken in
    /// the next.
    pub(super) fn poll_arrival(&self, cx: &Context<'_>) -> Poll<()> {
        self.thread.turns.poll_arrival(cx)
    }

    /// Lets a newcomer in, if need be in the place of a connection that does nothing.
    pub(super) fn enter(self: &Rc<Self>, address: Option<IpAddr>) -> Result<Entered, Refusal> {
        crash_point!("http_enter");
        self.thread.turns.has_arrived();
        match self.doors.enter(address) {
            Entry::Free => {}
            Entry::Full if self.evict() => {}
            Entry::Full => {
                self.doors.leave(address);
                self.thread.note(Refusal::Full);
                return Err(Refusal::Full);
            }
            Entry::TooMany => {
                self.thread.note(Refusal::TooMany);
                return Err(Refusal::TooMany);
            }
        }
        let connection = Rc::new(Connection::new(self.thread.clone(), self.doors.is_proxy(address)));
        let mut connections = self.connections.borrow_mut();
        connection.place.set(connections.len());
        connections.push(connection.clone());
        Ok(Entered { worker: self.clone(), connection, address })
    }

    /// Closes the idlest of some connections.
    fn evict(&self) -> bool {
        let connections = self.connections.borrow();
        let (now, from) = (self.thread.now(), self.next_look.get());
        let sample = connections.iter().cycle().skip(from % connections.len().max(1));
        let sample = sample.take(EVICTION_SAMPLE.min(connections.len()));
        self.next_look.set(from.wrapping_add(EVICTION_SAMPLE));
        let idlest = sample.filter_map(|connection| Some((connection.idleness(now)?, connection)));
        let Some((_, connection)) = idlest.max_by_key(|(idleness, _)| *idleness) else { return false };
        self.thread.count(connection.end("idle, for a newcomer"));
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

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use prometheus::{IntCounterVec, Opts};
    use tokio::task::{LocalSet, yield_now};

    use super::*;
    use crate::http::turns::{ARRIVALS_PER_ITERATION, UNPROVEN_PER_ITERATION};
    use crate::model::TrustedProxies;
    use crate::supervision::Supervisor;

    fn worker() -> Rc<Worker> {
        let restarts = IntCounterVec::new(Opts::new("restarts", "of tasks"), &["task"]).unwrap();
        let proxies = TrustedProxies::parse(["192.0.2.99"]).unwrap();
        Worker::start(Arc::new(Doors::new(usize::MAX, 0, proxies)), &Supervisor::new(restarts))
    }

    fn newcomer(worker: &Rc<Worker>, address: [u8; 4]) -> Entered {
        let entered = worker.enter(Some(IpAddr::from(address))).unwrap();
        entered.connection().begin_turn(&Context::from_waker(Waker::noop()));
        entered
    }

    /// Has each of them go on, if it may; how many did.
    fn had_turn(connections: &[Entered]) -> usize {
        connections.iter().filter(|one| one.has_turn()).count()
    }

    /// Until those who wait have moved on.
    async fn next_iteration() {
        for _ in 0..3 {
            yield_now().await;
        }
    }

    #[tokio::test]
    async fn an_open_connection_does_not_wait_behind_a_thousand_new_ones() {
        let test = async {
            let worker = worker();
            let buyer = newcomer(&worker, [192, 0, 2, 1]);
            assert!(buyer.has_turn());
            buyer.connection().called(None);
            assert!(buyer.has_turn(), "its request is answered");
            buyer.connection().finished();
            next_iteration().await;

            let crowd: Vec<_> = (0..1_000).map(|_| newcomer(&worker, [192, 0, 2, 2])).collect();
            assert_eq!(had_turn(&crowd), UNPROVEN_PER_ITERATION);
            assert!((0..10).all(|_| buyer.has_turn()));
            assert!(newcomer(&worker, [192, 0, 2, 99]).has_turn(), "many buyers are behind a proxy");
            let other = newcomer(&worker, [192, 0, 2, 3]);
            assert!(!other.has_turn());
            yield_now().await;
            next_iteration().await;
            assert!(other.has_turn(), "another address does not wait behind the crowd");
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn a_newcomer_does_not_wait_behind_what_a_crowd_of_its_address_asks_for() {
        let test = async {
            let worker = worker();
            let address = [192, 0, 2, 1];
            let crowd: Vec<_> = (0..100).map(|_| newcomer(&worker, address)).collect();
            // Until each had so many turns that it is no newcomer any more, and waits for the next one.
            for _ in 0..200 {
                let _ = had_turn(&crowd);
                next_iteration().await;
            }
            let buyer = newcomer(&worker, address);
            assert!(!buyer.has_turn());
            next_iteration().await;
            assert!(buyer.has_turn());
            // Of a crowd of newcomers too, some of the others go on.
            let newcomers: Vec<_> = (0..100).map(|_| newcomer(&worker, address)).collect();
            // Their turns were given before.
            let _ = had_turn(&crowd);
            let _ = had_turn(&newcomers);
            let (mut new, mut others) = (0, 0);
            for _ in 0..5 {
                next_iteration().await;
                new += had_turn(&newcomers);
                others += had_turn(&crowd);
            }
            assert!(others > 0 && new >= 2 * others, "{new} newcomers, {others} others");
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn who_sends_ahead_or_is_ended_stands_in_line() {
        let test = async {
            let worker = worker();
            let client = newcomer(&worker, [192, 0, 2, 1]);
            let ask = |is_ahead| {
                let _ = client.connection().may_read(is_ahead);
                client.connection().called(None);
                client.connection().finished();
            };
            let goes_first = || {
                let crowd: Vec<_> = (0..=UNPROVEN_PER_ITERATION).map(|_| newcomer(&worker, [192, 0, 2, 2])).collect();
                let _ = had_turn(&crowd);
                client.has_turn()
            };
            ask(false);
            assert!(goes_first());
            ask(true);
            assert!(!goes_first());
            ask(false);
            assert!(goes_first());
            client.connection().end("a test");
            assert!(!goes_first());
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn the_system_gives_a_few_newcomers_each_iteration() {
        let test = async {
            let worker = worker();
            for _ in 0..3 {
                let mut came = Vec::new();
                while worker.poll_arrival(&Context::from_waker(Waker::noop())).is_ready() {
                    came.push(newcomer(&worker, [192, 0, 2, 1]));
                }
                assert_eq!(came.len(), ARRIVALS_PER_ITERATION);
                next_iteration().await;
            }
        };
        LocalSet::new().run_until(test).await;
    }
}
