//! Everything that a step of the protocol can read or change, of one product.

/// Users that may buy.
pub const USERS: usize = 3;
/// Order ids that a user may draw.
pub const TRIES: usize = 2;
/// Order ids in all.
pub const ORDERS: usize = USERS * TRIES;
/// Places of consumers in `State::work`; the sweepers follow.
pub const CONSUMERS: usize = 2;
/// Publisher of a message that nobody waits for any more.
pub const NOBODY: u8 = u8::MAX;

/// An order id.
pub type Order = u8;
/// A set of order ids.
pub type Orders = u16;
/// The number of a payment.
pub type PaymentId = u8;

/// What a reservation is held under. An order that a late payment revived has its second life under that payment.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    pub order: Order,
    pub payment: Option<PaymentId>,
}

impl Held {
    pub fn first(order: Order) -> Self {
        Self { order, payment: None }
    }
}

/// Who holds units, and under what.
pub type Buyers = [Option<Held>; USERS];

pub fn user_of(order: Order) -> usize {
    order as usize / TRIES
}

pub fn bit(order: Order) -> Orders {
    1 << order
}

/// Calls of the provider that are told apart in an entry in flight.
pub const CALLS: u8 = 8;

/// The entry in flight of a late payment. Each reservation that is made for one gets an entry of its own.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub struct Entry {
    pub payment: PaymentId,
    /// A random number of the call that made it.
    pub call: u8,
}

impl Entry {
    /// It in a set of entries.
    pub fn bit(self) -> u16 {
        1 << (self.payment * CALLS + self.call)
    }
}

pub fn every_order() -> std::ops::Range<Order> {
    0..ORDERS as Order
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub struct Meta {
    pub epoch: u8,
    pub server: u8,
    pub open: bool,
    pub offered: u8,
    pub revision: u8,
    /// By its own settings the sale is over.
    pub ended: bool,
}

/// What the gate keeps.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, Default)]
pub struct Gate {
    pub meta: Option<Meta>,
    pub buyers: Buyers,
    /// Units that reservations hold beyond one each.
    pub extra: u8,
    pub in_flight: Orders,
    /// Entries in flight of late payments that were given units and are not known to be decided.
    pub late: u16,
}

impl Gate {
    /// Units that are taken, as the gate counts them.
    pub fn taken(&self) -> u8 {
        self.buyers.iter().flatten().count() as u8 + self.extra
    }
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum Row {
    Absent,
    Unpaid,
    Paid,
    /// By its buyer.
    Cancelled,
    Expired,
    /// Cancelled by the merchant, or its money went back. Nothing revives it.
    Closed,
    Rejected,
}

impl Row {
    pub fn is_live(self) -> bool {
        matches!(self, Self::Unpaid | Self::Paid)
    }

    /// Dead, but money that comes late may still bring it back.
    pub fn can_be_revived(self) -> bool {
        matches!(self, Self::Cancelled | Self::Expired)
    }
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum Status {
    Pending,
    Succeeded,
    RefundDue,
    Refunded,
}

/// A payment, for which the provider has the buyer's money.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub struct Payment {
    pub order: Order,
    pub status: Status,
    /// It revived its order.
    pub revived: bool,
    /// The provider got 200 for it.
    pub told: bool,
    /// The id of its event was stored by itself (a mutant's).
    pub noted: bool,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub struct Database {
    pub rows: [Row; ORDERS],
    /// Orders whose unit the gate has yet to give back.
    pub due: Orders,
    /// Orders whose deadline has passed.
    pub overdue: Orders,
    /// What is enforced. It never comes down.
    pub stock: u8,
    /// Units of the stock that are not offered any more.
    pub withheld: u8,
    pub sold: u8,
    pub revision: u8,
    pub epoch: u8,
    pub fence: u8,
    pub server: u8,
    pub ended: bool,
    /// The gate was taken away, and owed nothing then.
    pub retired: bool,
}

impl Database {
    pub fn offered(&self) -> u8 {
        self.stock - self.withheld
    }
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub enum Message {
    /// An order and the epoch of the gate that admitted it.
    Order(Order, u8),
    Barrier(u8),
}

/// A message that was published and has not reached the queue.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sent {
    pub message: Message,
    /// The request that waits for its confirm.
    pub publisher: u8,
}

/// A message and whether it was delivered before.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub struct Delivery {
    pub message: Message,
    pub again: bool,
}

/// A request inside an instance.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum Request {
    Idle,
    Reserved { order: Order, epoch: u8, expired: bool },
    Published { order: Order, epoch: u8, expired: bool, confirmed: bool },
}

/// A consumer, a sweeper or the handler of a callback, and how far it is. `linked`: the broker still counts the message as unacked here.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum Work {
    Idle,
    Has {
        message: Message,
        again: bool,
        linked: bool,
        old: bool,
    },
    Decided {
        held: Held,
        dead: bool,
        epoch: u8,
        linked: bool,
        message: Message,
    },
    Released {
        held: Held,
    },
    /// The fence is raised.
    Fenced {
        epoch: u8,
        linked: bool,
    },
    /// A sweeper has read that the sale is over.
    Ending {
        epoch: u8,
    },
    /// It has taken the gate of that epoch away, and is about to note it.
    Retired {
        epoch: u8,
        run: u8,
    },
    /// A sweeper has seen that more is taken or sold than is offered.
    Raising {
        wanted: u8,
    },
    /// A sweeper has read that an unpaid order is past its deadline.
    Expiring {
        order: Order,
    },
    /// A callback has come, signed and of the right amount.
    Received {
        payment: PaymentId,
    },
    /// Its order was read to be dead.
    Late {
        payment: PaymentId,
    },
    /// The gate has given it units, or had.
    Admitted {
        payment: PaymentId,
        entry: Option<Entry>,
        epoch: u8,
    },
    /// The gate has nothing for it.
    Refused {
        payment: PaymentId,
    },
    /// There is no gate.
    Gateless {
        payment: PaymentId,
    },
    /// It is committed what became of it, and the gate has to be told.
    Settled {
        payment: PaymentId,
        entry: Option<Entry>,
        alive: bool,
        epoch: u8,
    },
    /// Committed; nothing is left but the answer.
    Answering {
        payment: PaymentId,
    },
}

impl Work {
    /// The message that goes back to the queue when the connection is lost.
    pub fn unacked(&self) -> Option<Message> {
        match *self {
            Self::Has { message, linked: true, .. } | Self::Decided { message, linked: true, .. } => Some(message),
            Self::Fenced { epoch, linked: true } => Some(Message::Barrier(epoch)),
            _ => None,
        }
    }

    /// The broker no longer counts its message as unacked here.
    pub fn unlink(&mut self) -> Option<()> {
        match self {
            Self::Has { linked, .. } | Self::Decided { linked, .. } | Self::Fenced { linked, .. } => *linked = false,
            _ => return None,
        }
        Some(())
    }
}

/// Somebody who rebuilds the gate, and what comes next.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum Rebuild {
    Idle,
    Inspect {
        epoch: u8,
        fence: u8,
        server: u8,
        retired: bool,
    },
    /// The gate was retired: nothing is on its way, so the fence is set together with the epoch.
    TakeRetired {
        epoch: u8,
        run: u8,
    },
    TakeEpoch {
        epoch: u8,
        run: u8,
    },
    Close {
        epoch: u8,
        run: u8,
        fenced: bool,
    },
    Wait {
        epoch: u8,
    },
    Sampled {
        epoch: u8,
    },
    /// The fence of the epoch is set: the live orders can be read.
    Fenced {
        epoch: u8,
        run: u8,
    },
    /// They are read, to be installed.
    Read {
        epoch: u8,
        run: u8,
        live: Buyers,
        offered: u8,
        revision: u8,
        ended: bool,
    },
}

/// What may still happen from outside.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub struct Budget {
    pub requests: u8,
    pub losses: u8,
    pub flushes: u8,
    pub failovers: u8,
    /// Failovers after which the old master goes on.
    pub depositions: u8,
    pub moves: u8,
    pub parks: u8,
    pub cancels: u8,
    pub restocks: u8,
    pub lowerings: u8,
    /// That pass.
    pub deadlines: u8,
    pub payments: u8,
    /// Refunds that the provider makes, or says again that it made.
    pub refunds: u8,
    /// Orders that the merchant cancels, paid or not.
    pub closings: u8,
    /// Callbacks that come again after 200.
    pub repeats: u8,
    pub ends: u8,
    pub reopenings: u8,
    /// Sweepers that see the end of the sale, where a late payment may ask for gate after gate.
    pub retirings: u8,
    /// That pass while a gate is closed.
    pub days: u8,
    pub starts: u8,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq)]
pub struct State {
    /// The gate's server process of now.
    pub run: u8,
    pub gate: Gate,
    /// What a replica had when it was last in step.
    pub replica: Option<Gate>,
    /// An open gate on a server that the deployment has left, or whose replica was promoted, as long as an instance there has
    /// not read so.
    pub deposed: Option<Gate>,
    pub db: Database,
    pub payments: Vec<Payment>,
    pub net: Vec<Sent>,
    pub queue: Vec<Message>,
    /// What dead channels gave back; served before `queue`.
    pub returned: Vec<Message>,
    pub prefetched: [Option<Delivery>; CONSUMERS],
    pub requests: [Request; 2],
    /// Order ids that each user has drawn.
    pub drawn: [u8; USERS],
    pub work: Vec<Work>,
    pub rebuilds: Vec<Rebuild>,
    /// What is offered, version, and whether the sale is over, which somebody is about to bring to the gate.
    pub settings: Option<(u8, u8, bool)>,
    /// A gate was taken away whose sale went on, by its settings and by the database.
    pub taken_too_early: bool,
    /// What a start that resets the gate has read (a mutant's).
    pub start: Option<Buyers>,
    /// A purchase that was set aside, and its epoch.
    pub parked: Option<(Order, u8)>,
    /// Orders that a buyer was told of: 202, or 409 with the id.
    pub promised: Orders,
    pub budget: Budget,
}

impl State {
    pub fn row(&self, order: Order) -> Row {
        self.db.rows[order as usize]
    }

    pub fn live(&self) -> Buyers {
        let mut live = [None; USERS];
        for order in every_order() {
            if self.row(order).is_live() {
                live[user_of(order)] = Some(self.life_of(order));
            }
        }
        live
    }

    pub fn live_count(&self) -> usize {
        self.db.rows.iter().filter(|row| row.is_live()).count()
    }

    /// What the order's reservation is held under by now.
    pub fn life_of(&self, order: Order) -> Held {
        let revived = |payment: &Payment| payment.order == order && payment.revived;
        Held { order, payment: self.payments.iter().position(revived).map(|payment| payment as PaymentId) }
    }

    pub fn payment(&self, payment: PaymentId) -> Payment {
        self.payments[payment as usize]
    }

    pub fn set_status(&mut self, payment: PaymentId, status: Status) {
        self.payments[payment as usize].status = status;
    }

    /// The buyer has another live order of this product.
    pub fn has_another(&self, order: Order) -> bool {
        every_order().any(|other| other != order && user_of(other) == user_of(order) && self.row(other).is_live())
    }

    /// A number that no call has that anybody still knows of: it stands for a random one.
    pub fn unused_call(&self, payment: PaymentId) -> Option<Entry> {
        let known = |entry: &Entry| {
            let gates = [Some(self.gate), self.deposed, self.replica];
            gates.iter().flatten().any(|gate| gate.late & entry.bit() != 0)
                || self.work.iter().any(|work| match *work {
                    Work::Admitted { entry: its, .. } | Work::Settled { entry: its, .. } => its == Some(*entry),
                    _ => false,
                })
        };
        (0..CALLS).map(|call| Entry { payment, call }).find(|entry| !known(entry))
    }

    pub fn late_entries(&self) -> impl Iterator<Item = Entry> {
        let all = (0..self.payments.len() as PaymentId)
            .flat_map(|payment| (0..CALLS).map(move |call| Entry { payment, call }));
        all.filter(|entry| self.gate.late & entry.bit() != 0)
    }

    /// A payment waits for a gate that may give its dead order units.
    pub fn late_payment_waits(&self) -> bool {
        let waits = |payment: &Payment| payment.status == Status::Pending && self.row(payment.order).can_be_revived();
        self.payments.iter().any(waits)
    }

    /// A barrier of that epoch is on its way, or somebody is about to send one.
    pub fn barrier_about(&self, epoch: u8) -> bool {
        let barrier = Message::Barrier(epoch);
        self.net.iter().any(|sent| sent.message == barrier)
            || self.queue.contains(&barrier)
            || self.returned.contains(&barrier)
            || self.prefetched.iter().flatten().any(|delivery| delivery.message == barrier)
            || self.work.iter().any(|work| work.unacked() == Some(barrier))
            || self.rebuilds.iter().any(|rebuild| {
                matches!(*rebuild, Rebuild::Wait { epoch: its } | Rebuild::Sampled { epoch: its } if its == epoch)
            })
    }

    pub fn send(&mut self, message: Message, publisher: u8) {
        self.net.push(Sent { message, publisher });
        self.net.sort();
    }

    /// A request ends: nobody waits for its confirm any more.
    pub fn end_request(&mut self, request: usize) {
        self.requests[request] = Request::Idle;
        for sent in &mut self.net {
            if sent.publisher == request as u8 {
                sent.publisher = NOBODY;
            }
        }
        self.net.sort();
    }

    pub fn something_ready(&self) -> bool {
        !self.queue.is_empty() || !self.returned.is_empty()
    }

    pub fn take_ready(&mut self) -> Delivery {
        if self.returned.is_empty() {
            Delivery { message: self.queue.remove(0), again: false }
        } else {
            Delivery { message: self.returned.remove(0), again: true }
        }
    }

    /// A dead channel's messages come back before those never delivered, but in the order of their return.
    pub fn requeue(&mut self, worker: usize) {
        self.returned.extend(self.work[worker].unacked());
        if worker < CONSUMERS {
            self.returned.extend(self.prefetched[worker].take().map(|delivery| delivery.message));
        }
    }
}
