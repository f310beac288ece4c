//! The life of an order after it was written: its deadline, payments that come in time or late, cancels and refunds.

use super::System;
use crate::defects::Defect;
use crate::state::{CONSUMERS, Entry, Gate, Held, Order, Payment, PaymentId, Row, State, Status, Work, bit, user_of};

pub(super) fn pass_deadline(s: &mut State, order: Order) {
    s.budget.deadlines -= 1;
    s.db.overdue |= bit(order);
}

/// A buyer pays an unpaid order at the provider, who will tell of it until it gets 200.
pub(super) fn pay(s: &mut State, order: Order) {
    s.budget.payments -= 1;
    s.payments.push(Payment { order, status: Status::Pending, revived: false, told: false, noted: false });
}

pub(super) fn call(s: &mut State, handler: usize, payment: PaymentId) {
    if s.payment(payment).told {
        s.budget.repeats -= 1;
    }
    s.work[handler] = Work::Received { payment };
}

pub(super) fn answer(s: &mut State, handler: usize) -> Option<()> {
    let Work::Answering { payment } = s.work[handler] else { return None };
    s.payments[payment as usize].told = true;
    s.work[handler] = Work::Idle;
    Some(())
}

impl System {
    /// One transaction: an order that is still unpaid dies of its deadline.
    pub(super) fn expire(&self, s: &mut State, sweeper: usize) -> Option<()> {
        let Work::Expiring { order } = s.work[sweeper] else { return None };
        if self.has(Defect::ExpiryReleasedBeforeCommit) && s.gate.buyers[user_of(order)] == Some(Held::first(order)) {
            let epoch = s.db.epoch;
            return self.release(s, Held::first(order), epoch).then_some(());
        }
        s.work[sweeper] = Work::Idle;
        if s.row(order) == Row::Unpaid || s.row(order) == Row::Paid && self.has(Defect::ExpiryWithoutStatus) {
            self.end_life(s, order, Row::Expired);
        } else if self.has(Defect::ExpiryCountedTwice) {
            s.db.sold = s.db.sold.saturating_sub(self.units(order));
        }
        Some(())
    }

    /// One transaction: the merchant cancels an order, and money that paid it is to go back.
    pub(super) fn close_order(&self, s: &mut State, order: Order) -> Option<()> {
        s.budget.closings -= 1;
        self.end_life(s, order, Row::Closed);
        for payment in &mut s.payments {
            if payment.order == order && payment.status == Status::Succeeded && !self.has(Defect::ClosedWithItsMoney) {
                payment.status = Status::RefundDue;
            }
        }
        Some(())
    }

    /// One transaction: the provider says that money went back. The order that it paid dies of it.
    pub(super) fn refund(&self, s: &mut State, payment: PaymentId) {
        s.budget.refunds -= 1;
        let Payment { order, status, .. } = s.payment(payment);
        s.set_status(payment, Status::Refunded);
        let again = self.has(Defect::RefundCountsTwice) && s.row(order) == Row::Closed;
        if status == Status::Succeeded || again {
            self.end_life(s, order, Row::Closed);
        }
    }

    /// One transaction: what a callback does to an order that is not dead. Of a dead one it is only read that it is.
    pub(super) fn receive(&self, s: &mut State, handler: usize) -> Option<()> {
        let Work::Received { payment } = s.work[handler] else { return None };
        let Payment { order, status, told, noted, .. } = s.payment(payment);
        s.work[handler] = Work::Answering { payment };
        if status != Status::Pending || noted {
            return Some(());
        }
        if self.has(Defect::AnsweredBeforeCommit) && !told || self.has(Defect::EventStoredFirst) {
            s.payments[payment as usize].told |= self.has(Defect::AnsweredBeforeCommit);
            s.payments[payment as usize].noted |= self.has(Defect::EventStoredFirst);
            s.work[handler] = Work::Received { payment };
            return Some(());
        }
        match s.row(order) {
            Row::Unpaid => {
                s.db.rows[order as usize] = Row::Paid;
                s.set_status(payment, Status::Succeeded);
            }
            Row::Paid if self.has(Defect::SecondPaymentTakenForARepeat) => {}
            Row::Paid if self.has(Defect::SecondPaymentPaysToo) => s.set_status(payment, Status::Succeeded),
            Row::Cancelled | Row::Expired if self.has(Defect::RevivedInTheDatabaseOnly) => {
                let has_stock = self.has_stock(s, order);
                self.revive(s, payment, has_stock);
            }
            Row::Cancelled | Row::Expired
                if self.has(Defect::RevivedOnceItWasReleased) && s.db.due & bit(order) != 0 =>
            {
                s.work[handler] = Work::Idle;
            }
            Row::Cancelled | Row::Expired => s.work[handler] = Work::Late { payment },
            Row::Paid | Row::Closed | Row::Rejected | Row::Absent => s.set_status(payment, Status::RefundDue),
        }
        Some(())
    }

    fn marks_order_alone(&self) -> bool {
        self.has(Defect::RevivedUnderTheOrderAlone) || self.has(Defect::RevivedOnceItWasReleased)
    }

    /// What a late payment's reservation is held under.
    fn held_for(&self, s: &State, payment: PaymentId) -> Held {
        let order = s.payment(payment).order;
        Held { order, payment: (!self.marks_order_alone()).then_some(payment) }
    }

    pub(super) fn readmit(&self, s: &mut State, handler: usize) -> Option<()> {
        let Work::Late { payment } = s.work[handler] else { return None };
        if self.valid(s).is_none() {
            s.work[handler] = Work::Gateless { payment };
            return Some(());
        }
        let mut gate = s.gate;
        s.work[handler] = self.readmit_in(&mut gate, s, payment)?;
        s.gate = gate;
        Some(())
    }

    pub(super) fn readmit_at_deposed(&self, s: &mut State, handler: usize) -> Option<()> {
        let Work::Late { payment } = s.work[handler] else { return None };
        let mut gate = s.deposed?;
        s.work[handler] = self.readmit_in(&mut gate, s, payment)?;
        s.deposed = Some(gate);
        Some(())
    }

    /// Gate script: units for a late payment, if there are any. Window and pause do not count.
    fn readmit_in(&self, gate: &mut Gate, s: &State, payment: PaymentId) -> Option<Work> {
        let held = self.held_for(s, payment);
        let Some(meta) = gate.meta.filter(|meta| meta.open) else { return Some(Work::Idle) };
        let mut entry = None;
        match gate.buyers[user_of(held.order)] {
            None if self.fits(gate, user_of(held.order)) => {
                self.hold(gate, held);
                entry = Some(s.unused_call(payment)?);
            }
            None => return Some(Work::Refused { payment }),
            // It has it already.
            Some(found) if found == held && !self.marks_order_alone() => {}
            // The first life of the order is dead and not yet released: its units go over to the second. Its entry in flight says
            // no more than the order's row, which is there.
            Some(found) if found == Held::first(held.order) => {
                gate.buyers[user_of(held.order)] = Some(held);
                gate.in_flight &= !bit(held.order);
                entry = Some(s.unused_call(payment)?);
            }
            // Another payment revives the order, or has: 503.
            Some(found) if found.order == held.order => return Some(Work::Idle),
            Some(_) => return Some(Work::Refused { payment }),
        }
        if self.has(Defect::EntryOfItsPaymentAlone) {
            entry = Some(Entry { payment, call: 0 });
        }
        gate.late |= entry.map_or(0, Entry::bit);
        Some(Work::Admitted { payment, entry, epoch: meta.epoch })
    }

    /// The one transaction that decides what becomes of a late payment. Whoever does it first has decided.
    pub(super) fn settle(&self, s: &mut State, worker: usize) -> Option<()> {
        let work = s.work[worker];
        let is_handler = worker >= CONSUMERS + self.sweepers;
        match work {
            Work::Refused { payment } => {
                if s.payment(payment).status == Status::Pending {
                    s.set_status(payment, Status::RefundDue);
                }
                s.work[worker] = Work::Answering { payment };
            }
            Work::Gateless { payment } => {
                // Nobody else can take a unit; the row is locked, so nobody opens a gate meanwhile.
                s.work[worker] = Work::Idle;
                if s.payment(payment).status != Status::Pending {
                    s.work[worker] = Work::Answering { payment };
                } else if s.db.retired || self.has(Defect::LostGateTakenForRetired) {
                    let order = s.payment(payment).order;
                    let offered = s.db.sold + self.units(order) <= s.db.offered();
                    self.revive(s, payment, offered);
                    s.work[worker] = Work::Answering { payment };
                }
            }
            Work::Admitted { payment, entry, epoch }
                if self.has(Defect::SweeperReleasesLatePayments) && !is_handler =>
            {
                let alive = s.payment(payment).status == Status::Succeeded;
                s.work[worker] = Work::Settled { payment, entry, alive, epoch };
            }
            Work::Admitted { payment, entry, epoch } => {
                // Admitted by a gate that is over: 503, and the provider's next call asks the gate of then.
                s.work[worker] = Work::Idle;
                if s.payment(payment).status == Status::Pending {
                    if epoch < s.db.fence && !self.has(Defect::RevivalIgnoresTheFence) {
                        return Some(());
                    }
                    let has_stock = self.has_stock(s, s.payment(payment).order);
                    self.revive(s, payment, has_stock);
                }
                let alive = s.payment(payment).status == Status::Succeeded;
                s.work[worker] = Work::Settled { payment, entry, alive, epoch: s.db.epoch };
            }
            _ => return None,
        }
        Some(())
    }

    fn can_revive(&self, s: &State, payment: PaymentId, has_stock: bool) -> bool {
        let order = s.payment(payment).order;
        s.row(order).can_be_revived() && has_stock && !s.has_another(order)
    }

    /// Within a transaction: the order is paid by this payment, or the money is to go back.
    fn revive(&self, s: &mut State, payment: PaymentId, has_stock: bool) {
        if !self.can_revive(s, payment, has_stock) {
            s.set_status(payment, Status::RefundDue);
            return;
        }
        let order = s.payment(payment).order;
        self.begin_life(s, order, Row::Paid);
        s.set_status(payment, Status::Succeeded);
        s.payments[payment as usize].revived = !self.marks_order_alone();
        if !self.has(Defect::RevivedWithTheReleaseDue) {
            s.db.due &= !bit(order);
        }
    }

    /// Tells the gate what became of a late payment.
    pub(super) fn tell_of_payment(&self, s: &mut State, worker: usize) -> Option<()> {
        let Work::Settled { payment, entry, alive, epoch } = s.work[worker] else { return None };
        if !alive {
            self.release_late(s, payment, entry, epoch);
        } else if self.valid(s).is_some_and(|meta| meta.epoch == epoch) {
            s.gate.late &= !entry.map_or(0, Entry::bit);
        }
        let is_handler = worker >= CONSUMERS + self.sweepers;
        s.work[worker] = if is_handler { Work::Answering { payment } } else { Work::Idle };
        Some(())
    }

    pub(super) fn release_late(&self, s: &mut State, payment: PaymentId, entry: Option<Entry>, epoch: u8) {
        let held = self.held_for(s, payment);
        if self.release(s, held, epoch) {
            s.gate.late &= !entry.map_or(0, Entry::bit);
        }
    }
}
