//! Which gates are over: the newest epoch of each product whose gate was ever begun anew, as the database said at the last look.
//!
//! So an instance whose Redis was promoted away from, and who can still reach it, stops selling there before the new gate opens:
//! docs/protocol.md (`#deposed-gate`).

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::RwLock;

use crate::db::EpochsBegun;
use crate::model::{ProductId, Timestamp};

/// Each look reads the epochs that began up to so long before the last one. The database notes when an epoch began, and it can be read
/// only once its transaction is committed, which may take a while; and a server that has just become the primary may have a clock that
/// is behind.
const READ_AGAIN_FOR: Duration = Duration::from_secs(60);
/// All epochs are read this often: also one that was committed later still, and one that a primary lost before it was replaced.
const ALL_READ_EVERY: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Default)]
pub(super) struct NewestEpochs(RwLock<Known>);

#[derive(Default)]
struct Known {
    epochs: HashMap<ProductId, i64>,
    /// The database's time at the last look.
    read_at: Option<Timestamp>,
    all_read_at: Option<Instant>,
}

impl NewestEpochs {
    /// From when on the next look must read; `None`: all there are.
    pub(super) fn since(&self) -> Option<Timestamp> {
        let known = self.0.read();
        known.all_read_at.filter(|at| at.elapsed() < ALL_READ_EVERY)?;
        known.read_at.map(|at| at.before(READ_AGAIN_FOR))
    }

    /// Takes over what a look has read; `since` as it was told.
    pub(super) fn take_over(&self, since: Option<Timestamp>, read: EpochsBegun) {
        let EpochsBegun { now, begun } = read;
        let mut known = self.0.write();
        if since.is_none() {
            known.epochs = begun.into_iter().collect();
            known.all_read_at = Some(Instant::now());
            known.read_at = Some(now);
            return;
        }
        for (product, epoch) in begun {
            let newest = known.epochs.entry(product).or_insert(epoch);
            *newest = epoch.max(*newest);
        }
        // A clock that went back: what begins by it may lie before the last look, so the next one reads all.
        known.read_at = Some(now).filter(|now| known.read_at.is_none_or(|before| *now >= before));
    }

    /// Whether a newer gate than that of this epoch was begun.
    pub(super) fn is_over(&self, product: ProductId, epoch: i64) -> bool {
        let known = self.0.read();
        !known.epochs.is_empty() && known.epochs.get(&product).is_some_and(|newest| epoch < *newest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_ms(1_800_000_000_000 + seconds * 1000).unwrap()
    }

    fn look(epochs: &NewestEpochs, now: i64, begun: &[(i64, i64)]) {
        let begun = begun.iter().map(|(product, epoch)| (ProductId::try_from(*product).unwrap(), *epoch)).collect();
        epochs.take_over(epochs.since(), EpochsBegun { now: at(now), begun });
    }

    #[test]
    fn a_gate_is_over_once_a_newer_epoch_was_read() {
        let (epochs, product) = (NewestEpochs::default(), ProductId::try_from(7).unwrap());
        assert_eq!(epochs.since(), None, "the first look reads all");
        assert!(!epochs.is_over(product, 1));
        look(&epochs, 0, &[(7, 3)]);
        assert!(epochs.is_over(product, 2));
        assert!(!epochs.is_over(product, 3) && !epochs.is_over(product, 4));
        assert!(!epochs.is_over(ProductId::try_from(8).unwrap(), 1));
        assert_eq!(epochs.since(), Some(at(-60)));
        look(&epochs, 1, &[]);
        assert!(epochs.is_over(product, 2), "it is not read again");
        look(&epochs, 2, &[(7, 4)]);
        assert!(epochs.is_over(product, 3));
        epochs.take_over(None, EpochsBegun { now: at(3), begun: Vec::new() });
        assert!(!epochs.is_over(product, 3), "of all that there are it is none: the database has lost it");
    }

    #[test]
    fn after_the_clock_went_back_everything_is_read_again() {
        let epochs = NewestEpochs::default();
        look(&epochs, 100, &[]);
        look(&epochs, 20, &[]);
        assert_eq!(epochs.since(), None);
        look(&epochs, 21, &[]);
        assert_eq!(epochs.since(), Some(at(-39)));
    }
}
