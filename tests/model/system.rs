//! What is modelled: how many of each, which step may come next, and what it leads to.

mod enabled;
mod payment;
mod rebuild;
mod request;
mod retire;
mod size;
mod units;
mod work;

pub use self::size::sale;

use self::payment::{answer, call, pass_deadline, pay};
use self::retire::end;
use crate::defects::Defect;
use crate::state::{
    Budget, CONSUMERS, Database, Entry, Gate, Held, Meta, ORDERS, Order, PaymentId, Rebuild, Request, Row, State,
    TRIES, USERS, Work, bit,
};

#[derive(Clone, Copy, Debug)]
pub struct System {
    /// How many users buy.
    pub users: usize,
    /// How many of them have an unpaid order already, of which everybody knows.
    pub written: usize,
    /// The first user's purchase was set aside, and its gate was rebuilt since.
    pub set_aside: bool,
    /// Units that each user buys.
    pub quantities: [u8; USERS],
    pub stock: u8,
    pub sweepers: usize,
    /// Handlers of callbacks.
    pub handlers: usize,
    pub rebuilders: usize,
    pub budget: Budget,
    pub prefetch: bool,
    pub defect: Option<Defect>,
}

/// One step of somebody: the indices say of whom and of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Reserve { request: usize, user: usize },
    ReserveAtDeposed { request: usize, user: usize },
    Publish(usize),
    Reply(usize),
    GiveUp(usize),
    Arrive(usize),
    Vanish(usize),
    Deliver(usize),
    Prefetch(usize),
    Next(usize),
    Decide(usize),
    Ack(usize),
    MarkWritten(usize),
    ClearDue(usize),
    Crash(usize),
    LoseConnection(usize),
    Sweep(usize, Order),
    Redo(usize, Order),
    RaiseFence(usize),
    BeginRebuild(usize),
    Rebuild(usize),
    CrashRebuild(usize),
    Cancel(Order),
    CancelAtGate(Order),
    Restock,
    Lower,
    SeeTaken(usize),
    Raise(usize),
    Deadline(Order),
    SeeDeadline(usize, Order),
    Expire(usize),
    Close(Order),
    Pay(Order),
    Call(usize, PaymentId),
    Receive(usize),
    Readmit(usize),
    ReadmitAtDeposed(usize),
    SweepLate(usize, Entry),
    Settle(usize),
    TellOfPayment(usize),
    Answer(usize),
    Refund(PaymentId),
    End,
    Reopen,
    SeeEnd(usize),
    Retire(usize),
    NoteRetired(usize),
    ForgetClosed,
    ForgetDue,
    ReadSettings,
    Configure,
    LoseGate,
    FlushGate,
    Replicate,
    FailOver,
    Depose,
    Move,
    Tell,
    Park(usize),
    Replay,
    ReadAtStart,
    WriteAtStart,
}

impl System {
    pub fn has(&self, defect: Defect) -> bool {
        self.defect == Some(defect)
    }

    pub fn start(&self) -> State {
        let meta = Meta { epoch: 1, server: 0, open: true, offered: self.stock, revision: 0, ended: false };
        let mut state = State {
            run: 0,
            gate: Gate { meta: Some(meta), ..Gate::default() },
            replica: None,
            deposed: None,
            db: Database {
                rows: [Row::Absent; ORDERS],
                due: 0,
                overdue: 0,
                stock: self.stock,
                withheld: 0,
                sold: 0,
                revision: 0,
                epoch: 1,
                fence: 1,
                server: 0,
                ended: false,
                retired: false,
            },
            payments: vec![],
            net: vec![],
            queue: vec![],
            returned: vec![],
            prefetched: [None; CONSUMERS],
            requests: [Request::Idle; 2],
            drawn: [0; USERS],
            work: vec![Work::Idle; CONSUMERS + self.sweepers + self.handlers],
            rebuilds: vec![Rebuild::Idle; self.rebuilders],
            settings: None,
            taken_too_early: false,
            start: None,
            parked: None,
            promised: 0,
            budget: self.budget,
        };
        for user in 0..self.written {
            let order = (user * TRIES) as Order;
            self.hold(&mut state.gate, Held::first(order));
            self.begin_life(&mut state, order, Row::Unpaid);
            state.drawn[user] = 1;
            state.promised |= bit(order);
        }
        if self.set_aside {
            state.parked = Some((0, 0));
            state.drawn[0] = 1;
            state.promised |= bit(0);
        }
        state
    }

    /// The state after a step; `None`: it cannot be taken after all.
    #[expect(clippy::too_many_lines, reason = "it is a table: an arm for each step")]
    pub fn after(&self, before: &State, step: Step) -> Option<State> {
        let mut state = before.clone();
        let s = &mut state;
        match step {
            Step::Reserve { request, user } => self.reserve(s, request, user)?,
            Step::ReserveAtDeposed { request, user } => self.reserve_at_deposed(s, request, user)?,
            Step::Publish(request) => self.publish(s, request)?,
            Step::Reply(request) => self.reply(s, request)?,
            Step::GiveUp(request) => self.give_up(s, request),
            Step::Arrive(sent) => self.arrive(s, sent),
            Step::Vanish(sent) => drop(s.net.remove(sent)),
            Step::Deliver(worker) => self.deliver(s, worker),
            Step::Prefetch(consumer) => s.prefetched[consumer] = Some(s.take_ready()),
            Step::Next(consumer) => self.next_prefetched(s, consumer)?,
            Step::Decide(worker) => self.decide_one(s, worker)?,
            Step::Ack(worker) => s.work[worker].unlink()?,
            Step::MarkWritten(worker) => self.mark_written(s, worker)?,
            Step::ClearDue(worker) => self.clear_due(s, worker)?,
            Step::Crash(worker) => self.crash(s, worker),
            Step::LoseConnection(worker) => {
                s.requeue(worker);
                s.work[worker].unlink()?;
            }
            Step::Sweep(sweeper, order) => self.sweep(s, sweeper, order)?,
            Step::Redo(sweeper, order) => self.redo(s, sweeper, order),
            Step::RaiseFence(consumer) => self.raise_fence(s, consumer)?,
            Step::BeginRebuild(rebuilder) => {
                let Database { epoch, fence, server, retired, .. } = s.db;
                s.rebuilds[rebuilder] = Rebuild::Inspect { epoch, fence, server, retired };
            }
            Step::Rebuild(rebuilder) => s.rebuilds[rebuilder] = self.rebuild(s, s.rebuilds[rebuilder])?,
            Step::CrashRebuild(rebuilder) => s.rebuilds[rebuilder] = Rebuild::Idle,
            Step::Cancel(order) => {
                s.budget.cancels -= 1;
                self.end_life(s, order, Row::Cancelled);
            }
            Step::CancelAtGate(order) => {
                s.budget.cancels -= 1;
                let epoch = s.db.epoch;
                self.release(s, s.life_of(order), epoch).then_some(())?;
            }
            Step::Restock => self.restock(s)?,
            Step::Lower => self.lower(s),
            Step::SeeTaken(sweeper) => s.work[sweeper] = Work::Raising { wanted: self.wanted(s) },
            Step::Raise(sweeper) => self.raise(s, sweeper)?,
            Step::Deadline(order) => pass_deadline(s, order),
            Step::SeeDeadline(sweeper, order) => s.work[sweeper] = Work::Expiring { order },
            Step::Expire(sweeper) => self.expire(s, sweeper)?,
            Step::Close(order) => self.close_order(s, order)?,
            Step::Pay(order) => pay(s, order),
            Step::Call(handler, payment) => call(s, handler, payment),
            Step::Receive(handler) => self.receive(s, handler)?,
            Step::Readmit(handler) => self.readmit(s, handler)?,
            Step::ReadmitAtDeposed(handler) => self.readmit_at_deposed(s, handler)?,
            Step::SweepLate(sweeper, entry) => {
                let epoch = self.open(s)?.epoch;
                s.work[sweeper] = Work::Admitted { payment: entry.payment, entry: Some(entry), epoch };
            }
            Step::Settle(worker) => self.settle(s, worker)?,
            Step::TellOfPayment(worker) => self.tell_of_payment(s, worker)?,
            Step::Answer(handler) => answer(s, handler)?,
            Step::Refund(payment) => self.refund(s, payment),
            Step::End => end(s, true),
            Step::Reopen => end(s, false),
            Step::SeeEnd(sweeper) => {
                s.budget.retirings -= u8::from(self.budget.payments > 0);
                s.work[sweeper] = Work::Ending { epoch: s.db.epoch };
            }
            Step::Retire(sweeper) => self.retire(s, sweeper)?,
            Step::NoteRetired(sweeper) => self.note_retired(s, sweeper)?,
            // A closed gate lives for a day.
            Step::ForgetClosed => {
                s.budget.days -= 1;
                s.gate = Gate::default();
            }
            Step::ForgetDue => s.db.due = 0,
            Step::ReadSettings => s.settings = Some((s.db.offered(), s.db.revision, s.db.ended)),
            Step::Configure => self.configure(s)?,
            Step::LoseGate => {
                s.budget.losses -= 1;
                s.gate = Gate::default();
                s.run += 1;
            }
            Step::FlushGate => {
                s.budget.flushes -= 1;
                s.gate = Gate::default();
            }
            Step::Replicate => s.replica = Some(s.gate),
            Step::FailOver => {
                s.budget.failovers -= 1;
                s.gate = s.replica.take()?;
                s.run += 1;
            }
            // The old master goes on for those that cannot see the others.
            Step::Depose => {
                s.budget.depositions -= 1;
                s.deposed = Some(std::mem::replace(&mut s.gate, s.replica.take()?));
                s.run += 1;
            }
            // Another instance uses another server, or the operator has moved the gate: those of the old one go on.
            Step::Move => {
                s.budget.moves -= 1;
                s.deposed = Some(std::mem::take(&mut s.gate));
                s.run += 1;
            }
            Step::Tell => self.tell(s),
            Step::Park(consumer) => self.park(s, consumer)?,
            Step::Replay => self.replay(s)?,
            Step::ReadAtStart => {
                s.budget.starts -= 1;
                s.start = Some(s.live());
            }
            Step::WriteAtStart => {
                s.gate.buyers = s.start.take()?;
                s.gate.extra = self.units_of(&s.gate.buyers) - s.gate.buyers.iter().flatten().count() as u8;
                s.gate.in_flight = 0;
            }
        }
        Some(state)
    }

    /// The gate as a script sees it: `None` when it holds nothing or belongs to another server process.
    pub fn valid<'s>(&self, s: &'s State) -> Option<&'s Meta> {
        s.gate.meta.as_ref().filter(|meta| meta.server == s.run || self.has(Defect::NoServerIdentity))
    }

    pub fn open<'s>(&self, s: &'s State) -> Option<&'s Meta> {
        self.valid(s).filter(|meta| meta.open)
    }

    fn crash(&self, s: &mut State, worker: usize) {
        s.requeue(worker);
        if let Work::Settled { payment, entry, epoch, .. } = s.work[worker]
            && self.has(Defect::LateReleasedWhenItsCommitIsUnknown)
        {
            self.release_late(s, payment, entry, epoch);
        }
        s.work[worker] = Work::Idle;
    }

    /// Gate script. False: refused, to be tried again later.
    fn release(&self, s: &mut State, held: Held, epoch: u8) -> bool {
        if self.open(s).is_none_or(|meta| meta.epoch != epoch) {
            return self.has(Defect::ReleaseDoneOnClosedGate);
        }
        let mut gate = s.gate;
        self.let_go(&mut gate, held);
        if held.payment.is_none() {
            gate.in_flight &= !bit(held.order);
        }
        s.gate = gate;
        true
    }

    fn restock(&self, s: &mut State) -> Option<()> {
        s.budget.restocks -= 1;
        if self.has(Defect::RestockGateFirst) {
            s.gate.meta.as_mut()?.offered += 1;
        } else {
            if s.db.withheld > 0 {
                s.db.withheld -= 1;
            } else {
                s.db.stock += 1;
            }
            s.db.revision += 1;
        }
        Some(())
    }

    /// Units that are taken at the gate, or sold: so many have to be offered.
    pub(super) fn wanted(&self, s: &State) -> u8 {
        let gate = self.open(s).filter(|meta| meta.revision == s.db.revision);
        let taken = gate.map_or(0, |_| s.gate.taken());
        if self.has(Defect::RaisedByTheGateAlone) { taken } else { taken.max(s.db.sold) }
    }

    /// Purchases that were in flight when the offer was lowered get what they were promised: it is offered again.
    fn raise(&self, s: &mut State, sweeper: usize) -> Option<()> {
        let Work::Raising { wanted } = s.work[sweeper] else { return None };
        s.work[sweeper] = Work::Idle;
        let wanted = wanted.min(s.db.stock);
        if wanted > s.db.offered() {
            s.db.withheld = s.db.stock - wanted;
            s.db.revision += 1;
        }
        Some(())
    }

    /// Units that are not sold are offered no more. What is enforced stays, for purchases in flight.
    fn lower(&self, s: &mut State) {
        s.budget.lowerings -= 1;
        if self.has(Defect::EnforcedStockLowered) {
            s.db.stock -= 1;
        } else {
            s.db.withheld += 1;
        }
        s.db.revision += 1;
    }

    fn configure(&self, s: &mut State) -> Option<()> {
        let (offered, revision, ended) = s.settings.take()?;
        if self.open(s).is_some_and(|meta| meta.revision < revision) {
            let meta = s.gate.meta.as_mut()?;
            meta.offered = offered;
            meta.revision = revision;
            meta.ended = ended;
        }
        Some(())
    }
}
