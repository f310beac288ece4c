//! What is known of a connection: what it is doing, since when, and what it waits for.
//!
//! A connection lives on one thread, so all of this is plain cells. Times are the thread's ticks (`thread::TICK`): a
//! clock of its own would cost a call for each request.

mod deadlines;
mod writing;

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use actix_http::h1;
use futures_util::Stream;

use super::refusal::Refusal;
use super::thread::Thread;
use super::turns::Waiter;
use crate::model::Network;

/// A connection is new until it had so many turns, if it has not asked for anything before: most ask in the first or the second.
const TURNS_OF_A_NEWCOMER: u8 = 2;
/// Bytes of a head at most; what waits behind a reply may add to it.
const HEAD_MAX_BYTES: usize = 16 * 1024;
/// Read at most before another connection has its turn.
const READ_TURN_BYTES: usize = 16 * 1024;
/// Read at most of a body that nobody wants, so that its sender gets to read the reply.
const UNWANTED_BODY_MAX_BYTES: usize = 1024 * 1024;
/// A body in chunks: its extractor takes 64 KiB at most, but each byte may come as a chunk.
const CHUNKED_MAX_BYTES: usize = 512 * 1024;

/// The body of a request, between the framework that feeds it and the handler that may read it.
pub(super) type SharedBody = Rc<RefCell<h1::Payload>>;

/// Whether the stream may be read now.
pub(super) enum Turn {
    /// So many bytes at most.
    Go(usize),
    /// Only to see whether the client is gone, and to keep what it sends.
    Ahead,
    /// Whoever reads is woken when it may.
    Wait,
    /// As if the client had closed it.
    End,
    /// With a reply of ours.
    Refuse(Refusal),
}

/// See the module.
pub(super) struct Connection {
    thread: Rc<Thread<Self>>,
    /// Index in the worker's list.
    pub(super) place: Cell<usize>,
    task: RefCell<Option<Waker>>,
    cut: Cell<bool>,
    /// Its last request was an ordinary one.
    proven: Cell<bool>,
    /// It waits in the worker's line, or has come to its end and may go on once.
    in_line: Cell<bool>,
    admitted: Cell<bool>,
    /// How many turns it had while it was not proven.
    turns: Cell<u8>,
    refusal: Cell<Option<Refusal>>,

    /// From the call of the service until its reply's body is with the framework.
    in_call: Cell<bool>,
    /// The body of the last request, until it has been read to its end, and how much of it may still come.
    body: RefCell<Option<SharedBody>>,
    wanted: Cell<usize>,
    /// Bytes of the reply that are still to be given to the framework.
    pub(super) owed: Cell<usize>,
    called_ever: Cell<bool>,
    /// The last request was sent before the reply to the one before it.
    sent_ahead: Cell<bool>,
    /// When the last reply was done, or the connection opened.
    idle_since: Cell<u32>,
    /// Bytes of the next head, and how many of them may come; after its end, what came with it.
    read: Cell<usize>,
    after_head: Cell<usize>,
    allowed: Cell<usize>,
    /// When the first of these came while no call was going on.
    head_since: Cell<Option<u32>>,

    /// Something the framework has written is not with the system yet.
    unsent: Cell<bool>,
    /// The system refused to take it, and took so much since then.
    stalled_since: Cell<Option<u32>>,
    taken: Cell<u32>,
    /// What is written now is a reply of the service.
    answering: Cell<bool>,

    /// The reader waits for something of ours.
    parked: Cell<bool>,
    /// Its next request waits already, and may be read now.
    ticket: Cell<bool>,
    /// It is in the worker's queue for one.
    queued: Cell<bool>,
    delivered: Cell<bool>,
    read_turn: Cell<usize>,
    written_turn: Cell<usize>,
}

impl Connection {
    /// `proven`: it need not wait until it has shown how it behaves.
    pub(super) fn new(thread: Rc<Thread<Self>>, proven: bool) -> Self {
        let now = thread.now();
        Self {
            thread,
            place: Cell::new(0),
            task: RefCell::default(),
            cut: Cell::new(false),
            proven: Cell::new(proven),
            in_line: Cell::new(false),
            admitted: Cell::new(false),
            turns: Cell::new(0),
            refusal: Cell::new(None),
            in_call: Cell::new(false),
            body: RefCell::default(),
            wanted: Cell::new(0),
            owed: Cell::new(0),
            called_ever: Cell::new(false),
            sent_ahead: Cell::new(false),
            idle_since: Cell::new(now),
            read: Cell::new(0),
            after_head: Cell::new(0),
            allowed: Cell::new(HEAD_MAX_BYTES),
            head_since: Cell::new(None),
            unsent: Cell::new(false),
            stalled_since: Cell::new(None),
            taken: Cell::new(0),
            answering: Cell::new(false),
            parked: Cell::new(false),
            ticket: Cell::new(false),
            queued: Cell::new(false),
            delivered: Cell::new(false),
            read_turn: Cell::new(0),
            written_turn: Cell::new(0),
        }
    }

    /// Its task is polled.
    pub(super) fn begin_turn(&self, cx: &Context<'_>) {
        self.read_turn.set(0);
        self.written_turn.set(0);
        self.delivered.set(false);
        let mut task = self.task.borrow_mut();
        if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
    }

    /// Whether it need not stand in line: what it waits for is small, and it has asked for nothing else before.
    fn goes_first(&self) -> bool {
        (self.proven.get() || self.in_call.get()) && !self.cut.get() && self.stalled_since.get().is_none()
    }

    /// Whether its task may go on; if not, it is woken when its turn comes.
    pub(super) fn has_turn(self: &Rc<Self>, address: Option<IpAddr>) -> bool {
        if self.goes_first() {
            return true;
        }
        if self.admitted.take() || (!self.in_line.get() && self.thread.turns.take(self.is_new())) {
            self.turns.set(self.turns.get().saturating_add(1));
            return true;
        }
        if !self.in_line.replace(true) {
            self.thread.turns.wait(address.map(Network::of), self.clone());
        }
        false
    }

    pub(super) fn wake(&self) {
        if let Some(task) = &*self.task.borrow() {
            task.wake_by_ref();
        }
    }

    /// Wakes a reader that waits for something of ours.
    fn unpark(&self) {
        if self.parked.take() {
            self.wake();
        }
    }

    fn park(&self) -> Turn {
        self.parked.set(true);
        Turn::Wait
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.get()
    }

    /// The connection is gone; breaks the circle of its parts.
    pub(super) fn closed(&self) {
        self.recover();
        self.task.replace(None);
        self.body.replace(None);
    }
}

impl Waiter for Connection {
    fn is_new(&self) -> bool {
        self.turns.get() < TURNS_OF_A_NEWCOMER && !self.called_ever.get() && !self.cut.get()
    }

    fn admit(&self) -> bool {
        self.in_line.set(false);
        let task = self.task.borrow();
        if let Some(task) = &*task {
            self.admitted.set(true);
            task.wake_by_ref();
        }
        task.is_some()
    }

    fn is_queued(&self) -> &Cell<bool> {
        &self.queued
    }

    fn let_in(&self) {
        self.ticket.set(true);
        self.unpark();
    }
}

/// Requests.
impl Connection {
    /// The service is called with a request, whose body may have `length` bytes (`None`: unknown).
    pub(super) fn called(&self, body: Option<(SharedBody, Option<usize>)>) {
        self.in_call.set(true);
        self.called_ever.set(true);
        self.answering.set(true);
        self.head_since.set(None);
        let came_with_it = self.after_head.take();
        let (of_body, wanted) = match &body {
            None => (0, 0),
            Some((_, Some(length))) => (came_with_it.min(*length), length.saturating_sub(came_with_it)),
            Some((_, None)) => (came_with_it, CHUNKED_MAX_BYTES),
        };
        self.read.set(came_with_it - of_body);
        self.wanted.set(wanted);
        if body.is_some() || self.body.borrow().is_some() {
            self.body.replace(body.map(|(body, _)| body));
        }
        if wanted > 0 {
            self.unpark();
        }
    }

    /// The reply is with the framework, or nobody waits for it any more.
    pub(super) fn finished(&self) {
        self.in_call.set(false);
        self.answering.set(true);
        self.owed.set(0);
        let now = self.thread.now();
        self.idle_since.set(now);
        let has_unread_body = self.body.borrow().as_ref().is_some_and(|body| !is_over(body));
        let is_ahead = self.sent_ahead.take();
        self.proven.set(!has_unread_body && !is_ahead);
        if has_unread_body {
            // Kept, for the framework closes the connection in good order only while somebody could still read it.
            self.read.set(0);
            self.allowed.set(UNWANTED_BODY_MAX_BYTES);
        } else {
            self.body.replace(None);
            self.allowed.set(HEAD_MAX_BYTES);
            if self.read.get() > 0 {
                self.head_since.set(Some(now));
            }
        }
        self.unpark();
    }
}

/// Whether a body has come to its end; what there is of it is thrown away.
fn is_over(body: &SharedBody) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    let mut body = body.borrow_mut();
    loop {
        match Pin::new(&mut *body).poll_next(&mut cx) {
            Poll::Ready(Some(Ok(_))) => {}
            Poll::Ready(_) => return true,
            Poll::Pending => return false,
        }
    }
}

/// Reading.
impl Connection {
    /// Whether the stream may be read; `is_next`: what is read was sent before the reply to what came before it.
    pub(super) fn may_read(self: &Rc<Self>, is_next: bool) -> Turn {
        if let Some(refusal) = self.refusal.take() {
            return Turn::Refuse(refusal);
        }
        if self.unsent.get() {
            return self.park();
        }
        if self.in_call.get() {
            return self.may_read_body(is_next);
        }
        let is_enough = self.read.get() >= self.allowed.get();
        if is_enough && !self.delivered.get() {
            // At the beginning of a turn: what was read in the last one has been looked at.
            let has_unread_body = self.body.borrow().is_some();
            return if has_unread_body { Turn::End } else { self.refuse(Refusal::LargeHead) };
        }
        if is_enough || self.read_turn.get() >= READ_TURN_BYTES || (is_next && self.delivered.get()) {
            self.wake();
            return Turn::Wait;
        }
        if is_next && !self.ticket.take() && !self.thread.turns.take_token() {
            self.thread.turns.queue(self.clone());
            return self.park();
        }
        if is_next {
            self.sent_ahead.set(true);
            self.proven.set(false);
        }
        Turn::Go(usize::MAX)
    }

    /// While a request is answered only its body is read: the framework would take what comes behind it for a part of it.
    fn may_read_body(&self, is_next: bool) -> Turn {
        match self.wanted.get() {
            0 if is_next => self.park(),
            0 => Turn::Ahead,
            _ if self.read_turn.get() >= READ_TURN_BYTES => {
                self.wake();
                Turn::Wait
            }
            wanted => Turn::Go(wanted),
        }
    }

    /// Something came ahead of its time.
    pub(super) fn has_kept(&self) {
        self.parked.set(true);
    }

    /// The handler has read a body to its end.
    pub(super) fn body_is_read(&self) {
        self.wanted.set(0);
    }

    fn refuse(&self, refusal: Refusal) -> Turn {
        self.thread.note(refusal);
        Turn::Refuse(refusal)
    }

    /// So much was read, with the end of a head before the last `after_head` bytes, if there was one.
    pub(super) fn has_read(&self, bytes: usize, after_head: Option<usize>) {
        self.delivered.set(true);
        self.read_turn.set(self.read_turn.get() + bytes);
        if self.in_call.get() {
            self.wanted.set(self.wanted.get().saturating_sub(bytes));
            return;
        }
        self.read.set(self.read.get() + bytes);
        self.after_head.set(after_head.unwrap_or(self.after_head.get() + bytes));
        if self.head_since.get().is_none() {
            self.head_since.set(Some(self.thread.now()));
        }
    }
}
