//! Orders whose confirm by the queue this instance has seen: a promise to who asks again.
//!
//! Two generations of a set, not a cache of a library: a purchase pays for one insert here, and nobody needs to know which of
//! fifty thousand orders is the oldest.

use parking_lot::Mutex;

use crate::model::{OrderId, OrderIds};

/// Orders remembered as confirmed, at least; about twice as many at most.
const CONFIRMED_MEMORY: usize = 50_000;

/// The newest [`CONFIRMED_MEMORY`] at least. One that is forgotten is published once more when its buyer asks again, which is
/// harmless.
#[derive(Default)]
pub(super) struct ConfirmedOrders(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    young: OrderIds,
    old: OrderIds,
}

impl ConfirmedOrders {
    pub(super) fn remember(&self, orders: impl Iterator<Item = OrderId>) {
        let mut known = self.0.lock();
        known.young.extend(orders);
        if known.young.len() >= CONFIRMED_MEMORY {
            known.old = std::mem::take(&mut known.young);
        }
    }

    pub(super) fn contains(&self, order: OrderId) -> bool {
        let known = self.0.lock();
        known.young.contains(&order) || known.old.contains(&order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ProductId;

    #[test]
    fn the_newest_confirmed_orders_are_remembered_and_the_oldest_forgotten() {
        let confirmed = ConfirmedOrders::default();
        let product = ProductId::try_from(1).unwrap();
        let draw = || OrderId::draw(product);
        let first = draw();
        confirmed.remember([first].into_iter());
        let last: Vec<OrderId> = (0..CONFIRMED_MEMORY).map(|_| draw()).collect();
        confirmed.remember(last.iter().copied());
        assert!(confirmed.contains(first), "one generation later it is still there");
        confirmed.remember((0..CONFIRMED_MEMORY).map(|_| draw()));
        assert!(!confirmed.contains(first));
    }
}
