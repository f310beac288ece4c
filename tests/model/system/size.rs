//! How much of everything: a sale, and what may befall it.

use super::System;
use crate::state::{Budget, USERS};

/// A sale of one unit to so many users, who try so many times in all; one sweeper, one rebuilder.
pub fn sale(users: usize, requests: u8) -> System {
    let budget = Budget {
        requests,
        losses: 0,
        flushes: 0,
        failovers: 0,
        depositions: 0,
        moves: 0,
        parks: 0,
        cancels: 0,
        restocks: 0,
        lowerings: 0,
        deadlines: 0,
        payments: 0,
        refunds: 0,
        closings: 0,
        repeats: 0,
        ends: 0,
        reopenings: 0,
        retirings: 2,
        days: 0,
        starts: 1,
    };
    System {
        users,
        written: 0,
        set_aside: false,
        quantities: [1; USERS],
        stock: 1,
        sweepers: 1,
        handlers: 0,
        rebuilders: 1,
        budget,
        prefetch: false,
        defect: None,
    }
}

impl System {
    pub fn stock(mut self, units: u8) -> Self {
        self.stock = units;
        self
    }

    pub fn sweepers(mut self, count: usize) -> Self {
        self.sweepers = count;
        self
    }

    pub fn rebuilders(mut self, count: usize) -> Self {
        self.rebuilders = count;
        self
    }

    /// A consumer may be sent a second message while it has one.
    pub fn prefetching(mut self) -> Self {
        self.prefetch = true;
        self
    }

    /// The gate's server restarts with nothing.
    pub fn losses(mut self, times: u8) -> Self {
        self.budget.losses = times;
        self
    }

    /// The gate is emptied; its server stays.
    pub fn flushes(mut self, times: u8) -> Self {
        self.budget.flushes = times;
        self
    }

    /// A replica with an earlier state takes over.
    pub fn failovers(mut self, times: u8) -> Self {
        self.budget.failovers = times;
        self
    }

    /// A replica with an earlier state takes over, and the old master takes writes from an instance that is cut off with it.
    pub fn depositions(mut self, times: u8) -> Self {
        self.budget.depositions = times;
        self
    }

    /// The gate's server is left for another one, without its instances being told.
    pub fn moves(mut self, times: u8) -> Self {
        self.budget.moves = times;
        self
    }

    /// A purchase is set aside, and may be replayed whenever an operator likes.
    pub fn parks(mut self, times: u8) -> Self {
        self.budget.parks = times;
        self
    }

    pub fn cancels(mut self, times: u8) -> Self {
        self.budget.cancels = times;
        self
    }

    pub fn restocks(mut self, times: u8) -> Self {
        self.budget.restocks = times;
        self
    }

    /// So many users have an unpaid order already, of which everybody knows: it is not followed how they came to it.
    pub fn written(mut self, orders: usize) -> Self {
        self.written = orders;
        self
    }

    /// The first user was promised an order that was set aside, and its gate was rebuilt since.
    pub fn set_aside(mut self) -> Self {
        self.set_aside = true;
        self
    }

    /// Units that each user buys.
    pub fn quantities(mut self, units: [u8; USERS]) -> Self {
        self.quantities = units;
        self
    }

    /// So often a unit less is offered.
    pub fn lowerings(mut self, times: u8) -> Self {
        self.budget.lowerings = times;
        self
    }

    /// So many orders get past their deadline.
    pub fn deadlines(mut self, orders: u8) -> Self {
        self.budget.deadlines = orders;
        self
    }

    /// So many payments for which the money comes, at any time, also late; one handler of callbacks.
    pub fn payments(mut self, count: u8) -> Self {
        self.budget.payments = count;
        self.handlers = 1;
        self
    }

    pub fn handlers(mut self, count: usize) -> Self {
        self.handlers = count;
        self
    }

    /// The provider says so often that money went back.
    pub fn refunds(mut self, times: u8) -> Self {
        self.budget.refunds = times;
        self
    }

    /// The merchant cancels so many orders, paid or not.
    pub fn closings(mut self, orders: u8) -> Self {
        self.budget.closings = orders;
        self
    }

    /// The provider calls so often although it got 200.
    pub fn repeats(mut self, times: u8) -> Self {
        self.budget.repeats = times;
        self
    }

    /// The sale ends so often, and is reopened once less often or as often.
    pub fn ends(mut self, times: u8, reopenings: u8) -> Self {
        self.budget.ends = times;
        self.budget.reopenings = reopenings;
        self.budget.days = 1;
        self
    }

    /// Sweepers see so often that the sale is over.
    pub fn retirings(mut self, times: u8) -> Self {
        self.budget.retirings = times;
        self
    }

    pub fn may_lose_its_gate(&self) -> bool {
        let Budget { losses, flushes, failovers, depositions, moves, .. } = self.budget;
        losses + flushes + failovers + depositions + moves > 0
    }
}
