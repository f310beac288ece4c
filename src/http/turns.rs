//! Who waits for a turn of a worker's thread: those who have not shown yet how they behave, and those who send requests
//! ahead.
//!
//! The event loop serves all who are ready in the order in which they became so. A thousand who come at once would stand
//! before a buyer whose connection is open already, and each of them costs more than a request of that buyer. So only a few
//! of them are served in each iteration of the loop, one address after the other, and the others wait here. Newcomers go before
//! those who had turns and are still not proven, or a buyer's new connection would wait for all that a crowd of his address
//! asks for. While few come, nobody waits.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;

use super::line::Line;
use crate::model::Network;

/// In one iteration of the event loop, connections that are not proven have so many turns, and so many newcomers are taken from the
/// system.
pub(super) const UNPROVEN_PER_ITERATION: usize = 8;
pub(super) const ARRIVALS_PER_ITERATION: usize = 16;
/// Of these turns, kept for those who had some already, while any of them wait.
const NOT_FOR_NEWCOMERS: usize = 2;
/// Requests sent ahead move on this often, so many at once: 2,000 a second, whoever sends them.
const PACE: Duration = Duration::from_millis(2);
const REQUESTS_A_PACE: usize = 4;
/// Requests sent ahead that do not wait, each tick.
const TOKENS: u32 = 64;

/// Who waits.
pub(super) trait Waiter {
    /// It had few turns, and asked for nothing yet.
    fn is_new(&self) -> bool;
    /// Its turn has come; whether it still wants it.
    fn admit(&self) -> bool;
    /// It is in the queue of those who have sent ahead.
    fn is_queued(&self) -> &Cell<bool>;
    /// The queue has come to it.
    fn let_in(&self);
}

/// See the module. `C`: a connection.
pub(super) struct Turns<C> {
    newcomers: RefCell<Line<Rc<C>>>,
    others: RefCell<Line<Rc<C>>>,
    /// What is left of them in this iteration.
    unproven: Cell<usize>,
    arrivals: Cell<usize>,
    /// Takes newcomers from the system, and waits for the next iteration.
    acceptor: RefCell<Option<Waker>>,
    /// Some of them were used up, or somebody waits, so the next iteration must be noticed.
    spent: Notify,

    tokens: Cell<u32>,
    ahead: RefCell<VecDeque<Rc<C>>>,
    queued: Notify,
}

impl<C> Default for Turns<C> {
    fn default() -> Self {
        Self {
            newcomers: RefCell::default(),
            others: RefCell::default(),
            unproven: Cell::new(UNPROVEN_PER_ITERATION),
            arrivals: Cell::new(ARRIVALS_PER_ITERATION),
            acceptor: RefCell::default(),
            spent: Notify::new(),
            tokens: Cell::new(TOKENS),
            ahead: RefCell::default(),
            queued: Notify::new(),
        }
    }
}

/// Iterations of the event loop.
impl<C> Turns<C> {
    /// Whether one more connection may be accepted in this iteration; if not, the task of `cx` is woken in the next.
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
        self.spent.notify_one();
    }

    /// Whether a connection that is not proven may go on at once.
    pub(super) fn take(&self, is_new: bool) -> bool {
        let left = self.unproven.get();
        let waits_behind = !self.newcomers.borrow().is_empty() || !(is_new || self.others.borrow().is_empty());
        if left == 0 || waits_behind {
            return false;
        }
        self.unproven.set(left - 1);
        self.spent.notify_one();
        true
    }

    /// It may not, and waits.
    pub(super) fn wait(&self, network: Option<Network>, connection: Rc<C>)
    where
        C: Waiter,
    {
        let line = if connection.is_new() { &self.newcomers } else { &self.others };
        line.borrow_mut().push(network, connection);
        self.spent.notify_one();
    }

    /// Who goes on next, if so many more may in this iteration.
    fn next(&self, left: usize) -> Option<Rc<C>> {
        let (mut newcomers, mut others) = (self.newcomers.borrow_mut(), self.others.borrow_mut());
        if left > NOT_FOR_NEWCOMERS {
            newcomers.pop().or_else(|| others.pop())
        } else {
            others.pop().or_else(|| newcomers.pop())
        }
    }

    /// Lets those who wait go on, for ever.
    pub(super) async fn move_line(&self)
    where
        C: Waiter,
    {
        loop {
            // Comes back when everybody who was ready had a turn, and the system was asked who is ready now.
            tokio::task::yield_now().await;
            let mut left = UNPROVEN_PER_ITERATION;
            while left > 0 {
                let Some(connection) = self.next(left) else { break };
                left -= usize::from(connection.admit());
            }
            self.unproven.set(left);
            self.arrivals.set(ARRIVALS_PER_ITERATION);
            if let Some(acceptor) = self.acceptor.take() {
                acceptor.wake();
            }
            if self.newcomers.borrow().is_empty() && self.others.borrow().is_empty() {
                self.spent.notified().await;
            }
        }
    }
}

/// Requests that are sent ahead.
impl<C> Turns<C> {
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
    pub(super) fn queue(&self, connection: Rc<C>)
    where
        C: Waiter,
    {
        if connection.is_queued().replace(true) {
            return;
        }
        self.ahead.borrow_mut().push_back(connection);
        self.queued.notify_one();
    }

    /// Lets requests in, for ever.
    pub(super) async fn move_queue(&self)
    where
        C: Waiter,
    {
        loop {
            // Before it waits: an earlier run may have left some, and who waits already does not come again.
            while !self.ahead.borrow().is_empty() {
                tokio::time::sleep(PACE).await;
                crash_point!("http_turn");
                for _ in 0..REQUESTS_A_PACE {
                    let Some(connection) = self.ahead.borrow_mut().pop_front() else { break };
                    connection.is_queued().set(false);
                    connection.let_in();
                }
            }
            self.queued.notified().await;
        }
    }
}
