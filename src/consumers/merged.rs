//! Deliveries whose purchase groups are merged into one, because they have the same product, epoch and revision. The order
//! writer takes that one group; the deliveries are acknowledged together.

use crate::model::PurchaseGroup;
use crate::queue::MessagePart;

/// See the module.
pub(super) struct Merged<D> {
    pub(super) group: PurchaseGroup,
    pub(super) deliveries: Vec<D>,
}

/// Puts deliveries together, in the order they came. The groups of a product keep theirs; the products are sorted, so that
/// all who lock several do it in one order.
pub(super) fn merge<D: AsRef<MessagePart>>(deliveries: Vec<D>) -> Vec<Merged<D>> {
    let mut all: Vec<Merged<D>> = Vec::new();
    for delivery in deliveries {
        let MessagePart::Purchases(group) = delivery.as_ref() else { continue };
        // The product's last group: after one of another epoch or revision comes a new one.
        let fitting = all
            .iter_mut()
            .rfind(|merged| merged.group.product_id == group.product_id)
            .filter(|merged| merged.group.epoch == group.epoch && merged.group.revision == group.revision);
        match fitting {
            Some(merged) => {
                merged.group.items.extend_from_slice(&group.items);
                merged.deliveries.push(delivery);
            }
            None => {
                // Traces stay with their deliveries.
                let PurchaseGroup { product_id, epoch, revision, .. } = *group;
                let (items, traced) = (group.items.clone(), Vec::new());
                let group = PurchaseGroup { product_id, epoch, revision, items, traced };
                all.push(Merged { group, deliveries: vec![delivery] });
            }
        }
    }
    all.sort_by_key(|merged| merged.group.product_id);
    all
}

/// The only delivery of a write batch; else each delivery as a write batch of its own, for the others must not suffer for the
/// culprit.
pub(super) fn only_or_each<D: AsRef<MessagePart>>(of_write_batch: Vec<Merged<D>>) -> Result<D, Vec<Vec<Merged<D>>>> {
    let mut deliveries: Vec<D> = of_write_batch.into_iter().flat_map(|merged| merged.deliveries).collect();
    match deliveries.pop() {
        Some(only) if deliveries.is_empty() => Ok(only),
        last => Err(deliveries.into_iter().chain(last).map(|one| merge(vec![one])).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumers::testing::purchases;

    fn message(product: i64, epoch: i64) -> MessagePart {
        purchases(product, epoch, 1)
    }

    #[test]
    fn products_are_sorted_and_the_epochs_of_each_stay_in_order() {
        let all = merge([(2, 1), (1, 1), (2, 1), (2, 2), (1, 1), (2, 1)].map(|(p, e)| message(p, e)).to_vec());
        let found: Vec<_> = all
            .iter()
            .map(|merged| (merged.group.product_id.get(), merged.group.epoch, merged.group.items.len()))
            .collect();
        assert_eq!(found, [(1, 1, 2), (2, 1, 2), (2, 2, 1), (2, 1, 1)]);
        assert!(all.iter().all(|merged| merged.deliveries.len() == merged.group.items.len()));
    }

    #[test]
    fn a_single_delivery_is_alone_and_of_several_each_comes_by_itself() {
        let only = message(1, 1);
        assert!(matches!(only_or_each(merge(vec![only.clone()])), Ok(found) if found == only));
        let several = only_or_each(merge(vec![message(1, 1), message(1, 1), message(2, 1)])).err().unwrap();
        assert_eq!(several.len(), 3);
        assert!(several.iter().all(|batch| batch.len() == 1 && batch[0].deliveries.len() == 1));
    }
}
