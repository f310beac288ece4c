//! A sale that is over: its gate is taken away, and made anew if the sale is reopened.

use super::System;
use crate::defects::Defect;
use crate::state::{Gate, Message, Order, State, Work};

/// The server of a gate that nobody may believe to be retired any more.
const UNKNOWN_SERVER: u8 = u8::MAX;

/// The end of a sale comes, or is put off.
pub(super) fn end(s: &mut State, ended: bool) {
    if ended {
        s.budget.ends -= 1;
    } else {
        s.budget.reopenings -= 1;
    }
    s.db.ended = ended;
    s.db.revision += 1;
}

impl System {
    /// Gate script: takes away an open gate of no newer epoch that is over by its own settings and has nothing in flight.
    pub(super) fn retire(&self, s: &mut State, sweeper: usize) -> Option<()> {
        let Work::Ending { epoch } = s.work[sweeper] else { return None };
        s.work[sweeper] = Work::Idle;
        let Some(meta) = self.open(s).copied() else { return Some(()) };
        let over = meta.ended || self.has(Defect::RetireByTheRowAlone);
        let idle = s.gate.in_flight == 0 && s.gate.late == 0 || self.has(Defect::RetireInFlight);
        if meta.epoch <= epoch && over && idle {
            s.taken_too_early |= !meta.ended && !s.db.ended;
            s.gate = Gate::default();
            s.work[sweeper] = Work::Retired { epoch: meta.epoch, run: s.run };
        }
        Some(())
    }

    /// Notes in the database that the gate owed nothing, if nothing has changed there since. The fence is raised:
    /// there are none, and a gate of that epoch that comes back late is an old one.
    pub(super) fn note_retired(&self, s: &mut State, sweeper: usize) -> Option<()> {
        let Work::Retired { epoch, run } = s.work[sweeper] else { return None };
        s.work[sweeper] = Work::Idle;
        let unchanged = s.db.epoch == epoch && s.db.fence == epoch && s.db.server == run && s.db.ended;
        if unchanged || self.has(Defect::RetirementNotedBlindly) {
            s.db.epoch += 1;
            s.db.fence = s.db.epoch;
            s.db.retired = true;
            // No gate has anything to give back: the next one is filled from the live orders.
            s.db.due = 0;
        }
        Some(())
    }

    /// An operator puts a purchase back whose sale is over and has no gate: nobody else can take the unit, so the database
    /// decides. From then on something is on its way.
    pub(super) fn replay_without_gate(&self, s: &mut State, order: Order) -> Option<()> {
        (s.db.ended && s.gate.meta.is_none()).then_some(())?;
        // What it was promised may have been sold since: then it stays set aside.
        let possible = self.has_stock(s, order) && !s.has_another(order);
        (possible || self.has(Defect::ReplayWithoutALook)).then_some(())?;
        if !self.has(Defect::ReplayLeavesItRetired) {
            s.db.retired = false;
            s.db.server = UNKNOWN_SERVER;
        }
        s.parked = None;
        s.queue.push(Message::Order(order, s.db.epoch));
        Some(())
    }
}
