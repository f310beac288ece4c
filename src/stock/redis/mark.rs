//! What stands for a reservation in Redis: `ORDER`, or `ORDER*UNITS` for more than one unit; `ORDER@PAYMENT` and `ORDER@PAYMENT*UNITS`
//! of an order that a late payment revives. Programs that knew single units only wrote the first, those that knew no late payments
//! the first two.

use std::fmt::Write;

use crate::model::{Call, LatePayment, Life, OrderId, PaymentId, Purchase, Quantity};

/// A mark that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) order_id: OrderId,
    /// The late payment that revives the order.
    pub(super) payment: Option<PaymentId>,
    pub(super) quantity: Quantity,
}

/// What is in flight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InFlightEntry {
    Purchase(Purchase),
    Late(LatePayment),
}

/// Appends the mark of a purchase.
pub(super) fn push(text: &mut String, purchase: &Purchase) {
    text.push_str(purchase.order_id.encode(&mut [0; OrderId::LENGTH]));
    push_units(text, purchase.quantity);
}

/// Appends the mark of a life.
pub(super) fn push_life(text: &mut String, Life { purchase, revived_by }: &Life) {
    match revived_by {
        None => push(text, purchase),
        Some(payment) => {
            let _ = write!(text, "{}@{payment}", purchase.order_id);
            push_units(text, purchase.quantity);
        }
    }
}

fn push_units(text: &mut String, quantity: Quantity) {
    if quantity != Quantity::ONE {
        let _ = write!(text, "*{quantity}");
    }
}

/// Appends the member that a purchase has among those in flight: `MARK:USER`.
pub(super) fn push_in_flight(text: &mut String, purchase: &Purchase) {
    push(text, purchase);
    text.push(':');
    text.push_str(itoa::Buffer::new().format(purchase.user_id.get()));
}

/// The same of a late payment: `MARK:USER:CALL`.
pub(super) fn late_in_flight(late: &LatePayment) -> String {
    let mut text = String::new();
    push_life(&mut text, &late.life());
    let _ = write!(text, ":{}:{}", late.purchase.user_id, late.call);
    text
}

/// Reads a mark; `None`: this is none.
pub(super) fn parse(mark: &str) -> Option<Mark> {
    let (name, quantity) = match mark.split_once('*') {
        None => (mark, Quantity::ONE),
        Some((name, units)) => (name, units.parse::<i64>().ok()?.try_into().ok()?),
    };
    let (order, payment) = match name.split_once('@') {
        None => (name, None),
        Some((order, payment)) => (order, Some(payment.parse().ok()?)),
    };
    Some(Mark { order_id: order.parse().ok()?, payment, quantity })
}

/// What is in flight, from its member.
pub(super) fn parse_in_flight(member: &str) -> Option<InFlightEntry> {
    let (mark, rest) = member.split_once(':')?;
    let Mark { order_id, payment, quantity } = parse(mark)?;
    let (user, call) = match rest.split_once(':') {
        None => (rest, None),
        Some((user, call)) => (user, Some(call.parse::<Call>().ok()?)),
    };
    let purchase = Purchase { order_id, user_id: user.parse().ok()?, quantity };
    match (payment, call) {
        (None, None) => Some(InFlightEntry::Purchase(purchase)),
        (Some(payment), Some(call)) => Some(InFlightEntry::Late(LatePayment { purchase, payment, call })),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let order_id = OrderId::draw(7.try_into().unwrap());
        for units in [1, 2, 10] {
            let purchase = Purchase { order_id, user_id: 5.try_into().unwrap(), quantity: units.try_into().unwrap() };
            let Purchase { quantity, .. } = purchase;
            let (mut mark, mut member) = (String::new(), String::new());
            push(&mut mark, &purchase);
            push_in_flight(&mut member, &purchase);
            assert_eq!(mark.len() > OrderId::LENGTH, units > 1, "{mark}");
            assert_eq!(parse(&mark), Some(Mark { order_id, payment: None, quantity }));
            assert_eq!(parse_in_flight(&member), Some(InFlightEntry::Purchase(purchase)));
            let mut first = String::new();
            push_life(&mut first, &purchase.into());
            assert_eq!(first, mark, "a first life");

            let late = LatePayment::new(purchase, PaymentId::draw());
            let mut mark = String::new();
            push_life(&mut mark, &late.life());
            assert_eq!(parse(&mark), Some(Mark { order_id, payment: Some(late.payment), quantity }));
            assert_eq!(parse_in_flight(&late_in_flight(&late)), Some(InFlightEntry::Late(late)));
            assert_eq!(parse_in_flight(&format!("{mark}:5")), None, "a late payment without its call");
            assert_eq!(parse_in_flight(&format!("{member}:5")), None, "a purchase with a call");
        }
        let payment = PaymentId::draw();
        for none in [
            "",
            "7",
            "*2",
            "@",
            &format!("{order_id}*"),
            &format!("{order_id}*0"),
            &format!("{order_id}*11"),
            &format!("{order_id}@"),
            &format!("{order_id}@7"),
            &format!("{order_id}*2@{payment}"),
            &format!("@{payment}"),
        ] {
            assert_eq!(parse(none), None, "{none}");
        }
    }
}
