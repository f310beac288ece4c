//! Deliveries that the order writer takes as one purchase group: of one product, epoch and revision.

use crate::model::PurchaseGroup;
use crate::queue::Message;

/// See the module.
pub(super) struct Group<D> {
    pub(super) purchases: PurchaseGroup,
    pub(super) deliveries: Vec<D>,
}

/// Puts deliveries together, in the order they came. The groups of a product keep theirs; the products are sorted, so that
/// all who lock several do it in one order.
pub(super) fn groups<D: AsRef<Message>>(deliveries: Vec<D>) -> Vec<Group<D>> {
    let mut groups: Vec<Group<D>> = Vec::new();
    for delivery in deliveries {
        let Message::Purchases(purchases) = delivery.as_ref() else { continue };
        // The product's last group: after one of another epoch or revision comes a new one.
        let fitting = groups
            .iter_mut()
            .rfind(|group| group.purchases.product_id == purchases.product_id)
            .filter(|group| group.purchases.epoch == purchases.epoch && group.purchases.revision == purchases.revision);
        match fitting {
            Some(group) => {
                group.purchases.items.extend_from_slice(&purchases.items);
                group.deliveries.push(delivery);
            }
            None => groups.push(Group { purchases: purchases.clone(), deliveries: vec![delivery] }),
        }
    }
    groups.sort_by_key(|group| group.purchases.product_id);
    groups
}

/// The only delivery of these groups; else each delivery in groups of its own, for the others must not suffer for the
/// culprit.
pub(super) fn alone<D: AsRef<Message>>(of_write_batch: Vec<Group<D>>) -> Result<D, Vec<Vec<Group<D>>>> {
    let mut deliveries: Vec<D> = of_write_batch.into_iter().flat_map(|group| group.deliveries).collect();
    match deliveries.pop() {
        Some(only) if deliveries.is_empty() => Ok(only),
        last => Err(deliveries.into_iter().chain(last).map(|one| groups(vec![one])).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::consumers::testing::purchases;

    fn message(product: i64, epoch: i64) -> Message {
        purchases(product, epoch, 1)
    }

    #[test]
    fn products_are_sorted_and_the_epochs_of_each_stay_in_order() {
        let groups = groups([(2, 1), (1, 1), (2, 1), (2, 2), (1, 1), (2, 1)].map(|(p, e)| message(p, e)).to_vec());
        let found: Vec<_> = groups
            .iter()
            .map(|group| (group.purchases.product_id.get(), group.purchases.epoch, group.purchases.items.len()))
            .collect();
        assert_eq!(found, [(1, 1, 2), (2, 1, 2), (2, 2, 1), (2, 1, 1)]);
        assert!(groups.iter().all(|group| group.deliveries.len() == group.purchases.items.len()));
    }

    #[test]
    fn a_single_delivery_is_alone_and_of_several_each_comes_by_itself() {
        let only = message(1, 1);
        assert!(matches!(alone(groups(vec![only.clone()])), Ok(found) if found == only));
        let several = alone(groups(vec![message(1, 1), message(1, 1), message(2, 1)])).err().unwrap();
        assert_eq!(several.len(), 3);
        assert!(several.iter().all(|groups| groups.len() == 1 && groups[0].deliveries.len() == 1));
    }
}
