//! How many purchases a transaction may hold before the database objects: a server takes messages of a certain size only,
//! and a slow one writes only so much in the time that a transaction has. What was too much is halved; success lets it grow again.

use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use crate::db::ErrorClass;
use crate::model::PurchaseGroup;

/// More than any write batch holds.
const UNLIMITED: usize = 1 << 20;
/// What breaks for another reason than size is not halved below this.
const SMALL: usize = 64;
/// Every so many failures in a row, less is tried.
const FAILURES_BEFORE_HALVING: u32 = 3;

/// A part of a write batch: purchase groups, each with its index in the write batch.
pub(super) type Piece = Vec<(usize, PurchaseGroup)>;

/// See the module.
pub(super) struct WriteBatchSize {
    most: AtomicUsize,
    failures: AtomicU32,
}

impl WriteBatchSize {
    pub(super) fn new() -> Self {
        Self { most: AtomicUsize::new(UNLIMITED), failures: AtomicU32::new(0) }
    }

    /// A write batch in pieces that should fit: nearly always one.
    pub(super) fn cut(&self, groups: Vec<PurchaseGroup>) -> Vec<Piece> {
        let piece = groups.into_iter().enumerate().collect();
        cut(piece, self.most.load(Ordering::Relaxed))
    }

    /// A piece was written, so larger ones may be tried again.
    pub(super) fn succeeded(&self) {
        self.failures.store(0, Ordering::Relaxed);
        let most = self.most.load(Ordering::Relaxed);
        if most < UNLIMITED {
            self.most.store(most + most / 16 + 1, Ordering::Relaxed);
        }
    }

    /// A piece of that many purchases was not written.
    pub(super) fn failed(&self, purchase_count: usize, class: ErrorClass) {
        match class {
            ErrorClass::TooLarge => self.most.store((purchase_count / 2).max(1), Ordering::Relaxed),
            // The size can be what ended the connection.
            ErrorClass::Lost
            | ErrorClass::TimedOut
            | ErrorClass::Unknown
            | ErrorClass::Overloaded
            | ErrorClass::Full => {
                let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
                if failures.is_multiple_of(FAILURES_BEFORE_HALVING) && purchase_count > SMALL {
                    self.most.store((purchase_count / 2).max(SMALL), Ordering::Relaxed);
                }
            }
            _ => {}
        }
    }
}

pub(super) fn purchase_count(piece: &Piece) -> usize {
    piece.iter().map(|(_, group)| group.items.len()).sum()
}

/// Two pieces of about the same size.
pub(super) fn halves(piece: Piece) -> Vec<Piece> {
    let half = purchase_count(&piece).div_ceil(2);
    cut(piece, half)
}

/// Pieces of `most` purchases each, in their order.
fn cut(piece: Piece, most: usize) -> Vec<Piece> {
    if purchase_count(&piece) <= most {
        return vec![piece];
    }
    let (mut pieces, mut room) = (vec![Piece::new()], most);
    for (index, group) in piece {
        let mut items = group.items.as_slice();
        while !items.is_empty() {
            if room == 0 {
                pieces.push(Piece::new());
                room = most;
            }
            let (here, later) = items.split_at(items.len().min(room));
            let part = PurchaseGroup { items: here.to_vec(), traced: Vec::new(), ..group };
            if let Some(last) = pieces.last_mut() {
                last.push((index, part));
            }
            (items, room) = (later, room - here.len());
        }
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{OrderId, Purchase, Quantity};

    fn groups(sizes: &[i64]) -> Vec<PurchaseGroup> {
        let items = |size: i64, id: i64| {
            let purchase = |user: i64| {
                let (product, user_id) = (id.try_into().unwrap(), user.try_into().unwrap());
                Purchase { order_id: OrderId::draw(product), user_id, quantity: Quantity::ONE }
            };
            (1..=size).map(purchase).collect()
        };
        (1..)
            .zip(sizes)
            .map(|(id, size)| PurchaseGroup {
                product_id: id.try_into().unwrap(),
                epoch: 1,
                revision: None,
                items: items(*size, id),
                traced: Vec::new(),
            })
            .collect()
    }

    fn sizes(pieces: &[Piece]) -> Vec<usize> {
        pieces.iter().map(purchase_count).collect()
    }

    #[test]
    fn what_was_too_large_is_halved_until_it_fits_and_no_purchase_is_left_out() {
        let size = WriteBatchSize::new();
        assert_eq!(sizes(&size.cut(groups(&[3, 5]))), [8]);
        size.failed(8, ErrorClass::TooLarge);
        let pieces = size.cut(groups(&[3, 5]));
        assert_eq!(sizes(&pieces), [4, 4]);
        assert_eq!(
            pieces[0].iter().map(|(place, group)| (*place, group.items.len())).collect::<Vec<_>>(),
            [(0, 3), (1, 1)]
        );
        size.failed(4, ErrorClass::TooLarge);
        size.failed(2, ErrorClass::TooLarge);
        size.failed(1, ErrorClass::TooLarge);
        assert_eq!(sizes(&size.cut(groups(&[3]))), [1, 1, 1], "a single purchase is as small as it gets");
        for _ in 0..200 {
            size.succeeded();
        }
        assert_eq!(sizes(&size.cut(groups(&[3000]))), [3000]);
    }

    #[test]
    fn a_broken_connection_makes_write_batches_smaller_only_when_it_breaks_again_and_again() {
        let size = WriteBatchSize::new();
        size.failed(2000, ErrorClass::Lost);
        size.failed(2000, ErrorClass::Lost);
        assert_eq!(sizes(&size.cut(groups(&[2000]))), [2000]);
        for _ in 0..40 {
            size.failed(
                size.cut(groups(&[2000]))[0].iter().map(|(_, group)| group.items.len()).sum(),
                ErrorClass::Lost,
            );
        }
        assert_eq!(size.cut(groups(&[2000])).len(), 2000 / SMALL + 1);
        size.failed(SMALL, ErrorClass::ReadOnly);
        assert_eq!(size.cut(groups(&[2000])).len(), 2000 / SMALL + 1);
    }
}
