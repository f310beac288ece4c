//! Units: how many each reservation and each order has, in the gate and in the database.

use super::System;
use crate::defects::Defect;
use crate::state::{Buyers, Gate, Held, Order, Row, State, bit, user_of};

impl System {
    pub fn units(&self, order: Order) -> u8 {
        self.quantities[user_of(order)]
    }

    /// Units of all these reservations.
    pub fn units_of(&self, buyers: &Buyers) -> u8 {
        buyers.iter().flatten().map(|held| self.units(held.order)).sum()
    }

    /// The gate has as many units as the user buys.
    pub(super) fn fits(&self, gate: &Gate, user: usize) -> bool {
        let wanted = if self.has(Defect::GrantedInPart) { 1 } else { self.quantities[user] };
        gate.meta.is_some_and(|meta| gate.taken() + wanted <= meta.offered)
    }

    /// Within a gate script: a reservation, and what it takes beyond one unit, in one step.
    pub(super) fn hold(&self, gate: &mut Gate, held: Held) {
        gate.buyers[user_of(held.order)] = Some(held);
        gate.extra += self.units(held.order) - 1;
    }

    /// Within a gate script: takes a reservation away if it is still this one.
    pub(super) fn let_go(&self, gate: &mut Gate, held: Held) {
        let reservation = &mut gate.buyers[user_of(held.order)];
        if *reservation == Some(held) || (self.has(Defect::ReleaseByUser) && reservation.is_some()) {
            *reservation = None;
            if !self.has(Defect::QuantityReleasedAsOne) {
                gate.extra -= self.units(held.order) - 1;
            }
        }
    }

    /// Within a transaction that has locked the product's row: is there stock for this order? What is withheld counts as
    /// stock: whoever asks has been admitted by a gate.
    pub(super) fn has_stock(&self, s: &State, order: Order) -> bool {
        let enforced = if self.has(Defect::WithheldIsEnforced) { s.db.offered() } else { s.db.stock };
        s.db.sold + self.units(order) <= enforced
    }

    /// Within that transaction: an order becomes live.
    pub(super) fn begin_life(&self, s: &mut State, order: Order, row: Row) {
        s.db.rows[order as usize] = row;
        s.db.sold += self.units(order);
    }

    /// Within a transaction: an order that was live dies.
    pub(super) fn end_life(&self, s: &mut State, order: Order, row: Row) {
        s.db.rows[order as usize] = row;
        s.db.sold = s.db.sold.saturating_sub(self.units(order));
        s.db.due |= bit(order);
    }
}
