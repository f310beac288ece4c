//! What a callback means: the table of docs/api.md (`#payments`), without any I/O.

use crate::model::{OrderStatus, PaymentStatus};

/// What a provider tells of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// The money came.
    Succeeded,
    /// None came.
    Failed,
    /// It was given back.
    Refunded,
}

/// What is known when it comes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts {
    /// Where the payment stands.
    pub(super) payment: PaymentStatus,
    /// Where its order stands; `None`: somebody has deleted it, or its product.
    pub(super) order: Option<OrderStatus>,
    /// The order is dead, and money that comes late may bring it back: its status, who has ended it and the configuration allow it.
    pub(super) may_be_revived: bool,
    /// Amount and currency are those that were asked for.
    pub(super) is_right: bool,
    /// Another payment has the same reference: the same money is told of twice.
    pub(super) is_told_twice: bool,
}

/// Why money must be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owed {
    /// Another amount or currency than was asked for.
    WrongAmount,
    /// Another payment has the same reference.
    SameReference,
    /// The order is paid already.
    PaidAlready,
    /// The order has expired or was cancelled, and nothing brings it back.
    Late,
    /// The same, and its units were sold since.
    LateSoldOut,
    /// The same, and its buyer has another order of the product since.
    LateBoughtAgain,
    /// There is no such order any more.
    NoOrder,
}

impl Owed {
    /// For the log.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::WrongAmount => "wrong_amount",
            Self::SameReference => "same_reference",
            Self::PaidAlready => "paid_already",
            Self::Late => "late",
            Self::LateSoldOut => "late_sold_out",
            Self::LateBoughtAgain => "late_bought_again",
            Self::NoOrder => "no_order",
        }
    }
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ruling {
    /// Nothing.
    Unchanged,
    /// The payment failed.
    Fails,
    /// The payment succeeded, and its order is paid.
    Pays,
    /// The order is dead: it is paid if the gate and the database still have its units, see `late`.
    WaitsForItsGate,
    /// The money must be given back, and the order stays as it is.
    Owes(Owed),
    /// It was given back.
    Refunds {
        /// It had paid the order, which is cancelled now.
        cancels: bool,
    },
}

/// The table.
pub(super) fn rule(told: Told, facts: Facts) -> Ruling {
    use PaymentStatus::{Failed, Pending, RefundDue, Refunded, Succeeded};
    match (told, facts.payment) {
        (Told::Succeeded, Pending | Failed) => money_came(facts),
        // Known already. What was given back before it was known that it came came all the same.
        (Told::Succeeded, Succeeded | RefundDue | Refunded) => Ruling::Unchanged,
        (Told::Failed, Pending) => Ruling::Fails,
        (Told::Failed, Failed | Succeeded | RefundDue | Refunded) => Ruling::Unchanged,
        (Told::Refunded, Refunded) => Ruling::Unchanged,
        (Told::Refunded, Succeeded) => Ruling::Refunds { cancels: facts.order == Some(OrderStatus::Paid) },
        (Told::Refunded, Pending | Failed | RefundDue) => Ruling::Refunds { cancels: false },
    }
}

fn money_came(facts: Facts) -> Ruling {
    if facts.is_told_twice {
        return Ruling::Owes(Owed::SameReference);
    }
    if !facts.is_right {
        return Ruling::Owes(Owed::WrongAmount);
    }
    match facts.order {
        Some(OrderStatus::Unpaid) => Ruling::Pays,
        Some(OrderStatus::Paid) => Ruling::Owes(Owed::PaidAlready),
        Some(OrderStatus::Expired | OrderStatus::Cancelled) if facts.may_be_revived => Ruling::WaitsForItsGate,
        Some(OrderStatus::Expired | OrderStatus::Cancelled) => Ruling::Owes(Owed::Late),
        Some(OrderStatus::Rejected | OrderStatus::Queued) | None => Ruling::Owes(Owed::NoOrder),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAYMENTS: [PaymentStatus; 5] = [
        PaymentStatus::Pending,
        PaymentStatus::Succeeded,
        PaymentStatus::Failed,
        PaymentStatus::RefundDue,
        PaymentStatus::Refunded,
    ];
    const ORDERS: [Option<OrderStatus>; 6] = [
        Some(OrderStatus::Unpaid),
        Some(OrderStatus::Paid),
        Some(OrderStatus::Cancelled),
        Some(OrderStatus::Expired),
        Some(OrderStatus::Rejected),
        None,
    ];

    fn facts(payment: PaymentStatus, order: Option<OrderStatus>) -> Facts {
        Facts { payment, order, may_be_revived: false, is_right: true, is_told_twice: false }
    }

    #[test]
    fn money_that_comes_pays_an_unpaid_order_only_or_must_be_given_back() {
        for payment in [PaymentStatus::Pending, PaymentStatus::Failed] {
            for order in ORDERS {
                let ruling = rule(Told::Succeeded, facts(payment, order));
                let expected = match order {
                    Some(OrderStatus::Unpaid) => Ruling::Pays,
                    Some(OrderStatus::Paid) => Ruling::Owes(Owed::PaidAlready),
                    Some(OrderStatus::Cancelled | OrderStatus::Expired) => Ruling::Owes(Owed::Late),
                    _ => Ruling::Owes(Owed::NoOrder),
                };
                assert_eq!(ruling, expected, "{payment:?} {order:?}");
                let may_be_revived = Facts { may_be_revived: true, ..facts(payment, order) };
                let expected = if expected == Ruling::Owes(Owed::Late) { Ruling::WaitsForItsGate } else { expected };
                assert_eq!(rule(Told::Succeeded, may_be_revived), expected, "{payment:?} {order:?}");
                let wrong = Facts { is_right: false, ..may_be_revived };
                assert_eq!(rule(Told::Succeeded, wrong), Ruling::Owes(Owed::WrongAmount));
                let twice = Facts { is_told_twice: true, ..may_be_revived };
                assert_eq!(rule(Told::Succeeded, twice), Ruling::Owes(Owed::SameReference));
            }
        }
    }

    #[test]
    fn money_that_is_known_to_have_come_is_neither_counted_again_nor_forgotten() {
        for payment in [PaymentStatus::Succeeded, PaymentStatus::RefundDue, PaymentStatus::Refunded] {
            for order in ORDERS {
                for is_right in [true, false] {
                    let facts = Facts { is_right, ..facts(payment, order) };
                    assert_eq!(rule(Told::Succeeded, facts), Ruling::Unchanged, "{payment:?} {order:?}");
                    assert_eq!(rule(Told::Failed, facts), Ruling::Unchanged, "{payment:?} {order:?}");
                }
            }
        }
    }

    #[test]
    fn only_the_refund_of_what_paid_an_order_cancels_it() {
        for payment in PAYMENTS {
            for order in ORDERS {
                let cancels = (payment, order) == (PaymentStatus::Succeeded, Some(OrderStatus::Paid));
                let expected = match payment {
                    PaymentStatus::Refunded => Ruling::Unchanged,
                    _ => Ruling::Refunds { cancels },
                };
                assert_eq!(rule(Told::Refunded, facts(payment, order)), expected, "{payment:?} {order:?}");
            }
        }
        assert_eq!(rule(Told::Failed, facts(PaymentStatus::Pending, None)), Ruling::Fails);
    }
}
