//! What the gate is asked and what it answers.

use crate::model::{
    Call, Denial, LatePayment, Life, OrderId, ProductId, Purchase, PurchaseGroup, Quantity, Revision, SaleState, Terms,
};

/// What the gate answers to the purchases of one call, all of one product.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// The sale is open: one answer for each purchase, in order.
    Open {
        /// Epoch of the gate that admitted; the message to the consumer carries it.
        epoch: i64,
        /// Revision of the product under which units were taken just now; the message carries it, too.
        revision: Revision,
        /// What binds under it; `None`: the gate does not know yet, see [`GateView::terms`].
        terms: Option<Terms>,
        /// The answers.
        answers: Vec<Answer>,
    },
    /// The sale is not open: nobody gets anything.
    Denied(Denial),
}

/// What the gate answers to one purchase of an open sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Its units are reserved for this order, by this call or by an earlier one with the same order id.
    Reserved,
    /// The buyer holds units under this order, which is not known to be in the database yet. Usually it is the order of an
    /// earlier click. It can be this purchase's own order: then its units were taken under another revision than that of
    /// [`Admission::Open`].
    InFlight {
        /// The order that holds it.
        order_id: OrderId,
        /// Its units.
        quantity: Quantity,
        /// The revision of its click.
        revision: Revision,
    },
    /// The buyer holds units under this order, which a late payment revives or has revived: only its row says whether it is live.
    Revived(OrderId),
    /// The buyer gets nothing.
    Denied(Denial),
    /// The buyer has a reservation that nobody can read: it may stand for a promise.
    Unreadable,
}

/// What the gate answers to a late payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentAdmission {
    /// The units of its order are held for it.
    Admitted {
        /// Epoch of the gate.
        epoch: i64,
        /// By this call, which has an entry in flight now; else by an earlier one.
        is_new: bool,
    },
    /// Another payment revives the order, or has.
    Busy,
    /// Too few units remain, or the buyer holds some under another order.
    Refused,
}

/// What is to be given back to the gate: the units of a life that has ended, and, after a late payment that did not succeed, the
/// entry in flight of its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// The life.
    pub life: Life,
    /// The call of a late payment.
    pub call: Option<Call>,
}

impl From<Life> for Release {
    fn from(life: Life) -> Self {
        Self { life, call: None }
    }
}

impl From<Purchase> for Release {
    fn from(purchase: Purchase) -> Self {
        Life::from(purchase).into()
    }
}

impl From<LatePayment> for Release {
    fn from(late: LatePayment) -> Self {
        Self { life: late.life(), call: Some(late.call) }
    }
}

/// What an open gate shows of its sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GateView {
    /// What can still be bought.
    pub remaining: i64,
    /// Whether one can buy now, by the gate's own clock.
    pub state: SaleState,
    /// Number of the product's revision that its settings belong to.
    pub revision: i64,
    /// Units that are offered, as its settings say.
    pub stock: i64,
    /// Units that are taken.
    pub taken: i64,
    /// Those of them that are not known yet to have reached the database.
    pub in_flight: i64,
    /// Its epoch.
    pub epoch: i64,
    /// The terms of its revision; of one that an older program has opened none, or not all.
    pub terms: Option<Terms>,
}

/// Purchases and late payments that were admitted long ago and are still in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stale {
    /// Epoch of their gate.
    pub epoch: i64,
    /// The purchases, the oldest first.
    pub purchases: Vec<Purchase>,
    /// The revision of each one's click, in the same order.
    pub revisions: Vec<Revision>,
    /// The late payments, the oldest first.
    pub late_payments: Vec<LatePayment>,
}

impl Stale {
    /// Its purchases as groups, one for purchases in a row that have one revision.
    pub fn into_groups(self, product_id: ProductId) -> Vec<PurchaseGroup> {
        let mut groups: Vec<PurchaseGroup> = Vec::new();
        for (purchase, revision) in self.purchases.into_iter().zip(self.revisions) {
            match groups.last_mut().filter(|group| group.revision == Some(revision)) {
                Some(group) => group.items.push(purchase),
                None => groups.push(PurchaseGroup {
                    product_id,
                    epoch: self.epoch,
                    revision: Some(revision),
                    items: vec![purchase],
                    traced: Vec::new(),
                }),
            }
        }
        groups
    }
}

/// A gate as its server shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Identity of the server.
    pub server_id: String,
    /// What is there.
    pub found: FoundGate,
}

/// Whose gates a Redis holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateOwner {
    /// The deployment.
    pub deployment: String,
    /// Random; another one when it was emptied.
    pub redis_id: String,
}

/// What is there of a gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundGate {
    /// Nothing, or something of another server or with parts missing: nothing of it can be used.
    Nothing,
    /// A closed gate of that epoch.
    Closed(i64),
    /// An open gate of that epoch.
    Open(i64),
}

/// Why the gate could not answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GateError {
    /// It knows nothing of the product, or its server is another one than before.
    #[error("the gate is lost")]
    Lost,
    /// It is being rebuilt.
    #[error("the gate is closed")]
    Closed,
    /// The gate that is there is not the one that the step is for: it has another epoch, or it is open already.
    #[error("another gate is in its place")]
    AnotherGate,
    /// The server cannot be reached; nothing was done.
    #[error("gate unreachable: {0}")]
    Unreachable(String),
    /// The link broke or no answer came in time; the step may have been done.
    #[error("gate did not answer: {0}")]
    Unclear(String),
    /// The server answers, but does not do it as it is now: which refusal, what it means, what to look at.
    #[error("Redis refuses: {0}")]
    Refused(String),
    /// The server must not keep a gate as it is set up.
    #[error("gate refused: {0}")]
    Misconfigured(String),
    /// The server answered what it never should.
    #[error("gate answered nonsense: {0}")]
    Protocol(String),
}

impl GateError {
    /// What is wrong with the server, in a word: that of its refusal, if it refuses.
    pub fn trouble(&self) -> &str {
        match self {
            Self::Refused(problem) => problem.split(':').next().unwrap_or_default(),
            Self::Misconfigured(_) => "misconfigured",
            Self::Unreachable(_) => "unreachable",
            Self::Unclear(_) => "no_answer",
            Self::Lost | Self::Closed | Self::AnotherGate | Self::Protocol(_) => "broken",
        }
    }

    /// Whether it comes from the server, and so, as a rule, concerns all its gates. One exception is about a single product: a
    /// reservation in several steps is [`Self::Unclear`], too, if the gate or the sale changed between two of them.
    pub fn is_of_server(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::Unclear(_) | Self::Refused(_) | Self::Misconfigured(_))
    }
}

/// What one user holds, as an open gate knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holding {
    /// Holds none.
    Nothing,
    /// Holds units under this order.
    Order {
        /// Which.
        id: OrderId,
        /// How many.
        quantity: Quantity,
    },
}
