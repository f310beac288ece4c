//! Lives of an order: the one that its purchase began, and the second one, which a late payment began.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

use super::{PaymentId, Purchase};

/// A life of an order: what the gate holds units for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Life {
    /// The order, its buyer and its units.
    pub purchase: Purchase,
    /// The late payment that revived the order; `None`: its first life.
    pub revived_by: Option<PaymentId>,
}

impl From<Purchase> for Life {
    fn from(purchase: Purchase) -> Self {
        Self { purchase, revived_by: None }
    }
}

/// A late payment at the gate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LatePayment {
    /// The order that it may revive.
    pub purchase: Purchase,
    /// The payment.
    pub payment: PaymentId,
    /// Tells its entry in flight from those that others of the same payment have made.
    pub call: Call,
}

impl LatePayment {
    /// With a new call.
    pub fn new(purchase: Purchase, payment: PaymentId) -> Self {
        Self { purchase, payment, call: Call::draw() }
    }

    /// The life that it begins.
    pub fn life(&self) -> Life {
        Life { purchase: self.purchase, revived_by: Some(self.payment) }
    }
}

/// A random number of whoever asks the gate for a late payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Call(u64);

impl Call {
    /// A new one.
    pub fn draw() -> Self {
        Self(Uuid::new_v4().as_u64_pair().1)
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Call {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}
