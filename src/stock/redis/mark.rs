//! What stands for a reservation in Redis: `ORDER`, or `ORDER*UNITS` for more than one unit. Programs that knew single units
//! only wrote the first.

use std::fmt::Write;

use crate::model::{OrderId, Purchase, Quantity};

/// Appends the mark of a purchase.
pub(super) fn push(text: &mut String, purchase: &Purchase) {
    text.push_str(purchase.order_id.encode(&mut [0; OrderId::LENGTH]));
    if purchase.quantity != Quantity::ONE {
        let _ = write!(text, "*{}", purchase.quantity);
    }
}

/// Appends the member that a purchase has among those in flight: `MARK:USER`.
pub(super) fn push_in_flight(text: &mut String, purchase: &Purchase) {
    push(text, purchase);
    text.push(':');
    text.push_str(itoa::Buffer::new().format(purchase.user_id.get()));
}

/// The order and its units; `None`: this is no mark.
pub(super) fn parse(mark: &str) -> Option<(OrderId, Quantity)> {
    match mark.split_once('*') {
        None => Some((mark.parse().ok()?, Quantity::ONE)),
        Some((order, units)) => Some((order.parse().ok()?, units.parse::<i64>().ok()?.try_into().ok()?)),
    }
}

/// A purchase in flight from its member.
pub(super) fn parse_in_flight(member: &str) -> Option<Purchase> {
    let (mark, user) = member.split_once(':')?;
    let (order_id, quantity) = parse(mark)?;
    Some(Purchase { order_id, user_id: user.parse().ok()?, quantity })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let order_id = OrderId::draw(7.try_into().unwrap());
        for units in [1, 2, 10] {
            let purchase = Purchase { order_id, user_id: 5.try_into().unwrap(), quantity: units.try_into().unwrap() };
            let (mut mark, mut member) = (String::new(), String::new());
            push(&mut mark, &purchase);
            push_in_flight(&mut member, &purchase);
            assert_eq!(mark.len() > OrderId::LENGTH, units > 1, "{mark}");
            assert_eq!(parse(&mark), Some((order_id, purchase.quantity)));
            assert_eq!(parse_in_flight(&member), Some(purchase));
        }
        for none in ["", "7", "*2", &format!("{order_id}*"), &format!("{order_id}*0"), &format!("{order_id}*11")] {
            assert_eq!(parse(none), None, "{none}");
        }
    }
}
