//! What is modelled: how many of each, which step may come next, and what it leads to.

mod enabled;
mod rebuild;
mod request;
mod retire;
mod size;
mod work;

pub use self::size::sale;

use self::retire::end;
use crate::defects::Defect;
use crate::state::{
    Budget, CONSUMERS, Database, Gate, Meta, ORDERS, Order, Rebuild, Request, Row, State, USERS, Work, bit, user_of,
};

#[derive(Clone, Copy, Debug)]
pub struct System {
    /// How many users buy.
    pub users: usize,
    pub stock: u8,
    pub sweepers: usize,
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
        let meta = Meta { epoch: 1, server: 0, open: true, stock: self.stock, revision: 0, ended: false };
        State {
            run: 0,
            gate: Gate { meta: Some(meta), ..Gate::default() },
            replica: None,
            deposed: None,
            db: Database {
                rows: [Row::Absent; ORDERS],
                due: 0,
                stock: self.stock,
                revision: 0,
                epoch: 1,
                fence: 1,
                server: 0,
                ended: false,
                retired: false,
            },
            net: vec![],
            queue: vec![],
            returned: vec![],
            prefetched: [None; CONSUMERS],
            requests: [Request::Idle; 2],
            drawn: [0; USERS],
            work: vec![Work::Idle; CONSUMERS + self.sweepers],
            rebuilds: vec![Rebuild::Idle; self.rebuilders],
            settings: None,
            taken_too_early: false,
            start: None,
            parked: None,
            promised: 0,
            budget: self.budget,
        }
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
            Step::Crash(worker) => {
                s.requeue(worker);
                s.work[worker] = Work::Idle;
            }
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
                s.db.rows[order as usize] = Row::Cancelled;
                s.db.due |= bit(order);
            }
            Step::CancelAtGate(order) => {
                s.budget.cancels -= 1;
                let epoch = s.db.epoch;
                self.release(s, order, epoch).then_some(())?;
            }
            Step::Restock => self.restock(s)?,
            Step::End => end(s, true),
            Step::Reopen => end(s, false),
            Step::SeeEnd(sweeper) => s.work[sweeper] = Work::Ending { epoch: s.db.epoch },
            Step::Retire(sweeper) => self.retire(s, sweeper)?,
            Step::NoteRetired(sweeper) => self.note_retired(s, sweeper)?,
            // A closed gate lives for a day.
            Step::ForgetClosed => {
                s.budget.days -= 1;
                s.gate = Gate::default();
            }
            Step::ForgetDue => s.db.due = 0,
            Step::ReadSettings => s.settings = Some((s.db.stock, s.db.revision, s.db.ended)),
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

    /// Gate script. False: refused, to be tried again later.
    fn release(&self, s: &mut State, order: Order, epoch: u8) -> bool {
        if self.open(s).is_none_or(|meta| meta.epoch != epoch) {
            return self.has(Defect::ReleaseDoneOnClosedGate);
        }
        let reservation = &mut s.gate.buyers[user_of(order)];
        if *reservation == Some(order) || self.has(Defect::ReleaseByUser) {
            *reservation = None;
        }
        s.gate.in_flight &= !bit(order);
        true
    }

    fn restock(&self, s: &mut State) -> Option<()> {
        s.budget.restocks -= 1;
        if self.has(Defect::RestockGateFirst) {
            s.gate.meta.as_mut()?.stock += 1;
        } else {
            s.db.stock += 1;
            s.db.revision += 1;
        }
        Some(())
    }

    fn configure(&self, s: &mut State) -> Option<()> {
        let (stock, revision, ended) = s.settings.take()?;
        if self.open(s).is_some_and(|meta| meta.revision < revision) {
            let meta = s.gate.meta.as_mut()?;
            meta.stock = stock;
            meta.revision = revision;
            meta.ended = ended;
        }
        Some(())
    }
}
