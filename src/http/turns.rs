//! Who waits for a turn of a worker's thread: those who have not shown yet how they behave, and those who send requests
//! ahead.
//!
//! The event loop serves all who are ready in the order in which they became so. A thousand who come at once would stand
//! before a buyer whose connection is open already, and each of them costs more than a request of that buyer. So only a few
//! of them are served in each turn of the loop, one address after the other, and the others wait here. While few come,
//! nobody waits.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;

use super::connection::Connection;
use super::line::Line;
use crate::model::Network;

/// Connections that are not proven have so many turns in one of the event loop, and so many are taken from the system.
const UNPROVEN_A_TURN: usize = 8;
const ARRIVALS_A_TURN: usize = 16;
/// Requests sent ahead move on this often, so many at once: 2,000 a second, whoever sends them.
const PACE: Duration = Duration::from_millis(2);
const REQUESTS_A_PACE: usize = 4;
/// Requests sent ahead that do not wait, each tick.
const TOKENS: u32 = 64;

/// See the module.
pub(super) struct Turns {
    line: RefCell<Line<Rc<Connection>>>,
    /// What is left of this turn of the event loop.
    unproven: Cell<usize>,
    arrivals: Cell<usize>,
    /// Takes newcomers from the system, and waits for the next turn of the loop.
    acceptor: RefCell<Option<Waker>>,
    begun: Notify,

    tokens: Cell<u32>,
    ahead: RefCell<VecDeque<Rc<Connection>>>,
    queued: Notify,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            line: RefCell::default(),
            unproven: Cell::new(UNPROVEN_A_TURN),
            arrivals: Cell::new(ARRIVALS_A_TURN),
            acceptor: RefCell::default(),
            begun: Notify::new(),
            tokens: Cell::new(TOKENS),
            ahead: RefCell::default(),
            queued: Notify::new(),
        }
    }
}

/// Turns of the event loop.
impl Turns {
    /// Whether one more newcomer may be taken from the system; whoever asks is woken when that changes.
    pub(super) fn poll_arrival(&self, cx: &Context<'_>) -> Poll<()> {
        if self.arrivals.get() > 0 {
            return Poll::Ready(());
        }
        self.acceptor.replace(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// A newcomer was taken from the system.
    pub(super) fn has_arrived(&self) {
        self.arrivals.set(self.arrivals.get().saturating_sub(1));
        self.begun.notify_one();
    }

    /// Whether a connection that is not proven may go on at once.
    pub(super) fn take(&self) -> bool {
        let left = self.unproven.get();
        if left == 0 || !self.line.borrow().is_empty() {
            return false;
        }
        self.unproven.set(left - 1);
        self.begun.notify_one();
        true
    }

    /// It may not, and waits.
    pub(super) fn wait(&self, network: Option<Network>, connection: Rc<Connection>) {
        self.line.borrow_mut().push(network, connection);
        self.begun.notify_one();
    }

    /// Lets those who wait go on, for ever.
    pub(super) async fn move_line(&self) {
        loop {
            // Comes back when everybody who was ready had a turn, and the system was asked who is ready now.
            tokio::task::yield_now().await;
            let mut left = UNPROVEN_A_TURN;
            while left > 0 {
                let Some(connection) = self.line.borrow_mut().pop() else { break };
                left -= usize::from(connection.admit());
            }
            self.unproven.set(left);
            self.arrivals.set(ARRIVALS_A_TURN);
            if let Some(acceptor) = self.acceptor.take() {
                acceptor.wake();
            }
            if self.line.borrow().is_empty() {
                self.begun.notified().await;
            }
        }
    }
}

/// Requests that are sent ahead.
impl Turns {
    /// Another tick has begun.
    pub(super) fn tick(&self) {
        self.tokens.set(TOKENS);
    }

    /// Whether a request that was sent ahead may be read at once.
    pub(super) fn take_token(&self) -> bool {
        let left = self.tokens.get();
        self.tokens.set(left.saturating_sub(1));
        left > 0
    }

    /// A connection has sent requests ahead, and waits for its turn.
    pub(super) fn queue(&self, connection: Rc<Connection>) {
        if connection.queued.replace(true) {
            return;
        }
        self.ahead.borrow_mut().push_back(connection);
        self.queued.notify_one();
    }

    /// Lets requests in, for ever.
    pub(super) async fn move_queue(&self) {
        loop {
            // Before it waits: an earlier run may have left some, and who waits already does not come again.
            while !self.ahead.borrow().is_empty() {
                tokio::time::sleep(PACE).await;
                crash_point!("http_turn");
                for _ in 0..REQUESTS_A_PACE {
                    let Some(connection) = self.ahead.borrow_mut().pop_front() else { break };
                    connection.queued.set(false);
                    connection.let_in();
                }
            }
            self.queued.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::sync::Arc;

    use prometheus::{IntCounterVec, Opts};
    use tokio::task::{LocalSet, yield_now};

    use super::*;
    use crate::http::doors::Doors;
    use crate::http::worker::{Entered, Worker};
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

    /// Until the event loop has turned, and those who wait have moved on.
    async fn turn_of_the_loop() {
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
            turn_of_the_loop().await;

            let crowd: Vec<_> = (0..1_000).map(|_| newcomer(&worker, [192, 0, 2, 2])).collect();
            assert_eq!(crowd.iter().filter(|one| one.has_turn()).count(), UNPROVEN_A_TURN);
            assert!((0..10).all(|_| buyer.has_turn()));
            assert!(newcomer(&worker, [192, 0, 2, 99]).has_turn(), "many buyers are behind a proxy");
            let other = newcomer(&worker, [192, 0, 2, 3]);
            assert!(!other.has_turn());
            yield_now().await;
            turn_of_the_loop().await;
            assert!(other.has_turn(), "another address does not wait behind the crowd");
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
                let crowd: Vec<_> = (0..=UNPROVEN_A_TURN).map(|_| newcomer(&worker, [192, 0, 2, 2])).collect();
                let _ = crowd.iter().filter(|one| one.has_turn()).count();
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
    async fn the_system_gives_a_few_newcomers_each_turn_of_the_loop() {
        let test = async {
            let worker = worker();
            for _ in 0..3 {
                let mut came = Vec::new();
                while worker.turns.poll_arrival(&Context::from_waker(Waker::noop())).is_ready() {
                    came.push(newcomer(&worker, [192, 0, 2, 1]));
                }
                assert_eq!(came.len(), ARRIVALS_A_TURN);
                turn_of_the_loop().await;
            }
        };
        LocalSet::new().run_until(test).await;
    }
}
