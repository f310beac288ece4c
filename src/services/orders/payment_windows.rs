//! How long orders may stay unpaid, for whoever writes them.
//!
//! A revision never changes, so what was read once is remembered: the rows of orders with a deadline cost one statement more a
//! transaction, those of others nothing.

use moka::sync::Cache;

use crate::db::{Db, DbResult, NewDeadline};
use crate::model::{PaymentWindow, ProductId, Purchase, PurchaseGroup, Revision};

/// Revisions that are remembered.
const MAX_REVISIONS: u64 = 10_000;

/// How long the orders of a group may stay unpaid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FoundWindow {
    /// So long; `None`: for ever.
    Known(Option<PaymentWindow>),
    /// Nobody knows: the group names no revision, as those of earlier versions, or one whose row is missing or spoiled. The
    /// transaction that writes the orders decides which revision they have.
    Unknown,
}

/// See the module.
pub(super) struct PaymentWindows {
    db: Db,
    known: Cache<(ProductId, Revision), Option<PaymentWindow>>,
}

impl PaymentWindows {
    pub(super) fn new(db: Db) -> Self {
        Self { db, known: Cache::new(MAX_REVISIONS) }
    }

    /// That of each group. Those that are not known yet are read, all together.
    pub(super) async fn of(&self, groups: &[PurchaseGroup]) -> DbResult<Vec<FoundWindow>> {
        let unknown = |group: &&PurchaseGroup| {
            group.revision.is_some_and(|revision| !self.known.contains_key(&(group.product_id, revision)))
        };
        let (mut products, mut numbers): (Vec<ProductId>, Vec<i64>) = groups
            .iter()
            .filter(unknown)
            .filter_map(|group| Some((group.product_id, i64::from(group.revision?))))
            .unzip();
        if !products.is_empty() {
            numbers.sort_unstable();
            numbers.dedup();
            products.dedup();
            let read =
                self.db.run_first(move |conn| Box::pin(async move { conn.payment_windows(&products, &numbers).await }));
            for row in read.await? {
                if let Ok(revision) = Revision::try_from(row.revision) {
                    self.known.insert((row.product, revision), row.window);
                }
            }
        }
        let window = |group: &PurchaseGroup| {
            let known = group.revision.and_then(|revision| self.known.get(&(group.product_id, revision)));
            known.map_or(FoundWindow::Unknown, FoundWindow::Known)
        };
        Ok(groups.iter().map(window).collect())
    }
}

/// When somebody is to look after these orders; `None`: none of them must be paid in time. Where nobody knows, at once: who
/// looks then finds out what they are, and when to look again.
pub(super) fn first_deadline<'a>(
    orders: impl IntoIterator<Item = (&'a [Purchase], FoundWindow)>,
) -> Option<NewDeadline> {
    let mut found = None;
    for (purchases, window) in orders {
        let time = match window {
            FoundWindow::Known(None) => continue,
            FoundWindow::Known(Some(window)) => window.duration(),
            FoundWindow::Unknown => std::time::Duration::ZERO,
        };
        let ids = || purchases.iter().map(|purchase| purchase.order_id);
        let (Some(first), Some(last)) = (ids().min(), ids().max()) else { continue };
        let due_at = first.drawn_at().after(time);
        found = Some(match found {
            None => (first, last, due_at),
            Some((least, greatest, earliest)) => (first.min(least), last.max(greatest), due_at.min(earliest)),
        });
    }
    found.map(|(first, last, due_at)| NewDeadline::new(first, last, due_at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{OrderId, Quantity};

    fn purchases(count: i64) -> Vec<Purchase> {
        let purchase = |user: i64| Purchase {
            order_id: OrderId::draw(7.try_into().unwrap()),
            user_id: user.try_into().unwrap(),
            quantity: Quantity::ONE,
        };
        (1..=count).map(purchase).collect()
    }

    fn lasting(seconds: i64) -> FoundWindow {
        FoundWindow::Known(PaymentWindow::try_from(seconds).ok())
    }

    #[test]
    fn one_deadline_stands_for_all_orders_that_have_one() {
        let (first, second, third) = (purchases(2), purchases(3), purchases(1));
        assert_eq!(first_deadline([(first.as_slice(), FoundWindow::Known(None))]), None, "it costs nothing");
        assert_eq!(first_deadline([]), None);
        let mut mixed = second.clone();
        mixed.reverse();
        let found = first_deadline([
            (first.as_slice(), FoundWindow::Known(None)),
            (mixed.as_slice(), lasting(900)),
            (third.as_slice(), lasting(5)),
        ]);
        let due_at = third[0].order_id.drawn_at().after(std::time::Duration::from_secs(5));
        assert_eq!(found, Some(NewDeadline::new(second[0].order_id, third[0].order_id, due_at)));
    }

    #[test]
    fn orders_of_which_nobody_knows_are_looked_at_at_once() {
        let orders = purchases(2);
        let at_once = NewDeadline::new(orders[0].order_id, orders[1].order_id, orders[0].order_id.drawn_at());
        assert_eq!(first_deadline([(orders.as_slice(), FoundWindow::Unknown)]), Some(at_once));
    }
}
