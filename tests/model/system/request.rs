//! A purchase inside an instance: reserve, publish, confirm, reply. It may end anywhere.

use super::System;
use crate::defects::Defect;
use crate::state::{Gate, Held, Message, Order, Request, State, TRIES, bit};

impl System {
    pub(super) fn reserve(&self, s: &mut State, request: usize, user: usize) -> Option<()> {
        self.open(s)?;
        let mut gate = s.gate;
        let reserved = self.reserve_in(&mut gate, s, request, user);
        s.gate = gate;
        reserved
    }

    /// The same at the gate that was left: its own server still believes it.
    pub(super) fn reserve_at_deposed(&self, s: &mut State, request: usize, user: usize) -> Option<()> {
        let mut gate = s.deposed?;
        let reserved = self.reserve_in(&mut gate, s, request, user);
        s.deposed = Some(gate);
        reserved
    }

    fn reserve_in(&self, gate: &mut Gate, s: &mut State, request: usize, user: usize) -> Option<()> {
        let meta = gate.meta.filter(|meta| !meta.ended)?;
        s.budget.requests -= 1;
        let order = match gate.buyers[user] {
            // The database knows whether the payment has revived it. If not: 503.
            Some(Held { order, payment: Some(_) }) if !s.row(order).is_live() => return None,
            Some(Held { order, payment })
                if payment.is_some()
                    || gate.in_flight & bit(order) == 0
                    || self.has(Defect::RepeatAnsweredUnconfirmed) =>
            {
                s.promised |= bit(order);
                return Some(());
            }
            Some(Held { order, .. }) => order,
            None if !self.fits(gate, user) || s.drawn[user] as usize >= TRIES => return None,
            None => {
                let order = (user * TRIES) as Order + s.drawn[user];
                s.drawn[user] += 1;
                self.hold(gate, Held::first(order));
                gate.in_flight |= bit(order);
                order
            }
        };
        s.requests[request] = Request::Reserved { order, epoch: meta.epoch, expired: false };
        Some(())
    }

    pub(super) fn publish(&self, s: &mut State, request: usize) -> Option<()> {
        let Request::Reserved { order, epoch, expired } = s.requests[request] else { return None };
        s.requests[request] = Request::Published { order, epoch, expired, confirmed: false };
        if self.has(Defect::InFlightClearedBeforeConfirm) {
            s.gate.in_flight &= !bit(order);
        }
        s.send(Message::Order(order, epoch), request as u8);
        Some(())
    }

    pub(super) fn reply(&self, s: &mut State, request: usize) -> Option<()> {
        let Request::Published { order, .. } = s.requests[request] else { return None };
        s.promised |= bit(order);
        s.end_request(request);
        Some(())
    }

    pub(super) fn give_up(&self, s: &mut State, request: usize) {
        if let Request::Published { order, epoch, .. } = s.requests[request]
            && self.has(Defect::ReleaseOnTimeout)
        {
            self.release(s, Held::first(order), epoch);
        }
        s.end_request(request);
    }

    /// The broker has the message, and says so to whoever still waits for it.
    pub(super) fn arrive(&self, s: &mut State, sent: usize) {
        let sent = s.net.remove(sent);
        s.queue.push(sent.message);
        if let Some(Request::Published { confirmed, .. }) = s.requests.get_mut(sent.publisher as usize) {
            *confirmed = true;
        }
    }
}
