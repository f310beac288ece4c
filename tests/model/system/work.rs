//! Consumers and sweepers: the one transaction that decides, and what is repaired after it.

use super::System;
use crate::defects::Defect;
use crate::state::{Delivery, Held, Message, Order, Row, State, Work, bit, every_order, user_of};

impl System {
    pub(super) fn deliver(&self, s: &mut State, consumer: usize) {
        let Delivery { message, again } = s.take_ready();
        s.work[consumer] = Work::Has { message, again, linked: true, old: false };
    }

    pub(super) fn next_prefetched(&self, s: &mut State, consumer: usize) -> Option<()> {
        let Delivery { message, again } = s.prefetched[consumer].take()?;
        s.work[consumer] = Work::Has { message, again, linked: true, old: false };
        Some(())
    }

    pub(super) fn sweep(&self, s: &mut State, sweeper: usize, order: Order) -> Option<()> {
        let message = Message::Order(order, self.open(s)?.epoch);
        s.work[sweeper] = Work::Has { message, again: false, linked: false, old: false };
        Some(())
    }

    /// Goes on with a release that is due.
    pub(super) fn redo(&self, s: &mut State, sweeper: usize, order: Order) {
        let epoch = s.db.epoch;
        let message = Message::Order(order, epoch);
        s.work[sweeper] = Work::Decided { held: s.life_of(order), dead: true, epoch, linked: false, message };
    }

    pub(super) fn decide_one(&self, s: &mut State, worker: usize) -> Option<()> {
        let Work::Has { message, linked, .. } = s.work[worker] else { return None };
        let Message::Order(order, epoch) = message else { return None };
        if s.parked.is_some_and(|(parked, _)| parked == order) {
            // It cannot be written for anybody, whatever is tried.
            s.work[worker] = Work::Idle;
            return Some(());
        }
        let dead = self.decide(s, order, epoch);
        s.work[worker] = Work::Decided { held: Held::first(order), dead, epoch: s.db.epoch, linked, message };
        Some(())
    }

    /// The one transaction that decides what becomes of an order id. True: the order is not live.
    fn decide(&self, s: &mut State, order: Order, epoch: u8) -> bool {
        match s.row(order) {
            Row::Absent => {}
            row => return !row.is_live(),
        }
        let others =
            |is: fn(Row) -> bool| every_order().any(|other| user_of(other) == user_of(order) && is(s.row(other)));
        if self.has(Defect::AnyDuplicateIsSuccess) && others(|row| row != Row::Absent) {
            return false;
        }
        let late = match self.defect {
            Some(Defect::LateAccepted | Defect::LateAcceptedUnconditionally) => false,
            Some(Defect::FenceIsFlag) => epoch < s.db.epoch && s.db.fence == s.db.epoch,
            _ => epoch < s.db.fence,
        };
        let full = !self.has_stock(s, order) && !self.has(Defect::LateAcceptedUnconditionally);
        let dead = late || others(Row::is_live) || full;
        if dead {
            s.db.rows[order as usize] = Row::Rejected;
            s.db.due |= bit(order);
        } else {
            self.begin_life(s, order, Row::Unpaid);
        }
        dead
    }

    pub(super) fn mark_written(&self, s: &mut State, worker: usize) -> Option<()> {
        let Work::Decided { held, dead, epoch, .. } = s.work[worker] else { return None };
        let order = held.order;
        s.work[worker] = Work::Idle;
        if !dead {
            if self.valid(s).is_some() {
                s.gate.in_flight &= !bit(order);
                let reservation = &mut s.gate.buyers[user_of(order)];
                if self.has(Defect::MarkingWrittenRestoresReservation) && reservation.is_none() {
                    *reservation = Some(held);
                }
            }
        } else if self.has(Defect::DueClearedBeforeRelease) && s.db.due & bit(order) != 0 {
            s.db.due &= !bit(order);
            let message = Message::Order(order, epoch);
            s.work[worker] = Work::Decided { held, dead, epoch, linked: false, message };
        } else if self.release(s, held, epoch) {
            s.work[worker] = Work::Released { held };
        }
        Some(())
    }

    pub(super) fn clear_due(&self, s: &mut State, worker: usize) -> Option<()> {
        let Work::Released { held } = s.work[worker] else { return None };
        // What is due may be a later life by now.
        if s.life_of(held.order) == held || self.has(Defect::DueClearedForAnotherLife) {
            s.db.due &= !bit(held.order);
        }
        s.work[worker] = Work::Idle;
        Some(())
    }

    /// A barrier comes to the consumer, which raises the fence: after this, messages of older epochs come too late.
    pub(super) fn raise_fence(&self, s: &mut State, consumer: usize) -> Option<()> {
        let Work::Has { message: Message::Barrier(epoch), again, linked, .. } = s.work[consumer] else { return None };
        s.work[consumer] = if s.db.epoch == epoch && (!again || self.has(Defect::RedeliveredBarrierTrusted)) {
            s.db.fence = epoch;
            Work::Fenced { epoch, linked }
        } else {
            Work::Idle
        };
        Some(())
    }

    /// A consumer sets its message aside.
    pub(super) fn park(&self, s: &mut State, consumer: usize) -> Option<()> {
        let Work::Has { message: Message::Order(order, epoch), .. } = s.work[consumer] else { return None };
        s.budget.parks -= 1;
        s.parked = Some((order, epoch));
        s.work[consumer] = Work::Idle;
        Some(())
    }

    /// An operator puts it back, under the epoch of the gate that is open now, if that has or still holds a unit for it.
    pub(super) fn replay(&self, s: &mut State) -> Option<()> {
        let (order, mut epoch) = s.parked?;
        // Long after: what was delivered twice was set aside twice.
        let is = |message: &Message| matches!(message, Message::Order(its, _) if *its == order);
        let elsewhere = s.net.iter().any(|sent| is(&sent.message))
            || s.queue.iter().chain(&s.returned).any(is)
            || s.prefetched.iter().flatten().any(|delivery| is(&delivery.message))
            || s.work.iter().any(|work| matches!(work, Work::Has { message, .. } if is(message)));
        (!elsewhere).then_some(())?;
        if s.row(order) == Row::Absent && !self.has(Defect::ReplayPastTheGate) {
            if self.open(s).is_none() {
                return self.replay_without_gate(s, order);
            }
            let meta = *self.open(s)?;
            let mut gate = s.gate;
            match gate.buyers[user_of(order)] {
                None if self.fits(&gate, user_of(order)) => self.hold(&mut gate, Held::first(order)),
                Some(held) if held == Held::first(order) => {}
                _ => return None,
            }
            gate.in_flight |= bit(order);
            s.gate = gate;
            epoch = meta.epoch;
        }
        s.parked = None;
        s.queue.push(Message::Order(order, epoch));
        Some(())
    }
}
