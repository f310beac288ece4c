//! What must hold in every state, and what must be reached at all.

use crate::state::{Message, Order, Payment, Row, State, Status, USERS, bit, every_order, user_of};
use crate::system::System;

/// Something that is said of a state.
#[derive(Clone, Copy)]
pub struct Claim {
    pub name: &'static str,
    pub holds: fn(&System, &State) -> bool,
}

pub const NEVER_OVERSOLD: Claim =
    Claim { name: "I1 never oversold", holds: |system, s| system.units_of(&s.live()) <= s.db.stock };
pub const NO_PROMISE_LOST: Claim =
    Claim { name: "I2 no promise lost", holds: |_, s| promised(s).all(|order| is_kept(s, order)) };
pub const NO_PROMISE_TURNED_DOWN: Claim =
    Claim { name: "I2 no promise turned down", holds: |_, s| promised(s).all(|order| s.row(order) != Row::Rejected) };
pub const QUIET_GATE_EQUALS_DATABASE: Claim = Claim {
    name: "I3 when all is quiet, the gate equals the database",
    holds: |system, s| !system.is_quiet(s) || gate_equals_database(system, s),
};
pub const ONE_LIVE_ORDER_A_USER: Claim = Claim { name: "I4 one live order a user", holds: one_live_order_a_user };
pub const GATE_COVERS_LIVE_ORDERS: Claim =
    Claim { name: "an open gate holds every live order", holds: gate_covers_live_orders };
pub const GATE_NEVER_OVER_OFFERS: Claim =
    Claim { name: "an open gate never offers more than the database", holds: gate_never_over_offers };

pub const RETIRED_GATE_OWED_NOTHING: Claim = Claim {
    name: "what was promised is in the database when its gate is retired, or set aside",
    holds: |_, s| !s.db.retired || promised(s).all(|order| s.row(order) != Row::Absent || is_parked(s, order)),
};
pub const NO_SALE_LOSES_ITS_GATE: Claim =
    Claim { name: "the gate of a sale that goes on is not taken away", holds: |_, s| !s.taken_too_early };

pub const UNITS_COUNTED_ONCE: Claim = Claim {
    name: "what is sold is the units of the live orders",
    holds: |system, s| s.db.sold == system.units_of(&s.live()),
};
pub const PAID_BY_ONE_PAYMENT: Claim = Claim {
    name: "a paid order has one payment that succeeded, and no other order has one",
    holds: |_, s| every_order().all(|order| succeeded(s, order) == usize::from(s.row(order) == Row::Paid)),
};
pub const NO_MONEY_LOST: Claim = Claim {
    name: "money that the provider need not tell of again pays an order or goes back",
    holds: |_, s| s.payments.iter().all(|payment| !payment.told || payment.status != Status::Pending),
};

/// What holds in every state.
pub const INVARIANTS: [Claim; 12] = [
    NEVER_OVERSOLD,
    ONE_LIVE_ORDER_A_USER,
    NO_PROMISE_LOST,
    NO_PROMISE_TURNED_DOWN,
    GATE_COVERS_LIVE_ORDERS,
    GATE_NEVER_OVER_OFFERS,
    QUIET_GATE_EQUALS_DATABASE,
    RETIRED_GATE_OWED_NOTHING,
    NO_SALE_LOSES_ITS_GATE,
    UNITS_COUNTED_ONCE,
    PAID_BY_ONE_PAYMENT,
    NO_MONEY_LOST,
];

/// All is quiet, and an order that was dead is paid.
pub const QUIET_AFTER_A_REVIVAL: Claim = Claim {
    name: "quiet after a revival",
    holds: |system, s| s.payments.iter().any(|payment| payment.revived) && s.live_count() > 0 && system.is_quiet(s),
};

/// A gate that was lost after a revival is open again and knows the revived order.
pub const REBUILT_WITH_A_REVIVED_ORDER: Claim = Claim {
    name: "rebuilt with a revived order",
    holds: |system, s| {
        let knows = || s.gate.buyers.iter().flatten().any(|held| held.payment.is_some());
        s.db.fence > 1 && system.open(s).is_some_and(|meta| meta.epoch == s.db.epoch) && s.gate.late == 0 && knows()
    },
};

/// An order that was revived is dead again, and all is quiet.
pub const QUIET_AFTER_A_SECOND_DEATH: Claim = Claim {
    name: "quiet after the second death of an order",
    holds: |system, s| {
        let dead = |payment: &Payment| payment.revived && s.row(payment.order) == Row::Closed;
        s.payments.iter().any(dead) && system.is_quiet(s)
    },
};

fn succeeded(s: &State, order: Order) -> usize {
    s.payments.iter().filter(|payment| payment.order == order && payment.status == Status::Succeeded).count()
}

/// A sale comes to rest with an order that somebody was told of.
pub const QUIET_AFTER_A_SALE: Claim = Claim {
    name: "quiet after a sale",
    holds: |system, s| s.promised != 0 && s.live_count() > 0 && system.is_quiet(s),
};

/// A lost gate is open again and knows a live order.
pub const REBUILT_WITH_A_LIVE_ORDER: Claim = Claim {
    name: "rebuilt with a live order",
    holds: |system, s| s.db.fence > 1 && system.open(s).is_some() && s.live_count() > 0,
};

/// A sale that was over and had no gate has one again, which knows a live order.
pub const REOPENED_WITH_A_LIVE_ORDER: Claim = Claim {
    name: "reopened with a live order",
    holds: |system, s| s.db.epoch >= 3 && system.open(s).is_some_and(|meta| !meta.ended) && s.live_count() > 0,
};

/// A sale is over, and its gate is gone.
pub const QUIET_WITHOUT_A_GATE: Claim = Claim {
    name: "quiet without a gate, after a sale",
    holds: |system, s| s.db.retired && s.gate.meta.is_none() && s.live_count() > 0 && system.is_quiet(s),
};

fn promised(s: &State) -> impl Iterator<Item = Order> {
    every_order().filter(|order| s.promised & bit(*order) != 0)
}

/// The database or the queue holds the order. The gate alone does not count: it may lose everything.
fn is_kept(s: &State, order: Order) -> bool {
    let is = |message: &Message| matches!(message, Message::Order(its, _) if *its == order);
    s.row(order) != Row::Absent
        || is_parked(s, order)
        || s.queue.iter().chain(&s.returned).any(is)
        || s.prefetched.iter().flatten().any(|delivery| is(&delivery.message))
        || s.work.iter().any(|work| work.unacked().is_some_and(|message| is(&message)))
}

fn is_parked(s: &State, order: Order) -> bool {
    s.parked.is_some_and(|(its, _)| its == order)
}

fn one_live_order_a_user(_: &System, s: &State) -> bool {
    let mut live = [0; USERS];
    for order in every_order().filter(|order| s.row(*order).is_live()) {
        live[user_of(order)] += 1;
    }
    live.iter().all(|orders| *orders <= 1)
}

fn gate_covers_live_orders(system: &System, s: &State) -> bool {
    let covers = || s.live().iter().zip(s.gate.buyers).all(|(live, held)| live.is_none() || held == *live);
    system.open(s).is_none_or(|meta| meta.epoch != s.db.epoch || covers())
}

fn gate_never_over_offers(system: &System, s: &State) -> bool {
    // After a lowering, more may be taken than is offered: what was in flight is served.
    let limit = |offered| if system.budget.lowerings > 0 { s.db.stock } else { offered };
    let held = system.units_of(&s.gate.buyers);
    system.open(s).is_none_or(|meta| held <= limit(meta.offered) && meta.offered <= s.db.stock)
}

fn gate_equals_database(system: &System, s: &State) -> bool {
    if system.sweepers > 0 && s.db.sold > s.db.offered() {
        return false;
    }
    if s.db.ended && s.gate.meta.is_none() {
        // Whoever took it away may have died before it was noted.
        return !s.db.retired || s.db.due == 0;
    }
    if s.db.ended && s.db.retired {
        // The rest of a rebuild that came late: it goes away by itself.
        return system.open(s).is_none() && s.db.due == 0;
    }
    let same_settings = system.open(s).is_some_and(|meta| meta.epoch == s.db.epoch && meta.offered == s.db.offered());
    // Without a sweeper, what died on its way stays in flight.
    let at_rest = || {
        s.gate.buyers == s.live()
            && s.gate.taken() == s.db.sold
            && s.gate.in_flight == 0
            && s.gate.late == 0
            && s.db.due == 0
    };
    same_settings && (system.sweepers == 0 || at_rest())
}
